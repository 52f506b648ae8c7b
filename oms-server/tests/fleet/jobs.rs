//! Each job is enqueued once and run once, whoever looks. Triggers of the test write down what happened to the queue.

use std::time::Duration;

use oms_core::Timestamp;
use sqlx::{Connection, Executor, PgConnection};

use crate::common::database::{Database, raw};
use crate::company::Fleet;

/// Begins to write down.
pub(crate) async fn watch(database: &Database) {
    let sql = "
        CREATE TABLE watched (job uuid, kind text, what text, at timestamptz DEFAULT clock_timestamp());
        CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO watched (job, kind, what) VALUES (NEW.id, NEW.kind, TG_ARGV[0]);
            RETURN NULL;
        END $$;
        CREATE TRIGGER watch_new AFTER INSERT ON oms_job
            FOR EACH ROW EXECUTE FUNCTION watch('enqueued');
        CREATE TRIGGER watch_claims AFTER UPDATE ON oms_job
            FOR EACH ROW WHEN (NEW.lease > OLD.lease) EXECUTE FUNCTION watch('claimed')";
    let mut admin = PgConnection::connect(&database.url).await.unwrap();
    admin.execute(sql).await.unwrap();
}

/// The period of the job that settles orders which nobody paid.
const PERIOD: Duration = Duration::from_secs(10);

pub(crate) async fn each_ran_once(fleet: &Fleet) {
    let sql = "SELECT at FROM watched WHERE kind = 'expire_orders' AND what = 'enqueued' ORDER BY at";
    let mut times: Vec<Timestamp> = Vec::new();
    // The last one may just be on its way.
    let since = std::time::Instant::now();
    while times.len() < 3 {
        assert!(
            since.elapsed() < 6 * PERIOD,
            "periodic jobs do not come: {times:?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
        times = raw!(fleet.database, |conn| sqlx::query_scalar(sql)
            .fetch_all(conn)
            .await)
        .unwrap();
    }
    for pair in times.windows(2) {
        let apart = pair[1].as_micros() - pair[0].as_micros();
        let seconds = apart as f64 / 1e6;
        // The clocks of several processes and of the database took part, on a machine that may be busy. That nobody runs
        // one early or twice is the point.
        assert!(
            (8.0..30.0).contains(&seconds),
            "two periodic jobs are {seconds} s apart, not {PERIOD:?}"
        );
    }
    let sql = "SELECT kind FROM watched WHERE what = 'claimed' GROUP BY job, kind HAVING count(*) > 1";
    let twice: Vec<String> = raw!(fleet.database, |conn| sqlx::query_scalar(sql)
        .fetch_all(conn)
        .await)
    .unwrap();
    let periodic = ["expire_orders", "rescue_attempts", "purge"];
    assert!(
        !twice.iter().any(|kind| periodic.contains(&kind.as_str())),
        "claimed twice: {twice:?}"
    );
    let sql = "SELECT count(DISTINCT job) FROM watched WHERE what = 'claimed'";
    let all: i64 = raw!(fleet.database, |conn| sqlx::query_scalar(sql)
        .fetch_one(conn)
        .await)
    .unwrap();
    println!(
        "{all} jobs run by three workers, {} of them given back and claimed again; one job for each of {} periods",
        twice.len(),
        times.len()
    );
}
