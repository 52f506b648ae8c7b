//! Project commands: `cargo xtask plugins | test | run | bench | compose | fuzz`. Typed scripts, no tool to install.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a command line program: it prints, and it reads the environment and the clock itself"
)]

mod api;
mod bench;
mod compose;
mod fuzz;
mod guests;
mod mailbox;
mod node;
mod packages;
mod plugins;
mod postgres;
mod python;
mod run;
mod server;
mod test;
mod walk;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Commands of the oms project"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the payment plugins into <target folder>/plugins
    Plugins(guests::Options),
    /// Run everything a change must pass, on SQLite and on a PostgreSQL server started for it
    Test(test::Options),
    /// Build and start the server with a demo shop in ./oms-data
    Run(run::Options),
    /// Print the table of speeds: SQLite and PostgreSQL, in process and over HTTP
    Bench(bench::Options),
    /// Build the images, start the stack of docker-compose.yml, walk through it after every restart, take it down
    Compose(compose::Options),
    /// Fuzz the webhooks of the plugins, the manifest's parser and what guests answer; needs cargo-fuzz
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes on one line; anyhow's own format would add a backtrace of this program.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<()> {
    let workspace = Workspace::load()?;
    match command {
        Command::Plugins(options) => {
            plugins::build(&workspace)?;
            if options.examples {
                guests::build(&workspace)?;
            }
            Ok(())
        }
        Command::Test(options) => test::run(&workspace, &options),
        Command::Run(options) => run::run(&workspace, &options),
        Command::Bench(options) => bench::run(&workspace, &options),
        Command::Compose(options) => compose::run(&workspace, &options),
        Command::Fuzz(options) => fuzz::run(&workspace, &options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
