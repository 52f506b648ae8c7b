//! `cargo xtask bench`: the optimised server measures itself on a durable SQLite and a durable PostgreSQL.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::plugins;
use crate::postgres::{self, Durability, Server};
use crate::workspace::{Workspace, run as run_command};

#[derive(Args)]
pub(crate) struct Options {
    /// Arguments for `oms-server bench`
    #[arg(last = true)]
    bench_args: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let installation = postgres::ensure()?;
    let plugin_dir = plugins::build(workspace)?;
    let program = workspace.build_server(true)?;
    let server = Server::start(&installation, Durability::Durable)?;
    let sqlite = SqliteDir::create()?;

    let mut command = Command::new(program);
    command.arg("bench").args(["--postgres-url", &server.url()]);
    command
        .arg("--sqlite-dir")
        .arg(&sqlite.0)
        .arg("--plugin-dir")
        .arg(plugin_dir)
        .args(&options.bench_args);
    run_command(command.current_dir(&workspace.root))
}

/// On disk for the same reason as PostgreSQL's folder: a durable commit must cost what it costs.
struct SqliteDir(PathBuf);

impl SqliteDir {
    fn create() -> Result<Self> {
        let dir = PathBuf::from(format!("/var/tmp/oms-bench-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for SqliteDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}
