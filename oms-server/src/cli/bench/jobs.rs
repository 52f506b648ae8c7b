//! Background jobs that do nothing: what the queue itself costs.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use oms_core::{JobId, Oms};

use super::shop::{Shop, on};

/// Jobs of one commit, as a busy shop has them.
const TOGETHER: usize = 100;
/// How many a worker holds at once.
const CONCURRENCY: usize = 256;

/// Jobs in a second from their INSERT to their DELETE, in batches and one at a time.
pub(super) async fn measure(shop: &Shop, jobs: usize) -> Result<(f64, f64)> {
    let oms = shop.oms().await?;
    let batched = run(shop, &oms, jobs, TOGETHER, CONCURRENCY).await?;
    let single = run(shop, &oms, jobs / 20, 1, 1).await?;
    oms.shutdown().await;
    Ok((batched, single))
}

async fn run(shop: &Shop, oms: &Oms, jobs: usize, together: usize, concurrency: usize) -> Result<f64> {
    let worker = oms.worker().concurrency(concurrency).doing_nothing();
    let started = Instant::now();
    for first in (0..jobs).step_by(together) {
        enqueue(shop, oms, together.min(jobs - first)).await?;
    }
    let runs = worker.drain().await?;
    let took = started.elapsed();
    ensure!(runs >= jobs, "{jobs} jobs were enqueued and {runs} were run");
    let (left,): (i64,) = on!(&shop.pool, |db| {
        sqlx::query_as("SELECT count(*) FROM oms_job WHERE kind = 'send_email'")
            .fetch_one(db)
            .await
    })?;
    ensure!(left == 0, "{left} jobs were left");
    Ok(jobs as f64 / took.as_secs_f64())
}

/// One commit, with the statement of the library.
async fn enqueue(shop: &Shop, oms: &Oms, jobs: usize) -> Result<()> {
    let now = oms.now();
    let user = *shop.customers.first().context("nobody is there")?;
    let payload = serde_json::json!({ "mail": "verify_address", "user": user });
    on!(&shop.pool, |db| {
        let mut sql = sqlx::QueryBuilder::new("INSERT INTO oms_job (id, kind, payload, run_at, created_at) ");
        sql.push_values(0..jobs, |mut row, _| {
            row.push_bind(JobId::new(now)).push_bind("send_email");
            row.push_bind(sqlx::types::Json(&payload))
                .push_bind(now)
                .push_bind(now);
        });
        sql.build().execute(db).await.map(drop)
    })?;
    Ok(())
}
