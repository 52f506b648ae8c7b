//! For tests that need another program beside the server: both as processes, on both databases.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

#[path = "../../../oms-core/tests/fresh/mod.rs"]
mod fresh;

use fresh::with_postgres;

/// Generous: an unoptimised build on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A Python program that tells what happens in lines of JSON. Killed when dropped.
pub struct Script {
    child: Child,
    told: Arc<Mutex<Vec<Value>>>,
    pub port: u64,
}

impl Script {
    /// Starts it and waits until it is ready.
    pub fn start(file: &str, args: &[&str]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file);
        let mut command = Command::new(python());
        command
            .arg(path)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let (lines, into) = (
            BufReader::new(child.stdout.take().unwrap()).lines(),
            Arc::clone(&told),
        );
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                into.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        let mut script = Self { child, told, port: 0 };
        let since = Instant::now();
        while script.told("ready").is_empty() {
            assert!(
                script.child.try_wait().unwrap().is_none() && since.elapsed() < PATIENCE,
                "{file} did not become ready"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        script.port = script.told("ready")[0]["port"].as_u64().unwrap();
        script
    }

    /// What was told of such events.
    pub fn told(&self, event: &str) -> Vec<Value> {
        let mut all = self.told.lock().unwrap().clone();
        all.retain(|told| told["event"] == event);
        all
    }

    /// Waits until so many such events were told.
    pub async fn wait_for(&self, event: &str, count: usize) -> Vec<Value> {
        let since = Instant::now();
        loop {
            let told = self.told(event);
            if told.len() >= count {
                return told;
            }
            assert!(
                since.elapsed() < PATIENCE,
                "{} of {count} {event}: {:#?}",
                told.len(),
                self.told.lock().unwrap()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// SIGSTOP and SIGCONT: a server that is there and says nothing.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "STOP" } else { "CONT" };
        // The shell's own: not every system has the program.
        let order = format!("kill -{signal} {}", self.child.id());
        let done = Command::new("sh").args(["-c", &order]).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The compiled server. Killed when dropped; after a failure the end of its log is printed.
pub struct Server {
    pub url: String,
    pub folder: PathBuf,
    pub client: Client,
    child: Child,
}

impl Server {
    /// Starts it in the folder with these variables and no others, and waits until it is ready.
    pub async fn start(folder: &Path, database_url: &str, variables: &[(&str, &str)]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Free now; the server listens at once. A test that loses this race says so in its log.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = File::create(folder.join("server.log")).unwrap();
        let mut command = program(folder);
        command
            .args(["serve", "--listen", &free.to_string()])
            .args(["--database-url", database_url])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut server = Self {
            url: format!("http://{free}"),
            folder: folder.to_owned(),
            client: Client::builder().no_proxy().build().unwrap(),
            child: command.spawn().unwrap(),
        };
        let since = Instant::now();
        while !server.is_ready().await {
            let ended = server.child.try_wait().unwrap();
            assert!(
                ended.is_none() && since.elapsed() < PATIENCE,
                "the server is not ready: {ended:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server
    }

    async fn is_ready(&self) -> bool {
        let answer = self.client.get(format!("{}/readyz", self.url)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub async fn register(&self, name: &str) {
        let body =
            json!({"username": name, "email": format!("{name}@example.com"), "password": "a long password"});
        let answer = self.request(Method::POST, "/v1/users").json(&body).send().await;
        expect(answer.unwrap(), 201).await;
    }

    pub async fn log_in(&self, name: &str, password: &str) -> String {
        let body = json!({"identifier": name, "password": password});
        let answer = self
            .request(Method::POST, "/v1/sessions")
            .json(&body)
            .send()
            .await;
        let session = expect(answer.unwrap(), 200).await;
        session["access_token"].as_str().unwrap().to_owned()
    }

    /// The administrator that a development server makes.
    pub async fn administrator(&self) -> String {
        let kept = fs::read_to_string(self.folder.join("admin.txt")).unwrap();
        let password = kept
            .lines()
            .find_map(|line| line.strip_prefix("password: "))
            .unwrap();
        self.log_in("admin", password).await
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("server.log")).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            println!(
                "--- the end of the server's log\n{}\n---",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}

/// The JSON of an answer with this status.
pub async fn expect(answer: Response, status: u16) -> Value {
    let found = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(found, status, "{text}");
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

/// The program itself, in a folder without settings.
pub fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oms-server"));
    command
        .current_dir(folder)
        .env_clear()
        .arg("--data-dir")
        .arg(folder);
    command
}

/// Plays the story in a fresh folder on SQLite, and in another one on a fresh PostgreSQL database.
pub async fn each_db(story: impl AsyncFn(&Path, &str)) {
    println!("on SQLite");
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/oms.db", folder.path().display());
    story(folder.path(), &url).await;

    println!("on PostgreSQL");
    with_postgres(async |url| {
        let folder = tempfile::tempdir().unwrap();
        story(folder.path(), url).await;
    })
    .await;
}

fn python() -> PathBuf {
    variable("OMS_TEST_PYTHON").into()
}

/// A part that cannot run fails: nothing is skipped.
#[expect(
    clippy::disallowed_methods,
    reason = "the test command says here what it made"
)]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("set {name}, or run `cargo xtask test`, which does"))
}
