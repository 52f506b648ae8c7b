//! Other programs beside the server, in Python: an SMTP server and an S3 server.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::server::{signal, variable};

/// Generous: an unoptimised build on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A Python program that tells what happens in lines of JSON. Killed when dropped.
pub(crate) struct Script {
    child: Child,
    told: Arc<Mutex<Vec<Value>>>,
    pub(crate) port: u64,
}

impl Script {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(file: &str, args: &[&str]) -> Self {
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
    pub(crate) fn told(&self, event: &str) -> Vec<Value> {
        let mut all = self.told.lock().unwrap().clone();
        all.retain(|told| told["event"] == event);
        all
    }

    /// Waits until so many such events were told.
    pub(crate) async fn wait_for(&self, event: &str, count: usize) -> Vec<Value> {
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
    pub(crate) fn freeze(&self, frozen: bool) {
        signal(if frozen { "STOP" } else { "CONT" }, &self.child);
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn python() -> PathBuf {
    variable("OMS_TEST_PYTHON").into()
}
