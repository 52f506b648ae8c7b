//! Register, prove the address, log in, roles.

use std::time::Duration;

use oms_core::mail::{Email, MailError};
use oms_core::users::{LoggedIn, Register, UpdateMe, User};
use oms_core::{Actor, Error, PageRequest, Roles, UserId};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::{TestOms, each_db, raw};

const PASSWORD: &str = "correct horse battery";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn command(username: &str, email: &str) -> Register {
    Register {
        username: username.into(),
        email: email.into(),
        password: PASSWORD.into(),
    }
}

async fn register(t: &TestOms, username: &str) -> User {
    let email = format!("{username}@example.com");
    t.oms
        .users()
        .register(&Actor::Anonymous, command(username, &email))
        .await
        .unwrap()
}

async fn log_in(t: &TestOms, identifier: &str) -> LoggedIn {
    t.oms
        .users()
        .log_in(&Actor::Anonymous, identifier, PASSWORD)
        .await
        .unwrap()
}

/// Sends the mail and reads the token out of it.
async fn mailed_token(t: &TestOms, user: &User) -> String {
    t.oms.users().send_verification_now(user.id).await.unwrap();
    match t.mails.to(&user.email).pop().unwrap().email {
        Email::VerifyAddress { token, .. } => token,
        other => panic!("not a verification: {other:?}"),
    }
}

async fn is_welcome(t: &TestOms, session: &LoggedIn) -> bool {
    match t.oms.users().authenticate(session.session, session.user.id).await {
        Ok(_) => true,
        Err(Error::Unauthorized) => false,
        Err(e) => panic!("{e}"),
    }
}

/// Behind the library's back.
async fn execute(t: &TestOms, sql: &'static str) -> u64 {
    raw!(t, |conn| {
        sqlx::query(sql)
            .execute(conn)
            .await
            .map(|done| done.rows_affected())
    })
    .unwrap()
}

async fn count(t: &TestOms, what: &str) -> i64 {
    let sql = AssertSqlSafe(format!("SELECT count(*) FROM {what}"));
    raw!(t, |conn| sqlx::query_scalar(sql).fetch_one(conn).await).unwrap()
}

/// Everything that the database keeps: the files' bytes on SQLite, every row of every table on PostgreSQL.
async fn kept(t: &TestOms) -> Vec<u8> {
    if let Some(file) = t.url.strip_prefix("sqlite://") {
        let mut bytes = std::fs::read(file).unwrap();
        bytes.extend(std::fs::read(format!("{file}-wal")).unwrap());
        return bytes;
    }
    let mut db = PgConnection::connect(&t.url).await.unwrap();
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
            .fetch_all(&mut db)
            .await
            .unwrap();
    let mut bytes = Vec::new();
    for table in tables {
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("SELECT t::text FROM {table} t")))
            .fetch_all(&mut db)
            .await
            .unwrap();
        bytes.extend(rows.concat().into_bytes());
    }
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

#[tokio::test]
async fn names_and_addresses_are_unique_in_any_case() {
    each_db(async |t| {
        let users = t.oms.users();
        let ann = users
            .register(&Actor::Anonymous, command("Ann", "Änne@Bücher.example"))
            .await
            .unwrap();
        assert_eq!(
            (ann.username.as_str(), ann.email.as_str()),
            ("Ann", "Änne@Bücher.example")
        );
        assert!(!ann.is_verified());
        assert_eq!((ann.roles, ann.version), (Roles::NONE, 1));

        for (username, email, taken) in [
            ("aNN", "other@example.com", "user name"),
            ("bob", "äNNE@bÜCHER.EXAMPLE", "e-mail address"),
            ("bob", "a\u{308}nne@bu\u{308}cher.example", "e-mail address"),
        ] {
            let refused = users
                .register(&Actor::Anonymous, command(username, email))
                .await
                .unwrap_err();
            assert!(
                matches!(refused, Error::Duplicate(what) if what == taken),
                "{refused:?}"
            );
        }
        // Who was refused got no mail either.
        assert_eq!(count(&t, "oms_user").await, 1);
        assert_eq!(count(&t, "oms_job WHERE kind = 'send_email'").await, 1);
    })
    .await;
}

#[tokio::test]
async fn of_many_registrations_of_one_name_one_wins() {
    each_db(async |t| {
        let tries: Vec<_> = (0..20)
            .map(|i| {
                let oms = t.oms.clone();
                let name = if i % 2 == 0 { "highlander" } else { "Highlander" };
                let command = command(name, &format!("h{i}@example.com"));
                tokio::spawn(async move { oms.users().register(&Actor::Anonymous, command).await })
            })
            .collect();
        let mut won = 0;
        for one in tries {
            match one.await.unwrap() {
                Ok(_) => won += 1,
                Err(Error::Duplicate("user name")) => {}
                Err(e) => panic!("{e:?}"),
            }
        }
        assert_eq!(won, 1);
        assert_eq!(count(&t, "oms_user").await, 1);
        assert_eq!(count(&t, "oms_job").await, 1);
    })
    .await;
}

#[tokio::test]
async fn every_broken_rule_is_named_and_nothing_is_kept() {
    each_db(async |t| {
        let bad = Register {
            username: "a@b".into(),
            email: "a@b.c\r\nBcc: x@y.z".into(),
            password: "x".repeat(2_000),
        };
        let Err(Error::Invalid(violations)) = t.oms.users().register(&Actor::Anonymous, bad).await else {
            panic!("three rules are broken");
        };
        assert_eq!(violations.len(), 3, "{violations:?}");
        assert_eq!(count(&t, "oms_user").await, 0);
    })
    .await;
}

#[tokio::test]
async fn log_in_by_name_or_address_and_with_nothing_else() {
    each_db(async |t| {
        let ann = register(&t, "ann").await;
        for identifier in ["ann", "ANN", " ann ", "Ann@Example.COM"] {
            let session = log_in(&t, identifier).await;
            assert_eq!(session.user.id, ann.id);
            assert!(is_welcome(&t, &session).await);
        }
        let users = t.oms.users();
        let long = PASSWORD.repeat(100);
        for (identifier, password) in [
            ("ann", "correct horse batterz"),
            ("ann", ""),
            ("ann", long.as_str()),
            ("nobody", PASSWORD),
            ("nobody@example.com", PASSWORD),
            ("ann\0", PASSWORD),
            (long.as_str(), PASSWORD),
            ("", ""),
        ] {
            let refused = users.log_in(&Actor::Anonymous, identifier, password).await;
            assert!(
                matches!(refused, Err(Error::Unauthorized)),
                "{identifier}: {refused:?}"
            );
        }
        assert_eq!(count(&t, "oms_session").await, 4);
    })
    .await;
}

#[tokio::test]
async fn a_disabled_user_is_out_at_once() {
    each_db(async |t| {
        register(&t, "ann").await;
        let session = log_in(&t, "ann").await;
        assert_eq!(
            execute(&t, "UPDATE oms_user SET disabled_at = created_at").await,
            1
        );

        assert!(!is_welcome(&t, &session).await);
        let users = t.oms.users();
        let again = users.log_in(&Actor::Anonymous, "ann", PASSWORD).await;
        assert!(matches!(again, Err(Error::Unauthorized)), "{again:?}");
        let renewed = users.refresh(session.refresh_token.reveal()).await;
        assert!(matches!(renewed, Err(Error::Unauthorized)), "{renewed:?}");
    })
    .await;
}

#[tokio::test]
async fn an_address_is_proven_once() {
    each_db(async |t| {
        let ann = register(&t, "ann").await;
        let session = log_in(&t, "ann").await;
        let users = t.oms.users();
        let (first, second) = (mailed_token(&t, &ann).await, mailed_token(&t, &ann).await);
        assert_ne!(first, second);

        users.verify_email(&Actor::Anonymous, &first).await.unwrap();
        let actor = users.authenticate(session.session, ann.id).await.unwrap();
        assert_eq!(actor.require_verified().unwrap(), ann.id);
        let verified = users.me(&actor).await.unwrap();
        assert_eq!(verified.email_verified_at, Some(t.oms.now()));
        assert_eq!(verified.version, 2);

        // Whoever clicks on the link in the other mail as well is told the same, and nothing changes.
        users.verify_email(&Actor::Anonymous, &second).await.unwrap();
        assert_eq!(users.me(&actor).await.unwrap(), verified);
        for bad in [first.as_str(), second.as_str(), "", "unknown"] {
            assert_refused(&t, bad).await;
        }

        // A job that runs once more has nothing to say.
        users.send_verification_now(ann.id).await.unwrap();
        assert_eq!(t.mails.all().len(), 2);
    })
    .await;
}

async fn assert_refused(t: &TestOms, token: &str) {
    match t.oms.users().verify_email(&Actor::Anonymous, token).await {
        Err(Error::Invalid(violations)) => {
            assert_eq!(violations[0].pointer, "/token");
            assert_eq!(
                violations[0].detail,
                "is unknown, used or expired: ask for another mail"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn of_many_uses_of_one_token_one_wins() {
    each_db(async |t| {
        let ann = register(&t, "ann").await;
        let token = mailed_token(&t, &ann).await;
        let tries: Vec<_> = (0..10)
            .map(|_| {
                let (oms, token) = (t.oms.clone(), token.clone());
                tokio::spawn(async move { oms.users().verify_email(&Actor::Anonymous, &token).await.is_ok() })
            })
            .collect();
        let mut won = 0;
        for one in tries {
            won += u32::from(one.await.unwrap());
        }
        assert_eq!(won, 1);
    })
    .await;
}

#[tokio::test]
async fn a_token_ends_after_a_day_and_with_its_address() {
    each_db(async |t| {
        let (ann, bob) = (register(&t, "ann").await, register(&t, "bob").await);
        let (expired, moved) = (mailed_token(&t, &ann).await, mailed_token(&t, &bob).await);

        let moved_away =
            "UPDATE oms_user SET email = 'b@example.org', email_key = 'b@example.org' WHERE username = 'bob'";
        assert_eq!(execute(&t, moved_away).await, 1);
        assert_refused(&t, &moved).await;

        t.clock.advance(DAY - Duration::from_secs(1));
        let fresh = mailed_token(&t, &ann).await;
        t.clock.advance(Duration::from_secs(1));
        assert_refused(&t, &expired).await;
        assert_eq!(count(&t, "oms_user WHERE email_verified_at IS NOT NULL").await, 0);
        t.oms
            .users()
            .verify_email(&Actor::Anonymous, &fresh)
            .await
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn asking_for_the_mail_again_tells_nothing_and_queues_one() {
    each_db(async |t| {
        let ann = register(&t, "ann").await;
        let users = t.oms.users();
        for email in [
            "nobody@example.com",
            "ANN@example.com",
            "ann@example.com",
            "",
            "x\0",
        ] {
            users.resend_verification(&Actor::Anonymous, email).await.unwrap();
        }
        assert_eq!(count(&t, "oms_job").await, 1);

        // The first mail was sent and got lost.
        assert_eq!(execute(&t, "DELETE FROM oms_job").await, 1);
        users
            .resend_verification(&Actor::Anonymous, "Ann@Example.com")
            .await
            .unwrap();
        assert_eq!(count(&t, "oms_job WHERE kind = 'send_email'").await, 1);

        let token = mailed_token(&t, &ann).await;
        // A mail that has just left is not followed by another.
        for (seconds, jobs) in [(59, 0), (1, 1)] {
            execute(&t, "DELETE FROM oms_job").await;
            t.clock.advance(Duration::from_secs(seconds));
            users
                .resend_verification(&Actor::Anonymous, "ann@example.com")
                .await
                .unwrap();
            assert_eq!(count(&t, "oms_job").await, jobs);
        }
        users.verify_email(&Actor::Anonymous, &token).await.unwrap();
        execute(&t, "DELETE FROM oms_job").await;
        users
            .resend_verification(&Actor::Anonymous, "ann@example.com")
            .await
            .unwrap();
        assert_eq!(count(&t, "oms_job").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_mail_that_fails_is_tried_again_or_given_up() {
    each_db(async |t| {
        let ann = register(&t, "ann").await;
        let users = t.oms.users();
        t.mails.fail_next(MailError::Transient("greylisted".into()));
        let error = users.send_verification_now(ann.id).await.unwrap_err();
        assert!(error.starts_with("Retry("), "{error}");
        t.mails.fail_next(MailError::Permanent("no such mailbox".into()));
        let error = users.send_verification_now(ann.id).await.unwrap_err();
        assert!(error.starts_with("Fail("), "{error}");
        let nobody = UserId::new(t.oms.now());
        let error = users.send_verification_now(nobody).await.unwrap_err();
        assert!(error.starts_with("Fail("), "{error}");
        assert!(t.mails.all().is_empty());
    })
    .await;
}

#[tokio::test]
async fn each_renewal_uses_its_token_up() {
    each_db(async |t| {
        register(&t, "ann").await;
        let users = t.oms.users();
        let first = log_in(&t, "ann").await;
        let other_device = log_in(&t, "ann").await;
        t.clock.advance(Duration::from_secs(60));
        let second = users.refresh(first.refresh_token.reveal()).await.unwrap();
        assert_eq!(second.session, first.session);
        assert_eq!(second.refresh_expires_at, first.refresh_expires_at);
        assert_ne!(second.refresh_token, first.refresh_token);

        t.clock.advance(Duration::from_secs(60));
        let third = users.refresh(second.refresh_token.reveal()).await.unwrap();
        assert!(is_welcome(&t, &third).await);

        // A token from two renewals ago: somebody has a copy, and nobody can tell who.
        for stale in [&first, &third] {
            let refused = users.refresh(stale.refresh_token.reveal()).await;
            assert!(matches!(refused, Err(Error::Unauthorized)), "{refused:?}");
            assert!(!is_welcome(&t, &third).await);
        }
        assert!(is_welcome(&t, &other_device).await);
        for garbage in ["", "x", PASSWORD] {
            let refused = users.refresh(garbage).await;
            assert!(matches!(refused, Err(Error::Unauthorized)), "{refused:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_lost_answer_can_be_asked_for_again_for_ten_seconds() {
    each_db(async |t| {
        register(&t, "ann").await;
        let users = t.oms.users();
        let first = log_in(&t, "ann").await;
        let lost = users.refresh(first.refresh_token.reveal()).await.unwrap();
        t.clock.advance(Duration::from_secs(5));
        users.refresh(first.refresh_token.reveal()).await.unwrap();
        t.clock.advance(Duration::from_secs(5));
        let got = users.refresh(first.refresh_token.reveal()).await.unwrap();
        let next = users.refresh(got.refresh_token.reveal()).await.unwrap();
        assert!(is_welcome(&t, &next).await);

        // The answer was not lost but stolen.
        let stolen = users.refresh(lost.refresh_token.reveal()).await;
        assert!(matches!(stolen, Err(Error::Unauthorized)), "{stolen:?}");
        assert!(!is_welcome(&t, &next).await);

        let first = log_in(&t, "ann").await;
        let second = users.refresh(first.refresh_token.reveal()).await.unwrap();
        t.clock.advance(Duration::from_millis(10_001));
        let late = users.refresh(first.refresh_token.reveal()).await;
        assert!(matches!(late, Err(Error::Unauthorized)), "{late:?}");
        assert!(!is_welcome(&t, &second).await);
    })
    .await;
}

#[tokio::test]
async fn many_renewals_at_once_leave_one_token_that_works() {
    each_db(async |t| {
        register(&t, "ann").await;
        let first = log_in(&t, "ann").await;
        let tries: Vec<_> = (0..20)
            .map(|_| {
                let (oms, token) = (t.oms.clone(), first.refresh_token.clone());
                tokio::spawn(async move { oms.users().refresh(token.reveal()).await.unwrap() })
            })
            .collect();
        let mut answers = Vec::new();
        for one in tries {
            answers.push(one.await.unwrap());
        }
        assert!(is_welcome(&t, &first).await);

        let mut works = 0;
        for answer in &answers {
            execute(&t, "UPDATE oms_session SET revoked_at = NULL").await;
            works += u32::from(t.oms.users().refresh(answer.refresh_token.reveal()).await.is_ok());
        }
        assert_eq!(works, 1);
    })
    .await;
}

#[tokio::test]
async fn a_session_ends_by_log_out_and_after_thirty_days() {
    each_db(async |t| {
        let ann = register(&t, "ann").await;
        let bob = register(&t, "bob").await;
        let users = t.oms.users();
        let (one, two) = (log_in(&t, "ann").await, log_in(&t, "ann").await);

        // Neither another user nor nobody can end it, and another user's id does not open it.
        users.log_out(&bob.actor(), one.session).await.unwrap();
        let nobody = users.log_out(&Actor::Anonymous, one.session).await;
        assert!(matches!(nobody, Err(Error::Unauthorized)), "{nobody:?}");
        assert!(is_welcome(&t, &one).await);
        let mixed = users.authenticate(one.session, bob.id).await;
        assert!(matches!(mixed, Err(Error::Unauthorized)), "{mixed:?}");

        users.log_out(&ann.actor(), one.session).await.unwrap();
        users.log_out(&ann.actor(), one.session).await.unwrap();
        assert!(!is_welcome(&t, &one).await);
        let renewed = users.refresh(one.refresh_token.reveal()).await;
        assert!(matches!(renewed, Err(Error::Unauthorized)), "{renewed:?}");

        t.clock.advance(30 * DAY - Duration::from_secs(1));
        let two = users.refresh(two.refresh_token.reveal()).await.unwrap();
        assert!(is_welcome(&t, &two).await);
        t.clock.advance(Duration::from_secs(1));
        assert!(!is_welcome(&t, &two).await);
        let renewed = users.refresh(two.refresh_token.reveal()).await;
        assert!(matches!(renewed, Err(Error::Unauthorized)), "{renewed:?}");
    })
    .await;
}

#[tokio::test]
async fn roles_apply_to_the_next_request() {
    each_db(async |t| {
        let users = t.oms.users();
        let root = users
            .create_admin(&Actor::System, command("root", "root@localhost"))
            .await
            .unwrap();
        assert!(root.is_verified());
        assert_eq!(root.roles, Roles::ADMIN);
        assert_eq!(count(&t, "oms_job").await, 0);
        let root = root.actor();

        let ann = register(&t, "ann").await;
        let session = log_in(&t, "ann").await;
        let before = users.authenticate(session.session, ann.id).await.unwrap();
        assert_eq!(before, ann.actor());
        for refused in [
            users.set_roles(&before, ann.id, Roles::ADMIN).await.map(drop),
            users.list(&before, PageRequest::default()).await.map(drop),
            users
                .create_admin(&before, command("eve", "eve@example.com"))
                .await
                .map(drop),
        ] {
            assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
        }

        let operator = Roles {
            operator: true,
            admin: false,
        };
        let changed = users.set_roles(&root, ann.id, operator).await.unwrap();
        assert_eq!((changed.roles, changed.version), (operator, 2));
        let after = users.authenticate(session.session, ann.id).await.unwrap();
        assert!(after.is_operator() && after.require_admin().is_err());

        users.set_roles(&root, ann.id, Roles::NONE).await.unwrap();
        let after = users.authenticate(session.session, ann.id).await.unwrap();
        assert!(!after.is_operator());
        let nobody = users.set_roles(&root, UserId::new(t.oms.now()), operator).await;
        assert!(matches!(nobody, Err(Error::NotFound("user"))), "{nobody:?}");
    })
    .await;
}

#[tokio::test]
async fn users_see_themselves_and_admins_all() {
    each_db(async |t| {
        let users = t.oms.users();
        let mut made = Vec::new();
        for name in ["ann", "bob", "eve"] {
            made.push(register(&t, name).await);
            t.clock.advance(Duration::from_secs(1));
        }
        let (ann, bob) = (&made[0], &made[1]);
        assert_eq!(users.me(&ann.actor()).await.unwrap(), *ann);
        let other = users.get(&ann.actor(), bob.id).await;
        assert!(matches!(other, Err(Error::NotFound("user"))), "{other:?}");
        let nobody = users.get(&Actor::Anonymous, bob.id).await;
        assert!(matches!(nobody, Err(Error::Unauthorized)), "{nobody:?}");
        assert_eq!(users.get(&Actor::System, bob.id).await.unwrap(), *bob);

        let mut listed = Vec::new();
        let mut page = PageRequest {
            cursor: None,
            limit: Some(2),
        };
        loop {
            let got = users.list(&Actor::System, page.clone()).await.unwrap();
            listed.extend(got.data);
            page.cursor = got.next_cursor;
            if page.cursor.is_none() {
                break;
            }
        }
        listed.reverse();
        assert_eq!(listed, made);
    })
    .await;
}

#[tokio::test]
async fn a_user_renames_itself_on_the_present_version() {
    each_db(async |t| {
        let users = t.oms.users();
        let ann = register(&t, "ann").await;
        register(&t, "bob").await;
        let rename = |name: Option<&str>, expected_version| UpdateMe {
            username: name.map(Into::into),
            expected_version,
        };

        let renamed = users
            .update_me(&ann.actor(), rename(Some("Anna"), 1))
            .await
            .unwrap();
        assert_eq!((renamed.username.as_str(), renamed.version), ("Anna", 2));
        assert_eq!(log_in(&t, "anna").await.user.id, ann.id);
        let recased = users
            .update_me(&ann.actor(), rename(Some("ANNA"), 2))
            .await
            .unwrap();
        assert_eq!(recased.version, 3);
        assert_eq!(
            users.update_me(&ann.actor(), rename(None, 3)).await.unwrap(),
            recased
        );

        for name in [Some("anne"), None] {
            let stale = users.update_me(&ann.actor(), rename(name, 1)).await;
            assert!(
                matches!(
                    stale,
                    Err(Error::VersionConflict {
                        expected: 1,
                        actual: 3
                    })
                ),
                "{stale:?}"
            );
        }
        let taken = users.update_me(&ann.actor(), rename(Some("BOB"), 3)).await;
        assert!(matches!(taken, Err(Error::Duplicate("user name"))), "{taken:?}");
        let wrong = users.update_me(&ann.actor(), rename(Some("a@b"), 3)).await;
        assert!(matches!(wrong, Err(Error::Invalid(_))), "{wrong:?}");
        assert_eq!(users.me(&ann.actor()).await.unwrap(), recased);
    })
    .await;
}

#[tokio::test]
async fn neither_the_database_nor_debug_holds_a_secret() {
    each_db(async |t| {
        let ann = register(&t, "ann").await;
        let token = mailed_token(&t, &ann).await;
        let first = log_in(&t, "ann").await;
        let second = t.oms.users().refresh(first.refresh_token.reveal()).await.unwrap();

        let bytes = kept(&t).await;
        assert!(holds(&bytes, "ann@example.com") && holds(&bytes, "$argon2id$v=19$m=19456,t=2,p=1$"));
        let shown = format!("{first:?} {second:?} {:?}", command("ann", "ann@example.com"));
        for secret in [
            PASSWORD,
            &token,
            first.refresh_token.reveal(),
            second.refresh_token.reveal(),
        ] {
            assert!(!holds(&bytes, secret));
            assert!(!shown.contains(secret));
        }
    })
    .await;
}
