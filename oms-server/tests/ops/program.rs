//! The program on a folder of its own, and databases for it.

use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};

/// With neither variables nor an `.env` of whoever runs the tests.
pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oms-server"));
    command
        .env_clear()
        .current_dir(folder)
        .arg("--data-dir")
        .arg(folder)
        .args(args)
        .stdin(Stdio::null());
    command
}

pub(crate) fn run(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

/// What it printed; it must have succeeded.
#[track_caller]
pub(crate) fn ok(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
pub(crate) fn json(folder: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&ok(folder, args)).unwrap()
}

/// What it said; it must have ended with this status.
#[track_caller]
pub(crate) fn fails(folder: &Path, args: &[&str], status: i32) -> String {
    let output = run(folder, args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {said}");
    said
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The database that the program makes in its folder.
pub(crate) fn sqlite_url(folder: &Path) -> String {
    format!("sqlite://{}", folder.join("oms.db").display())
}

pub(crate) async fn sqlite(path: &Path) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite://{}", path.display()))
        .await
        .unwrap()
}

/// A fresh database on the server that the test command started, dropped with the story. Boxed, since stories are long.
pub(crate) fn with_postgres(story: impl AsyncFn(&str)) -> Pin<Box<impl Future<Output = ()>>> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let (admin_url, name) = (postgres_url(), format!("oms_ops_{}_{count}", std::process::id()));
    Box::pin(async move {
        let mut admin = PgConnection::connect(&admin_url).await.unwrap();
        let sql = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        admin.execute(sql).await.unwrap();
        story(&format!("{}/{name}", admin_url.rsplit_once('/').unwrap().0)).await;
        let sql = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
        admin.execute(sql).await.unwrap();
    })
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
