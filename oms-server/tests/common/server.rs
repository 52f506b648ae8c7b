//! The compiled program as a process that can be stopped and killed.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};

/// The first start compiles the plugin, in an unoptimised build and perhaps on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Killed when dropped; after a failure the end of its log is printed.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) folder: PathBuf,
    pub(crate) client: Client,
    database_url: String,
    plugins: Option<PathBuf>,
    variables: Vec<(String, String)>,
    child: Option<Child>,
}

impl Server {
    pub(crate) fn new(folder: &Path, database_url: &str) -> Self {
        Self {
            url: format!("http://127.0.0.1:{}", free_port()),
            folder: folder.to_owned(),
            client: client(),
            database_url: database_url.to_owned(),
            plugins: Some(plugin_dir()),
            variables: Vec::new(),
            child: None,
        }
    }

    /// Sets a variable of its environment.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    pub(crate) fn with_all(self, variables: &[(&str, &str)]) -> Self {
        variables
            .iter()
            .fold(self, |server, (name, value)| server.with(name, *value))
    }

    pub(crate) fn with_plugins(mut self, folder: &Path) -> Self {
        self.plugins = Some(folder.to_owned());
        self
    }

    /// They take seconds to compile, for nothing where nobody pays.
    pub(crate) fn without_plugins(mut self) -> Self {
        self.plugins = None;
        self
    }

    /// Starts it and waits until it says that it is ready.
    pub(crate) async fn start(&mut self) {
        self.spawn(&["serve"]);
        self.ready().await;
    }

    /// Starts a command and does not wait for it.
    pub(crate) fn spawn(&mut self, args: &[&str]) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let mut command = self.command(args);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    pub(crate) async fn ready(&mut self) {
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

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.url.trim_start_matches("http://").parse().unwrap()
    }

    async fn is_ready(&self) -> bool {
        let answer = self.request(Method::GET, "/readyz").send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
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

    /// SIGTERM: asks it to stop, and waits until it has.
    pub(crate) async fn terminate(&mut self, patience: Duration) -> ExitStatus {
        signal("TERM", self.child.as_ref().unwrap());
        self.ended(patience).await
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self, patience: Duration) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                return status;
            }
            assert!(since.elapsed() < patience, "it did not end in {patience:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Another command of the same program on the same data.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = program(&self.folder);
        command
            .args(args)
            .args(["--listen", self.url.trim_start_matches("http://")])
            .args(["--database-url", &self.database_url])
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(plugins) = &self.plugins {
            command.arg("--plugin-dir").arg(plugins);
        }
        command
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    pub(crate) fn logged(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn print_log(&self) {
        let log = self.logged();
        let lines: Vec<&str> = log.lines().collect();
        println!(
            "--- the end of {}\n{}\n---",
            self.log().display(),
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

/// The program, with neither variables nor an `.env` of whoever runs the tests.
pub(crate) fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oms-server"));
    command
        .env_clear()
        .current_dir(folder)
        .arg("--data-dir")
        .arg(folder)
        .stdin(Stdio::null());
    command
}

/// A client that no setting of this machine sends elsewhere.
pub(crate) fn client() -> Client {
    // It wants one, though nothing here speaks TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

pub(crate) fn signal(name: &str, child: &Child) {
    // The shell's own: not every system has the program.
    let order = format!("kill -{name} {}", child.id());
    assert!(
        Command::new("sh")
            .args(["-c", &order])
            .status()
            .unwrap()
            .success()
    );
}

/// The same for every start, since payments know the bank by it. Below the range from which the system gives ports to
/// outgoing connections, so that no client's connection takes it while the server is down.
pub(crate) fn free_port() -> u16 {
    let first = 20_000 + u16::try_from(std::process::id() % 5_000).unwrap();
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    // Two tests of this process must not find the same one.
    static TAKEN: std::sync::Mutex<Vec<u16>> = std::sync::Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap();
    let port = (first..)
        .find(|port| !taken.contains(port) && is_free(port))
        .unwrap();
    taken.push(port);
    port
}

/// A folder with the plugin for the fake bank alone: compiling the others would take longer than most stories.
pub(crate) fn plugin_dir() -> PathBuf {
    let built = PathBuf::from(variable("OMS_TEST_PLUGIN_DIR")).join("mock");
    let alone = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("one-plugin");
    let folder = alone.join("mock");
    fs::create_dir_all(&folder).unwrap();
    for name in ["mock.wasm", "plugin.toml"] {
        let (file, link) = (built.join(name), folder.join(name));
        if fs::read_link(&link).ok().as_ref() != Some(&file) {
            // Another test may be doing the same at this moment.
            let _ = fs::remove_file(&link);
            let _ = std::os::unix::fs::symlink(&file, &link);
        }
    }
    alone
}

/// A part that cannot run fails: nothing is skipped.
#[expect(
    clippy::disallowed_methods,
    reason = "the test command says here what it made"
)]
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("set {name}, or run `cargo xtask test`, which does"))
}
