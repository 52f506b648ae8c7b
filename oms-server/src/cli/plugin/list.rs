//! `plugin list`: every version that the database holds.

use std::process::ExitCode;

use anyhow::Result;
use oms_core::Actor;
use serde_json::Value;

use super::super::{print, table};
use super::place::{Place, in_database, plain, value_of};
use crate::config::Config;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Print JSON, as the API answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

pub(super) async fn run(config: &Config, options: &Options) -> Result<ExitCode> {
    let listed = match options.place.ask("", None).await? {
        Some(listed) => listed,
        None => {
            let list = async |oms: &oms_core::Oms| oms.plugins().list(&Actor::System).await;
            value_of(in_database(config, list).await?)
        }
    };
    if options.json {
        return print(&format!("{listed}\n"));
    }
    let plugins = listed["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<_> = plugins.iter().map(row).collect();
    let head = [
        "id",
        "version",
        "digest",
        "state",
        "open",
        "refundable",
        "loaded",
        "failures",
    ];
    print(&table::table(head, &rows))
}

fn row(plugin: &Value) -> [String; 8] {
    let state = match (plugin["active"] == true, plugin["activated_at"].is_null()) {
        (true, _) => "active",
        (false, false) => "was active",
        (false, true) => "kept",
    };
    [
        plain(&plugin["id"]),
        plain(&plugin["version"]),
        plain(&plugin["digest"]).chars().take(12).collect(),
        state.into(),
        plain(&plugin["open_payments"]),
        plain(&plugin["refundable_payments"]),
        plain(&plugin["created_at"]),
        failures(&plugin["health"]),
    ]
}

/// Each account for which it has failed, as in `shop operations open: it trapped ..`.
fn failures(health: &Value) -> String {
    let each = |h: &Value| {
        let [account, work, breaker, words] =
            ["account", "work", "breaker", "failure"].map(|name| plain(&h[name]));
        format!("{account} {work} {breaker}: {words}")
    };
    let each: Vec<_> = health.as_array().into_iter().flatten().map(each).collect();
    match each.is_empty() {
        true => "-".into(),
        false => each.join("; "),
    }
}
