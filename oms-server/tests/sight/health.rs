//! Whether the program says in time, and rightly, that it cannot serve.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::common::proxy::Proxy;
use crate::support::{Program, eventually, on_both, on_postgres};

async fn execute(database_url: &str, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    if database_url.starts_with("sqlite") {
        let mut connection = sqlx::SqliteConnection::connect(database_url).await.unwrap();
        connection.execute(sql).await.unwrap();
    } else {
        let mut connection = sqlx::PgConnection::connect(database_url).await.unwrap();
        connection.execute(sql).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_older_than_the_program_is_not_ready() {
    on_both(async |database_url| {
        let folder = tempfile::tempdir().unwrap();
        let program = Program::start(folder.path(), database_url, &[]).await;
        assert_eq!(program.get("/livez").await.status, 200);
        assert_eq!(program.get("/readyz").await.status, 200);
        // As if the program of before the last migration had made it.
        execute(
            database_url,
            "UPDATE _oms_migrations SET version = version + 900000 WHERE version = 2",
        )
        .await;
        let older = program.get("/readyz").await;
        assert_eq!((older.status, program.get("/livez").await.status), (503, 200));
        assert_eq!(older.headers["retry-after"], "1");
        execute(
            database_url,
            "UPDATE _oms_migrations SET version = version - 900000 WHERE version > 900000",
        )
        .await;
        assert_eq!(program.get("/readyz").await.status, 200);
        // A newer program has migrated: this one goes on until it is replaced.
        let newer = "INSERT INTO _oms_migrations (version, description, success, checksum, execution_time)
                     SELECT 999, 'of the future', success, checksum, execution_time FROM _oms_migrations WHERE version = 1";
        execute(database_url, newer).await;
        assert_eq!(program.get("/readyz").await.status, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_database_holds_up_neither_probes_nor_metrics() {
    on_postgres(async |database_url| {
        let (network, url) = Proxy::before(database_url).await;
        let folder = tempfile::tempdir().unwrap();
        let program = Program::start(folder.path(), &url, &[("OMS_LOG", "error")]).await;
        assert!(program.get("/metrics").await.text.contains("\noms_db_up 1\n"));

        network.go_dark(true);
        for (path, status) in [("/livez", 200), ("/readyz", 503), ("/metrics", 200)] {
            let started = Instant::now();
            assert_eq!(program.get(path).await.status, status, "{path}");
            assert!(
                started.elapsed() < Duration::from_secs(4),
                "{path} took {:?}",
                started.elapsed()
            );
        }
        eventually("the last look to be too old", async || {
            let text = program.get("/metrics").await.text;
            let seen =
                text.contains("\noms_db_up 0\n") && text.contains("\noms_orders_awaiting_payment NaN\n");
            seen.then_some(()).ok_or_else(|| "not yet".into())
        })
        .await;

        network.go_dark(false);
        eventually("readiness", async || match program.get("/readyz").await.status {
            200 => Ok(()),
            status => Err(status.to_string()),
        })
        .await;
        eventually("a new look", async || {
            let text = program.get("/metrics").await.text;
            text.contains("\noms_orders_awaiting_payment 0\n")
                .then_some(())
                .ok_or(text)
        })
        .await;
    })
    .await;
}
