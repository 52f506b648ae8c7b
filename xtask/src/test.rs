//! `cargo xtask test`: everything a change must pass, in order. The first step that fails ends the run; the table at
//! the end lists every step, also those that were not reached, so that nothing is left out in silence.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::fuzz;
use crate::guests;
use crate::node;
use crate::packages;
use crate::plugins::{self, WASM_TARGET};
use crate::postgres::{self, Durability, Server};
use crate::python;
use crate::workspace::{Workspace, output, run as run_command};

#[derive(Args)]
pub(crate) struct Options {
    /// Run one part
    #[arg(long)]
    only: Option<Part>,
    /// Arguments for `cargo test`, such as `-p oms-core orders` or `-- --nocapture`
    #[arg(last = true)]
    test_args: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Fmt,
    Clippy,
    Test,
    Fuzz,
    Features,
}

struct Step {
    name: &'static str,
    part: Part,
    action: fn(&Workspace, &Options) -> Result<()>,
}

impl Step {
    const fn new(name: &'static str, part: Part, action: fn(&Workspace, &Options) -> Result<()>) -> Self {
        Self { name, part, action }
    }
}

const STEPS: &[Step] = &[
    // First, because a missing PostgreSQL should show before minutes of compiling.
    Step::new("PostgreSQL is installed", Part::Test, |_, _| {
        postgres::ensure().map(|_| ())
    }),
    Step::new("Redis is installed", Part::Test, |_, _| packages::ensure_redis()),
    Step::new("Python programs for tests", Part::Test, |workspace, _| {
        python::ensure(workspace).map(|_| ())
    }),
    Step::new("Node packages for tests", Part::Test, |workspace, _| {
        node::ensure(workspace).map(|_| ())
    }),
    Step::new("format", Part::Fmt, |workspace, _| format(workspace)),
    Step::new("plugins", Part::Test, |workspace, _| {
        plugins::build(workspace).map(|_| ())
    }),
    Step::new("plugins in other languages", Part::Test, |workspace, _| {
        guests::build(workspace).map(|_| ())
    }),
    Step::new("clippy", Part::Clippy, |workspace, _| clippy(workspace)),
    Step::new("clippy of the plugins", Part::Clippy, |workspace, _| {
        clippy_plugins(workspace)
    }),
    Step::new("tests on both databases, doctests", Part::Test, tests),
    Step::new("kept fuzz inputs of the plugins", Part::Fuzz, |workspace, _| {
        fuzz::replay(workspace)
    }),
    Step::new("oms-core with sqlite alone", Part::Features, |workspace, _| {
        check_core(workspace, "sqlite")
    }),
    Step::new("oms-core with postgres alone", Part::Features, |workspace, _| {
        check_core(workspace, "postgres")
    }),
    Step::new("oms-server as it ships", Part::Features, |workspace, _| {
        run_command(&mut workspace.cargo(["clippy", "-p", "oms-server", "--", "-D", "warnings"]))
    }),
    Step::new("oms-core without plugins", Part::Features, |workspace, _| {
        check_core(workspace, "sqlite,postgres")
    }),
];

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let mut report = Vec::new();
    let mut outcome = Ok(());
    for step in STEPS
        .iter()
        .filter(|step| options.only.is_none_or(|only| only == step.part))
    {
        if outcome.is_err() {
            report.push((step.name, "not run", Duration::ZERO));
            continue;
        }
        println!("\n== {}", step.name);
        let started = Instant::now();
        outcome = (step.action)(workspace, options).context(step.name);
        report.push((
            step.name,
            if outcome.is_ok() { "ok" } else { "FAILED" },
            started.elapsed(),
        ));
    }
    println!();
    for (name, result, time) in report {
        println!("{name:<36} {result:<8} {:>8.1} s", time.as_secs_f64());
    }
    outcome
}

fn format(workspace: &Workspace) -> Result<()> {
    ensure_component("rustfmt", "fmt")?;
    run_command(&mut workspace.cargo(["fmt", "--all", "--check"]))
}

fn clippy(workspace: &Workspace) -> Result<()> {
    ensure_component("clippy", "clippy")?;
    let mut command = workspace.cargo(["clippy", "--workspace", "--all-targets", "--all-features"]);
    run_command(command.args(["--", "-D", "warnings"]))
}

/// The plugins' code for WebAssembly is invisible to a clippy run for this machine.
fn clippy_plugins(workspace: &Workspace) -> Result<()> {
    plugins::ensure_wasm_target()?;
    let mut command = workspace.cargo(["clippy", "--target", WASM_TARGET, "-p", "oms-plugin-sdk"]);
    for plugin in plugins::packages(workspace) {
        command.args(["-p", &plugin.name]);
    }
    run_command(command.args(["--", "-D", "warnings"]))
}

fn tests(workspace: &Workspace, options: &Options) -> Result<()> {
    let args = &options.test_args;
    let server = Server::start(&postgres::ensure()?, Durability::Fast)?;
    let mut command = workspace.cargo(["test", "--all-features"]);
    // A package named by the caller must not be widened to all of them.
    if !args.iter().any(|arg| arg == "-p" || arg.starts_with("--package")) {
        command.arg("--workspace");
    }
    command.args(args);
    command.env("OMS_TEST_POSTGRES_URL", server.url());
    command.env("OMS_TEST_PLUGIN_DIR", workspace.plugin_dir());
    command.env("OMS_TEST_EXAMPLES_DIR", guests::dir(workspace));
    command.env("OMS_TEST_PYTHON", python::ensure(workspace)?);
    command.env("OMS_TEST_NODE_DIR", node::ensure(workspace)?);
    run_command(&mut command)
}

/// Programs that embed the library may leave out what they do not use.
fn check_core(workspace: &Workspace, features: &str) -> Result<()> {
    let mut command = workspace.cargo(["check", "-p", "oms-core", "--no-default-features"]);
    run_command(command.args(["--features", features]))
}

/// rustup's minimal profile comes without clippy and rustfmt.
fn ensure_component(component: &str, subcommand: &str) -> Result<()> {
    if output("cargo", &[subcommand, "--version"]).is_some() {
        return Ok(());
    }
    run_command(Command::new("rustup").args(["component", "add", component]))
        .with_context(|| format!("`cargo {subcommand}` is missing"))
}
