//! How things stand, for gauges and dashboards: cheap to ask, however large the shop is.

use sqlx::AssertSqlSafe;

use crate::actor::Actor;
use crate::db::{Tx, run};
use crate::error::Result;
use crate::jobs::known_kinds;
use crate::oms::Oms;
use crate::payments::{Attention, PaymentStatus};
use crate::time::Timestamp;

/// Counting stops here: what a look costs has a bound, and nobody needs to know whether it is a million or two.
const MOST: u32 = 100_000;

/// The connections of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// `postgres` and `routine` (placing orders, claiming jobs), or `writer` and `reader` on SQLite.
    pub pool: &'static str,
    /// How many there are.
    pub open: usize,
    /// How many of them nobody uses.
    pub idle: usize,
    /// How many there may be.
    pub most: usize,
}

/// The queue in which orders wait for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacementQueue {
    /// Orders in it.
    pub waiting: usize,
    /// How many it takes before callers are told to come back.
    pub capacity: usize,
}

/// What waits in the database. No count goes beyond 100 000.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// Jobs of every kind that this program knows, and of others that are there.
    pub jobs: Vec<JobFigures>,
    /// Since when the oldest job that is due waits for a worker.
    pub oldest_due: Option<Timestamp>,
    /// Payments of which money may still come, by every status that such a payment can have.
    pub open_payments: Vec<(&'static str, i64)>,
    /// Payments whose outcome is `unknown`, and those that are in `needs_review`.
    pub attention: Vec<(&'static str, i64)>,
    /// Unpaid orders that hold stock until they expire.
    pub awaiting_payment: i64,
}

/// Jobs of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFigures {
    /// The kind.
    pub kind: String,
    /// Wait for a worker.
    pub due: i64,
    /// Wait for their time.
    pub waiting: i64,
    /// Are with a worker.
    pub running: i64,
    /// Were given up.
    pub dead: i64,
}

impl Oms {
    /// How the connections to the database are used. Asks nobody.
    pub fn connections(&self) -> Vec<Connections> {
        self.db().connections()
    }

    /// How full the queue of orders is. Asks nobody.
    pub fn placement_queue(&self) -> PlacementQueue {
        let (waiting, capacity) = self.inner.placement.filled();
        PlacementQueue { waiting, capacity }
    }

    /// What waits in the database. For operators. It reads indexes and stops counting early, but ask every few seconds,
    /// not for each request.
    pub async fn backlog(&self, actor: &Actor) -> Result<Backlog> {
        actor.require_operator()?;
        let now = self.now();
        let mut tx = self.db().read().await?;
        let backlog = Backlog {
            jobs: jobs(&mut tx, now).await?,
            oldest_due: oldest_ready(&mut tx).await?.filter(|at| *at <= now),
            open_payments: open_payments(&mut tx).await?,
            attention: attention(&mut tx).await?,
            awaiting_payment: awaiting_payment(&mut tx).await?,
        };
        tx.rollback().await?;
        Ok(backlog)
    }
}

async fn jobs(tx: &mut Tx, now: Timestamp) -> Result<Vec<JobFigures>> {
    let sql = format!(
        "SELECT kind, state, COUNT(*) FROM (
             SELECT kind, CASE WHEN leased_until IS NOT NULL THEN 'running' WHEN run_at <= $1 THEN 'due'
                          ELSE 'waiting' END AS state
             FROM oms_job LIMIT {MOST}) live GROUP BY kind, state
         UNION ALL SELECT kind, 'dead', COUNT(*) FROM (SELECT kind FROM oms_job_dead LIMIT {MOST}) dead GROUP BY kind"
    );
    let rows: Vec<(String, String, i64)> = run!(tx, |conn| {
        sqlx::query_as(AssertSqlSafe(sql)).bind(now).fetch_all(conn).await
    })?;
    let none = |kind: &str| JobFigures {
        kind: kind.into(),
        due: 0,
        waiting: 0,
        running: 0,
        dead: 0,
    };
    let mut all: Vec<JobFigures> = known_kinds().map(none).collect();
    for (kind, state, count) in rows {
        let at = all.iter().position(|figures| figures.kind == kind);
        let at = at.unwrap_or_else(|| {
            all.push(none(&kind));
            all.len() - 1
        });
        match state.as_str() {
            "due" => all[at].due = count,
            "waiting" => all[at].waiting = count,
            "running" => all[at].running = count,
            _ => all[at].dead = count,
        }
    }
    Ok(all)
}

async fn oldest_ready(tx: &mut Tx) -> Result<Option<Timestamp>> {
    let rows: Option<(Timestamp,)> = run!(tx, |conn| {
        sqlx::query_as("SELECT run_at FROM oms_job WHERE leased_until IS NULL ORDER BY run_at, id LIMIT 1")
            .fetch_optional(conn)
            .await
    })?;
    Ok(rows.map(|(at,)| at))
}

async fn open_payments(tx: &mut Tx) -> Result<Vec<(&'static str, i64)>> {
    let sql = format!(
        "SELECT status, COUNT(*) FROM (SELECT status FROM oms_payment WHERE open LIMIT {MOST}) p GROUP BY status"
    );
    let rows: Vec<(String, i64)> = run!(tx, |conn| {
        sqlx::query_as(AssertSqlSafe(sql)).fetch_all(conn).await
    })?;
    Ok(with_zeros(PaymentStatus::ALL.map(PaymentStatus::as_str), &rows))
}

async fn attention(tx: &mut Tx) -> Result<Vec<(&'static str, i64)>> {
    let sql = format!(
        "SELECT attention, COUNT(*) FROM
             (SELECT attention FROM oms_payment WHERE attention IS NOT NULL LIMIT {MOST}) p GROUP BY attention"
    );
    let rows: Vec<(String, i64)> = run!(tx, |conn| {
        sqlx::query_as(AssertSqlSafe(sql)).fetch_all(conn).await
    })?;
    let kinds = [Attention::Unknown, Attention::NeedsReview(String::new())];
    Ok(with_zeros(kinds.each_ref().map(Attention::as_str), &rows))
}

async fn awaiting_payment(tx: &mut Tx) -> Result<i64> {
    let sql = format!(
        "SELECT COUNT(*) FROM (SELECT 1 AS one FROM oms_order
             WHERE state = 'awaiting_payment' AND expires_at IS NOT NULL LIMIT {MOST}) o"
    );
    let count = run!(tx, |conn| {
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(conn).await
    })?;
    Ok(count)
}

/// One entry for each name: a gauge that is left out would go on showing what it last had.
fn with_zeros<const N: usize>(names: [&'static str; N], rows: &[(String, i64)]) -> Vec<(&'static str, i64)> {
    let count = |name: &str| {
        rows.iter()
            .find(|(found, _)| found == name)
            .map_or(0, |(_, n)| *n)
    };
    names.map(|name| (name, count(name))).to_vec()
}
