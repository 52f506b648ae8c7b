//! What the table guarantees, whatever the worker does.

use std::time::Duration;

use super::{START, each_db};
use crate::actor::Actor;
use crate::error::Error;
use crate::id::{InboxId, JobId, PaymentId, RefundId, UserId};
use crate::jobs::exchange::{beat, rescue};
use crate::jobs::rules::{KINDS, lane};
use crate::jobs::store::{self, End, Running};
use crate::jobs::{EmailJob, Job, JobFilter, JobState, NewJob, enqueue};
use crate::page::PageRequest;
use crate::time::Timestamp;

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
            request_id: None,
            traceparent: None,
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
        let due = store::due(&mut tx, t.oms.now(), &[("reconcile_payment", 9)], 9)
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
        let ours = beat(&t.oms, &held).await.unwrap();
        assert_eq!(ours, [claimed[0].id]);
        rescue(&t.oms).await.unwrap();
        let [running] = t.list(JobState::Running).await.try_into().unwrap();
        assert_eq!(running.id, claimed[0].id);
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
