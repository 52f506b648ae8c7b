//! `plugin install`: from a file into the database.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use oms_core::Actor;
use oms_core::plugins::Install;

use super::super::say;
use super::find;
use super::place::{in_database, show, value_of};
use crate::config::Config;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// A folder with plugin.toml and the component, or a component beneath such a folder
    path: PathBuf,
    /// What the component's SHA-256 must be, besides what plugin.toml says of it
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// Only keep it: `plugin activate` lets payments go to it later
    #[arg(long)]
    inactive: bool,
    /// Print JSON, as the API answers
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, options: &Options) -> Result<ExitCode> {
    let package = find(&options.path).map_err(|fault| anyhow!(fault))?;
    say(format_args!("component: {}", package.chosen()));
    let install = Install {
        path: package.folder,
        component: Some(package.component),
        sha256: options.sha256.clone(),
        activate: !options.inactive,
    };
    let work = async |oms: &oms_core::Oms| oms.plugins().install(&Actor::System, install).await;
    let installed = in_database(config, work).await?;
    let value = value_of(vec![installed]);
    show(
        value["data"].as_array().map(Vec::as_slice).unwrap_or_default(),
        options.json,
    )
}
