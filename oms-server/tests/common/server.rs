//! The compiled server as a process that can be killed.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The first start compiles the plugin, in an unoptimised build and perhaps on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Killed when dropped; after a failure the end of its log is printed.
pub(crate) struct Server {
    pub(crate) url: String,
    folder: PathBuf,
    database_url: String,
    child: Option<Child>,
}

impl Server {
    pub(crate) fn new(folder: &Path, database_url: &str) -> Self {
        Self {
            url: format!("http://127.0.0.1:{}", free_port()),
            folder: folder.to_owned(),
            database_url: database_url.to_owned(),
            child: None,
        }
    }

    /// Starts it and waits until it says that it is ready.
    pub(crate) async fn start(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let mut command = self.command(&["serve"]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let since = Instant::now();
        while !self.is_ready().await {
            let child = self.child.as_mut().unwrap();
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended with {status} before it was ready");
            }
            assert!(
                since.elapsed() < START_TIMEOUT,
                "the server did not become ready in time"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn is_ready(&self) -> bool {
        let answer = reqwest::get(format!("{}/readyz", self.url)).await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// SIGKILL: nothing of it runs any more when this returns.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        let ended = child.try_wait().unwrap();
        assert!(
            ended.is_none(),
            "the server ended by itself before it was killed: {ended:?}"
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Another command of the same program on the same data.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oms-server"));
        command
            .args(args)
            .arg("--listen")
            .arg(self.url.trim_start_matches("http://"))
            .args(["--database-url", &self.database_url])
            .arg("--data-dir")
            .arg(&self.folder)
            .arg("--plugin-dir")
            .arg(plugin_dir())
            // Neither variables nor an `.env` of whoever runs the tests.
            .env_clear()
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        command
    }

    fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    fn print_log(&self) {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        println!(
            "--- the end of the server's log\n{}\n---",
            lines[lines.len().saturating_sub(60)..].join("\n")
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail when it has ended already, which is what we want.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            self.print_log();
        }
    }
}

/// The same for every start, since payments know the bank by it. Below the range from which the system gives ports to
/// outgoing connections, so that no client's connection takes it while the server is down.
fn free_port() -> u16 {
    let first = 20_000 + u16::try_from(std::process::id() % 5_000).unwrap();
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    // The two tests of this process must not find the same one.
    static TAKEN: std::sync::Mutex<Vec<u16>> = std::sync::Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap();
    let port = (first..)
        .find(|port| !taken.contains(port) && is_free(port))
        .unwrap();
    taken.push(port);
    port
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test command says here where it built the plugins"
)]
fn plugin_dir() -> PathBuf {
    std::env::var_os("OMS_TEST_PLUGIN_DIR")
        .expect("set OMS_TEST_PLUGIN_DIR to what `cargo xtask plugins` filled, or run `cargo xtask test`, which does")
        .into()
}
