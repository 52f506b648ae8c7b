//! The SQL of the queue. A job is ready when `leased_until` is null and running otherwise; its `lease` rises at each
//! claim. Whatever ends a run names the lease it ran under, so a worker that was asleep changes nothing.
//!
//! A worker's own statements run in [`Db::routine`](crate::db::Db::routine). A queue is empty when it is analysed and
//! long when it matters: elsewhere plans from then read and sort all of it for sixteen jobs (230 ms with a hundred
//! thousand).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sqlx::AssertSqlSafe;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Job, JobError, NewJob};
use crate::cause::Cause;
use crate::db::{Tx, run};
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::time::Timestamp;

/// Rows of one INSERT: eight values each stay far below what a statement may carry.
const INSERT_ROWS: usize = 500;

/// A job that this process runs, under the lease it got when it claimed it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Running {
    pub(crate) id: JobId,
    pub(crate) kind: String,
    pub(super) payload: String,
    /// This one included.
    pub(crate) attempt: i64,
    pub(crate) lease: i64,
    pub(super) request_id: Option<String>,
    pub(super) traceparent: Option<String>,
}

impl Running {
    /// Who brought it about.
    pub(super) fn cause(&self) -> Cause {
        Cause {
            request_id: self.request_id.clone(),
            traceparent: self.traceparent.clone(),
        }
    }

    /// What is to be done. A payload that cannot be read may come from a newer program: it is tried again.
    pub(crate) fn job(&self) -> Result<Job, JobError> {
        let unreadable = |e: serde_json::Error| JobError::retry(format!("unreadable payload: {e}"));
        let payload: serde_json::Value = serde_json::from_str(&self.payload).map_err(unreadable)?;
        serde_json::from_value(serde_json::json!({ "kind": self.kind, "payload": payload }))
            .map_err(unreadable)
    }
}

/// What becomes of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Done,
    /// Ready again at this time. An attempt that does not count is given back.
    Later {
        at: Timestamp,
        counts: bool,
        error: Option<String>,
    },
    /// To the dead letters.
    Dead(String),
}

/// A run whose lease ran out: its worker died or lost the database.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Lost {
    pub(super) id: JobId,
    pub(super) kind: String,
    pub(super) attempt: i64,
    pub(super) lease: i64,
}

/// Adds jobs in the caller's transaction. Ring the doorbell after the commit: `oms.ring()`.
pub(crate) async fn enqueue(tx: &mut Tx, now: Timestamp, jobs: &[NewJob]) -> Result<()> {
    let cause = Cause::current();
    let (request_id, traceparent) = cause.columns();
    let mut sorted: Vec<&NewJob> = jobs.iter().collect();
    // Two transactions that add the same unique jobs meet at the first of them, and cannot wait for each other.
    sorted.sort_by(|a, b| a.unique_key.cmp(&b.unique_key));
    for chunk in sorted.chunks(INSERT_ROWS) {
        let rows = chunk
            .iter()
            .map(|new| split(&new.job))
            .collect::<Result<Vec<_>>>()?;
        let sql = format!(
            "INSERT INTO oms_job (id, kind, payload, unique_key, run_at, created_at, request_id, traceparent)
             VALUES {} ON CONFLICT DO NOTHING",
            tuples(1, 8, rows.len())
        );
        run!(tx, |conn| {
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for (new, (kind, payload)) in chunk.iter().zip(rows) {
                query = query
                    .bind(JobId::new(now))
                    .bind(kind)
                    .bind(Json(payload))
                    .bind(new.unique_key.as_deref())
                    .bind(new.run_at)
                    .bind(now)
                    .bind(request_id)
                    .bind(traceparent);
            }
            query.execute(conn).await.map(drop)
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

/// Finishes a job in the transaction of its effect, so that both happen exactly once. An error when another worker
/// holds the job by now: the caller rolls back and leaves the effect to it.
pub(crate) async fn finish_in(tx: &mut Tx, job: &Running) -> Result<()> {
    match end_done(tx, &[(job.id, job.lease)]).await? {
        1 => Ok(()),
        _ => Err(Error::InvalidState {
            what: "job",
            state: "not ours".into(),
            detail: "its lease ran out and another worker has it",
        }),
    }
}

/// The jobs that are due, the oldest first, of each of these kinds no more than stands beside it (there is at least
/// one kind). They are locked until the transaction ends; those that another worker is claiming now are skipped.
pub(super) async fn due(
    tx: &mut Tx,
    now: Timestamp,
    kinds: &[(&'static str, i64)],
    limit: i64,
) -> Result<Vec<(JobId, String)>> {
    let sql = due_sql(tx, kinds.len());
    let rows: Vec<(JobId, String, Timestamp)> = run!(tx, |conn| {
        let mut query = sqlx::query_as(AssertSqlSafe(sql)).bind(now).bind(limit);
        for (kind, most) in kinds {
            query = query.bind(*kind).bind(*most);
        }
        query.fetch_all(conn).await
    })?;
    Ok(rows.into_iter().map(|(id, kind, _)| (id, kind)).collect())
}

/// Walks the index `oms_job_ready` from the oldest entry of each kind: however many jobs of a kind are due, no more are
/// read than may be taken. One walk for all kinds would read every job of a kind that has no slot free.
pub(super) fn due_sql(tx: &Tx, kinds: usize) -> String {
    // SQLite has one writer, so nobody else can have the rows locked.
    let lock = tx.pick("", "FOR UPDATE SKIP LOCKED");
    let of_each: Vec<String> = (0..kinds)
        .map(|n| {
            let (kind, most) = (3 + 2 * n, 4 + 2 * n);
            // PostgreSQL locks rows below a UNION in a subquery only.
            format!(
                "SELECT * FROM (SELECT id, kind, run_at FROM oms_job
                                WHERE leased_until IS NULL AND kind = ${kind} AND run_at <= $1
                                ORDER BY run_at, id LIMIT ${most} {lock}) AS of_kind_{n}"
            )
        })
        .collect();
    format!("{} ORDER BY run_at, id LIMIT $2", of_each.join(" UNION ALL "))
}

/// Leases jobs that [`due`] has locked.
pub(super) async fn lease(
    tx: &mut Tx,
    worker: &str,
    now: Timestamp,
    until: Timestamp,
    ids: &[JobId],
) -> Result<Vec<Running>> {
    let sql = lease_sql(tx);
    let ids: Vec<_> = ids.iter().map(|id| id.uuid().simple()).collect();
    let rows = run!(tx, |conn| {
        sqlx::query_as(AssertSqlSafe(sql))
            .bind(now)
            .bind(until)
            .bind(worker)
            .bind(Json(ids))
            .fetch_all(conn)
            .await
    })?;
    Ok(rows)
}

pub(super) fn lease_sql(tx: &Tx) -> String {
    // An array that is made once is looked up in the index; what stands in FROM or IN could be the inner side of a walk
    // over all jobs.
    let among = tx.pick(
        "IN (SELECT unhex(value) FROM json_each($4))",
        "= ANY(ARRAY(SELECT value::uuid FROM jsonb_array_elements_text($4)))",
    );
    format!(
        "UPDATE oms_job SET attempt = attempt + 1, lease = lease + 1, worker = $3,
                leased_until = {} + ($2 - $1)
         WHERE id {among}
         RETURNING id, kind, CAST(payload AS TEXT) AS payload, attempt, lease, request_id, traceparent",
        clock(tx),
    )
}

/// Prolongs leases and says which are still held.
pub(super) async fn heartbeat(
    tx: &mut Tx,
    now: Timestamp,
    until: Timestamp,
    held: &[(JobId, i64)],
) -> Result<Vec<JobId>> {
    let sql = heartbeat_sql(tx);
    let rows = run!(tx, |conn| {
        sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(now)
            .bind(until)
            .bind(runs(held))
            .fetch_all(conn)
            .await
    })?;
    Ok(rows)
}

pub(super) fn heartbeat_sql(tx: &Tx) -> String {
    format!(
        "UPDATE oms_job SET leased_until = {} + ($2 - $1) WHERE {} RETURNING id",
        clock(tx),
        under_leases(tx, 3)
    )
}

/// Runs whose lease ran out, locked until the transaction ends.
pub(super) async fn lost(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<Lost>> {
    let sql = lost_sql(tx);
    let rows = run!(tx, |conn| {
        sqlx::query_as(sql).bind(now).bind(limit).fetch_all(conn).await
    })?;
    Ok(rows)
}

pub(super) fn lost_sql(tx: &Tx) -> &'static str {
    // PostgreSQL has its own clock for all machines; `$1` is named so that both texts take the same arguments.
    // It is now() here, which an index can be searched for: clock_timestamp() may change from row to row.
    tx.pick(
        "SELECT id, kind, attempt, lease FROM oms_job WHERE leased_until < $1
         ORDER BY leased_until LIMIT $2",
        "SELECT id, kind, attempt, lease FROM oms_job WHERE leased_until < now() AND $1 IS NOT NULL
         ORDER BY leased_until LIMIT $2 FOR UPDATE SKIP LOCKED",
    )
}

/// Deletes jobs that are done; how many were still ours.
pub(super) async fn end_done(tx: &mut Tx, done: &[(JobId, i64)]) -> Result<u64> {
    let sql = done_sql(tx);
    let rows = run!(tx, |conn| {
        let delete = sqlx::query(AssertSqlSafe(sql)).bind(runs(done));
        delete.execute(conn).await.map(|done| done.rows_affected())
    })?;
    Ok(rows)
}

pub(super) fn done_sql(tx: &Tx) -> String {
    format!("DELETE FROM oms_job WHERE {}", under_leases(tx, 1))
}

/// Makes a job ready again; whether it was still ours.
pub(super) async fn end_later(
    tx: &mut Tx,
    (id, lease): (JobId, i64),
    at: Timestamp,
    counts: bool,
    error: Option<&str>,
) -> Result<bool> {
    let rows = run!(tx, |conn| {
        sqlx::query(
            "UPDATE oms_job SET leased_until = NULL, worker = NULL, run_at = $3, attempt = attempt - $4,
                    last_error = COALESCE($5, last_error)
             WHERE id = $1 AND lease = $2 AND leased_until IS NOT NULL",
        )
        .bind(id)
        .bind(lease)
        .bind(at)
        .bind(i64::from(!counts))
        .bind(error)
        .execute(conn)
        .await
        .map(|done| done.rows_affected())
    })?;
    Ok(rows == 1)
}

/// Moves a job to the dead letters; whether it was still ours.
pub(super) async fn end_dead(
    tx: &mut Tx,
    (id, lease): (JobId, i64),
    error: &str,
    now: Timestamp,
) -> Result<bool> {
    let rows = run!(tx, |conn| {
        sqlx::query(
            "INSERT INTO oms_job_dead
                 (id, kind, payload, unique_key, attempt, last_error, created_at, died_at, request_id, traceparent)
             SELECT id, kind, payload, unique_key, attempt, $3, created_at, $4, request_id, traceparent
             FROM oms_job
             WHERE id = $1 AND lease = $2 AND leased_until IS NOT NULL",
        )
        .bind(id)
        .bind(lease)
        .bind(error)
        .bind(now)
        .execute(conn)
        .await
        .map(|done| done.rows_affected())
    })?;
    if rows == 1 {
        end_done(tx, &[(id, lease)]).await?;
    }
    Ok(rows == 1)
}

/// When each schedule runs next.
pub(super) async fn schedules(tx: &mut Tx) -> Result<Vec<(String, Timestamp)>> {
    let rows = run!(tx, |conn| {
        sqlx::query_as("SELECT name, next_run FROM oms_schedule")
            .fetch_all(conn)
            .await
    })?;
    Ok(rows)
}

/// Moves a schedule on from `from` (none: it was not there); whether nobody else did.
pub(super) async fn advance(tx: &mut Tx, name: &str, from: Option<Timestamp>, to: Timestamp) -> Result<bool> {
    let rows = run!(tx, |conn| {
        match from {
            None => sqlx::query(
                "INSERT INTO oms_schedule (name, next_run) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            )
            .bind(name)
            .bind(to),
            Some(from) => {
                sqlx::query("UPDATE oms_schedule SET next_run = $2 WHERE name = $1 AND next_run = $3")
                    .bind(name)
                    .bind(to)
                    .bind(from)
            }
        }
        .execute(conn)
        .await
        .map(|done| done.rows_affected())
    })?;
    Ok(rows == 1)
}

/// The clock of leases. Workers on several machines agree on PostgreSQL's; on SQLite there is one machine, and `$1`
/// is bound to the program's.
fn clock(tx: &Tx) -> &'static str {
    tx.pick("$1", "clock_timestamp()")
}

/// The jobs of [`runs`], which are bound as this parameter, that still run under these leases. One value makes one text
/// for any number of jobs, which is parsed and planned once.
fn under_leases(tx: &Tx, parameter: u8) -> String {
    // As in `lease_sql`. The lease is looked up in the value itself, for each row that was found.
    let these = tx.pick(
        "(id, lease) IN (SELECT unhex(key, '-'), value FROM json_each($n))",
        "id = ANY(ARRAY(SELECT id::uuid FROM jsonb_object_keys($n) AS id)) AND lease = ($n ->> id::text)::bigint",
    );
    format!(
        "leased_until IS NOT NULL AND {}",
        these.replace("$n", &format!("${parameter}"))
    )
}

/// Runs as one value: the lease of each job. Of two runs of a job only the later one can still hold it.
fn runs(held: &[(JobId, i64)]) -> Json<BTreeMap<Uuid, i64>> {
    let mut leases = BTreeMap::new();
    for (id, lease) in held {
        let latest = leases.entry(id.uuid()).or_insert(*lease);
        *latest = (*latest).max(*lease);
    }
    Json(leases)
}

/// `($3, $4), ($5, $6)`: so many tuples so wide, numbered from `first`.
fn tuples(first: usize, width: usize, count: usize) -> String {
    let mut text = String::new();
    for at in 0..width * count {
        let before = match (at, at % width) {
            (0, _) => "(",
            (_, 0) => "), (",
            _ => ", ",
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "{before}${}", first + at);
    }
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders() {
        assert_eq!(tuples(1, 1, 1), "($1)");
        assert_eq!(tuples(3, 3, 1), "($3, $4, $5)");
        assert_eq!(tuples(3, 2, 2), "($3, $4), ($5, $6)");
    }
}
