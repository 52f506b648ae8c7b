//! An empty PostgreSQL database for each story, on the server that the test command started. The unit tests and those of
//! the server take it from here as well.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// Gives the story the address of a database of its own, which is dropped after a failure too.
pub(crate) async fn with_postgres(story: impl AsyncFnOnce(&str)) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("oms_test_{}_{count}", std::process::id());
    let admin_url = postgres_url();
    let url = format!("{}/{name}", admin_url.rsplit_once('/').unwrap().0);
    let mut admin = PgConnection::connect(&admin_url).await.unwrap();
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    admin.execute(create).await.unwrap();
    // Boxed, since stories are long.
    let played = AssertUnwindSafe(Box::pin(story(&url))).catch_unwind().await;
    let drop = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
    admin.execute(drop).await.unwrap();
    if let Err(panic) = played {
        resume_unwind(panic);
    }
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
