use sqlx::types::Json;

use super::{Job, NewJob};
use crate::db::{Tx, run};
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::time::Timestamp;

/// Adds jobs in the caller's transaction. Ring the doorbell after the commit: `oms.ring()`.
pub(crate) async fn enqueue(tx: &mut Tx, now: Timestamp, jobs: &[NewJob]) -> Result<()> {
    for new in jobs {
        let (kind, payload) = split(&new.job)?;
        run!(tx, |conn| {
            sqlx::query(
                "INSERT INTO oms_job (id, kind, payload, unique_key, run_at, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            )
            .bind(JobId::new(now))
            .bind(kind)
            .bind(Json(payload))
            .bind(new.unique_key.as_deref())
            .bind(new.run_at)
            .bind(now)
            .execute(conn)
            .await
            .map(drop)
        })?;
    }
    Ok(())
}

/// The columns of a job: kind and payload.
fn split(job: &Job) -> Result<(String, serde_json::Value)> {
    let mut value = serde_json::to_value(job).map_err(|e| Error::Internal(format!("job: {e}")))?;
    match value["kind"].take() {
        serde_json::Value::String(kind) => Ok((kind, value["payload"].take())),
        _ => Err(Error::Internal("a job without a kind".into())),
    }
}
