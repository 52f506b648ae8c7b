//! Whether the accounts of the file can work with their plugins: told at a start and by `config check`, so that it is not
//! the first customer who finds out.

use std::time::Duration;

use anyhow::{Context, Result};
use oms_core::{Actor, Oms};
use tokio::time::timeout;

use crate::config::Config;
use crate::production::Problem;
use crate::setup;
use crate::sqlite_file::{self, Claim};

/// How long the database and the compiler may take before `config check` goes on without them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Says in the log which accounts cannot work. The others can, so nobody is kept from starting.
pub(crate) async fn warn(config: &Config, oms: &Oms) {
    match misfits(config, oms).await {
        Ok(found) => {
            for misfit in found {
                tracing::warn!("{misfit}");
            }
        }
        Err(error) => tracing::warn!(%error, "nobody knows whether the accounts fit their plugins"),
    }
}

/// The same without a start: nothing is written, and a database that is not there is not made.
pub(crate) async fn check(config: &Config) -> Result<Vec<Problem>> {
    // Where nobody has an account, the database need not be there. A file that cannot be read is a problem of its own.
    if setup::named(config).map_or(true, |accounts| accounts.is_empty()) {
        return Ok(Vec::new());
    }
    timeout(PATIENCE, check_in_database(config))
        .await
        .context("the database or the plugins take too long")?
}

async fn check_in_database(config: &Config) -> Result<Vec<Problem>> {
    let file = sqlite_file::path(&config.database_url)?;
    // A shop that was never started has its plugins in the folder alone. An empty database stands for its own.
    let scratch = match &file {
        Some(file) if !file.exists() => Some(tempfile::tempdir()?),
        _ => None,
    };
    let _claim = match &file {
        Some(file) if scratch.is_none() => Some(Claim::shared(file)?),
        _ => None,
    };
    let open = |url: String| Oms::builder(url).plugin_dir(&config.plugin_dir);
    let oms = match &scratch {
        Some(folder) => {
            let empty = folder.path().join("oms.db");
            setup::connect(open(format!("sqlite://{}", empty.display()))).await?
        }
        None => {
            let opened = open(config.database_url.clone()).connect().await;
            opened.context("cannot open the database")?
        }
    };
    let found = misfits(config, &oms).await;
    oms.shutdown().await;
    found
}

/// Why this account cannot work, be it of the file or the one of development; none when it can.
pub(crate) async fn fault_of(
    name: &str,
    config: &Config,
    public_url: &str,
    oms: &Oms,
) -> Result<Option<String>> {
    let mut accounts = setup::accounts(config, public_url)?;
    accounts.retain(|account| account.name == name);
    let found = oms.plugins().misfits(&Actor::System, &accounts).await?;
    Ok(found.into_iter().next().map(|(_, why)| why))
}

async fn misfits(config: &Config, oms: &Oms) -> Result<Vec<Problem>> {
    // A file that cannot be read is told by whoever needs its secrets.
    let Ok(accounts) = setup::named(config) else {
        return Ok(Vec::new());
    };
    let found = oms.plugins().misfits(&Actor::System, &accounts).await?;
    let problem = |(account, why): (String, String)| Problem {
        variable: "OMS_ACCOUNTS",
        // One line, whatever a plugin says of itself.
        detail: format!("account {account:?}: {}", why.replace(char::is_control, " ")),
        allow: None,
    };
    Ok(found.into_iter().map(problem).collect())
}
