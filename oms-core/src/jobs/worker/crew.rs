//! One run of a worker: what it holds, and its conversation with the database.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tracing::{Instrument, Span};

use super::{Outcome, Worker};
use crate::cause::JobStart;
use crate::error::Result;
use crate::id::JobId;
use crate::jobs::JobError;
use crate::jobs::exchange::{LEASE, beat, exchange, judge, rescue, tick};
use crate::jobs::rules::{Slots, fraction, random};
use crate::jobs::run::Finish;
use crate::jobs::store::{End, Running};
use crate::oms::Oms;
use crate::panics;
use crate::telemetry;
use crate::time::Timestamp;

const HEARTBEAT: Duration = Duration::from_secs(LEASE.as_secs() / 3);

/// A handler that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(5 * 60);

/// How long ends of runs may wait for each other, to share a commit.
const GATHER: Duration = Duration::from_millis(20);

/// How long an idle worker waits for the doorbell before it looks by itself.
const POLL: Duration = Duration::from_secs(1);

const AWAY_FIRST: Duration = Duration::from_millis(200);
const AWAY_LONGEST: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Serve,
    /// Ends when nothing is due.
    Drain,
    /// Claims nothing; ends when nothing is under way.
    Close,
}

/// A job under way.
struct Held {
    job: Arc<Running>,
    since: Instant,
    abort: AbortHandle,
    span: Span,
}

/// The state of one run of a worker. Dropping it aborts the jobs under way; their leases run out.
pub(super) struct Crew<'a> {
    worker: &'a Worker,
    pub(super) mode: Mode,
    /// Tells an operator who has a job.
    name: String,
    free: Slots,
    tasks: JoinSet<Outcome>,
    held: HashMap<Id, Held>,
    /// Not yet in the database.
    ended: Vec<(Running, End)>,
    pub(super) runs: usize,
    heartbeat: Interval,
    next_tick: Timestamp,
    next_rescue: Instant,
    away: Away,
}

impl<'a> Crew<'a> {
    pub(super) fn new(worker: &'a Worker, mode: Mode) -> Self {
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            worker,
            mode,
            name: format!("{}-{:016x}", std::process::id(), random()),
            free: worker.slots,
            tasks: JoinSet::new(),
            held: HashMap::new(),
            ended: Vec::new(),
            runs: 0,
            heartbeat,
            next_tick: Timestamp::from_micros(i64::MIN),
            next_rescue: Instant::now(),
            away: Away::default(),
        }
    }

    /// Until `stop`, or until the mode says that there is nothing left.
    pub(super) async fn work(&mut self, mut stop: Pin<&mut impl Future<Output = ()>>) -> Result<()> {
        let worker = self.worker;
        loop {
            // Listens before it looks: a job that is committed in between rings.
            let mut bell = pin!(worker.oms.inner.doorbell.notified());
            bell.as_mut().enable();
            let pause = match self.turn().await {
                Ok(more) => {
                    self.away.is_back();
                    if more {
                        Duration::ZERO
                    } else {
                        POLL / 2 + fraction(POLL, random())
                    }
                }
                Err(e) if self.mode == Mode::Drain => return Err(e),
                // Something that does not pass and that the operator of the program must see now.
                Err(e) if self.away.never_worked && !e.is_retryable() => return Err(e),
                Err(e) => self.away.note(&e),
            };
            let rest = self.tasks.is_empty() && self.ended.is_empty();
            if rest && self.mode != Mode::Serve {
                return Ok(());
            }
            if self.wait(pause, bell, stop.as_mut()).await {
                return Ok(());
            }
        }
    }

    /// One conversation with the database; whether more is due than was taken.
    async fn turn(&mut self) -> Result<bool> {
        let oms = &self.worker.oms;
        let claiming = self.mode != Mode::Close;
        if claiming && oms.now() >= self.next_tick {
            self.next_tick = tick(oms).await?;
        }
        if claiming && Instant::now() >= self.next_rescue {
            rescue(oms).await?;
            self.next_rescue = Instant::now() + HEARTBEAT;
        }
        let claim = exchange(oms, &self.name, &self.ended, claiming.then_some(self.free)).await?;
        self.ended.clear();
        for job in claim.jobs {
            self.start(job);
        }
        Ok(claim.more)
    }

    fn start(&mut self, job: Running) {
        let job = Arc::new(job);
        let (cause, span) = (job.cause(), span_of(&self.worker.oms, &job));
        let handler = (self.worker.handler)(self.worker.oms.clone(), job.clone());
        let run = async move {
            timeout(DEADLINE, handler)
                .await
                .unwrap_or_else(|_| Err(JobError::retry("took longer than five minutes")))
        };
        let abort = self.tasks.spawn(cause.scope(run).instrument(span.clone()));
        self.free.take(&job.kind);
        let held = Held {
            job,
            since: Instant::now(),
            abort: abort.clone(),
            span,
        };
        self.held.insert(abort.id(), held);
    }

    /// Waits for a reason to talk to the database; true when it is the stop.
    async fn wait(
        &mut self,
        pause: Duration,
        mut bell: Pin<&mut Notified<'_>>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> bool {
        // While the database is away only the pause ends the wait: what ended is kept until then.
        let away = self.away.since.is_some();
        let mut poll = pin!(sleep(pause));
        let worker = self.worker;
        let mut elsewhere = pin!(worker.oms.rung_elsewhere());
        let mut gathered = None;
        loop {
            let open = self.mode != Mode::Close && self.free.count() > 0;
            tokio::select! {
                // In this order: after the stop nothing is claimed, and no flood of ends holds up a heartbeat.
                biased;
                () = stop.as_mut() => return true,
                _ = self.heartbeat.tick() => self.beat().await,
                () = sleep_until(gathered.unwrap_or_else(Instant::now)), if gathered.is_some() => return false,
                Some(joined) = self.tasks.join_next_with_id() => {
                    self.note(joined);
                    if away {
                        continue;
                    }
                    // The others are far from done, or enough has come together.
                    if self.tasks.is_empty() || self.ended.len() > self.tasks.len() {
                        return false;
                    }
                    gathered.get_or_insert_with(|| Instant::now() + GATHER);
                }
                () = bell.as_mut(), if open && !away => return false,
                // Asked for by those alone who could take a job: a ring that a busy worker hears wakes nobody else.
                () = elsewhere.as_mut(), if open && !away => return false,
                () = poll.as_mut(), if open || away => return false,
            }
        }
    }

    /// A run ended, by itself, by a panic or because it was aborted.
    fn note(&mut self, joined: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = match joined {
            Ok((id, outcome)) => (id, Some(outcome)),
            Err(e) => (
                e.id(),
                e.try_into_panic().ok().map(|panic| Err(panicked(&*panic))),
            ),
        };
        let Some(Held { job, since, span, .. }) = self.held.remove(&id) else {
            return;
        };
        let _in_its_span = span.enter();
        let took = since.elapsed();
        self.free.free(&job.kind);
        self.runs += 1;
        let now = self.worker.oms.now();
        let end = match outcome {
            Some(Ok(Finish::Finished)) => {
                telemetry::job_ended(&job.kind, "done", took);
                return;
            }
            Some(Ok(Finish::Open)) => End::Done,
            Some(Err(error)) => judge(&job.kind, job.attempt, error, now, random()),
            // Aborted: it is no fault of the job.
            None => End::Later {
                at: now,
                counts: false,
                error: None,
            },
        };
        log(&job, &end);
        telemetry::job_ended(&job.kind, outcome_of(&end), took);
        self.ended.push((Running::clone(&job), end));
    }

    /// Keeps the leases of what is under way. Runs whose lease is lost are aborted: another worker has the job.
    async fn beat(&mut self) {
        // A handler past its deadline blocks its thread; others may have its job.
        let alive = |held: &&Held| held.since.elapsed() < DEADLINE + HEARTBEAT;
        let held: Vec<(JobId, i64)> = self
            .held
            .values()
            .filter(alive)
            .map(|held| (held.job.id, held.job.lease))
            .collect();
        if held.is_empty() {
            return;
        }
        match beat(&self.worker.oms, &held).await {
            Ok(ours) => {
                for lost in self.held.values().filter(|held| !ours.contains(&held.job.id)) {
                    lost.abort.abort();
                }
            }
            // The next turn fails too, and says so.
            Err(error) => tracing::debug!(%error, "the leases of jobs were not prolonged"),
        }
    }

    /// Ends what did not end by itself.
    pub(super) async fn give_back(&mut self) -> Result<()> {
        self.tasks.abort_all();
        // A handler that blocks its thread cannot be aborted. Its lease runs out instead.
        let aborted = async {
            while let Some(joined) = self.tasks.join_next_with_id().await {
                self.note(joined);
            }
        };
        if timeout(POLL, aborted).await.is_err() {
            tracing::warn!("a job blocks its thread and could not be given back");
        }
        if !self.ended.is_empty() {
            exchange(&self.worker.oms, &self.name, &self.ended, None).await?;
            // Others may take them at once.
            self.worker.oms.ring();
        }
        Ok(())
    }
}

/// What everything that a job does stands in. It carries the id of the request that brought the job about.
fn span_of(oms: &Oms, job: &Running) -> Span {
    let start = JobStart {
        id: job.id,
        kind: &job.kind,
        attempt: job.attempt,
        cause: &job.cause(),
    };
    match oms.inner.job_span {
        Some(make) => make(start),
        None => start.span(),
    }
}

/// As the counters name it.
fn outcome_of(end: &End) -> &'static str {
    match end {
        End::Done => "done",
        End::Later { error: Some(_), .. } => "retried",
        End::Later { counts: false, .. } => "given_back",
        End::Later { .. } => "retried",
        End::Dead(_) => "dead",
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> JobError {
    JobError::retry(format!("panicked: {}", panics::text(panic)))
}

fn log(job: &Running, end: &End) {
    // Its span names the job; where a log is set to show no spans, its lines still do.
    let Running {
        id, kind, attempt, ..
    } = job;
    match end {
        End::Later {
            error: Some(error),
            at,
            ..
        } => {
            tracing::warn!(job.id = %id, job.kind = kind, attempt, error, next = %at, "a job failed and will be tried again");
        }
        End::Dead(error) => {
            tracing::error!(job.id = %id, job.kind = kind, attempt, error, "a job failed for good");
        }
        End::Done | End::Later { .. } => {
            tracing::debug!(job.id = %id, job.kind = kind, attempt, "a job ended");
        }
    }
}

/// A database that does not answer: said once when it goes and once when it is back.
struct Away {
    never_worked: bool,
    since: Option<Instant>,
    pause: Duration,
}

impl Default for Away {
    fn default() -> Self {
        Self {
            never_worked: true,
            since: None,
            pause: AWAY_FIRST,
        }
    }
}

impl Away {
    fn note(&mut self, error: &crate::Error) -> Duration {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::error!(%error, "the worker cannot use the database and waits for it");
        }
        let pause = self.pause / 2 + fraction(self.pause / 2, random());
        self.pause = (self.pause * 2).min(AWAY_LONGEST);
        pause
    }

    fn is_back(&mut self) {
        if let Some(since) = self.since {
            let seconds = since.elapsed().as_secs();
            tracing::info!(seconds, "the worker can use the database again");
        }
        *self = Self {
            never_worked: false,
            ..Self::default()
        };
    }
}
