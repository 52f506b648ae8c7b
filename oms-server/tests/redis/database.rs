//! A fresh database for each story.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// Plays a story on a PostgreSQL database of its own, which several processes can share.
pub(crate) async fn on_postgres(story: impl AsyncFnOnce(String)) {
    let (admin_url, name) = (postgres_url(), unique_name());
    let mut admin = PgConnection::connect(&admin_url).await.unwrap();
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    admin.execute(create).await.unwrap();
    let url = format!("{}/{name}", admin_url.rsplit_once('/').unwrap().0);
    println!("on PostgreSQL");
    story(url).await;
    let drop = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
    admin.execute(drop).await.unwrap();
}

/// Plays a story on an SQLite file, which belongs to one process.
pub(crate) async fn on_sqlite(story: impl AsyncFnOnce(String)) {
    let folder = tempfile::tempdir().unwrap();
    println!("on SQLite");
    story(format!("sqlite://{}", folder.path().join("oms.db").display())).await;
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
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("oms_redis_test_{}_{count}", std::process::id())
}
