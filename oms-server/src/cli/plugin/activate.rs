//! `plugin activate`, `rollback` and `reload`: which version new payments and webhooks go to.

use std::process::ExitCode;

use anyhow::Result;
use oms_core::{Actor, Oms};
use serde_json::{Value, json};

use super::place::{Place, in_database, show, value_of};
use crate::config::Config;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The plugin's id
    id: String,
    /// A version such as 1.2.0, or a digest or its first 8 digits
    version: String,
    /// Print JSON, as the API answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
pub(crate) struct RollbackOptions {
    /// The plugin's id
    id: String,
    /// Print JSON, as the API answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
pub(crate) struct ReloadOptions {
    /// Print JSON, as the API answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

pub(super) async fn run(config: &Config, options: &Options) -> Result<ExitCode> {
    let Options {
        id,
        version,
        json,
        place,
    } = options;
    let path = format!("/{id}/activate");
    let activated = match place.ask(&path, Some(json!({ "version": version }))).await? {
        Some(activated) => activated,
        None => {
            let work = async |oms: &Oms| oms.plugins().activate(&Actor::System, id, version).await;
            one(&value_of(vec![in_database(config, work).await?]))
        }
    };
    show(&[activated], *json)
}

pub(super) async fn roll_back(config: &Config, options: &RollbackOptions) -> Result<ExitCode> {
    let RollbackOptions { id, json, place } = options;
    let activated = match place.ask(&format!("/{id}/rollback"), Some(json!({}))).await? {
        Some(activated) => activated,
        None => {
            let work = async |oms: &Oms| oms.plugins().roll_back(&Actor::System, id).await;
            one(&value_of(vec![in_database(config, work).await?]))
        }
    };
    show(&[activated], *json)
}

pub(super) async fn reload(config: &Config, options: &ReloadOptions) -> Result<ExitCode> {
    let loaded = match options.place.ask("/reload", Some(json!({}))).await? {
        Some(loaded) => loaded,
        None => {
            let work = async |oms: &Oms| oms.plugins().reload(&Actor::System).await;
            value_of(in_database(config, work).await?)
        }
    };
    let plugins = loaded["data"].as_array().into_iter().flatten();
    let active: Vec<_> = plugins
        .filter(|plugin| plugin["active"] == true)
        .cloned()
        .collect();
    show(&active, options.json)
}

fn one(listed: &Value) -> Value {
    listed["data"][0].clone()
}
