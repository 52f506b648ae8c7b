//! What the worker does with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{START, Story, each_db};
use crate::actor::Actor;
use crate::error::Error;
use crate::id::{JobId, RefundId};
use crate::jobs::exchange::{rescue, tick};
use crate::jobs::rules::{Lane, lane};
use crate::jobs::schedule::PERIODIC;
use crate::jobs::{Doorbell, Job, JobError, JobState, NewJob};
use crate::oms::Oms;

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
        assert_eq!(worker.drain().await.unwrap(), 3 + PERIODIC.len());
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
        assert_eq!(drained.unwrap(), 130 + PERIODIC.len());
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

/// A bell between two programs, which can be cut through.
#[derive(Clone, Default)]
struct Bell {
    cut: Arc<AtomicBool>,
    rung: Arc<Notify>,
}

#[async_trait]
impl Doorbell for Bell {
    fn ring(&self) {
        if !self.cut.load(Ordering::SeqCst) {
            self.rung.notify_one();
        }
    }

    async fn wait(&self) {
        self.rung.notified().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_wakes_the_worker_of_another_program_and_a_lost_one_only_delays() {
    const ROUNDS: usize = 20;
    each_db(async |t| {
        let bell = Bell::default();
        let [here, there] = [&bell, &bell].map(|bell| Oms::builder(&t.url).doorbell(bell.clone()));
        let (here, there) = (here.connect().await.unwrap(), there.connect().await.unwrap());
        let program = |oms: &Oms| Story {
            url: t.url.clone(),
            oms: oms.clone(),
            clock: t.clock.clone(),
        };
        let (ran, mut runs) = mpsc::unbounded_channel();
        let worker = program(&there).worker(move |_| {
            let ran = ran.clone();
            async move { ran.send(Instant::now()).map_err(JobError::retry) }
        });
        let stop = CancellationToken::new();
        let working = tokio::spawn({
            let stop = stop.clone();
            async move { worker.run(stop).await }
        });
        let here_too = program(&here);
        let mut late = 0;
        for round in 0..ROUNDS {
            // Long enough for the worker to be idle again, and each time at another moment between two of its looks.
            tokio::time::sleep(Duration::from_millis(40 + 7 * round as u64)).await;
            let committed = Instant::now();
            here_too.enqueue(&[here_too.job()]).await;
            let took = runs.recv().await.unwrap() - committed;
            late += usize::from(took > Duration::from_millis(250));
        }
        // By its own looks the worker would find about every fourth job so early.
        assert!(late <= 3, "{late} of {ROUNDS} jobs were late");
        bell.cut.store(true, Ordering::SeqCst);
        here_too.enqueue(&[here_too.job()]).await;
        let found = tokio::time::timeout(Duration::from_secs(10), runs.recv()).await;
        assert!(found.unwrap().is_some());
        stop.cancel();
        working.await.unwrap().unwrap();
        here.shutdown().await;
        there.shutdown().await;
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
async fn a_missing_schema_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("oms.db").display());
    let oms = Oms::builder(url).connect().await.unwrap();
    let ran = oms.worker().run(CancellationToken::new()).await;
    assert!(matches!(ran, Err(Error::Database(_))), "{ran:?}");
    assert!(oms.worker().drain().await.is_err());
}
