//! Payment plugins: a file for each command.

mod list;

use std::process::ExitCode;

use anyhow::Result;

use crate::config::Config;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List every version that the database holds
    #[command(after_help = "Example:\n  oms-server plugin list --json")]
    List(list::Options),
}

pub(super) async fn run(config: &Config, command: &Command) -> Result<ExitCode> {
    match command {
        Command::List(options) => list::run(config, options).await,
    }
}
