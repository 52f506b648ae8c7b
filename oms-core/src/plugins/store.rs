//! The versions of plugins in the database.

use crate::db::{Tx, run};
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// A version without its component.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct VersionRow {
    pub(super) digest: String,
    pub(super) manifest: String,
    pub(super) active: bool,
    pub(super) created_at: Timestamp,
}

/// A version to keep.
pub(super) struct NewVersion<'a> {
    pub(super) digest: &'a str,
    pub(super) id: &'a str,
    pub(super) version: &'a str,
    pub(super) wasm: &'a [u8],
    pub(super) manifest: &'a str,
}

pub(super) async fn list(tx: &mut Tx) -> Result<Vec<VersionRow>> {
    Ok(run!(tx, |conn| {
        sqlx::query_as(
            "SELECT digest, manifest, active, created_at FROM oms_plugin_version ORDER BY id, created_at, digest",
        )
        .fetch_all(conn)
        .await
    })?)
}

pub(super) async fn active(tx: &mut Tx, id: &str) -> Result<Option<VersionRow>> {
    Ok(run!(tx, |conn| {
        sqlx::query_as(
            "SELECT digest, manifest, active, created_at FROM oms_plugin_version WHERE id = $1 AND active",
        )
        .bind(id)
        .fetch_optional(conn)
        .await
    })?)
}

pub(super) async fn by_digest(tx: &mut Tx, digest: &str) -> Result<Option<VersionRow>> {
    Ok(run!(tx, |conn| {
        sqlx::query_as(
            "SELECT digest, manifest, active, created_at FROM oms_plugin_version WHERE digest = $1",
        )
        .bind(digest)
        .fetch_optional(conn)
        .await
    })?)
}

pub(super) async fn component(tx: &mut Tx, digest: &str) -> Result<Vec<u8>> {
    Ok(run!(tx, |conn| {
        sqlx::query_scalar("SELECT wasm FROM oms_plugin_version WHERE digest = $1")
            .bind(digest)
            .fetch_one(conn)
            .await
    })?)
}

/// Keeps a version; of one that is there already, the manifest (its hosts or limits may have changed).
pub(super) async fn keep(tx: &mut Tx, new: &NewVersion<'_>, now: Timestamp) -> Result<()> {
    Ok(run!(tx, |conn| {
        sqlx::query(
            "INSERT INTO oms_plugin_version (digest, id, version, wasm, manifest, active, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (digest) DO UPDATE SET manifest = excluded.manifest",
        )
        .bind(new.digest)
        .bind(new.id)
        .bind(new.version)
        .bind(new.wasm)
        .bind(new.manifest)
        .bind(false)
        .bind(now)
        .execute(conn)
        .await
        .map(drop)
    })?)
}

/// Makes one version of a plugin the active one.
pub(super) async fn activate(tx: &mut Tx, id: &str, digest: &str) -> Result<()> {
    // The old one first: a unique index allows one active version at any moment.
    run!(tx, |conn| {
        sqlx::query("UPDATE oms_plugin_version SET active = $3 WHERE id = $1 AND active AND digest <> $2")
            .bind(id)
            .bind(digest)
            .bind(false)
            .execute(conn)
            .await
            .map(drop)
    })?;
    let activated = run!(tx, |conn| {
        sqlx::query("UPDATE oms_plugin_version SET active = $2 WHERE digest = $1")
            .bind(digest)
            .bind(true)
            .execute(conn)
            .await
            .map(drop)
    });
    match activated {
        // Another process is activating another version at this moment.
        Err(sqlx::Error::Database(e)) if e.is_unique_violation() => Err(Error::overloaded()),
        other => Ok(other?),
    }
}
