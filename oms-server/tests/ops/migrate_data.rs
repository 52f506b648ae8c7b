//! A shop moves, whole or not at all.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::common::fresh::with_postgres;
use crate::common::proxy::Proxy;
use crate::program::{command, fails, json, ok, run, sqlite, sqlite_url, text};
use crate::shop::{PASSWORD, Shop};
use oms_core::{Actor, Oms};

fn move_args<'a>(from: &'a str, to: &'a str) -> [&'a str; 6] {
    ["migrate-data", "--json", "--from", from, "--to", to]
}

/// Tables as the migrations write them.
fn tables_of_the_migrations() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/postgres");
    let mut tables = BTreeSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let sql = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let names = sql.lines().filter_map(|line| line.strip_prefix("CREATE TABLE "));
        tables.extend(names.map(|rest| rest.split([' ', '(']).next().unwrap().to_owned()));
    }
    assert!(tables.len() > 20);
    tables
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_shop_moves_to_postgres_goes_on_there_and_comes_back() {
    with_postgres(async |postgres| {
        let folder = tempfile::tempdir().unwrap();
        let from = sqlite_url(folder.path());
        let shop = Shop::make(&from).await;
        let states = shop.states().await;
        assert_eq!(states.len(), 6, "{states:?}");
        let last = shop.order("the-last-one-here").await.number;
        shop.oms.shutdown().await;

        let moved = json(folder.path(), &move_args(&from, postgres));
        let tables = moved["tables"].as_object().unwrap();
        let names: BTreeSet<String> = tables.keys().cloned().collect();
        assert_eq!(names, tables_of_the_migrations());
        // Plugins come as components, which this shop has none of, and so none of their calls are recorded; nothing else may
        // be an empty test.
        let empty: Vec<_> = tables
            .iter()
            .filter(|(_, rows)| **rows == 0)
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(empty, ["oms_plugin_call", "oms_plugin_version"]);
        assert_eq!(moved["counters"]["order_number"], last);

        let there = Shop::open(postgres).await;
        assert_eq!(there.states().await, states);
        let users = there.oms.users();
        users
            .log_in(&Actor::Anonymous, "ann@example.com", PASSWORD)
            .await
            .unwrap();
        let order = there.paid("the-first-one-there").await;
        assert_eq!((order.number, order.state.as_str()), (last + 1, "paid"));
        let again = there.order("waiting").await;
        assert!(
            again.number < last,
            "a key that was used before the move made another order"
        );
        assert_eq!(
            there.oms.verify(&Actor::System).await.unwrap(),
            Vec::<String>::new()
        );
        there.oms.shutdown().await;

        // And back, into another file.
        let home = tempfile::tempdir().unwrap();
        let to = sqlite_url(home.path());
        let back = json(home.path(), &move_args(postgres, &to));
        assert_eq!(back["counters"]["order_number"], last + 1);
        assert_eq!(ok(home.path(), &["verify"]), "no violation found\n");
        let home_again = Shop::open(&to).await;
        assert_eq!(home_again.order("the-first-one-back").await.number, last + 2);
        home_again.oms.shutdown().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_moved_safely_is_refused() {
    with_postgres(async |postgres| {
        let folder = tempfile::tempdir().unwrap();
        let from = sqlite_url(folder.path());
        let said = fails(folder.path(), &move_args(&from, postgres), 1);
        assert!(said.contains("no database"), "{said}");
        let said = fails(folder.path(), &move_args(&from, "sqlite://other.db"), 1);
        assert!(said.contains("one kind"), "{said}");

        let shop = Shop::make(&from).await;
        // Somebody else has the shop open and writes.
        let mut writer = sqlite(&folder.path().join("oms.db")).await;
        writer.execute("BEGIN IMMEDIATE").await.unwrap();
        fails(folder.path(), &move_args(&from, postgres), 1);
        writer.execute("ROLLBACK").await.unwrap();
        shop.oms.shutdown().await;

        // The target is in use.
        let there = Shop::open(postgres).await;
        let said = fails(folder.path(), &move_args(&from, postgres), 1);
        assert!(said.contains("in use"), "{said}");
        there.oms.shutdown().await;

        // The target has a user: ann, whom opening made.
        let said = fails(folder.path(), &move_args(&from, postgres), 1);
        assert!(said.contains("not empty"), "{said}");
    })
    .await;
    with_postgres(async |postgres| {
        let folder = tempfile::tempdir().unwrap();
        let from = sqlite_url(folder.path());
        Shop::make(&from).await.oms.shutdown().await;
        let mut db = sqlite(&folder.path().join("oms.db")).await;
        db.execute("UPDATE oms_stock SET on_hand = on_hand + 1")
            .await
            .unwrap();
        db.close().await.unwrap();
        let said = fails(folder.path(), &move_args(&from, postgres), 1);
        assert!(said.contains("broken"), "{said}");
        assert_eq!(rows(postgres).await, 0);
    })
    .await;
}

/// Rows of all tables; none while there is no schema.
async fn rows(postgres: &str) -> i64 {
    let mut conn = PgConnection::connect(postgres).await.unwrap();
    let sql = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname LIKE 'oms\\_%'";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut conn).await.unwrap();
    let mut rows = 0;
    for table in tables {
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        rows += sqlx::query_scalar::<_, i64>(sql)
            .fetch_one(&mut conn)
            .await
            .unwrap();
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_the_target_is_empty_and_the_next_try_works() {
    with_postgres(async |postgres| {
        let folder = tempfile::tempdir().unwrap();
        let from = sqlite_url(folder.path());
        Shop::make(&from).await.oms.shutdown().await;
        grow(&folder.path().join("oms.db")).await;
        let args = move_args(&from, postgres);

        // Before it writes, and at several moments after it has begun to.
        for written_for in [None, Some(0), Some(150), Some(400), Some(800)] {
            let mut child = command(folder.path(), &args)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            if let Some(time) = written_for {
                while !writing(postgres).await {
                    assert!(
                        child.try_wait().unwrap().is_none(),
                        "it ended and was never seen to write"
                    );
                }
                tokio::time::sleep(Duration::from_millis(time)).await;
            } else {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            child.kill().unwrap();
            let status = child.wait().unwrap();
            assert!(
                !status.success(),
                "the shop is too small: it was copied in {written_for:?} ms"
            );
            assert_eq!(
                rows(postgres).await,
                0,
                "killed when it had written for {written_for:?} ms"
            );
            // Its session may still be in its last statement, and hold its locks.
            while writing(postgres).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let output = run(folder.path(), &args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let moved: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(moved["tables"]["oms_stock_movement"].as_i64().unwrap() > 200_000);
        let there = Shop::open(postgres).await;
        assert_eq!(
            there.oms.verify(&Actor::System).await.unwrap(),
            Vec::<String>::new()
        );
        there.oms.shutdown().await;
    })
    .await;
}

/// The network behind which PostgreSQL lies falls silent: before anything, and in the middle of the copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_network_ends_it_with_an_error() {
    with_postgres(async |postgres| {
        let folder = tempfile::tempdir().unwrap();
        let from = sqlite_url(folder.path());
        Shop::make(&from).await.oms.shutdown().await;
        // With the schema there, writing one table can be made to take for ever.
        let oms = Oms::builder(postgres).connect().await.unwrap();
        oms.migrate().await.unwrap();
        oms.shutdown().await;
        let mut admin = PgConnection::connect(postgres).await.unwrap();
        admin
            .execute(
                "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN PERFORM pg_sleep(300); RETURN NEW; END $$;
                 CREATE TRIGGER wait BEFORE INSERT ON oms_order FOR EACH ROW EXECUTE FUNCTION wait()",
            )
            .await
            .unwrap();
        let (network, behind) = Proxy::before(postgres).await;
        for written in [false, true] {
            network.go_dark(!written);
            let mut child = command(folder.path(), &move_args(&from, &behind))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            if written {
                while !writing(postgres).await {
                    assert!(child.try_wait().unwrap().is_none(), "it was never seen to write");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                network.go_dark(true);
            }
            let silent = Instant::now();
            let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
            let output = output.await.unwrap();
            let (took, said) = (silent.elapsed(), text(&output.stderr));
            println!("silence, written {written}: it ended after {took:?}: {said}");
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(took < Duration::from_secs(60), "{took:?}");
            assert!(
                said.contains(if written {
                    "look into the target"
                } else {
                    "does not answer"
                }),
                "{said}"
            );
        }
        assert_eq!(rows(postgres).await, 0);
    })
    .await;
}

/// Movements that cancel each other out.
async fn grow(path: &Path) {
    let mut db = sqlite(path).await;
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
         INSERT INTO oms_stock_movement (variant_id, id, delta_on_hand, delta_allocated, cause, actor, created_at)
         SELECT (SELECT variant_id FROM oms_stock), randomblob(16), 1 - 2 * (i % 2), 0, 'adjust', 'system', i FROM n",
    )
    .await
    .unwrap();
    db.close().await.unwrap();
}

/// Whether somebody has a transaction open that has written.
async fn writing(postgres: &str) -> bool {
    let mut conn = PgConnection::connect(postgres).await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity
               WHERE datname = current_database() AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()";
    let open: i64 = sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap();
    open > 0
}
