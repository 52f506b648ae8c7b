//! Deletes what nobody asks for any more.

use std::time::Duration;

use super::JobError;
use super::run::Finish;
use super::store::{Running, finish_in};
use crate::db::{Tx, run};
use crate::error::Result;
use crate::oms::Oms;
use crate::time::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A person who clicks an old link is told that it is used or expired, for this long.
const KEEP_TOKENS: Duration = DAY.saturating_mul(7);

/// A stolen refresh token that is used again is recognised for this long.
const KEEP_SESSIONS: Duration = DAY.saturating_mul(30);

/// What plugins did is looked at, and held against a new version, soon or never.
const KEEP_PLUGIN_CALLS: Duration = DAY.saturating_mul(14);

/// Rows of one transaction: others wait for it on SQLite.
const BATCH: i64 = 1_000;

/// Idempotency keys stay: they live as long as what they made.
pub(super) async fn purge(oms: &Oms, job: &Running) -> Result<Finish, JobError> {
    let now = oms.now();
    loop {
        let mut tx = oms.db().write().await?;
        let tokens = delete_tokens(&mut tx, now - KEEP_TOKENS).await?;
        let sessions = delete_sessions(&mut tx, now - KEEP_SESSIONS).await?;
        let calls = delete_plugin_calls(&mut tx, now - KEEP_PLUGIN_CALLS).await?;
        if tokens < BATCH && sessions < BATCH && calls < BATCH {
            finish_in(&mut tx, job).await?;
            tx.commit().await?;
            return Ok(Finish::Finished);
        }
        tx.commit().await?;
    }
}

async fn delete_tokens(tx: &mut Tx, before: Timestamp) -> Result<i64> {
    let rows = run!(tx, |conn| {
        sqlx::query(
            "DELETE FROM oms_user_token WHERE id IN
               (SELECT id FROM oms_user_token WHERE expires_at < $1 OR used_at < $1 LIMIT $2)",
        )
        .bind(before)
        .bind(BATCH)
        .execute(conn)
        .await
        .map(|done| done.rows_affected())
    })?;
    Ok(i64::try_from(rows).unwrap_or(i64::MAX))
}

async fn delete_sessions(tx: &mut Tx, before: Timestamp) -> Result<i64> {
    let rows = run!(tx, |conn| {
        sqlx::query(
            "DELETE FROM oms_session WHERE id IN
               (SELECT id FROM oms_session WHERE expires_at < $1 OR revoked_at < $1 LIMIT $2)",
        )
        .bind(before)
        .bind(BATCH)
        .execute(conn)
        .await
        .map(|done| done.rows_affected())
    })?;
    Ok(i64::try_from(rows).unwrap_or(i64::MAX))
}

async fn delete_plugin_calls(tx: &mut Tx, before: Timestamp) -> Result<i64> {
    let rows = run!(tx, |conn| {
        sqlx::query(
            "DELETE FROM oms_plugin_call WHERE id IN (SELECT id FROM oms_plugin_call WHERE made_at < $1 LIMIT $2)",
        )
        .bind(before)
        .bind(BATCH)
        .execute(conn)
        .await
        .map(|done| done.rows_affected())
    })?;
    Ok(i64::try_from(rows).unwrap_or(i64::MAX))
}
