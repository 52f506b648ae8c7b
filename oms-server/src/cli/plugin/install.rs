//! `plugin install`: from a file into the database.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use oms_core::plugins::{Install, PluginInfo};
use oms_core::{Actor, Oms};

use super::super::{open_without_accounts, say};
use super::find;
use super::place::{in_words, show, value_of};
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
    let oms = open_without_accounts(config).await?;
    let installed = keep(&oms, install).await;
    oms.shutdown().await;
    let installed = installed.map_err(in_words)?;
    let value = value_of(vec![installed]);
    show(
        value["data"].as_array().map(Vec::as_slice).unwrap_or_default(),
        options.json,
    )
}

/// Two files under one version are allowed, as an author's builds are, but seldom meant.
async fn keep(oms: &Oms, install: Install) -> oms_core::Result<PluginInfo> {
    let plugins = oms.plugins();
    let installed = plugins.install(&Actor::System, install).await?;
    let PluginInfo {
        id, version, digest, ..
    } = &installed;
    let same_version = |other: &&PluginInfo| other.id == *id && other.version == *version;
    let kept = plugins.list(&Actor::System).await?;
    for other in kept
        .iter()
        .filter(same_version)
        .filter(|other| other.digest != *digest)
    {
        say(format_args!(
            "warning: {id} {version} is also kept with the sha256 {}: `plugin activate` tells them apart by digest alone",
            other.digest
        ));
    }
    Ok(installed)
}
