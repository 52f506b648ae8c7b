//! The versions of plugins in the database.

use crate::db::{Tx, run};
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// A version without its component.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct VersionRow {
    pub(super) digest: String,
    pub(super) id: String,
    pub(super) version: String,
    pub(super) manifest: String,
    pub(super) active: bool,
    pub(super) created_at: Timestamp,
    pub(super) activated_at: Option<Timestamp>,
}

/// The columns of a [`VersionRow`].
macro_rules! columns {
    () => {
        "digest, id, version, manifest, active, created_at, activated_at"
    };
}

/// Payments that need a version.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct Uses {
    pub(super) digest: String,
    pub(super) open: i64,
    pub(super) refundable: i64,
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
        sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM oms_plugin_version ORDER BY id, created_at, digest"
        ))
        .fetch_all(conn)
        .await
    })?)
}

pub(super) async fn active(tx: &mut Tx, id: &str) -> Result<Option<VersionRow>> {
    Ok(run!(tx, |conn| {
        sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM oms_plugin_version WHERE id = $1 AND active"
        ))
        .bind(id)
        .fetch_optional(conn)
        .await
    })?)
}

pub(super) async fn by_digest(tx: &mut Tx, digest: &str) -> Result<Option<VersionRow>> {
    Ok(run!(tx, |conn| {
        sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM oms_plugin_version WHERE digest = $1"
        ))
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

/// The version that was active before the present one.
pub(super) async fn before(tx: &mut Tx, id: &str) -> Result<Option<VersionRow>> {
    Ok(run!(tx, |conn| {
        sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM oms_plugin_version WHERE id = $1 AND NOT active AND activated_at IS NOT NULL
              ORDER BY activated_at DESC, created_at DESC, digest LIMIT 1"
        ))
        .bind(id)
        .fetch_optional(conn)
        .await
    })?)
}

/// How many payments need each version. Reads all payments: for people, not for every request.
pub(super) async fn uses(tx: &mut Tx) -> Result<Vec<Uses>> {
    Ok(run!(tx, |conn| {
        sqlx::query_as(
            "SELECT plugin_digest AS digest, sum(CASE WHEN open THEN 1 ELSE 0 END) AS open,
                 sum(CASE WHEN captured > refunded THEN 1 ELSE 0 END) AS refundable
             FROM oms_payment WHERE plugin_digest IS NOT NULL AND (open OR captured > refunded)
             GROUP BY plugin_digest",
        )
        .fetch_all(conn)
        .await
    })?)
}

/// Makes one version of a plugin the active one. Does nothing when it is.
pub(super) async fn activate(tx: &mut Tx, id: &str, digest: &str, now: Timestamp) -> Result<()> {
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
        sqlx::query(
            "UPDATE oms_plugin_version SET active = $2, activated_at = $3 WHERE digest = $1 AND NOT active",
        )
        .bind(digest)
        .bind(true)
        .bind(now)
        .execute(conn)
        .await
        .map(drop)
    });
    unless_another(activated)
}

/// Gives the place of one version back to the one before it.
pub(super) async fn roll_back(tx: &mut Tx, from: &str, to: &str) -> Result<()> {
    let none: Option<Timestamp> = None;
    let left = run!(tx, |conn| {
        sqlx::query(
            "UPDATE oms_plugin_version SET active = $2, activated_at = $3 WHERE digest = $1 AND active",
        )
        .bind(from)
        .bind(false)
        .bind(none)
        .execute(conn)
        .await
        .map(|done| done.rows_affected())
    })?;
    if left == 0 {
        return Err(Error::overloaded());
    }
    let activated = run!(tx, |conn| {
        sqlx::query("UPDATE oms_plugin_version SET active = $2 WHERE digest = $1")
            .bind(to)
            .bind(true)
            .execute(conn)
            .await
            .map(drop)
    });
    unless_another(activated)
}

/// Another process may be activating another version at this moment: then this one is to try again.
fn unless_another(activated: Result<(), sqlx::Error>) -> Result<()> {
    match activated {
        Err(sqlx::Error::Database(e)) if e.is_unique_violation() => Err(Error::overloaded()),
        other => Ok(other?),
    }
}
