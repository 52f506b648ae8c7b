//! The worker's side of the queue: what it tells the database and what it gets in return.

use std::time::Duration;

use super::rules::{Slots, random, retry_in, storable};
use super::store::{self, End, Running};
use super::{JobError, NewJob, schedule};
use crate::db::Tx;
use crate::error::Result;
use crate::id::JobId;
use crate::oms::Oms;
use crate::time::Timestamp;

/// How long a claimed job stays ours without a heartbeat.
pub(super) const LEASE: Duration = Duration::from_secs(60);

/// The shortest wait that [`JobError::Again`] can ask for, so that a job cannot spin.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// Lost runs that one transaction takes on.
const RESCUE_BATCH: i64 = 100;

/// Jobs to run.
pub(super) struct Claim {
    pub(super) jobs: Vec<Running>,
    /// There may be more that are due.
    pub(super) more: bool,
}

/// Puts down how runs ended and claims as many jobs as there are free slots, in one commit.
pub(super) async fn exchange(
    oms: &Oms,
    worker: &str,
    ended: &[(Running, End)],
    free: Option<Slots>,
) -> Result<Claim> {
    let now = oms.now();
    let mut tx = oms.db().routine().await?;
    let ended: Vec<_> = ended
        .iter()
        .map(|(job, end)| ((job.id, job.lease), end))
        .collect();
    settle(&mut tx, &ended, now).await?;
    let claim = match free {
        Some(free) => claim(&mut tx, worker, free, now).await?,
        None => Claim {
            jobs: Vec::new(),
            more: false,
        },
    };
    tx.commit().await?;
    Ok(claim)
}

async fn claim(tx: &mut Tx, worker: &str, mut free: Slots, now: Timestamp) -> Result<Claim> {
    let (kinds, wanted) = (free.kinds(), free.count());
    if wanted == 0 {
        return Ok(Claim {
            jobs: Vec::new(),
            more: false,
        });
    }
    let due = store::due(tx, now, &kinds, i64::try_from(wanted).unwrap_or(i64::MAX)).await?;
    // With less, each kind has either given all it had or filled its lane.
    let more = due.len() == wanted;
    // Kinds that share a lane may have more together than fits: it stays for the next claim.
    let ids: Vec<JobId> = due
        .into_iter()
        .filter(|(_, kind)| free.take(kind))
        .map(|(id, _)| id)
        .collect();
    if ids.is_empty() {
        return Ok(Claim {
            jobs: Vec::new(),
            more: false,
        });
    }
    let mut jobs = store::lease(tx, worker, now, now + LEASE, &ids).await?;
    // The order in which RETURNING gives rows is not defined.
    jobs.sort_by_key(|job| ids.iter().position(|id| *id == job.id));
    Ok(Claim { jobs, more })
}

/// Prolongs leases in one statement; which of them are still ours.
pub(super) async fn beat(oms: &Oms, held: &[(JobId, i64)]) -> Result<Vec<JobId>> {
    let now = oms.now();
    let mut tx = oms.db().routine().await?;
    let ours = store::heartbeat(&mut tx, now, now + LEASE, held).await?;
    tx.commit().await?;
    Ok(ours)
}

/// Takes jobs back from workers that vanished. The run counts as a failed attempt: it may be what killed them.
pub(super) async fn rescue(oms: &Oms) -> Result<()> {
    loop {
        let now = oms.now();
        let mut tx = oms.db().routine().await?;
        let lost = store::lost(&mut tx, now, RESCUE_BATCH).await?;
        let ends: Vec<_> = lost
            .iter()
            .map(|run| {
                let why = JobError::retry("the worker that ran it vanished");
                (
                    (run.id, run.lease),
                    judge(&run.kind, run.attempt, why, now, random()),
                )
            })
            .collect();
        let refs: Vec<_> = ends.iter().map(|(run, end)| (*run, end)).collect();
        settle(&mut tx, &refs, now).await?;
        tx.commit().await?;
        if !lost.is_empty() {
            tracing::warn!(jobs = lost.len(), "took jobs back from a worker that vanished");
        }
        if i64::try_from(lost.len()).unwrap_or(0) < RESCUE_BATCH {
            return Ok(());
        }
    }
}

/// Enqueues the periodic jobs that are due, each once however many workers try; when the next one will be.
pub(super) async fn tick(oms: &Oms) -> Result<Timestamp> {
    let now = oms.now();
    let mut tx = oms.db().write().await?;
    let stored = store::schedules(&mut tx).await?;
    let mut soonest = Timestamp::from_micros(i64::MAX);
    for (kind, period, job) in schedule::PERIODIC {
        let from = stored.iter().find(|(name, _)| name == kind).map(|(_, at)| *at);
        let mut next = schedule::next(from, now, period);
        if next.is_none() {
            // What was missed while no worker ran is made up for once.
            let to = now + period;
            if store::advance(&mut tx, kind, from, to).await? {
                store::enqueue(&mut tx, now, &[NewJob::at(now, job).unique("periodic")]).await?;
            }
            next = Some(to);
        }
        soonest = soonest.min(next.unwrap_or(now));
    }
    tx.commit().await?;
    Ok(soonest)
}

/// What becomes of a run that failed.
pub(super) fn judge(kind: &str, attempt: i64, error: JobError, now: Timestamp, random: u64) -> End {
    match error {
        JobError::Retry(why) => match retry_in(kind, attempt, random) {
            Some(delay) => End::Later {
                at: now + delay,
                counts: true,
                error: Some(storable(&why)),
            },
            None => End::Dead(storable(&why)),
        },
        JobError::Again(at) => End::Later {
            at: at.max(now + SHORTEST_WAIT),
            counts: false,
            error: None,
        },
        JobError::Fail(why) => End::Dead(storable(&why)),
    }
}

/// Puts down how runs ended, all deletions in one statement. Those that are no longer ours are left alone.
async fn settle(tx: &mut Tx, ended: &[((JobId, i64), &End)], now: Timestamp) -> Result<()> {
    let mut ours = 0;
    let done: Vec<_> = ended
        .iter()
        .filter(|(_, end)| **end == End::Done)
        .map(|(run, _)| *run)
        .collect();
    if !done.is_empty() {
        ours += store::end_done(tx, &done).await?;
    }
    for (run, end) in ended {
        ours += u64::from(match end {
            End::Done => false,
            End::Later { at, counts, error } => {
                store::end_later(tx, *run, *at, *counts, error.as_deref()).await?
            }
            End::Dead(error) => store::end_dead(tx, *run, error, now).await?,
        });
    }
    let stale = (ended.len() as u64).saturating_sub(ours);
    if stale > 0 {
        tracing::info!(
            jobs = stale,
            "ends of runs came too late: other workers hold the jobs"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        let now = Timestamp::from_millis(1_000_000);
        let ended = |attempt, error| judge("send_email", attempt, error, now, u64::MAX);
        let later = |at, counts, error: Option<&str>| End::Later {
            at,
            counts,
            error: error.map(Into::into),
        };
        let five = now + Duration::from_secs(5);
        assert_eq!(ended(1, JobError::retry("x")), later(five, true, Some("x")));
        assert_eq!(ended(12, JobError::retry("x")), End::Dead("x".into()));
        assert_eq!(ended(1, JobError::fail("x")), End::Dead("x".into()));
        assert_eq!(ended(12, JobError::Again(five)), later(five, false, None));
        let soon = now + SHORTEST_WAIT;
        assert_eq!(ended(1, JobError::Again(now)), later(soon, false, None));
    }
}
