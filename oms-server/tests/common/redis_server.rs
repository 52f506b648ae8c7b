//! `redis-server` as a process of the test's own, and everything that can happen to it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::server::{free_port, signal};

/// Killed when dropped.
pub(crate) struct RedisServer {
    port: u16,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl RedisServer {
    /// Not running yet; its address is known.
    pub(crate) fn new() -> Self {
        Self {
            port: free_port(),
            folder: tempfile::tempdir().unwrap(),
            child: None,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/3", self.port)
    }

    /// A part that cannot run fails: there is no test without Redis.
    pub(crate) fn start(&mut self) {
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command
            .spawn()
            .expect("redis-server cannot be started; type: sudo apt-get install redis-server");
        self.child = Some(child);
        let since = Instant::now();
        while self.connection().is_err() {
            assert!(since.elapsed() < Duration::from_secs(10), "Redis did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// It keeps its connections and answers nothing.
    pub(crate) fn freeze(&self) {
        signal("STOP", self.child.as_ref().unwrap());
    }

    pub(crate) fn thaw(&self) {
        signal("CONT", self.child.as_ref().unwrap());
    }

    pub(crate) fn flush(&self) {
        self.tell(&["FLUSHALL"]);
    }

    /// Whatever would need memory is refused.
    pub(crate) fn fill(&self) {
        self.tell(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        self.tell(&["CONFIG", "SET", "maxmemory", "1"]);
    }

    pub(crate) fn make_room(&self) {
        self.tell(&["CONFIG", "SET", "maxmemory", "0"]);
    }

    /// Every key with its time to live in milliseconds; negative when it has none.
    pub(crate) fn keys(&self) -> Vec<(String, i64)> {
        let mut connection = self.connection().unwrap();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
        let of = |key: String| {
            let left = redis::cmd("PTTL").arg(&key).query(&mut connection).unwrap();
            (key, left)
        };
        keys.into_iter().map(of).collect()
    }

    fn tell(&self, words: &[&str]) {
        let mut connection = self.connection().unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query::<()>(&mut connection).unwrap();
    }

    fn connection(&self) -> redis::RedisResult<redis::Connection> {
        redis::Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(1))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail when it has ended already, which is what we want. A frozen one can be killed, too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
