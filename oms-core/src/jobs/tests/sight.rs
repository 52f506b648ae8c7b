//! What jobs tell those who watch: which request brought them about, and how many wait.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{START, each_db};
use crate::actor::Actor;
use crate::cause::Cause;
use crate::error::Error;
use crate::figures::JobFigures;
use crate::jobs::store::End;
use crate::jobs::{JobState, NewJob};

fn cause(id: &str) -> Cause {
    Cause {
        request_id: Some(id.into()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    }
}

#[tokio::test]
async fn a_job_remembers_its_request_until_it_is_done() {
    each_db(async |t| {
        cause("first").scope(t.enqueue(&[t.job()])).await;
        let [job] = t.claim().await.try_into().unwrap();
        assert_eq!(job.cause(), cause("first"));
        t.end(&job, End::Dead("broken".into())).await;
        t.oms.jobs().retry(&Actor::System, job.id).await.unwrap();
        let [job] = t.claim().await.try_into().unwrap();
        assert_eq!(job.cause(), cause("first"));
        t.end(&job, End::Done).await;

        t.enqueue(&[t.job()]).await;
        cause(&"x".repeat(1_000))
            .scope(t.enqueue(&[t.gateway_job()]))
            .await;
        for job in t.claim().await {
            assert_eq!(job.cause().request_id, None);
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_job_enqueues_has_the_same_cause() {
    each_db(async |t| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (oms, handler_saw) = (t.oms.clone(), Arc::clone(&seen));
        let follower = t.gateway_job();
        let worker = t.worker(move |job| {
            let (oms, seen, follower) = (oms.clone(), Arc::clone(&handler_saw), follower.clone());
            async move {
                seen.lock().unwrap().push((job.kind.clone(), Cause::current()));
                if job.kind == "send_email" {
                    let mut tx = oms.db().write().await?;
                    crate::jobs::enqueue(&mut tx, oms.now(), &[follower]).await?;
                    tx.commit().await?;
                }
                Ok(())
            }
        });
        cause("first").scope(t.enqueue(&[t.job()])).await;
        worker.drain().await.unwrap();
        let seen = seen.lock().unwrap().clone();
        let expected = ["send_email", "reconcile_payment"].map(|kind| (kind.to_owned(), cause("first")));
        assert_eq!(seen, expected);
    })
    .await;
}

#[tokio::test]
async fn the_backlog_counts_what_waits() {
    each_db(async |t| {
        let empty = t.oms.backlog(&Actor::System).await.unwrap();
        assert!(
            empty
                .jobs
                .iter()
                .all(|job| job.due + job.waiting + job.running + job.dead == 0)
        );
        assert_eq!((empty.jobs.len(), empty.oldest_due), (8, None));
        assert!(matches!(
            t.oms.backlog(&Actor::Anonymous).await,
            Err(Error::Unauthorized)
        ));

        t.enqueue(&[t.job(), t.job()]).await;
        let [first, _] = t.claim().await.try_into().unwrap();
        t.end(&first, End::Dead("broken".into())).await;
        t.enqueue(&[t.job(), t.gateway_job()]).await;
        let later = NewJob {
            run_at: START + Duration::from_secs(60),
            ..t.job()
        };
        t.enqueue(&[later]).await;
        t.clock.advance(Duration::from_secs(5));
        let backlog = t.oms.backlog(&Actor::System).await.unwrap();
        let of = |kind: &str| backlog.jobs.iter().find(|job| job.kind == kind).cloned().unwrap();
        let figures = |kind: &str, [due, waiting, running, dead]: [i64; 4]| JobFigures {
            kind: kind.into(),
            due,
            waiting,
            running,
            dead,
        };
        assert_eq!(of("send_email"), figures("send_email", [1, 1, 1, 1]));
        assert_eq!(
            of("reconcile_payment"),
            figures("reconcile_payment", [1, 0, 0, 0])
        );
        assert_eq!(backlog.oldest_due, Some(START));
        assert_eq!(t.list(JobState::Running).await.len(), 1);

        // A kind of a newer program is seen too.
        t.execute("UPDATE oms_job SET kind = 'of_the_future' WHERE kind = 'reconcile_payment'")
            .await;
        let backlog = t.oms.backlog(&Actor::System).await.unwrap();
        assert_eq!(backlog.jobs.last().unwrap().kind, "of_the_future");
        assert_eq!(backlog.jobs.last().unwrap().due, 1);

        let pools = t.oms.connections();
        assert!(
            pools
                .iter()
                .all(|pool| pool.idle <= pool.open && pool.open <= pool.most),
            "{pools:?}"
        );
        assert_eq!(t.oms.placement_queue().waiting, 0);
    })
    .await;
}
