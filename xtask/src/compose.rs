//! `cargo xtask compose`: builds the images, starts the whole stack of `docker-compose.yml` beside whatever else runs,
//! plays the walk against it from outside, restarts every container in turn, and takes it down.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::api::Api;
use crate::mailbox::Mailbox;
use crate::walk;
use crate::workspace::{Workspace, output, run as run_command};

/// Servers that start at the same moment on an empty database.
const REPLICAS: usize = 3;
/// Beside the port that somebody's own stack has.
const FIRST_PORT: usize = 18_000;
/// An empty file: the older program takes no device for one.
const NO_SETTINGS: &str = "compose.env";
const START_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Args)]
pub(crate) struct Options {
    /// Leave the stack running at the end
    #[arg(long)]
    keep: bool,
    /// Take the image `oms-smoke` as it is
    #[arg(long)]
    no_build: bool,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let stack = Stack::find(workspace)?;
    std::fs::write(workspace.target_dir.join(NO_SETTINGS), "")?;
    // What an earlier run left behind would not be an empty database.
    stack.compose(&["down", "--volumes", "--remove-orphans"])?;
    let played = stack.play(options);
    if played.is_err() {
        // The reason of the failure stands in there.
        let _ = stack.compose(&["logs", "--tail", "40"]);
    }
    if !options.keep {
        stack.compose(&["down", "--volumes"])?;
    }
    played?;
    println!("\nThe stack came up, was walked through after every restart, and was taken down.");
    Ok(())
}

struct Stack<'a> {
    workspace: &'a Workspace,
    /// `docker compose`, or the older program of its own.
    program: &'static [&'static str],
}

impl<'a> Stack<'a> {
    fn find(workspace: &'a Workspace) -> Result<Self> {
        let programs: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
        let answers = |program: &&&[&str]| {
            let args: Vec<&str> = program[1..].iter().copied().chain(["version"]).collect();
            output(program[0], &args).is_some()
        };
        match programs.iter().find(answers).copied() {
            Some(program) => Ok(Self { workspace, program }),
            None => bail!("docker compose was not found: sudo apt-get install docker.io docker-compose"),
        }
    }

    fn play(&self, options: &Options) -> Result<()> {
        let replicas = format!("web={REPLICAS}");
        let started = Instant::now();
        let build = if options.no_build { "--no-build" } else { "--build" };
        self.compose(&["up", build, "--detach", "--scale", &replicas])?;
        println!("up after {:.0} s", started.elapsed().as_secs_f64());
        let addresses = self.addresses()?;
        ensure!(
            addresses.len() == REPLICAS,
            "{REPLICAS} servers were asked for: {addresses:?}"
        );
        for address in &addresses {
            wait_until_ready(address)?;
        }
        for address in &addresses {
            println!("\n-- the walk at {address}");
            self.walk(address)?;
        }
        for service in ["db", "redis", "worker", "web"] {
            println!("\n-- restarting {service}");
            self.compose(&["restart", service])?;
            // Ports that were left to the engine may be others now.
            let addresses = self.addresses()?;
            for address in &addresses {
                wait_until_ready(address)?;
            }
            self.walk(&addresses[0])?;
        }
        Ok(())
    }

    fn walk(&self, address: &str) -> Result<()> {
        let folder = self.workspace.target_dir.join("compose-mails");
        std::fs::create_dir_all(&folder)?;
        let worker = self.ids("worker")?;
        let worker = worker.first().context("no worker runs")?.clone();
        let into = folder.clone();
        let mailbox = |recipient: &str| {
            Mailbox::new(&folder, recipient).fetched_by(move || fetch_mails(&worker, &into))
        };
        walk::play(address, mailbox)
    }

    /// The containers of a service.
    fn ids(&self, service: &str) -> Result<Vec<String>> {
        let text = self.ask(&["ps", "-q", service])?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Where the servers are reached from here.
    fn addresses(&self) -> Result<Vec<String>> {
        let mut addresses = Vec::new();
        for id in self.ids("web")? {
            let published = output("docker", &["port", &id, "8000/tcp"]);
            let published = published.with_context(|| format!("container {id} publishes no port"))?;
            let line = published.lines().next().unwrap_or_default();
            addresses.push(line.replace("0.0.0.0", "127.0.0.1"));
        }
        Ok(addresses)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.program[0]);
        command
            .args(&self.program[1..])
            // Neither the settings nor the image of whoever runs this.
            .arg("--env-file")
            .arg(self.workspace.target_dir.join(NO_SETTINGS))
            .args(["--project-name", "oms-smoke"])
            .args(args)
            .current_dir(&self.workspace.root)
            .env("OMS_PORT", format!("{FIRST_PORT}-{}", FIRST_PORT + REPLICAS - 1))
            .env("OMS_IMAGE", "oms-smoke")
            .env("OMS_PUBLIC_URL", format!("http://127.0.0.1:{FIRST_PORT}"));
        command
    }

    fn compose(&self, args: &[&str]) -> Result<()> {
        run_command(&mut self.command(args))
    }

    fn ask(&self, args: &[&str]) -> Result<String> {
        let output = self.command(args).output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Mails lie in a volume, which only the engine reads.
fn fetch_mails(container: &str, folder: &Path) -> Result<()> {
    let from = format!("{container}:/var/lib/oms/mail");
    // Fails until the first mail has made the folder.
    let _ = Command::new("docker").args(["cp", &from]).arg(folder).output()?;
    Ok(())
}

fn wait_until_ready(address: &str) -> Result<()> {
    let (api, started) = (Api::new(address), Instant::now());
    while started.elapsed() < START_TIMEOUT {
        if api.get("/readyz").is_ok_and(|reply| reply.status == 200) {
            println!(
                "http://{address} is ready after {:.1} s",
                started.elapsed().as_secs_f64()
            );
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!(
        "http://{address} was not ready within {} s",
        START_TIMEOUT.as_secs()
    )
}
