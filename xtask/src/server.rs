//! The development server as a child process: its settings, start, readiness and stop.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::api::Api;
use crate::workspace::Workspace;

/// The first start compiles the plugin and makes the demo shop, both in an unoptimised build.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Settings {
    /// Where to reach the server: what it listens on, with `0.0.0.0` and `[::]` turned into this machine.
    pub(crate) address: String,
    pub(crate) data_dir: PathBuf,
    plugin_dir_is_set: bool,
}

impl Settings {
    /// Finds what the server itself will find: flags before the environment before `.env` before the defaults.
    pub(crate) fn find(workspace: &Workspace, args: &[String]) -> Result<Self> {
        let file = read_dotenv(&workspace.root.join(".env"))?;
        let find = |flag: &str, name: &str| {
            let environment = || std::env::var(name).ok().filter(|value| !value.is_empty());
            flag_value(args, flag)
                .or_else(environment)
                .or_else(|| file.get(name).cloned())
        };
        let listen = find("--listen", "OMS_LISTEN").unwrap_or_else(|| "127.0.0.1:8000".into());
        let data_dir = find("--data-dir", "OMS_DATA_DIR").unwrap_or_else(|| "oms-data".into());
        Ok(Self {
            address: listen
                .replace("0.0.0.0:", "127.0.0.1:")
                .replace("[::]:", "[::1]:"),
            data_dir: workspace.root.join(data_dir),
            plugin_dir_is_set: find("--plugin-dir", "OMS_PLUGIN_DIR").is_some(),
        })
    }

    pub(crate) fn refuse_if_taken(&self) -> Result<()> {
        if TcpStream::connect(&self.address).is_ok() {
            bail!(
                "a server already listens at {}: stop it, or choose another address: \
                 cargo xtask run -- --listen 127.0.0.1:8001",
                self.address
            );
        }
        Ok(())
    }

    pub(crate) fn serve(&self, workspace: &Workspace, program: &Path, args: &[String]) -> Command {
        let mut command = Command::new(program);
        command
            .args(["serve", "--demo"])
            .args(args)
            .current_dir(&workspace.root);
        if !self.plugin_dir_is_set {
            command.env("OMS_PLUGIN_DIR", workspace.plugin_dir());
        }
        command
    }
}

/// A server that was started for the walk; killed when dropped before `stop`.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts the server with its output in `log` and waits until it is ready.
    pub(crate) fn start(mut command: Command, settings: &Settings, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let mut server = Self {
            child,
            log: log.to_owned(),
        };
        println!(
            "server: process {}, its output is in {}",
            server.child.id(),
            log.display()
        );
        let ready = server.wait_until_ready(settings);
        if ready.is_err() {
            server.show_log();
        }
        ready.map(|()| server)
    }

    /// Prints the end of the server's output.
    pub(crate) fn show_log(&self) {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(40)..];
        eprintln!("--- end of {}\n{}\n---", self.log.display(), last.join("\n"));
    }

    /// Asks it to stop and waits until it has; an exit status other than 0 is an error.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let asked = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()?;
        if !asked.success() {
            bail!("the server was gone before it was asked to stop");
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    self.show_log();
                    bail!("the server ended with {status} when asked to stop");
                }
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the server did not stop within {} s", STOP_TIMEOUT.as_secs());
    }

    fn wait_until_ready(&mut self, settings: &Settings) -> Result<()> {
        let api = Api::new(&settings.address);
        let started = Instant::now();
        while started.elapsed() < START_TIMEOUT {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status} before it was ready");
            }
            if api.get("/readyz").is_ok_and(|reply| reply.status == 200) {
                println!(
                    "server: ready at http://{} after {:.1} s",
                    settings.address,
                    started.elapsed().as_secs_f64()
                );
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the server was not ready within {} s", START_TIMEOUT.as_secs());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `--flag value` or `--flag=value`; the last one counts.
fn flag_value(args: &[String], flag: &str) -> Option<String> {
    let joined = |arg: &String| arg.strip_prefix(flag)?.strip_prefix('=').map(str::to_owned);
    let parted = |index: usize| {
        (args[index] == flag)
            .then(|| args.get(index + 1).cloned())
            .flatten()
    };
    (0..args.len())
        .rev()
        .find_map(|index| joined(&args[index]).or_else(|| parted(index)))
}

fn read_dotenv(path: &Path) -> Result<HashMap<String, String>> {
    if !path.exists() {
        return Ok(HashMap::new());
    }
    let entries = dotenvy::from_path_iter(path)?;
    entries
        .collect::<Result<_, _>>()
        .with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_found_in_both_spellings() {
        let args = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            flag_value(&args("--env x --listen a:1"), "--listen").as_deref(),
            Some("a:1")
        );
        assert_eq!(
            flag_value(&args("--listen=a:1 --listen b:2"), "--listen").as_deref(),
            Some("b:2")
        );
        assert_eq!(flag_value(&args("--listening a:1 --listen"), "--listen"), None);
    }
}
