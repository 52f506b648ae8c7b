//! `each_db` hands a story a fresh shop: once on SQLite in a temporary file, once on a fresh PostgreSQL database.

use std::sync::atomic::{AtomicU32, Ordering};

use oms_core::testing::{CapturedMails, ManualClock};
use oms_core::{Oms, OmsBuilder, Timestamp};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// A shop to test with.
pub struct TestOms {
    pub oms: Oms,
    pub url: String,
    pub clock: ManualClock,
    pub mails: CapturedMails,
}

/// 2026-01-01, so that no test depends on the day it runs.
pub const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// Plays the story on both databases.
pub async fn each_db(story: impl AsyncFn(TestOms)) {
    each_db_with(|builder| builder, story).await;
}

/// As [`each_db`], with a builder to which the story adds its own.
pub async fn each_db_with(setup: impl Fn(OmsBuilder) -> OmsBuilder, story: impl AsyncFn(TestOms)) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("oms.db").display());
    println!("on SQLite");
    play(&url, &setup, &story).await;

    let (admin_url, name) = (postgres_url(), unique_name());
    let url = format!("{}/{name}", admin_url.rsplit_once('/').unwrap().0);
    let mut admin = PgConnection::connect(&admin_url).await.unwrap();
    admin
        .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await
        .unwrap();
    println!("on PostgreSQL");
    play(&url, &setup, &story).await;
    admin
        .execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
        .await
        .unwrap();
}

async fn play(url: &str, setup: &impl Fn(OmsBuilder) -> OmsBuilder, story: &impl AsyncFn(TestOms)) {
    let (clock, mails) = (ManualClock::at(START), CapturedMails::default());
    let builder = Oms::builder(url).clock(clock.clone()).mailer(mails.clone());
    let oms = setup(builder).connect().await.unwrap();
    oms.migrate().await.unwrap();
    let handle = oms.clone();
    story(TestOms {
        oms,
        url: url.into(),
        clock,
        mails,
    })
    .await;
    handle.shutdown().await;
}

/// A part that cannot run fails: there is no test without PostgreSQL.
#[expect(
    clippy::disallowed_methods,
    reason = "the test command says here where its server is"
)]
fn postgres_url() -> String {
    std::env::var("OMS_TEST_POSTGRES_URL")
        .expect("set OMS_TEST_POSTGRES_URL, or run `cargo xtask test`, which does")
}

fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "oms_test_{}_{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}
