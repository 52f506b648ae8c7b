//! Payment plugins: a file for each command.

mod activate;
mod call;
mod check;
mod install;
mod list;
mod new;
mod place;
mod replay;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use oms_core::plugins::conformance::Package;

use crate::config::{self, Config};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List every version that the database holds, with the payments that need it
    #[command(
        after_help = "Examples:\n  oms-server plugin list --json\n  OMS_TOKEN=.. oms-server plugin list --url https://shop.example.com\n\n\
                      Which plugins a server leaves alone for their failures, only that server knows: ask it with --url."
    )]
    List(list::Options),
    /// Keep a version in the database and let new payments and webhooks go to it
    #[command(after_help = "Examples:\n  oms-server plugin install plugins/acme\n  \
                      oms-server plugin install acme.wasm --sha256 9f86d081.. --inactive\n\n\
                      Refused, with the reason, when it is not whole, does not fit the contract or has another sha256:\n\
                      then nothing has changed. Running servers use it from the next payment on.")]
    Install(install::Options),
    /// Let new payments and webhooks go to another version; payments that were started stay with theirs
    #[command(
        after_help = "Examples:\n  oms-server plugin activate acme 1.2.0\n  oms-server plugin activate acme 9f86d081"
    )]
    Activate(activate::Options),
    /// Go back to the version that was active before
    #[command(after_help = "Example:\n  oms-server plugin rollback acme")]
    Rollback(activate::RollbackOptions),
    /// Make all versions in the plugin folder the active ones
    #[command(
        after_help = "Examples:\n  oms-server plugin reload --plugin-dir /usr/local/share/oms/plugins\n  \
                      OMS_TOKEN=.. oms-server plugin reload --url https://shop.example.com   # from that server's folder"
    )]
    Reload(activate::ReloadOptions),
    /// Call one operation of an account's plugin by hand
    #[command(
        after_help = "Examples:\n  oms-server plugin call describe --account acme\n  \
                      echo '{\"amount\": 100, \"currency\": \"EUR\"}' | oms-server plugin call start --account acme --request -\n\n\
                      It is real: the gateway is asked with the account's credentials, and nothing is written down here."
    )]
    Call(call::Options),
    /// Make the folder of a new plugin, with a test that passes
    #[command(after_help = "Examples:\n  oms-server plugin new acme --lang rust\n  \
                      oms-server plugin new acme --lang python --dir plugins/acme\n\n\
                      Its README says how to build and test it.")]
    New(new::Options),
    /// Say whether a plugin would be loaded, and in words why not
    #[command(after_help = "Examples:\n  oms-server plugin check plugins/acme\n  \
                      oms-server plugin check target/wasm32-wasip2/release/acme.wasm --json\n\n\
                      Status 1 if there is any fault.")]
    Check(check::Options),
    /// Run a plugin on recorded answers, by the rules that hold for every gateway
    #[command(after_help = "Examples:\n  oms-server plugin test plugins/acme -v\n  \
                      oms-server plugin test acme-rust acme-js acme-python   # their figures side by side\n\n\
                      No database and no network. Status 1 if a rule is broken.")]
    Test(test::Options),
    /// Run what was recorded against another version and print what would be different
    #[command(
        after_help = "Examples:\n  oms-server plugin replay --since 2026-01-01 --plugin plugins/acme\n  \
                      oms-server plugin replay --since 24h --account acme\n\n\
                      Nothing is sent and nothing is changed. Calls are recorded where an account says `record = true`,\n\
                      or for all with OMS_PLUGIN_RECORD; webhooks are there in any case. Status 1 if anything differs."
    )]
    Replay(replay::Options),
}

impl Command {
    /// Whether a database is made for it where there is none. Authors of plugins have no shop, and the others look after
    /// one that is there.
    pub(super) const fn makes_database(&self) -> bool {
        matches!(self, Self::Install(_))
    }
}

pub(super) async fn run(config: &Config, command: &Command) -> Result<ExitCode> {
    match command {
        Command::List(options) => list::run(config, options).await,
        Command::Install(options) => install::run(config, options).await,
        Command::Activate(options) => activate::run(config, options).await,
        Command::Rollback(options) => activate::roll_back(config, options).await,
        Command::Reload(options) => activate::reload(config, options).await,
        Command::Call(options) => call::run(config, options).await,
        Command::New(options) => new::run(options),
        Command::Check(options) => check::run(options).await,
        Command::Test(options) => test::run(options).await,
        Command::Replay(options) => replay::run(config, options).await,
    }
}

/// The plugin at a path, also where cargo builds into another folder.
fn find(path: &Path) -> Result<Package, String> {
    let target = config::variable("CARGO_TARGET_DIR").map(PathBuf::from);
    Package::find_with(path, target.as_deref())
}
