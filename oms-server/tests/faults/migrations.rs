//! Many start at once, and some are killed in the middle: the schema is the old one or the new one.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use tokio::time::sleep;

use crate::TURN;
use crate::common::database::{Database, raw};
use crate::common::postgres::Postgres;
use crate::common::server::Server;
use crate::common::{Random, seed};

const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that belongs to us in the schema.
async fn schema(database: &Database) -> Vec<String> {
    let sql = match database.url.starts_with("sqlite:") {
        true => "SELECT type || ' ' || name FROM sqlite_schema WHERE name NOT LIKE '_oms%' ORDER BY 1",
        false => {
            "SELECT relkind::text || ' ' || relname FROM pg_class
             WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE '\\_oms%' ORDER BY 1"
        }
    };
    raw!(database, |conn| sqlx::query_scalar(sql).fetch_all(conn).await).unwrap()
}

async fn fresh(postgres: &Postgres, name: &str) -> Database {
    let mut admin = PgConnection::connect(&postgres.url()).await.unwrap();
    admin
        .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await
        .unwrap();
    Database::new(format!("{}/{name}", postgres.url().rsplit_once('/').unwrap().0))
}

fn file(folder: &Path, name: &str) -> Database {
    Database::new(format!("sqlite://{}?mode=rwc", folder.join(name).display()))
}

/// The schema as it is after an undisturbed migration.
async fn migrated(folder: &Path, database: &Database) -> Vec<String> {
    migrate(folder, database);
    let schema = schema(database).await;
    assert!(schema.len() > 20, "{schema:?}");
    schema
}

fn migrate(folder: &Path, database: &Database) {
    let output = Server::new(folder, &database.url).run(&["migrate"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn those_who_start_at_once_all_become_ready() {
    let _turn = TURN.lock().await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let postgres = Postgres::start("");
    let folder = tempfile::tempdir().unwrap();
    for (whole, empty, served) in [
        (
            fresh(&postgres, "whole").await,
            fresh(&postgres, "a").await,
            fresh(&postgres, "b").await,
        ),
        (
            file(folder.path(), "whole"),
            file(folder.path(), "a"),
            file(folder.path(), "b"),
        ),
    ] {
        let expected = migrated(folder.path(), &whole).await;
        let mut all: Vec<Server> = (0..4).map(|_| Server::new(folder.path(), &empty.url)).collect();
        all.iter_mut().for_each(|server| server.spawn(&["migrate"]));
        for server in &mut all {
            assert!(server.ended(PATIENCE).await.success());
        }
        assert_eq!(schema(&empty).await, expected);

        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let mut all: Vec<Server> = folders
            .iter()
            .map(|own| Server::new(own.path(), &served.url))
            .collect();
        let since = Instant::now();
        all.iter_mut().for_each(|server| server.spawn(&["serve"]));
        for server in &mut all {
            server.ready().await;
        }
        assert_eq!(schema(&served).await, expected);
        println!(
            "{served}: 4 migrations at once are one; 3 servers at once ready after {:?}",
            since.elapsed()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_migration_killed_on_postgres_leaves_nothing() {
    let _turn = TURN.lock().await;
    let postgres = Postgres::start("");
    let folder = tempfile::tempdir().unwrap();
    let expected = migrated(folder.path(), &fresh(&postgres, "whole").await).await;
    let database = fresh(&postgres, "torn").await;

    // The last thing that a migration writes is its entry in this table: there it must wait, with all else done.
    let mut blocker = PgConnection::connect(&database.url).await.unwrap();
    let table = "CREATE TABLE _oms_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
                     installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), success BOOLEAN NOT NULL,
                     checksum BYTEA NOT NULL, execution_time BIGINT NOT NULL)";
    blocker.execute(table).await.unwrap();
    let lock = "BEGIN; LOCK TABLE _oms_migrations IN SHARE MODE";
    blocker.execute(lock).await.unwrap();
    let mut server = Server::new(folder.path(), &database.url);
    server.spawn(&["migrate"]);
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = 'torn' AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO _oms_migrations%'";
    // Another connection: within a transaction this view stands still.
    let mut watcher = PgConnection::connect(&database.url).await.unwrap();
    until(&mut watcher, waits, 1).await;
    server.kill();
    assert!(schema(&database).await.is_empty());
    blocker.execute("ROLLBACK").await.unwrap();
    until(
        &mut watcher,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'torn' AND application_name = 'oms'",
        0,
    )
    .await;
    assert!(schema(&database).await.is_empty());

    migrate(folder.path(), &database);
    assert_eq!(schema(&database).await, expected);
    println!("PostgreSQL: killed before its last row, the schema was empty; then the migration was whole");
}

async fn until(connection: &mut PgConnection, sql: &'static str, wanted: i64) {
    let since = Instant::now();
    loop {
        let (count,): (i64,) = sqlx::query_as(sql).fetch_one(&mut *connection).await.unwrap();
        if count == wanted {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{count} and not {wanted}: {sql}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_migration_killed_on_sqlite_is_whole_or_not_there() {
    const ROUNDS: usize = 20;
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let expected = migrated(folder.path(), &file(folder.path(), "whole")).await;

    // While it waits for another writer.
    let database = file(folder.path(), "waiting");
    let mut blocker = SqliteConnection::connect(&database.url).await.unwrap();
    blocker
        .execute("PRAGMA journal_mode = WAL; BEGIN IMMEDIATE")
        .await
        .unwrap();
    let mut server = Server::new(folder.path(), &database.url);
    server.spawn(&["migrate"]);
    sleep(Duration::from_millis(500)).await;
    server.kill();
    blocker.execute("ROLLBACK").await.unwrap();
    assert!(schema(&database).await.is_empty());
    migrate(folder.path(), &database);
    assert_eq!(schema(&database).await, expected);

    // While it writes: from the moment the log grows, some hundred microseconds earlier or later.
    let mut random = Random(seed());
    let (mut old, mut new) = (0, 0);
    for round in 0..ROUNDS {
        let name = format!("torn-{round}");
        let database = file(folder.path(), &name);
        let log = folder.path().join(format!("{name}-wal"));
        let mut server = Server::new(folder.path(), &database.url);
        server.spawn(&["migrate"]);
        let since = Instant::now();
        let begun = |path: &Path| std::fs::metadata(path).is_ok_and(|file| file.len() > 0);
        while !begun(&log) && since.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_micros(100));
        }
        std::thread::sleep(Duration::from_micros(random.below(3_000)));
        drop(server);
        match schema(&database).await {
            empty if empty.is_empty() => old += 1,
            whole => {
                assert_eq!(whole, expected, "killed in round {round}");
                new += 1;
            }
        }
        migrate(folder.path(), &database);
        assert_eq!(schema(&database).await, expected);
    }
    println!(
        "SQLite: killed {ROUNDS} times while it wrote: {old} times the old schema, {new} times the new one"
    );
}
