//! `plugin list`: every version that the database holds.

use std::process::ExitCode;

use anyhow::Result;
use oms_core::Actor;
use oms_core::plugins::PluginInfo;
use serde_json::json;

use super::super::{open, print};
use crate::config::Config;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, options: &Options) -> Result<ExitCode> {
    let oms = open(config).await?;
    let listed = oms.plugins().list(&Actor::System).await;
    oms.shutdown().await;
    let plugins = listed?;
    if options.json {
        let plugin = |p: &PluginInfo| json!({"id": p.id, "version": p.version, "digest": p.digest, "active": p.active, "hosts": p.hosts});
        let plugins: Vec<_> = plugins.iter().map(plugin).collect();
        return print(&format!("{}\n", json!(plugins)));
    }
    print(&plugins.iter().map(line).collect::<String>())
}

fn line(plugin: &PluginInfo) -> String {
    let state = match plugin.active {
        true => "active",
        false => "kept for its payments",
    };
    let digest = &plugin.digest[..plugin.digest.len().min(12)];
    format!("{} {} {digest} {state}\n", plugin.id, plugin.version)
}
