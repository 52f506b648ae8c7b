//! Who asks, when many ask at the same moment.

use std::time::Duration;

use futures_util::future::join_all;
use oms_core::users::{LoggedIn, Register};
use oms_core::{Actor, Error};

use crate::support::{TestOms, each_db};

const PASSWORD: &str = "correct horse battery";

async fn log_in(t: &TestOms, name: &str) -> LoggedIn {
    let command = Register {
        username: name.into(),
        email: format!("{name}@example.com"),
        password: PASSWORD.into(),
    };
    let users = t.oms.users();
    users.register(&Actor::Anonymous, command).await.unwrap();
    users.log_in(&Actor::Anonymous, name, PASSWORD).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_is_told_about_their_own_session() {
    each_db(async |t| {
        let (ann, bob, eve) = (
            log_in(&t, "ann").await,
            log_in(&t, "bob").await,
            log_in(&t, "eve").await,
        );
        let users = t.oms.users();
        users.log_out(&eve.user.actor(), eve.session).await.unwrap();
        let asked = (0..600).map(|n| {
            let (session, user) = match n % 4 {
                0 => (ann.session, ann.user.id),
                1 => (bob.session, bob.user.id),
                2 => (eve.session, eve.user.id),
                // Somebody else's session.
                _ => (ann.session, bob.user.id),
            };
            let oms = t.oms.clone();
            tokio::spawn(async move { oms.users().authenticate(session, user).await })
        });
        for (n, answer) in join_all(asked).await.into_iter().enumerate() {
            let answer = answer.unwrap();
            match n % 4 {
                0 => assert_eq!(answer.unwrap().user_id(), Some(ann.user.id)),
                1 => assert_eq!(answer.unwrap().user_id(), Some(bob.user.id)),
                _ => assert!(matches!(answer, Err(Error::Unauthorized)), "{answer:?}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_waits_for_an_answer_after_the_end() {
    each_db(async |t| {
        let ann = log_in(&t, "ann").await;
        t.oms.shutdown().await;
        let users = t.oms.users();
        let asked = users.authenticate(ann.session, ann.user.id);
        let answer = tokio::time::timeout(Duration::from_secs(5), asked).await.unwrap();
        assert!(matches!(answer, Err(Error::Overloaded { .. })), "{answer:?}");
    })
    .await;
}
