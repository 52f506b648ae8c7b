//! What an operator sees of the queue and does about it.

use std::fmt;
use std::str::FromStr;

use crate::actor::Actor;
use crate::db::{Tx, run};
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::oms::Oms;
use crate::page::{Page, PageRequest};
use crate::time::Timestamp;

/// The queue, as operators see it: [`Oms::jobs`].
#[derive(Clone, Copy)]
pub struct Jobs<'a> {
    oms: &'a Oms,
}

impl Oms {
    /// The queue of background jobs.
    pub fn jobs(&self) -> Jobs<'_> {
        Jobs { oms: self }
    }
}

/// Where a job stands. Jobs that are done are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Waits for its time or for a worker.
    Ready,
    /// A worker has it.
    Running,
    /// Given up.
    Dead,
}

impl JobState {
    /// In the spelling of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for JobState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Ready, Self::Running, Self::Dead]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| Error::invalid("/state", "must be ready, running or dead"))
    }
}

/// Which jobs to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFilter {
    /// Jobs in this state.
    pub state: JobState,
    /// Of this kind only, such as `send_email`.
    pub kind: Option<String>,
}

/// A job. It holds ids, never a secret or a person's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// What it does.
    pub kind: String,
    /// Where it stands.
    pub state: JobState,
    /// To what it does it, as JSON.
    pub payload: String,
    /// Attempts so far, the one under way included.
    pub attempt: i64,
    /// What the last failed attempt said.
    pub last_error: Option<String>,
    /// The worker that has it.
    pub worker: Option<String>,
    /// When it may run or did; when it died if it is dead.
    pub at: Timestamp,
    /// When it was enqueued.
    pub created_at: Timestamp,
}

/// How many jobs there are of one kind in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobCount {
    /// The kind.
    pub kind: String,
    /// The state.
    pub state: JobState,
    /// How many.
    pub count: i64,
    /// The earliest [`JobView::at`] among them: when it is long past, the queue is behind.
    pub oldest: Timestamp,
}

impl Jobs<'_> {
    /// Lists jobs, the newest first. For operators.
    pub async fn list(&self, actor: &Actor, filter: &JobFilter, page: &PageRequest) -> Result<Page<JobView>> {
        actor.require_operator()?;
        let (limit, after) = (page.limit()?, page.after::<JobId>()?);
        let mut tx = self.oms.db().read().await?;
        let rows = select(&mut tx, filter, after, limit + 1).await?;
        tx.rollback().await?;
        let rows = rows.into_iter().map(|row| row.view(filter.state)).collect();
        Ok(Page::cut(rows, limit, |job: &JobView| job.id))
    }

    /// How many jobs there are, by kind and state. For operators.
    pub async fn counts(&self, actor: &Actor) -> Result<Vec<JobCount>> {
        actor.require_operator()?;
        let mut tx = self.oms.db().read().await?;
        let rows = count(&mut tx).await?;
        tx.rollback().await?;
        rows.into_iter()
            .map(|(kind, state, count, oldest)| {
                Ok(JobCount {
                    kind,
                    state: state.parse()?,
                    count,
                    oldest,
                })
            })
            .collect()
    }

    /// Gives a dead job all its attempts anew. For operators. `Duplicate` when a job that may live only once was
    /// enqueued again in the meantime.
    pub async fn retry(&self, actor: &Actor, id: JobId) -> Result<()> {
        actor.require_operator()?;
        let mut tx = self.oms.db().write().await?;
        let revived = revive(&mut tx, id, self.oms.now()).await?;
        if !bury(&mut tx, id).await? {
            return Err(Error::NotFound("dead job"));
        }
        if !revived {
            return Err(Error::Duplicate("job"));
        }
        tx.commit().await?;
        self.oms.ring();
        Ok(())
    }

    /// Deletes a dead job for good. For operators.
    pub async fn discard(&self, actor: &Actor, id: JobId) -> Result<()> {
        actor.require_operator()?;
        let mut tx = self.oms.db().write().await?;
        if !bury(&mut tx, id).await? {
            return Err(Error::NotFound("dead job"));
        }
        tx.commit().await
    }

    /// Wakes an idle worker of this process, for when another process has enqueued jobs. It is a hint: workers look
    /// by themselves every second or so.
    pub fn wake(&self) {
        self.oms.ring();
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: JobId,
    kind: String,
    payload: String,
    attempt: i64,
    last_error: Option<String>,
    worker: Option<String>,
    at: Timestamp,
    created_at: Timestamp,
}

impl Row {
    fn view(self, state: JobState) -> JobView {
        JobView {
            id: self.id,
            kind: self.kind,
            state,
            payload: self.payload,
            attempt: self.attempt,
            last_error: self.last_error,
            worker: self.worker,
            at: self.at,
            created_at: self.created_at,
        }
    }
}

async fn select(tx: &mut Tx, filter: &JobFilter, after: Option<JobId>, limit: i64) -> Result<Vec<Row>> {
    const LIVE: &str =
        "SELECT id, kind, CAST(payload AS TEXT) AS payload, attempt, last_error, worker, run_at AS at,
            created_at FROM oms_job WHERE ";
    const DEAD: &str =
        "SELECT id, kind, CAST(payload AS TEXT) AS payload, attempt, last_error, NULL AS worker,
            died_at AS at, created_at FROM oms_job_dead WHERE 1 = 1";
    let rows = run!(tx, |conn| {
        let mut query = sqlx::QueryBuilder::new(match filter.state {
            JobState::Ready | JobState::Running => LIVE,
            JobState::Dead => DEAD,
        });
        match filter.state {
            JobState::Ready => query.push("leased_until IS NULL"),
            JobState::Running => query.push("leased_until IS NOT NULL"),
            JobState::Dead => &mut query,
        };
        if let Some(kind) = &filter.kind {
            query.push(" AND kind = ").push_bind(kind);
        }
        if let Some(after) = after {
            query.push(" AND id < ").push_bind(after);
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
        query.build_query_as().fetch_all(conn).await
    })?;
    Ok(rows)
}

async fn count(tx: &mut Tx) -> Result<Vec<(String, String, i64, Timestamp)>> {
    let rows = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT kind, CASE WHEN leased_until IS NULL THEN 'ready' ELSE 'running' END, COUNT(*), MIN(run_at)
             FROM oms_job GROUP BY 1, 2
             UNION ALL SELECT kind, 'dead', COUNT(*), MIN(died_at) FROM oms_job_dead GROUP BY 1, 2
             ORDER BY 1, 2",
        )
        .fetch_all(conn)
        .await
    })?;
    Ok(rows)
}

/// Copies a dead job to the live ones; false when it is not there or its unique key is taken.
async fn revive(tx: &mut Tx, id: JobId, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, |conn| {
        sqlx::query(
            "INSERT INTO oms_job
                 (id, kind, payload, unique_key, run_at, last_error, created_at, request_id, traceparent)
             SELECT id, kind, payload, unique_key, $2, last_error, created_at, request_id, traceparent
             FROM oms_job_dead WHERE id = $1
             ON CONFLICT DO NOTHING",
        )
        .bind(id)
        .bind(now)
        .execute(conn)
        .await
        .map(|done| done.rows_affected())
    })?;
    Ok(rows == 1)
}

/// Deletes a dead job; whether it was there.
async fn bury(tx: &mut Tx, id: JobId) -> Result<bool> {
    let rows = run!(tx, |conn| {
        sqlx::query("DELETE FROM oms_job_dead WHERE id = $1")
            .bind(id)
            .execute(conn)
            .await
            .map(|done| done.rows_affected())
    })?;
    Ok(rows == 1)
}
