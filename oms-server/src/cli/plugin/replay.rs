//! `plugin replay`: what was recorded, against another version.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use oms_core::plugins::conformance::{Different, Replayed};
use oms_core::{Actor, Oms, Timestamp};
use serde_json::json;

use super::super::{open, print, table};
use super::find;
use super::place::{claim, in_words};
use crate::config::Config;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// From when on: a time such as 2026-01-02T03:04:05Z, a day, or an age such as 30m, 24h or 7d
    #[arg(long, value_name = "TIME")]
    since: String,
    /// The version to try: a folder with plugin.toml or a component [default: the active versions]
    #[arg(long, value_name = "PATH")]
    plugin: Option<PathBuf>,
    /// This account alone
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, options: &Options) -> Result<ExitCode> {
    let _claim = claim(config)?;
    let oms = open(config).await?;
    let replayed = replay(&oms, options).await;
    oms.shutdown().await;
    let replayed = replayed?;
    print(&match options.json {
        true => format!("{}\n", json!(replayed)),
        false if replayed.is_empty() => "no plugin is active, so nothing was compared\n".into(),
        false => replayed.iter().map(text).collect(),
    })?;
    let different = replayed.iter().any(|replayed| !replayed.different.is_empty());
    Ok(ExitCode::from(u8::from(different)))
}

async fn replay(oms: &Oms, options: &Options) -> Result<Vec<Replayed>> {
    let since = since(&options.since, oms.now())?;
    let plugins = oms.plugins();
    let packages = match &options.plugin {
        Some(path) => vec![find(path).map_err(|fault| anyhow!(fault))?],
        None => {
            let mut packages = Vec::new();
            for version in plugins.list(&Actor::System).await? {
                if version.active {
                    packages.push(plugins.active_package(&Actor::System, &version.id).await?);
                }
            }
            packages
        }
    };
    let account = options.account.as_deref();
    if let Some(name) = account.filter(|name| !oms.has_account(name)) {
        bail!("there is no account {name}");
    }
    let mut replayed = Vec::new();
    for package in &packages {
        let done = plugins.replay(&Actor::System, package, since, account).await;
        let done = done.map_err(in_words);
        replayed.push(done.with_context(|| package.component.display().to_string())?);
    }
    Ok(replayed)
}

/// A time, a day, or an age.
fn since(text: &str, now: Timestamp) -> Result<Timestamp> {
    let day = format!("{text}T00:00:00Z");
    if let Some(time) = Timestamp::parse(text).or_else(|| Timestamp::parse(&day)) {
        return Ok(time);
    }
    let unit = text.chars().last();
    let seconds = match unit {
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => 0,
    };
    let number = text
        .strip_suffix(['m', 'h', 'd'])
        .and_then(|number| number.parse::<u32>().ok());
    match number {
        Some(number) if seconds > 0 => Ok(now - Duration::from_secs(u64::from(number) * seconds)),
        _ => bail!(
            "--since {text:?} must be a time such as 2026-01-02T03:04:05Z, a day, or an age such as 24h"
        ),
    }
}

fn text(replayed: &Replayed) -> String {
    let Replayed {
        id,
        version,
        digest,
        same,
        different,
        skipped,
    } = replayed;
    let mut text: String = different.iter().map(|call| entry("differs", call)).collect();
    text.extend(skipped.iter().map(|call| entry("not compared", call)));
    let short: String = digest.chars().take(12).collect();
    // No difference among nothing would look like a proof.
    if *same == 0 && different.is_empty() && skipped.is_empty() {
        return format!(
            "{id} {version} {short}: nothing was compared: since then no webhook came in, and no call was recorded \
             (`record = true` in the account, or OMS_PLUGIN_RECORD)\n"
        );
    }
    text.push_str(&format!(
        "{id} {version} {short}: {same} as before, {} different, {} not compared\n",
        different.len(),
        skipped.len()
    ));
    text
}

fn entry(what: &str, call: &Different) -> String {
    let Different {
        id,
        account,
        function,
        at,
        version,
        differences,
    } = call;
    let by = version
        .as_ref()
        .map_or_else(String::new, |version| format!(" by {version}"));
    let lines = differences
        .iter()
        .map(|line| format!("  {}\n", table::one_line(line)));
    format!(
        "{what}: {function} of {account} at {at}{by} ({id})\n{}",
        lines.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ages() {
        let now = Timestamp::parse("2026-03-02T00:00:00Z").unwrap();
        for (text, time) in [
            ("2026-03-01", "2026-03-01T00:00:00Z"),
            ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z"),
            ("24h", "2026-03-01T00:00:00Z"),
            ("90m", "2026-03-01T22:30:00Z"),
            ("1d", "2026-03-01T00:00:00Z"),
        ] {
            assert_eq!(
                since(text, now).unwrap().to_string(),
                Timestamp::parse(time).unwrap().to_string(),
                "{text}"
            );
        }
        for text in ["", "h", "yesterday", "-1h", "1w"] {
            assert!(since(text, now).is_err(), "{text}");
        }
    }
}
