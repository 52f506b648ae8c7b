//! Stories of the queue with handlers of their own, on both databases.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::exchange::{LEASE, exchange, rescue, tick};
use super::rules::{KINDS, Lane, Slots, lane};
use super::run::Finish;
use super::store::{self, End, Running};
use super::{EmailJob, Job, JobError, JobFilter, JobState, JobView, NewJob, Worker, enqueue};
use crate::actor::Actor;
use crate::db::{Tx, run};
use crate::error::Error;
use crate::id::{InboxId, JobId, PaymentId, RefundId, UserId};
use crate::oms::Oms;
use crate::page::PageRequest;
use crate::testing::ManualClock;
use crate::time::Timestamp;

const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

struct Story {
    oms: Oms,
    clock: ManualClock,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test command says here where its server is"
)]
async fn each_db(story: impl AsyncFn(Story)) {
    let folder = tempfile::tempdir().unwrap();
    play(
        &format!("sqlite://{}", folder.path().join("oms.db").display()),
        &story,
    )
    .await;
    let server = std::env::var("OMS_TEST_POSTGRES_URL")
        .expect("set OMS_TEST_POSTGRES_URL, or run `cargo xtask test`, which does");
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("oms_jobs_{}_{count}", std::process::id());
    let mut admin = PgConnection::connect(&server).await.unwrap();
    let create = format!("CREATE DATABASE {name}");
    admin.execute(AssertSqlSafe(create)).await.unwrap();
    play(&format!("{}/{name}", server.rsplit_once('/').unwrap().0), &story).await;
    let drop = format!("DROP DATABASE {name} WITH (FORCE)");
    admin.execute(AssertSqlSafe(drop)).await.unwrap();
}

async fn play(url: &str, story: &impl AsyncFn(Story)) {
    println!("on {url}");
    let clock = ManualClock::at(START);
    let oms = Oms::builder(url).clock(clock.clone()).connect().await.unwrap();
    oms.migrate().await.unwrap();
    let handle = oms.clone();
    story(Story { oms, clock }).await;
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
                    if !super::schedule::PERIODIC
                        .iter()
                        .any(|(kind, _, _)| *kind == job.kind)
                    {
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

fn later(at: Timestamp, counts: bool) -> End {
    End::Later {
        at,
        counts,
        error: None,
    }
}

#[test]
fn every_kind_has_a_lane_and_comes_back_from_its_columns() {
    let all = [
        Job::SendEmail(EmailJob::VerifyAddress {
            user: UserId::new(START),
        }),
        Job::CancelPayment {
            payment: PaymentId::new(START),
        },
        Job::RunRefund {
            refund: RefundId::new(START),
        },
        Job::ReconcilePayment {
            payment: PaymentId::new(START),
        },
        Job::MatchWebhook {
            inbox: InboxId::new(START),
        },
        Job::ExpireOrders,
        Job::RescueAttempts,
        Job::Purge,
    ];
    assert_eq!(all.len(), KINDS.len());
    for job in all {
        let mut value = serde_json::to_value(&job).unwrap();
        let kind = value["kind"].as_str().unwrap().to_owned();
        assert!(lane(&kind).is_some(), "{kind}");
        let running = Running {
            id: JobId::new(START),
            kind,
            payload: value["payload"].take().to_string(),
            attempt: 1,
            lease: 1,
        };
        assert_eq!(running.job().unwrap(), job);
    }
}

#[tokio::test]
async fn jobs_share_the_fate_of_their_transaction() {
    each_db(async |t| {
        let mut tx = t.oms.db().write().await.unwrap();
        enqueue(&mut tx, t.oms.now(), &[t.job(), t.gateway_job()])
            .await
            .unwrap();
        tx.rollback().await.unwrap();
        assert!(t.list(JobState::Ready).await.is_empty());

        let jobs: Vec<_> = (0..1_200).map(|_| t.job()).collect();
        t.enqueue(&jobs).await;
        let counts = t.oms.jobs().counts(&Actor::System).await.unwrap();
        assert_eq!((counts.len(), counts[0].count), (1, 1_200));
        assert_eq!((counts[0].state, counts[0].oldest), (JobState::Ready, START));
    })
    .await;
}

#[tokio::test]
async fn unique_jobs_live_once() {
    each_db(async |t| {
        let unique = || t.gateway_job().unique("pay");
        t.enqueue(&[unique(), unique(), t.job().unique("pay")]).await;
        t.enqueue(&[unique()]).await;
        assert_eq!(t.list(JobState::Ready).await.len(), 2);
        let claimed = t.claim().await;
        t.enqueue(&[unique()]).await;
        assert_eq!(t.list(JobState::Ready).await.len(), 0);
        for job in &claimed {
            t.end(job, End::Done).await;
        }
        t.enqueue(&[unique()]).await;
        assert_eq!(t.list(JobState::Ready).await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn jobs_wait_for_their_time_and_come_in_its_order() {
    each_db(async |t| {
        let at = |seconds| NewJob {
            run_at: START + Duration::from_secs(seconds),
            ..t.gateway_job()
        };
        t.enqueue(&[at(2), at(0), at(1), at(60)]).await;
        assert_eq!(t.claim().await.len(), 1);
        t.clock.advance(Duration::from_secs(10));
        let mut tx = t.oms.db().write().await.unwrap();
        let due = store::due(&mut tx, t.oms.now(), &["reconcile_payment"], 9)
            .await
            .unwrap();
        tx.rollback().await.unwrap();
        let claimed = t.claim().await;
        let ids: Vec<_> = claimed.iter().map(|job| job.id).collect();
        assert_eq!(ids, due.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        assert_eq!(ids.len(), 2);
    })
    .await;
}

/// Eight workers and a thousand jobs: each runs once, and what is committed while they run is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_never_run_the_same_lease() {
    each_db(async |t| {
        let runs = Arc::new(Mutex::new(HashMap::<JobId, usize>::new()));
        let stop = CancellationToken::new();
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let (runs, stop) = (runs.clone(), stop.clone());
                let worker = t.worker(move |job| {
                    let runs = runs.clone();
                    async move {
                        *runs.lock().unwrap().entry(job.id).or_default() += 1;
                        Ok(())
                    }
                });
                tokio::spawn(async move { worker.run(stop).await })
            })
            .collect();
        for _ in 0..10 {
            let jobs: Vec<_> = (0..50).flat_map(|_| [t.job(), t.gateway_job()]).collect();
            t.enqueue(&jobs).await;
        }
        while !t.oms.jobs().counts(&Actor::System).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.cancel();
        for worker in workers {
            worker.await.unwrap().unwrap();
        }
        let runs = runs.lock().unwrap();
        assert_eq!(runs.len(), 1_000);
        assert!(runs.values().all(|n| *n == 1));
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_was_asleep_changes_nothing() {
    each_db(async |t| {
        t.enqueue(&[t.gateway_job()]).await;
        let [old] = t.claim().await.try_into().unwrap();
        assert!(t.claim().await.is_empty());

        t.let_leases_run_out().await;
        rescue(&t.oms).await.unwrap();
        let [ready] = t.list(JobState::Ready).await.try_into().unwrap();
        assert_eq!((ready.id, ready.attempt), (old.id, 1));
        assert!(ready.last_error.unwrap().contains("vanished"));
        assert!(ready.at <= t.oms.now() + Duration::from_secs(5));
        // Between the two leases nobody holds it.
        t.end(&old, End::Done).await;
        assert_eq!(t.list(JobState::Ready).await.len(), 1);

        t.clock.advance(Duration::from_secs(5));
        let [new] = t.claim().await.try_into().unwrap();
        assert_eq!((new.lease, new.attempt), (2, 2));
        for end in [End::Done, later(START, true), End::Dead("late".into())] {
            t.end(&old, end).await;
        }
        let mut tx = t.oms.db().write().await.unwrap();
        assert!(store::finish_in(&mut tx, &old).await.is_err());
        tx.rollback().await.unwrap();
        assert_eq!(t.list(JobState::Running).await.len(), 1);
        assert_eq!(t.list(JobState::Dead).await.len(), 0);

        let mut tx = t.oms.db().write().await.unwrap();
        store::finish_in(&mut tx, &new).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(t.list(JobState::Running).await.len(), 0);
    })
    .await;
}

#[tokio::test]
async fn heartbeats_keep_what_is_held() {
    each_db(async |t| {
        t.enqueue(&[t.gateway_job(), t.gateway_job()]).await;
        let claimed = t.claim().await;
        t.let_leases_run_out().await;
        let held = [(claimed[0].id, 1), (claimed[1].id, 7)];
        let ours = super::exchange::beat(&t.oms, &held).await.unwrap();
        assert_eq!(ours, [claimed[0].id]);
        rescue(&t.oms).await.unwrap();
        let [running] = t.list(JobState::Running).await.try_into().unwrap();
        assert_eq!(running.id, claimed[0].id);
    })
    .await;
}

#[tokio::test]
async fn failures_are_tried_again_until_they_are_dead() {
    each_db(async |t| {
        let worker = t.worker(async |_| Err(JobError::retry("no\0 luck")));
        t.enqueue(&[t.job()]).await;
        for attempt in 1..=11 {
            worker.drain().await.unwrap();
            let [job] = t.list(JobState::Ready).await.try_into().unwrap();
            assert_eq!(job.attempt, attempt);
            assert_eq!(job.last_error.as_deref(), Some("no\u{FFFD} luck"));
            let longest = Duration::from_secs(5 << (attempt - 1)).min(Duration::from_secs(3600));
            assert!(job.at <= t.oms.now() + longest);
            t.clock.advance(longest);
        }
        worker.drain().await.unwrap();
        assert!(t.list(JobState::Ready).await.is_empty());
        let [dead] = t.list(JobState::Dead).await.try_into().unwrap();
        assert_eq!((dead.attempt, dead.at), (12, t.oms.now()));
    })
    .await;
}

#[tokio::test]
async fn handlers_say_how_they_failed() {
    each_db(async |t| {
        let hour = START + Duration::from_secs(3600);
        let worker = t.worker(move |job| async move {
            match job.job()? {
                Job::RunRefund { .. } => Err(JobError::fail("no such mailbox")),
                Job::ReconcilePayment { .. } => Err(JobError::Again(hour)),
                _ => panic!("a defect"),
            }
        });
        let refund = RefundId::new(START);
        t.enqueue(&[
            NewJob::at(START, Job::RunRefund { refund }),
            t.gateway_job(),
            t.job(),
        ])
        .await;
        assert_eq!(worker.drain().await.unwrap(), 3 + super::schedule::PERIODIC.len());
        let [dead] = t.list(JobState::Dead).await.try_into().unwrap();
        assert_eq!((&*dead.kind, dead.attempt), ("run_refund", 1));
        assert_eq!(dead.last_error.as_deref(), Some("no such mailbox"));
        let ready = t.list(JobState::Ready).await;
        let of = |kind| ready.iter().find(|job| job.kind == kind).unwrap();
        assert_eq!(
            (of("reconcile_payment").attempt, of("reconcile_payment").at),
            (0, hour)
        );
        assert_eq!(of("send_email").attempt, 1);
        assert_eq!(of("send_email").last_error.as_deref(), Some("panicked: a defect"));
    })
    .await;
}

#[tokio::test]
async fn a_slow_gateway_leaves_mail_alone() {
    each_db(async |t| {
        let gate = Arc::new(Semaphore::new(0));
        let mails = Arc::new(AtomicUsize::new(0));
        let worker = t.worker({
            let (gate, mails) = (gate.clone(), mails.clone());
            move |job| {
                let (gate, mails) = (gate.clone(), mails.clone());
                async move {
                    match job.job()? {
                        Job::SendEmail(_) => mails.fetch_add(1, Ordering::SeqCst),
                        _ => gate.acquire().await.map(|_| 0).unwrap(),
                    };
                    Ok(())
                }
            }
        });
        let slow: Vec<_> = (0..100).map(|_| t.gateway_job()).collect();
        t.enqueue(&slow).await;
        let later: Vec<_> = (0..30).map(|_| t.job()).collect();
        t.enqueue(&later).await;
        let story = async {
            while mails.load(Ordering::SeqCst) < 30 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let running = t.list(JobState::Running).await;
            let slow = running.iter().filter(|job| job.kind == "reconcile_payment");
            assert_eq!(slow.count(), 7);
            gate.add_permits(1_000);
        };
        let (drained, ()) = tokio::join!(worker.drain(), story);
        assert_eq!(drained.unwrap(), 130 + super::schedule::PERIODIC.len());
        assert!(t.list(JobState::Ready).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_stop_waits_and_then_gives_back() {
    each_db(async |t| {
        let started = Arc::new(Semaphore::new(0));
        let worker = t.worker({
            let started = started.clone();
            move |job| {
                let started = started.clone();
                async move {
                    started.add_permits(1);
                    match job.job()? {
                        Job::SendEmail(_) => tokio::time::sleep(Duration::from_millis(500)).await,
                        _ => std::future::pending().await,
                    }
                    Ok(())
                }
            }
        });
        t.enqueue(&[t.job(), t.gateway_job()]).await;
        let stop = CancellationToken::new();
        let story = async {
            started.acquire_many(2).await.unwrap().forget();
            tokio::time::sleep(Duration::from_millis(100)).await;
            stop.cancel();
            // The stop comes first: this one is not claimed.
            t.enqueue(&[t.job()]).await;
        };
        let worker = worker.grace(Duration::from_secs(1));
        let (ran, ()) = tokio::join!(worker.run(stop.clone()), story);
        ran.unwrap();
        assert!(t.list(JobState::Running).await.is_empty());
        let mut ready = t.list(JobState::Ready).await;
        ready.retain(|job| lane(&job.kind) != Some(Lane::Upkeep));
        assert_eq!(ready.len(), 2);
        assert!(
            ready
                .iter()
                .all(|job| job.attempt == 0 && job.last_error.is_none())
        );
        assert!(started.try_acquire().is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn periodic_jobs_fire_once_for_all_workers() {
    each_db(async |t| {
        let idle = t.worker(async |_| Ok(()));
        for _ in 0..3 {
            let ticks = (0..4).map(|_| {
                let oms = t.oms.clone();
                tokio::spawn(async move { tick(&oms).await.unwrap() })
            });
            for next in futures_util::future::join_all(ticks).await {
                assert_eq!(next.unwrap(), t.oms.now() + Duration::from_secs(10));
            }
            assert_eq!(t.list(JobState::Ready).await.len(), 3);
            assert_eq!(idle.drain().await.unwrap(), 3);
            // A day without a worker is made up for once.
            t.clock.advance(Duration::from_secs(24 * 3600));
        }
    })
    .await;
}

#[tokio::test]
async fn unknown_kinds_and_payloads() {
    each_db(async |t| {
        let worker = t.worker(async |job| job.job().map(drop));
        t.enqueue(&[t.job(), t.gateway_job()]).await;
        t.execute("UPDATE oms_job SET kind = 'of_the_future' WHERE kind = 'send_email'").await;
        t.execute("UPDATE oms_job SET payload = '{\"mail\": \"of_the_future\"}' WHERE kind = 'reconcile_payment'")
            .await;
        worker.drain().await.unwrap();
        let ready = t.list(JobState::Ready).await;
        let of = |kind| ready.iter().find(|job| job.kind == kind).unwrap();
        assert_eq!((of("of_the_future").attempt, &of("of_the_future").last_error), (0, &None));
        let error = of("reconcile_payment").last_error.clone().unwrap();
        assert!(error.contains("unreadable payload"), "{error}");
        // A new program's worker that vanished: anyone may take its job back.
        t.execute("UPDATE oms_job SET leased_until = created_at, lease = 1, attempt = 1 WHERE kind = 'of_the_future'")
            .await;
        t.clock.advance(Duration::from_secs(1));
        rescue(&t.oms).await.unwrap();
        assert!(t.list(JobState::Running).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn dead_jobs_are_retried_or_discarded() {
    each_db(async |t| {
        let jobs = || t.oms.jobs();
        t.enqueue(&[t.job().unique("a"), t.job().unique("b"), t.job()])
            .await;
        for job in t.claim().await {
            t.end(&job, End::Dead("broken".into())).await;
        }
        let filter = |kind: &str| JobFilter {
            state: JobState::Dead,
            kind: Some(kind.into()),
        };
        let request = PageRequest {
            cursor: None,
            limit: Some(2),
        };
        let first = jobs()
            .list(&Actor::System, &filter("send_email"), &request)
            .await
            .unwrap();
        let request = PageRequest {
            cursor: first.next_cursor.clone(),
            limit: Some(2),
        };
        let second = jobs()
            .list(&Actor::System, &filter("send_email"), &request)
            .await
            .unwrap();
        assert_eq!((first.data.len(), second.data.len()), (2, 1));
        assert_eq!(second.next_cursor, None);
        let none = jobs()
            .list(&Actor::System, &filter("purge"), &PageRequest::default())
            .await;
        assert!(none.unwrap().data.is_empty());

        // Whoever is not an operator sees and changes nothing.
        let nobody = Actor::Anonymous;
        let id = second.data[0].id;
        assert!(matches!(
            jobs().list(&nobody, &filter("x"), &request).await,
            Err(Error::Unauthorized)
        ));
        assert!(matches!(jobs().counts(&nobody).await, Err(Error::Unauthorized)));
        assert!(matches!(
            jobs().retry(&nobody, id).await,
            Err(Error::Unauthorized)
        ));
        assert!(matches!(
            jobs().discard(&nobody, id).await,
            Err(Error::Unauthorized)
        ));

        for job in t.list(JobState::Dead).await {
            jobs().retry(&Actor::System, job.id).await.unwrap();
        }
        let again = jobs().retry(&Actor::System, id).await;
        assert!(matches!(again, Err(Error::NotFound(_))));
        let claimed = t.claim().await;
        assert_eq!(
            claimed.iter().map(|job| job.attempt).collect::<Vec<_>>(),
            [1, 1, 1]
        );
        for job in claimed {
            t.end(&job, End::Dead("broken".into())).await;
        }

        // Its place is taken by a younger one: it stays dead.
        t.enqueue(&[t.job().unique("a"), t.job().unique("b")]).await;
        let mut refused = 0;
        for job in t.list(JobState::Dead).await {
            match jobs().retry(&Actor::System, job.id).await {
                Err(Error::Duplicate(_)) => refused += 1,
                other => other.unwrap(),
            }
        }
        assert_eq!((refused, t.list(JobState::Dead).await.len()), (2, 2));
        for job in t.list(JobState::Dead).await {
            jobs().discard(&Actor::System, job.id).await.unwrap();
            let twice = jobs().discard(&Actor::System, job.id).await;
            assert!(matches!(twice, Err(Error::NotFound(_))));
        }
        let counts = jobs().counts(&Actor::System).await.unwrap();
        assert_eq!(counts.len(), 1);
        assert_eq!((counts[0].state, counts[0].count), (JobState::Ready, 3));
    })
    .await;
}

#[tokio::test]
async fn a_missing_schema_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("oms.db").display());
    let oms = Oms::builder(url).connect().await.unwrap();
    let ran = oms.worker().run(CancellationToken::new()).await;
    assert!(matches!(ran, Err(Error::Database(_))), "{ran:?}");
    assert!(oms.worker().drain().await.is_err());
}

/// A hundred thousand jobs, while the statistics and the connections' kept plans are from an empty table.
#[tokio::test]
async fn statements_of_the_worker_never_read_the_whole_table() {
    each_db(async |t| {
        t.execute("ANALYZE oms_job").await;
        for _ in 0..10 {
            touch(&t, None).await;
        }
        let mut tx = t.oms.db().write().await.unwrap();
        let sql = tx.pick(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
             INSERT INTO oms_job (id, kind, payload, run_at, created_at)
             SELECT randomblob(16), 'purge', 'null', $1, $1 FROM n",
            "INSERT INTO oms_job (id, kind, payload, run_at, created_at)
             SELECT gen_random_uuid(), 'purge', 'null', $1, $1 FROM generate_series(1, 100000)",
        );
        run!(&mut tx, |conn| sqlx::query(sql)
            .bind(START)
            .execute(conn)
            .await
            .map(drop))
        .unwrap();
        tx.commit().await.unwrap();
        assert_eq!(t.claim().await.len(), 2);
        touch(&t, Some(16)).await;
    })
    .await;
}

/// Plays a worker's statements in one transaction and looks at how the rows were found.
async fn touch(t: &Story, expected: Option<usize>) {
    let (now, until) = (t.oms.now(), t.oms.now() + LEASE);
    let kinds: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
    let mut tx = t.oms.db().write().await.unwrap();
    let tx = &mut tx;
    store::trust_indexes(tx).await.unwrap();
    let due = store::due(tx, now, &kinds, 16).await.unwrap();
    if let Some(expected) = expected {
        assert_eq!(due.len(), expected);
    }
    let mut ids: Vec<JobId> = due.into_iter().map(|(id, _)| id).collect();
    ids.resize_with(16, || JobId::new(now));
    let leased = store::lease(tx, "test", now, until, &ids).await.unwrap();
    let mut held: Vec<_> = leased.iter().map(|job| (job.id, job.lease)).collect();
    held.resize_with(16, || (JobId::new(now), 1));
    let ours = store::heartbeat(tx, now, until, &held).await.unwrap();
    assert_eq!(ours.len(), leased.len());
    assert!(store::lost(tx, now, 100).await.unwrap().is_empty());
    let done = store::end_done(tx, &held[2..]).await.unwrap();
    assert_eq!(done as usize, leased.len().saturating_sub(2));
    assert_eq!(
        store::end_later(tx, held[0], now, true, None).await.unwrap(),
        expected.is_some()
    );
    assert_eq!(
        store::end_dead(tx, held[1], "x", now).await.unwrap(),
        expected.is_some()
    );
    match tx {
        Tx::Sqlite(_) => sqlite_plans(tx, kinds.len()).await,
        // The numbers of this transaction alone, from the server itself.
        Tx::Postgres(tx) => {
            let (scans, read): (i64, i64) = sqlx::query_as(
                "SELECT seq_scan, seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'oms_job'",
            )
            .fetch_one(&mut **tx)
            .await
            .unwrap();
            if expected.is_some() {
                assert_eq!(scans, 0, "the whole table was read");
                assert!(read < 500, "{read} rows were read to run 16 jobs");
            }
        }
    }
}

async fn sqlite_plans(tx: &mut Tx, kinds: usize) {
    let texts = [
        (store::due_sql(tx, kinds), "USING INDEX oms_job_ready (run_at<?)"),
        (
            store::lease_sql(tx, 16),
            "INDEX sqlite_autoindex_oms_job_1 (id=?)",
        ),
        (
            store::heartbeat_sql(tx, 16),
            "INDEX oms_job_leased (leased_until>?)",
        ),
        (store::done_sql(16), "INDEX oms_job_leased (leased_until>?)"),
        (
            store::lost_sql(tx).into(),
            "USING INDEX oms_job_leased (leased_until<?)",
        ),
    ];
    // Leased jobs are as many as all workers have slots: walking those is as good as looking each up.
    for (text, index) in texts {
        let explain = format!("EXPLAIN QUERY PLAN {text}");
        let plan: Vec<(i64, i64, i64, String)> = run!(tx, |conn| {
            sqlx::query_as(AssertSqlSafe(explain)).fetch_all(conn).await
        })
        .unwrap();
        let steps: Vec<_> = plan.iter().map(|(_, _, _, step)| step.as_str()).collect();
        let found = steps.iter().any(|step| step.contains(index));
        let sorts = steps
            .iter()
            .any(|step| step.contains("TEMP B-TREE") || step.starts_with("SCAN oms_job"));
        assert!(found && !sorts, "{text}\n{steps:#?}");
    }
}
