//! What the kills left behind, past the server.

use std::path::Path;
use std::time::{Duration, Instant};

use oms_core::{Clock, SystemClock};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use crate::common::database::{Database, raw};

/// How long the server may take to do what the kills left behind.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who works on their own schedule and is never done.
const PERIODIC: &str = "('expire_orders', 'rescue_attempts', 'purge')";

impl Database {
    /// Moves what waits for time to pass five minutes back, as if the server had stayed down for so long. Only while
    /// it is down.
    pub(crate) async fn pretend_long_outage(&self) {
        let now = SystemClock.now();
        let before = now - Duration::from_secs(300);
        for sql in [
            "UPDATE oms_job SET leased_until = $1 WHERE leased_until IS NOT NULL",
            "UPDATE oms_job SET run_at = $1 WHERE leased_until IS NULL",
            "UPDATE oms_payment_attempt SET updated_at = $1 WHERE status = 'in_flight'",
            "UPDATE oms_schedule SET next_run = $1",
        ] {
            raw!(self, |conn| sqlx::query(sql)
                .bind(before)
                .execute(conn)
                .await
                .map(drop))
            .unwrap();
        }
    }

    /// Waits until the bank has told everything and nothing is left to do or to find out.
    pub(crate) async fn drain(&self, folder: &Path) {
        let since = Instant::now();
        let mut calm = 0;
        // Twice, since a job that ends between the two questions may make the bank speak.
        while calm < 2 {
            self.hasten().await;
            let (untold, left) = (untold(folder).await, self.left().await);
            calm = if untold == 0 && left.is_empty() {
                calm + 1
            } else {
                0
            };
            assert!(
                since.elapsed() < PATIENCE,
                "after {} s {untold} webhooks are left, and {left:#?}",
                PATIENCE.as_secs()
            );
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// What would run within the next 150 s runs now: the first look at a payment whose outcome is unknown waits for
    /// 30 s, the second one for 2 minutes.
    async fn hasten(&self) {
        let now = SystemClock.now();
        let soon = now + Duration::from_secs(150);
        let sql = "UPDATE oms_job SET run_at = $1 WHERE leased_until IS NULL AND run_at > $1 AND run_at < $2";
        raw!(self, |conn| sqlx::query(sql)
            .bind(now)
            .bind(soon)
            .execute(conn)
            .await
            .map(drop))
        .unwrap();
    }

    /// What the server still has to do, in words. The job that looks at a payment may stand for long after others have
    /// settled it, so that the payments are asked instead.
    async fn left(&self) -> Vec<(String, String)> {
        let sql = AssertSqlSafe(format!(
            "SELECT kind, coalesce(last_error, 'no error yet') FROM oms_job
             WHERE kind NOT IN {PERIODIC} AND kind <> 'reconcile_payment'
             UNION ALL
             SELECT 'attempt: ' || operation, status FROM oms_payment_attempt WHERE status IN ('in_flight', 'unknown')
             UNION ALL
             SELECT 'payment: ' || status, coalesce(attention, '') FROM oms_payment
             WHERE attention = 'unknown' OR status IN ('created', 'pending')
             UNION ALL
             SELECT 'unwanted payment: ' || p.status, coalesce(p.attention, '')
             FROM oms_payment p JOIN oms_order o ON o.id = p.order_id
             WHERE p.open AND o.state <> 'awaiting_payment'"
        ));
        raw!(self, |conn| sqlx::query_as(sql).fetch_all(conn).await).unwrap()
    }
}

/// Webhooks that the bank has still to deliver.
async fn untold(folder: &Path) -> i64 {
    let sql = "SELECT count(*) FROM delivery WHERE next_at_ms IS NOT NULL";
    sqlx::query_scalar(sql)
        .fetch_one(&mut bank(folder).await)
        .await
        .unwrap()
}

/// The bank's own books.
pub(crate) async fn bank(folder: &Path) -> SqliteConnection {
    let path = folder.join("mock-gateway.db");
    SqliteConnection::connect(&format!("sqlite://{}", path.display()))
        .await
        .unwrap()
}
