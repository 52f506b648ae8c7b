//! The compiled program as a process, with its log in a file, on a database of its own.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::fresh::with_postgres;

/// For what happens in the background, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A password that the test's PostgreSQL does not ask for, so that every URL may hold it.
pub const DATABASE_PASSWORD: &str = "database-password-3f9a";

pub struct Program {
    pub url: String,
    pub client: reqwest::Client,
    pub folder: PathBuf,
    child: Child,
}

pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, status: u16) -> serde_json::Value {
        assert_eq!(self.status, status, "{}", self.text);
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// Plays a story on both databases; it is given the URL of an empty one.
pub async fn on_both(story: impl AsyncFn(&str)) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    story(&format!("sqlite://{}", folder.path().join("oms.db").display())).await;
    println!("right on SQLite");
    on_postgres(story).await;
    println!("right on PostgreSQL");
}

/// Plays a story on an empty database of the test's PostgreSQL.
pub async fn on_postgres(story: impl AsyncFn(&str)) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    with_postgres(async |url| {
        let mut url = url::Url::parse(url).unwrap();
        url.set_password(Some(DATABASE_PASSWORD)).unwrap();
        story(url.as_str()).await;
    })
    .await;
}

impl Program {
    /// Starts `serve` in this folder, which may hold an accounts file, and waits until it listens.
    pub fn start(folder: &Path, database_url: &str, variables: &[(&str, &str)]) -> Self {
        share_compiled_plugins(folder);
        let mut command = Command::new(env!("CARGO_BIN_EXE_oms-server"));
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env_clear()
            .env("DATABASE_URL", database_url)
            .env("OMS_DATA_DIR", folder)
            .env("OMS_PLUGIN_DIR", variable("OMS_TEST_PLUGIN_DIR"))
            .envs(variables.iter().copied())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.join("log")).unwrap());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| line.unwrap().strip_prefix("oms listens at ").map(str::to_owned));
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(40))
            .redirect(reqwest::redirect::Policy::none());
        let program = Self {
            url: address.unwrap_or_default(),
            client: client.build().unwrap(),
            folder: folder.to_owned(),
            child,
        };
        assert!(!program.url.is_empty(), "it did not start:\n{}", program.log());
        program
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await.unwrap(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.client.get(format!("{}{path}", self.url))).await
    }

    /// Asks it to stop and waits for its end; how long that took.
    pub fn stop(mut self) -> (Duration, String) {
        let started = Instant::now();
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(asked.unwrap().success());
        let ended = self.child.wait().unwrap();
        let log = self.log();
        assert!(ended.success(), "{ended}\n{log}");
        (started.elapsed(), log)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            println!(
                "--- the end of its log\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}

/// A `redis-server` of the test's own, which has no port and is killed when dropped.
pub struct Redis {
    socket: PathBuf,
    child: Child,
}

impl Redis {
    /// A part that cannot run fails: there is no test without Redis.
    pub fn start(folder: &Path) -> Self {
        let socket = folder.join("redis.sock");
        let mut command = Command::new("redis-server");
        command
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--dir"])
            .arg(folder)
            .arg("--unixsocket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command
            .spawn()
            .expect("redis-server cannot be started; type: sudo apt-get install redis-server");
        let redis = Self { socket, child };
        let since = Instant::now();
        while std::os::unix::net::UnixStream::connect(&redis.socket).is_err() {
            assert!(since.elapsed() < PATIENCE, "Redis did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        redis
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until there is an answer.
pub async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(seen) if Instant::now() > end => panic!("waited in vain for {what}: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Compiling the plugin takes longer than most stories.
fn share_compiled_plugins(data_dir: &Path) {
    let shared = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled-plugins");
    std::fs::create_dir_all(&shared).unwrap();
    let link = data_dir.join("cache");
    if !link.exists() {
        std::os::unix::fs::symlink(shared, link).unwrap();
    }
}

/// A part that cannot run fails: there is no test without PostgreSQL and the plugins.
#[expect(
    clippy::disallowed_methods,
    reason = "the test command says here where its parts are"
)]
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("set {name}, or run `cargo xtask test`, which does"))
}
