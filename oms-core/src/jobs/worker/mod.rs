//! The worker: claims jobs, runs them side by side, and tells the database how they ended.

mod crew;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::JobError;
use super::rules::Slots;
use super::run::{Finish, run};
use super::store::Running;
use crate::error::Result;
use crate::oms::Oms;
use crew::{Crew, Mode};

type Outcome = Result<Finish, JobError>;
type Handler = Arc<dyn Fn(Oms, Arc<Running>) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// Runs background jobs. Any number of workers, in any number of processes, may share a database.
///
/// Each job runs at least once: a process that dies in the middle leaves its jobs to the others, which take them over
/// within about a minute.
#[must_use = "a worker does nothing until it is run"]
pub struct Worker {
    oms: Oms,
    slots: Slots,
    grace: Duration,
    handler: Handler,
}

impl Oms {
    /// A worker for this database; see [`Worker::run`] and [`Worker::drain`].
    pub fn worker(&self) -> Worker {
        Worker::new(self, Arc::new(|oms, job| Box::pin(run(oms, job))))
    }
}

impl Worker {
    pub(super) fn new(oms: &Oms, handler: Handler) -> Self {
        Self {
            oms: oms.clone(),
            slots: Slots::share(16),
            grace: Duration::from_secs(25),
            handler,
        }
    }

    /// Claims and completes jobs without running them. For measuring alone: what they stood for does not happen.
    #[doc(hidden)]
    pub fn doing_nothing(mut self) -> Self {
        self.handler = Arc::new(|_, _| Box::pin(async { Ok(Finish::Open) }));
        self
    }

    /// How many jobs run at once: 16 when not set. Mails, calls to gateways and upkeep have their own shares, so that
    /// none of them can starve the others.
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.slots = Slots::share(jobs);
        self
    }

    /// How long jobs under way may take to end after the stop: 25 s when not set.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Works until `stop` is cancelled or the handle is shut down. Then it claims no more, waits for what is under
    /// way, and gives back what does not end within the grace period, without a mark against it.
    ///
    /// A database that goes away later is waited for. Errors: the database cannot be used at the start, for one
    /// because it was not migrated, or it was away at the end, in which case the jobs come back by themselves.
    pub async fn run(&self, stop: CancellationToken) -> Result<()> {
        // Shutting the handle down waits for this before it closes the database.
        let _under_way = self.oms.inner.tasks.token();
        let mut crew = Crew::new(self, Mode::Serve);
        let stopped = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.oms.inner.stop.cancelled() => {}
            }
        };
        crew.work(pin!(stopped)).await?;
        crew.mode = Mode::Close;
        crew.work(pin!(sleep(self.grace))).await?;
        crew.give_back().await
    }

    /// Runs everything that is due now, and what comes of it, until nothing is due; how many runs that were. Periodic
    /// jobs that are due are among them, failed jobs only when their next attempt is due already. For tests, scripts
    /// and programs too small for a worker of their own.
    ///
    /// Errors: the database fails. Jobs under way are then aborted and come back by themselves.
    pub async fn drain(&self) -> Result<usize> {
        let mut crew = Crew::new(self, Mode::Drain);
        crew.work(pin!(std::future::pending())).await?;
        Ok(crew.runs)
    }
}
