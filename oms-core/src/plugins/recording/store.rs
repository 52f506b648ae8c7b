//! SQL of recorded calls.

use uuid::Uuid;

use super::Record;
use crate::db::{Tx, run};
use crate::error::{Error, Result};
use crate::id::PluginCallId;
use crate::oms::Oms;
use crate::time::Timestamp;

/// In a transaction of its own.
pub(super) async fn keep(oms: &Oms, record: &Record) -> Result<()> {
    let json = |value: serde_json::Result<String>| {
        value.map_err(|e| Error::Internal(format!("a recorded call: {e}")))
    };
    let asked = json(serde_json::to_string(&record.asked))?;
    let calls = json(serde_json::to_string(&record.calls))?;
    let mut tx = oms.db().write().await?;
    run!(&mut tx, |conn| {
        sqlx::query(
            "INSERT INTO oms_plugin_call (id, account, plugin_id, version, digest, function, payment_id, asked, calls,
                 outcome, made_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(record.id)
        .bind(&record.account)
        .bind(&record.plugin_id)
        .bind(&record.version)
        .bind(&record.digest)
        .bind(&record.function)
        .bind(record.asked.payment)
        .bind(&asked)
        .bind(&calls)
        .bind(record.outcome.to_string())
        .bind(record.made_at)
        .execute(conn)
        .await
        .map(drop)
    })?;
    tx.commit().await
}

#[derive(sqlx::FromRow)]
struct Row {
    id: PluginCallId,
    account: String,
    plugin_id: String,
    version: String,
    digest: String,
    function: String,
    asked: String,
    calls: String,
    outcome: String,
    made_at: Timestamp,
}

impl Row {
    fn record(self) -> Result<Record> {
        let id = self.id;
        let corrupt = |column, e: serde_json::Error| Error::Corrupt {
            table: "oms_plugin_call",
            column,
            id: id.to_string(),
            detail: e.to_string(),
        };
        Ok(Record {
            id,
            account: self.account,
            plugin_id: self.plugin_id,
            version: self.version,
            digest: self.digest,
            function: self.function,
            asked: serde_json::from_str(&self.asked).map_err(|e| corrupt("asked", e))?,
            calls: serde_json::from_str(&self.calls).map_err(|e| corrupt("calls", e))?,
            outcome: serde_json::from_str(&self.outcome).map_err(|e| corrupt("outcome", e))?,
            made_at: self.made_at,
        })
    }
}

/// The oldest first, after `after`.
pub(in crate::plugins) async fn since(
    tx: &mut Tx,
    since: Timestamp,
    after: Option<PluginCallId>,
    limit: i64,
) -> Result<Vec<Record>> {
    let rows: Vec<Row> = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT id, account, plugin_id, version, digest, function, asked, calls, outcome, made_at
             FROM oms_plugin_call WHERE made_at >= $1 AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(since)
        .bind(after.map_or(Uuid::nil(), PluginCallId::uuid))
        .bind(limit)
        .fetch_all(conn)
        .await
    })?;
    rows.into_iter().map(Row::record).collect()
}
