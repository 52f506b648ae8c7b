//! Stories of the queue with handlers of their own, on both databases.

mod plans;
mod queue;
mod sight;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use super::exchange::exchange;
use super::rules::Slots;
use super::run::Finish;
use super::schedule::PERIODIC;
use super::store::{End, Running};
use super::{EmailJob, Job, JobError, JobFilter, JobState, JobView, NewJob, Worker, enqueue};
use crate::actor::Actor;
use crate::db::run;
use crate::fresh::with_postgres;
use crate::id::{PaymentId, UserId};
use crate::oms::Oms;
use crate::page::PageRequest;
use crate::testing::ManualClock;
use crate::time::Timestamp;

const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

struct Story {
    url: String,
    oms: Oms,
    clock: ManualClock,
}

async fn each_db(story: impl AsyncFn(Story)) {
    let folder = tempfile::tempdir().unwrap();
    play(
        &format!("sqlite://{}", folder.path().join("oms.db").display()),
        &story,
    )
    .await;
    with_postgres(async |url| play(url, &story).await).await;
}

async fn play(url: &str, story: &impl AsyncFn(Story)) {
    println!("on {url}");
    let clock = ManualClock::at(START);
    let oms = Oms::builder(url).clock(clock.clone()).connect().await.unwrap();
    oms.migrate().await.unwrap();
    let handle = oms.clone();
    let url = url.to_owned();
    story(Story { url, oms, clock }).await;
    handle.shutdown().await;
}

impl Story {
    async fn enqueue(&self, jobs: &[NewJob]) {
        let mut tx = self.oms.db().write().await.unwrap();
        enqueue(&mut tx, self.oms.now(), jobs).await.unwrap();
        tx.commit().await.unwrap();
        self.oms.ring();
    }

    /// A job that only the story's handler gives a meaning.
    fn job(&self) -> NewJob {
        let user = UserId::new(self.oms.now());
        NewJob::at(self.oms.now(), Job::SendEmail(EmailJob::VerifyAddress { user }))
    }

    fn gateway_job(&self) -> NewJob {
        let payment = PaymentId::new(self.oms.now());
        NewJob::at(self.oms.now(), Job::ReconcilePayment { payment })
    }

    /// A worker with a handler of the story; periodic jobs just succeed.
    fn worker<F>(&self, handler: impl Fn(Arc<Running>) -> F + Send + Sync + 'static) -> Worker
    where
        F: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        Worker::new(
            &self.oms,
            Arc::new(move |_, job: Arc<Running>| {
                let handler = handler.clone();
                Box::pin(async move {
                    if !PERIODIC.iter().any(|(kind, _, _)| *kind == job.kind) {
                        handler(job).await?;
                    }
                    Ok(Finish::Open)
                })
            }),
        )
    }

    async fn claim(&self) -> Vec<Running> {
        let free = Some(Slots::share(16));
        exchange(&self.oms, "test", &[], free).await.unwrap().jobs
    }

    async fn end(&self, job: &Running, end: End) {
        exchange(&self.oms, "test", &[(job.clone(), end)], None)
            .await
            .unwrap();
    }

    async fn list(&self, state: JobState) -> Vec<JobView> {
        let filter = JobFilter { state, kind: None };
        let page = PageRequest::default();
        let jobs = self
            .oms
            .jobs()
            .list(&Actor::System, &filter, &page)
            .await
            .unwrap();
        jobs.data
    }

    async fn execute(&self, sql: &'static str) {
        let mut tx = self.oms.db().write().await.unwrap();
        run!(&mut tx, |conn| sqlx::query(sql).execute(conn).await.map(drop)).unwrap();
        tx.commit().await.unwrap();
    }

    /// Makes the leases run out: the program's clock on SQLite, the database's own on PostgreSQL.
    async fn let_leases_run_out(&self) {
        self.execute("UPDATE oms_job SET leased_until = created_at WHERE leased_until IS NOT NULL")
            .await;
        self.clock.advance(Duration::from_micros(1));
    }
}
