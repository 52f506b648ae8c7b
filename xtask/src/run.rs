//! `cargo xtask run`: plugins, server, demo shop; with `--walk` the whole story is played against it.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};
use clap::Args;

use crate::mailbox::Mailbox;
use crate::server::{Running, Settings};
use crate::workspace::Workspace;
use crate::{plugins, walk};

#[derive(Args)]
pub(crate) struct Options {
    /// Start the server, register, order, pay and check every step, then stop it again
    #[arg(long)]
    walk: bool,
    /// Arguments for `oms-server serve`, such as `--listen 127.0.0.1:8001`
    #[arg(last = true)]
    server_args: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let settings = Settings::find(workspace, &options.server_args)?;
    settings.refuse_if_taken()?;
    plugins::build(workspace)?;
    let program = workspace.build_server(false)?;
    let mut command = settings.serve(workspace, &program, &options.server_args);
    if !options.walk {
        // Replaces this process, so that Ctrl-C and the exit status are the server's own.
        return Err(command.exec()).with_context(|| format!("cannot start {}", program.display()));
    }
    let mut server = Running::start(command, &settings, &workspace.target_dir.join("walk-server.log"))?;
    let story = walk::play(&settings.address, |recipient| {
        Mailbox::new(&settings.data_dir, recipient)
    });
    if story.is_err() {
        server.show_log();
    }
    let stopped = server.stop();
    story?;
    stopped?;
    println!("\nThe whole story went well; the server has stopped.");
    Ok(())
}
