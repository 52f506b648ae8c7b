//! Payment plugins.

use std::process::ExitCode;

use anyhow::Result;
use oms_core::Actor;

use crate::config::Config;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List every version that the database holds
    #[command(after_help = "Example:\n  oms-server plugin list --json")]
    List {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(config: &Config, command: &Command) -> Result<ExitCode> {
    let Command::List { json } = command;
    let oms = super::open(config).await?;
    let listed = oms.plugins().list(&Actor::System).await;
    oms.shutdown().await;
    let plugins = listed?;
    if *json {
        let plugin = |p: &oms_core::plugins::PluginInfo| serde_json::json!({"id": p.id, "version": p.version, "digest": p.digest, "active": p.active, "hosts": p.hosts});
        let plugins: Vec<_> = plugins.iter().map(plugin).collect();
        return super::print(&format!("{}\n", serde_json::json!(plugins)));
    }
    let line = |p: &oms_core::plugins::PluginInfo| {
        let state = if p.active {
            "active"
        } else {
            "kept for its payments"
        };
        format!(
            "{} {} {} {state}\n",
            p.id,
            p.version,
            &p.digest[..p.digest.len().min(12)]
        )
    };
    super::print(&plugins.iter().map(line).collect::<String>())
}
