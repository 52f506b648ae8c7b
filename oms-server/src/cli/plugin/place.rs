//! Where a command has its effect: in the database, or at a running server over its API.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use oms_core::plugins::PluginInfo;
use oms_core::{Oms, Violation};
use poem_openapi::types::ToJSON;
use serde_json::Value;

use super::super::{open_without_accounts, print, table};
use crate::config::Config;
use crate::http::{List, PluginBody};
use crate::sqlite_file::{self, Claim};

/// Longer than the server takes to compile the plugins of a whole folder.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(clap::Args)]
pub(crate) struct Place {
    /// Ask this running server, instead of going to the database
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// An access token of an administrator at that server
    #[arg(long, env = "OMS_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Place {
    /// What the server answers to a request; none without `--url`.
    pub(super) async fn ask(&self, path: &str, body: Option<Value>) -> Result<Option<Value>> {
        let Some(url) = &self.url else {
            return Ok(None);
        };
        let token = self
            .token
            .as_ref()
            .context("--url needs a token: set OMS_TOKEN to the access_token that POST /v1/sessions gives")?;
        let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
        let address = format!("{}/v1/admin/plugins{path}", url.trim_end_matches('/'));
        let request = match &body {
            Some(body) => client.post(&address).json(body),
            None => client.get(&address),
        };
        let answer = request.bearer_auth(token).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        let value: Value = serde_json::from_str(&text)
            .with_context(|| format!("{address} answered {status} without JSON"))?;
        if !status.is_success() {
            let detail = value["detail"].as_str().unwrap_or_default();
            let errors = value["errors"].as_array().into_iter().flatten();
            let errors: String = errors
                .map(|e| format!("\n  {}: {}", plain(&e["pointer"]), plain(&e["detail"])))
                .collect();
            bail!("{address} answered {status}: {}{errors}", table::one_line(detail));
        }
        Ok(Some(value))
    }
}

/// Runs something in the library over the database that is there, and closes it again.
pub(super) async fn in_database<T>(
    config: &Config,
    work: impl AsyncFnOnce(&Oms) -> oms_core::Result<T>,
) -> Result<T> {
    let _claim = claim(config)?;
    let oms = open_without_accounts(config).await?;
    let done = work(&oms).await;
    oms.shutdown().await;
    done.map_err(in_words)
}

/// Says that this process uses the shop's database. Where there is none, somebody is in the wrong folder: a new one would
/// only look like a shop that has lost its plugins.
pub(super) fn claim(config: &Config) -> Result<Option<Claim>> {
    let Some(database) = sqlite_file::path(&config.database_url)? else {
        return Ok(None);
    };
    if !database.is_file() {
        bail!(
            "there is no database {}: name the shop's with --data-dir or --database-url",
            database.display()
        );
    }
    Claim::shared(&database).map(Some)
}

/// What is wrong with a plugin, by its file. Pointers into a request are for those who sent one.
pub(super) fn in_words(error: oms_core::Error) -> anyhow::Error {
    let oms_core::Error::Invalid(violations) = error else {
        return error.into();
    };
    let words = violations.into_iter().map(|violation| {
        let Violation { pointer, detail } = violation;
        match pointer.ends_with("plugin.toml") {
            true => format!("{}: {detail}", pointer.trim_start_matches('/')),
            false => detail,
        }
    });
    anyhow!(words.collect::<Vec<_>>().join("; "))
}

/// As the API answers.
pub(super) fn value_of(plugins: Vec<PluginInfo>) -> Value {
    List::<PluginBody>::from(plugins).to_json().unwrap_or_default()
}

/// Versions that a command made active: a line each, or the API's JSON.
pub(super) fn show(plugins: &[Value], json: bool) -> Result<ExitCode> {
    let lines: String = match json {
        true => plugins.iter().map(|plugin| format!("{plugin}\n")).collect(),
        false => plugins.iter().map(line).collect(),
    };
    print(&lines)
}

fn line(plugin: &Value) -> String {
    let state = match plugin["active"] == true {
        true => "is active",
        false => "is kept; new payments go to another version",
    };
    format!(
        "{} {} {} {state}\n",
        plain(&plugin["id"]),
        plain(&plugin["version"]),
        plain(&plugin["digest"])
    )
}

/// A text of the JSON, without what could move a terminal's cursor.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => table::one_line(text),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}
