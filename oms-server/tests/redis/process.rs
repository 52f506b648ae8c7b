//! The compiled server and worker as processes.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant, UNIX_EPOCH};

use oms_core::Timestamp;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What every process of a shop is told.
pub(crate) struct Shop {
    pub(crate) database_url: String,
    pub(crate) redis_url: String,
    pub(crate) variables: Vec<(&'static str, &'static str)>,
}

/// Killed when dropped; after a failure the end of its log is printed.
pub(crate) struct Process {
    pub(crate) url: String,
    client: Client,
    folder: tempfile::TempDir,
    child: Child,
}

impl Shop {
    /// `serve` with these arguments, once it is ready.
    pub(crate) async fn serve(&self, args: &[&str]) -> Process {
        let mut process = self.spawn("serve", args);
        let since = Instant::now();
        while !process.is_ready().await {
            let ended = process.child.try_wait().unwrap();
            assert!(ended.is_none(), "the server ended before it was ready: {ended:?}");
            assert!(
                since.elapsed() < START_TIMEOUT,
                "the server did not become ready in time"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        process
    }

    /// `worker`, which has no address.
    pub(crate) fn worker(&self) -> Process {
        self.spawn("worker", &[])
    }

    fn spawn(&self, command: &str, args: &[&str]) -> Process {
        // The clients' library wants one, though nothing here speaks TLS.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let log = File::create(folder.path().join("log")).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_oms-server"));
        program
            .arg(command)
            .args(args)
            .args(["--listen", &address, "--database-url", &self.database_url])
            .arg("--data-dir")
            .arg(folder.path())
            // Neither variables nor an `.env` of whoever runs the tests.
            .env_clear()
            .env("REDIS_URL", &self.redis_url)
            .env("SECRET_KEY", "shared by all the servers of one shop")
            .envs(self.variables.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Process {
            url: format!("http://{address}"),
            client: Client::builder().no_proxy().build().unwrap(),
            child: program.spawn().unwrap(),
            folder,
        }
    }
}

impl Process {
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    /// Registers somebody, which is a job for a worker: a mail.
    pub(crate) async fn register(&self, name: &str) {
        let body =
            json!({"username": name, "email": format!("{name}@example.com"), "password": "long enough 2026"});
        let request = self.request(Method::POST, "/v1/users").json(&body);
        let answer = request.send().await.unwrap();
        assert_eq!(
            answer.status(),
            StatusCode::CREATED,
            "{}",
            answer.text().await.unwrap()
        );
    }

    /// How long after this time the mail to this user was written here, if it was.
    pub(crate) fn mailed(&self, name: &str, since: Timestamp) -> Option<Duration> {
        let end = format!("-verify-{name}@example.com.eml");
        let mails = fs::read_dir(self.folder.path().join("mail")).ok()?;
        let mut mails = mails.map(|mail| mail.unwrap().path());
        let mail = mails.find(|path| path.to_str().unwrap().ends_with(&end))?;
        let at = fs::metadata(mail)
            .unwrap()
            .modified()
            .unwrap()
            .duration_since(UNIX_EPOCH)
            .unwrap();
        let since = u64::try_from(since.as_micros()).unwrap();
        Some(at.saturating_sub(Duration::from_micros(since)))
    }

    /// What it says of Redis. It is ready whatever that is.
    pub(crate) async fn redis(&self) -> String {
        let answer = self.get("/readyz").await;
        assert_eq!(answer.status(), StatusCode::OK);
        let text = answer.text().await.unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix("redis: "))
            .unwrap()
            .to_owned()
    }

    /// Waits until it says so of Redis; how long that took.
    pub(crate) async fn until_redis_is(&self, state: &str) -> Duration {
        let since = Instant::now();
        while self.redis().await != state {
            assert!(
                since.elapsed() < Duration::from_secs(20),
                "Redis did not become {state}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        since.elapsed()
    }

    /// Lines of its log with this word.
    pub(crate) fn log_of(&self, word: &str) -> Vec<String> {
        let log = fs::read_to_string(self.log()).unwrap();
        let lines = log.lines().filter(|line| line.contains(word));
        lines.map(ToOwned::to_owned).collect()
    }

    async fn is_ready(&self) -> bool {
        let asked = self.request(Method::GET, "/readyz").send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            print_end(&self.log());
        }
    }
}

/// A problem document, and the headers of a refusal.
pub(crate) async fn refused(answer: Response) -> Value {
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/problem+json");
    assert!(header("retry-after").parse::<u64>().unwrap() >= 1);
    let (state, policy) = (header("ratelimit"), header("ratelimit-policy"));
    assert!(
        state.contains(";r=0;t=") && policy.contains(";q="),
        "{state} {policy}"
    );
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["code"], "rate_limited", "{problem}");
    problem
}

pub(crate) fn signal(name: &str, child: &Child) {
    let mut command = Command::new("kill");
    command.arg(format!("-{name}")).arg(child.id().to_string());
    assert!(command.status().unwrap().success());
}

/// Below the range from which the system gives ports to outgoing connections, so that none of those takes it while its
/// owner is down.
pub(crate) fn free_port() -> u16 {
    static TAKEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap();
    let first = 25_000 + u16::try_from(std::process::id() % 5_000).unwrap();
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (first..)
        .find(|port| !taken.contains(port) && is_free(port))
        .unwrap();
    taken.push(port);
    port
}

fn print_end(log: &Path) {
    let log = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    println!(
        "--- the end of a log\n{}\n---",
        lines[lines.len().saturating_sub(40)..].join("\n")
    );
}
