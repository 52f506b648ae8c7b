//! Programs in Python and Node that play gateways or judge what we make of them.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use oms_core::Timestamp;
use oms_core::payments::Delivery;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server in another process, which ends with this.
pub struct Peer {
    child: Child,
    /// `http://127.0.0.1:PORT`
    pub origin: String,
    _stdout: BufReader<ChildStdout>,
}

impl Peer {
    /// A script of this folder's sister `gateways-peers`, whose first line says `listening on PORT`.
    pub fn start(script: &str) -> Self {
        let mut child = command(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("listening on ");
        let port: u16 = port
            .unwrap_or_else(|| panic!("{script} said {line:?}"))
            .parse()
            .unwrap();
        Self {
            child,
            origin: format!("http://127.0.0.1:{port}"),
            _stdout: stdout,
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a script to its end, with jobs on its stdin, and reads what it answers to each.
pub fn run(script: &str, jobs: &[Value]) -> Vec<Value> {
    let mut child = command(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = serde_json::to_vec(jobs).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{script} failed");
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), jobs.len());
    answers
}

fn command(script: &str) -> Command {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/gateways-peers")
        .join(script);
    let mut command = if script.ends_with(".py") {
        Command::new(variable("OMS_TEST_PYTHON"))
    } else {
        let mut node = Command::new("node");
        node.env(
            "NODE_PATH",
            PathBuf::from(variable("OMS_TEST_NODE_DIR")).join("node_modules"),
        );
        node
    };
    command.arg(path);
    command
}

/// A part that cannot run fails: nothing is skipped.
#[expect(
    clippy::disallowed_methods,
    reason = "the test command says here what it made"
)]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("set {name}, or run `cargo xtask test`, which does"))
}

/// Asks a peer as its other clients do: a browser, an operator. Status and body.
pub async fn ask(origin: &str, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let address = origin.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

/// Where a gateway's webhooks come in.
pub struct Hook(TcpListener);

/// A webhook whose sender waits for the answer.
pub struct Incoming {
    pub delivery: Delivery,
    stream: TcpStream,
}

impl Hook {
    pub async fn listen() -> Self {
        Self(TcpListener::bind(("127.0.0.1", 0)).await.unwrap())
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.0.local_addr().unwrap())
    }

    pub async fn next(&self) -> Incoming {
        let accepted = tokio::time::timeout(std::time::Duration::from_secs(20), self.0.accept()).await;
        let (stream, _) = accepted.expect("no webhook came").unwrap();
        let mut stream = tokio::io::BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let method = line.split(' ').next().unwrap().to_owned();
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.push((name.to_lowercase(), value.as_bytes().to_vec()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: usize = String::from_utf8(length.unwrap().1.clone())
            .unwrap()
            .parse()
            .unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        Incoming {
            delivery: delivery(&method, headers, body),
            stream: stream.into_inner(),
        }
    }
}

impl Incoming {
    pub async fn answer(mut self, status: u16) {
        let answer = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        self.stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// A delivery to the account's address.
pub fn delivery(method: &str, headers: Vec<(String, Vec<u8>)>, body: Vec<u8>) -> Delivery {
    Delivery {
        method: method.into(),
        url: "https://shop.test/v1/webhooks/shop".into(),
        query: String::new(),
        headers,
        body,
        received_at: Timestamp::from_millis(0),
        remote_ip: None,
        tolerance_seconds: 300,
    }
}
