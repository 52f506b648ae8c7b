//! Pictures beside a backup. They are named by their contents and never change, so that those in a folder already need
//! no second copy.

use std::path::Path;

use anyhow::{Context, Result};
use oms_core::catalog::Media;

use super::restore::Owner;
use crate::config::Config;
use crate::media::{MediaPlace, inspect};
use crate::setup;
use crate::sqlite_file::{self, beside, sync_folder_of};

/// What became of the pictures that a backup names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) copied: usize,
    pub(super) present: usize,
}

/// Copies what the backup names into the folder.
pub(super) async fn save(config: &Config, backup: &Path, folder: &Path) -> Result<Saved> {
    let store = setup::media(config)?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut saved = Saved::default();
    for name in names(backup).await? {
        let path = folder.join(&name);
        if path.exists() {
            saved.present += 1;
            continue;
        }
        let picture = store
            .get(&name)
            .await
            .with_context(|| format!("cannot read the picture {name}"))?;
        let picture = picture.with_context(|| format!("the picture {name} is missing"))?;
        let bytes = picture.body.into_vec().await?;
        recognised(&name, &bytes)?;
        write(&path, &bytes)?;
        saved.copied += 1;
    }
    sync_folder_of(&folder.join("x"))?;
    Ok(saved)
}

/// Brings back what the database names and the store has not. Files of the store are their owner's.
pub(super) async fn bring_back(
    config: &Config,
    database: &Path,
    folder: &Path,
    owner: &Owner,
) -> Result<Saved> {
    let files = match &config.media {
        MediaPlace::Folder(files) => Some(files),
        MediaPlace::S3 { .. } => None,
    };
    let made = files.filter(|files| !files.exists());
    let store = setup::media(config)?;
    if let Some(files) = made {
        owner.take_over(files)?;
    }
    let mut saved = Saved::default();
    for name in names(database).await? {
        if store.get(&name).await?.is_some() {
            saved.present += 1;
            continue;
        }
        let path = folder.join(&name);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        store.put(&recognised(&name, &bytes)?, bytes).await?;
        if let Some(files) = files {
            owner.take_over(&files.join(&name))?;
        }
        saved.copied += 1;
    }
    Ok(saved)
}

/// How many pictures the database names that the store has not.
pub(super) async fn missing(config: &Config, database: &Path) -> Result<usize> {
    let store = setup::media(config)?;
    let mut missing = 0;
    for name in names(database).await? {
        missing += usize::from(store.get(&name).await?.is_none());
    }
    Ok(missing)
}

async fn names(database: &Path) -> Result<Vec<String>> {
    let mut conn = sqlite_file::connect(database)
        .await
        .context("cannot open the database")?;
    let names = sqlx::query_scalar("SELECT name FROM oms_media ORDER BY name")
        .fetch_all(&mut conn)
        .await?;
    sqlx::Connection::close(conn).await?;
    Ok(names)
}

/// The name is the digest of what it names.
fn recognised(name: &str, bytes: &[u8]) -> Result<Media> {
    let media = inspect(bytes).map_err(|why| anyhow::anyhow!("the picture {name} {why}"))?;
    anyhow::ensure!(media.name == name, "the picture {name} was changed");
    Ok(media)
}

/// Whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let draft = beside(path, ".draft");
    std::fs::write(&draft, bytes).with_context(|| format!("cannot write {}", draft.display()))?;
    std::fs::File::open(&draft)?.sync_all()?;
    std::fs::rename(&draft, path).with_context(|| format!("cannot write {}", path.display()))
}
