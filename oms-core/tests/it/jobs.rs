//! Background jobs as an embedding program sees them.

use std::time::Duration;

use oms_core::jobs::{JobFilter, JobState};
use oms_core::mail::MailError;
use oms_core::users::Register;
use oms_core::{Actor, Error, JobId, PageRequest, SessionId, Timestamp, TokenId, UserId};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::support::{START, TestOms, each_db, raw};

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn register(t: &TestOms, name: &str) {
    let command = Register {
        username: name.into(),
        email: format!("{name}@example.com"),
        password: "correct horse battery".into(),
    };
    t.oms.users().register(&Actor::Anonymous, command).await.unwrap();
}

async fn count(t: &TestOms, table: &str) -> i64 {
    raw!(t, |conn| {
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}")))
            .fetch_one(conn)
            .await
    })
    .unwrap()
}

/// The worker waits idle; what is committed rings its bell.
#[tokio::test]
async fn a_running_worker_sends_mail_and_stops() {
    each_db(async |t| {
        let stop = CancellationToken::new();
        let worker = t.oms.worker();
        let story = async {
            for name in ["ann", "bob"] {
                register(&t, name).await;
                while t.mails.to(&format!("{name}@example.com")).is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            stop.cancel();
        };
        let (ran, ()) = tokio::join!(worker.run(stop.clone()), story);
        ran.unwrap();
        assert_eq!(t.mails.all().len(), 2);
        t.oms.worker().drain().await.unwrap();
        assert_eq!(t.mails.all().len(), 2);
        assert_eq!(count(&t, "oms_job").await, 0);
    })
    .await;
}

/// PostgreSQL alone: a file does not go away.
#[tokio::test]
async fn a_worker_outlives_its_database() {
    each_db(async |t| {
        let Some((server, name)) = t
            .url
            .strip_prefix("postgres")
            .and_then(|_| t.url.rsplit_once('/'))
        else {
            return;
        };
        let mut admin = PgConnection::connect(&format!("{server}/postgres"))
            .await
            .unwrap();
        let mut admin = async |sql: String| admin.execute(AssertSqlSafe(sql)).await.map(drop).unwrap();
        let stop = CancellationToken::new();
        let worker = t.oms.worker();
        let story = async {
            register(&t, "ann").await;
            while t.mails.all().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            admin(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await;
            admin(format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            ))
            .await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(t.oms.check().await.is_err());
            admin(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await;
            register(&t, "bob").await;
            while t.mails.to("bob@example.com").is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.cancel();
        };
        let (ran, ()) = tokio::join!(worker.run(stop.clone()), story);
        ran.unwrap();
    })
    .await;
}

#[tokio::test]
async fn mail_that_fails_is_sent_later_under_the_same_id_or_never() {
    each_db(async |t| {
        register(&t, "ann").await;
        t.mails.fail_next(MailError::Transient("greylisted".into()));
        t.oms.worker().drain().await.unwrap();
        assert!(t.mails.all().is_empty());
        let ready = JobFilter {
            state: JobState::Ready,
            kind: Some("send_email".into()),
        };
        let (operator, page) = (t.operator(), PageRequest::default());
        let waiting = t.oms.jobs().list(&operator, &ready, &page).await.unwrap().data;
        assert!(waiting[0].last_error.as_ref().unwrap().contains("greylisted"));
        assert!(!waiting[0].payload.contains("ann"), "{}", waiting[0].payload);
        t.clock.advance(Duration::from_secs(5));
        t.oms.worker().drain().await.unwrap();
        assert_eq!(t.mails.all()[0].id, waiting[0].id.to_string());

        register(&t, "bob").await;
        t.mails.fail_next(MailError::Permanent("no such mailbox".into()));
        t.oms.worker().drain().await.unwrap();
        let dead = JobFilter {
            state: JobState::Dead,
            kind: None,
        };
        let given_up = t.oms.jobs().list(&operator, &dead, &page).await.unwrap().data;
        assert!(
            given_up[0]
                .last_error
                .as_ref()
                .unwrap()
                .contains("no such mailbox")
        );
        t.oms.jobs().retry(&operator, given_up[0].id).await.unwrap();
        t.oms.worker().drain().await.unwrap();
        assert_eq!(t.mails.to("bob@example.com")[0].id, given_up[0].id.to_string());
    })
    .await;
}

#[tokio::test]
async fn customers_have_no_business_in_the_queue() {
    each_db(async |t| {
        let customer = t.user("ann").await;
        let (jobs, id) = (t.oms.jobs(), JobId::new(START));
        assert!(matches!(jobs.counts(&customer).await, Err(Error::Forbidden(_))));
        assert!(matches!(
            jobs.retry(&customer, id).await,
            Err(Error::Forbidden(_))
        ));
        assert!(matches!(
            jobs.discard(&t.operator(), id).await,
            Err(Error::NotFound(_))
        ));
    })
    .await;
}

/// More than one batch of what is old, and the youngest of what must stay.
#[tokio::test]
async fn purging_keeps_what_may_still_be_asked_for() {
    each_db(async |t| {
        let user = t.user("ann").await.user_id().unwrap();
        let (now, old) = (START + DAY * 60, START);
        t.clock.advance(DAY * 60);
        let tokens = (0..1_100).map(|i| match i % 2 {
            0 => (old, None),
            _ => (now + DAY, Some(old)),
        });
        let young = [
            (now - DAY * 6, None),
            (now + DAY, Some(now - DAY * 6)),
            (now + DAY, None),
        ];
        add_tokens(&t, user, &tokens.chain(young).collect::<Vec<_>>()).await;
        let sessions = [
            (old, None),
            (now - DAY * 29, None),
            (now + DAY, Some(old)),
            (now + DAY, None),
        ];
        add_sessions(&t, user, &sessions).await;
        t.oms.worker().drain().await.unwrap();
        assert_eq!(count(&t, "oms_user_token").await, 3);
        assert_eq!(count(&t, "oms_session").await, 2);
        assert_eq!(count(&t, "oms_job").await, 0);
    })
    .await;
}

async fn add_tokens(t: &TestOms, user: UserId, tokens: &[(Timestamp, Option<Timestamp>)]) {
    for chunk in tokens.chunks(200) {
        raw!(t, |conn| {
            let mut insert = sqlx::QueryBuilder::new(
                "INSERT INTO oms_user_token
                   (id, user_id, purpose, token_hash, email_key, expires_at, used_at, created_at) ",
            );
            insert.push_values(chunk, |mut row, (expires, used)| {
                let id = TokenId::new(START);
                row.push_bind(id).push_bind(user).push_bind("x");
                row.push_bind(id.uuid().as_bytes().to_vec()).push_bind("x");
                row.push_bind(*expires).push_bind(*used).push_bind(START);
            });
            insert.build().execute(conn).await.map(drop)
        })
        .unwrap();
    }
}

async fn add_sessions(t: &TestOms, user: UserId, sessions: &[(Timestamp, Option<Timestamp>)]) {
    raw!(t, |conn| {
        let mut insert = sqlx::QueryBuilder::new(
            "INSERT INTO oms_session (id, user_id, refresh_hash, expires_at, revoked_at, created_at) ",
        );
        insert.push_values(sessions, |mut row, (expires, revoked)| {
            let id = SessionId::new(START);
            row.push_bind(id).push_bind(user);
            row.push_bind(id.uuid().as_bytes().to_vec());
            row.push_bind(*expires).push_bind(*revoked).push_bind(START);
        });
        insert.build().execute(conn).await.map(drop)
    })
    .unwrap();
}
