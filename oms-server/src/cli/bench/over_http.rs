//! The real server in a process of its own, asked over connections that are kept alive.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::load::{Answer, Caller};
use super::shop::{PASSWORD, Shop, UNKNOWN, Wishes, address, username};

/// `oms-server serve`, killed when it is dropped before it was stopped.
pub(super) struct Server {
    child: Child,
    log: PathBuf,
    pub(super) address: SocketAddr,
}

impl Server {
    /// Starts it on a free port and waits until it listens. What it logs goes to a file in its data folder, at the
    /// level of production.
    pub(super) fn start(database_url: &str, data_dir: &Path, plugin_dir: &Path) -> Result<Self> {
        Self::start_with(database_url, data_dir, plugin_dir, &[])
    }

    pub(super) fn start_with(
        database_url: &str,
        data_dir: &Path,
        plugin_dir: &Path,
        args: &[&str],
    ) -> Result<Self> {
        fs::create_dir_all(data_dir)?;
        let log = data_dir.join("server.log");
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--env", "development"])
            .args(["--database-url", database_url, "--public-url", ""])
            .arg("--data-dir")
            .arg(data_dir)
            .arg("--plugin-dir")
            .arg(plugin_dir)
            .args(args)
            // Counted as ever, and never used up.
            .env("OMS_RATE_LIMIT_CLIENT", "1000000/1s")
            .env("OMS_RATE_LIMIT_SIGN_IN", "1000000/1s")
            .env("OMS_RATE_LIMIT_WEBHOOK", "1000000/1s")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?);
        let mut child = command.spawn().context("cannot start the server")?;
        let stdout = child.stdout.take().context("the pipe to the server is missing")?;
        let mut server = Self {
            child,
            log,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let Some(address) = line.trim().strip_prefix("oms listens at http://") else {
            bail!("the server did not start: {}", server.last_words());
        };
        server.address = address.parse()?;
        Ok(server)
    }

    /// Resident memory in bytes, as the kernel counts it.
    pub(super) fn resident(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status =
            fs::read_to_string(&path).with_context(|| format!("no {path}: memory is read on Linux alone"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.context("no VmRSS")?.parse::<u64>()? * 1024)
    }

    /// Asks it to stop and waits until it has.
    pub(super) fn stop(mut self) -> Result<()> {
        let asked = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()?;
        ensure!(
            asked.success(),
            "the server was gone before it was asked to stop: {}",
            self.last_words()
        );
        let status = self.child.wait()?;
        ensure!(
            status.success(),
            "the server ended with {status}: {}",
            self.last_words()
        );
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A customer at the API.
pub(super) struct OverHttp {
    connection: Connection,
    token: String,
    wishes: Wishes,
}

impl OverHttp {
    /// Logs every customer in.
    pub(super) async fn callers(
        server: &Server,
        tokens: &[String],
        wishes: Vec<Wishes>,
    ) -> Result<Vec<Self>> {
        let mut callers = Vec::with_capacity(wishes.len());
        for (token, wishes) in tokens.iter().cycle().zip(wishes) {
            callers.push(Self {
                connection: Connection::open(server.address).await?,
                token: token.clone(),
                wishes,
            });
        }
        Ok(callers)
    }

    /// Access tokens of the shop's customers.
    pub(super) async fn log_in(server: &Server, shop: &Shop) -> Result<Vec<String>> {
        let mut connection = Connection::open(server.address).await?;
        let mut tokens = Vec::new();
        for index in 0..shop.customers.len() {
            let body = json!({ "identifier": username(index), "password": PASSWORD }).to_string();
            let answer = connection.post("/v1/sessions", "", body.as_bytes()).await?;
            ensure!(
                answer.0 == 200,
                "log-in answered {}: {}",
                answer.0,
                String::from_utf8_lossy(&answer.1)
            );
            let session: Value = serde_json::from_slice(&answer.1)?;
            let token = session["access_token"]
                .as_str()
                .context("log-in gave no access_token")?;
            tokens.push(token.to_owned());
        }
        Ok(tokens)
    }
}

impl OverHttp {
    /// Status and body of an order's answer, and whether its last SKU is unknown.
    async fn order(&mut self) -> Result<(u16, Vec<u8>, bool)> {
        let headers = format!(
            "authorization: Bearer {}\r\nidempotency-key: {}\r\n",
            self.token,
            self.wishes.key()
        );
        let skus = self.wishes.skus();
        let unknown = skus.last().is_some_and(|sku| sku == UNKNOWN);
        let lines = skus.iter().map(|sku| json!({ "sku": sku, "quantity": 1 }));
        let order = json!({ "lines": lines.collect::<Value>(), "shipping_address": address() });
        let (status, body) = self
            .connection
            .post("/v1/orders", &headers, order.to_string().as_bytes())
            .await?;
        Ok((status, body, unknown))
    }

    /// Orders, and begins to pay at the fake bank.
    pub(super) async fn start_payment(&mut self) -> Result<()> {
        let (status, body, _) = self.order().await?;
        ensure!(status == 201, "an order was answered with {status}");
        let order: Value = serde_json::from_slice(&body)?;
        let path = format!("/v1/orders/{}/payments", order["id"].as_str().context("no id")?);
        let (token, key) = (&self.token, self.wishes.key());
        let headers = format!("authorization: Bearer {token}\r\nidempotency-key: {key}\r\n");
        let payment = json!({ "account": "mock", "return_url": "http://127.0.0.1/" }).to_string();
        let (status, body) = self.connection.post(&path, &headers, payment.as_bytes()).await?;
        ensure!(
            status == 201,
            "a payment was answered with {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(())
    }

    /// The same at a server that may have too much to do.
    pub(super) async fn try_order(&mut self) -> Result<Answer> {
        let (status, body, _) = self.order().await?;
        match status {
            201 => Ok(Answer::Done),
            503 if self.connection.retry_after => Ok(Answer::Refused),
            _ => bail!("under overload: {status}: {}", String::from_utf8_lossy(&body)),
        }
    }
}

impl Caller for OverHttp {
    async fn call(&mut self) -> Result<Answer> {
        let (status, body, unknown) = self.order().await?;
        match (status, unknown) {
            (201, false) => Ok(Answer::Done),
            (422, true) => Ok(Answer::Judged),
            _ => bail!(
                "an order was answered with {status}: {}",
                String::from_utf8_lossy(&body)
            ),
        }
    }
}

/// One connection with one request at a time. A client library would take more of the machine that is measured.
pub(super) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// Whether the last answer said when to come back.
    pub(super) retry_after: bool,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .context("cannot reach the server")?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::with_capacity(4096),
            retry_after: false,
        })
    }

    /// Status and body. Each of `headers` ends with a line break.
    pub(super) async fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
        self.received.clear();
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = std::str::from_utf8(&self.received[..end]).context("a header is no text")?;
        let (status, length) = parse_head(head).with_context(|| format!("not understood: {head}"))?;
        self.retry_after = has_header(head, "retry-after");
        while self.received.len() < end + length {
            self.more().await?;
        }
        Ok((status, self.received[end..end + length].to_vec()))
    }

    async fn more(&mut self) -> Result<()> {
        let read = self.stream.read_buf(&mut self.received).await?;
        ensure!(read > 0, "the server closed the connection");
        Ok(())
    }
}

fn has_header(head: &str, wanted: &str) -> bool {
    let names = head.split("\r\n").filter_map(|line| line.split_once(':'));
    names
        .into_iter()
        .any(|(name, _)| name.eq_ignore_ascii_case(wanted))
}

/// Status and length of the body.
fn parse_head(head: &str) -> Option<(u16, usize)> {
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    // Without a body there is no length; a body without one is none of our API's.
    match (status, length) {
        (_, Some(length)) => Some((status, length)),
        (204, None) => Some((status, 0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let head = "HTTP/1.1 201 Created\r\nContent-Type: a\r\nContent-Length: 17\r\n\r\n";
        assert_eq!(parse_head(head), Some((201, 17)));
        assert_eq!(parse_head("HTTP/1.1 204 No Content\r\n\r\n"), Some((204, 0)));
        assert_eq!(
            parse_head("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
            None
        );
        assert_eq!(parse_head("SSH-2.0\r\n\r\n"), None);
        let head = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n";
        assert!(has_header(head, "retry-after") && !has_header(head, "content-length"));
    }
}
