//! Webhooks as a gateway sends them: each captures a payment, and with it an order is paid. Over HTTP, verified by the
//! real component, kept in the inbox, merged, durable before the answer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::task::JoinSet;

use super::load::Latencies;
use super::over_http::{Connection, OverHttp, Server};
use super::shop::{Pool, Shop, Wishes};
use super::webhooks::{PATH, bank_key, signed_headers};

/// How many deliver at once.
pub(super) const SENDERS: usize = 32;

/// A payment that waits for its customer: its id, the bank's and its amount.
type Open = (String, String, i64);

/// Webhooks in a second, and their median time.
pub(super) async fn measure(
    shop: &Shop,
    server: &Server,
    tokens: &[String],
    wishes: Vec<Wishes>,
    data_dir: &Path,
    count: usize,
) -> Result<(f64, Duration)> {
    let customers = OverHttp::callers(server, tokens, wishes).await?;
    start_payments(customers, count).await?;
    let payments = Arc::new(open(shop).await?);
    let key: Arc<[u8]> = bank_key(data_dir)?.into();
    let next = Arc::new(AtomicUsize::new(0));
    let mut senders = JoinSet::new();
    let started = Instant::now();
    for _ in 0..SENDERS {
        let (payments, key, next) = (Arc::clone(&payments), Arc::clone(&key), Arc::clone(&next));
        let mut connection = Connection::open(server.address).await?;
        senders.spawn(async move {
            let mut latencies = Latencies::new()?;
            while let Some(payment) = payments.get(next.fetch_add(1, Ordering::Relaxed)) {
                let sent = Instant::now();
                deliver(&mut connection, &key, payment).await?;
                latencies.record(sent.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut all = Latencies::new()?;
    while let Some(sender) = senders.join_next().await {
        all.add(&sender.context("a sender panicked")??)?;
    }
    let took = started.elapsed();
    let left = open(shop).await?.len();
    ensure!(
        left == 0,
        "{left} of {} payments are not captured",
        payments.len()
    );
    let load = all.load(took, payments.len() as u64);
    Ok((load.per_second, load.p50))
}

/// Orders and starts payments at the fake bank, all customers at once.
async fn start_payments(customers: Vec<OverHttp>, count: usize) -> Result<()> {
    let each = count.div_ceil(customers.len().max(1));
    let mut tasks = JoinSet::new();
    for mut customer in customers {
        tasks.spawn(async move {
            for _ in 0..each {
                customer.start_payment().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.context("a customer panicked")??;
    }
    Ok(())
}

async fn open(shop: &Shop) -> Result<Vec<Open>> {
    let Pool::Postgres(pool) = &shop.pool else {
        anyhow::bail!("webhooks over HTTP are measured on PostgreSQL")
    };
    let rows: Vec<(oms_core::PaymentId, String, i64)> =
        sqlx::query_as("SELECT id, reference, amount FROM oms_payment WHERE open AND reference IS NOT NULL")
            .fetch_all(pool)
            .await?;
    Ok(rows
        .into_iter()
        .map(|(id, reference, amount)| (id.to_string(), reference, amount))
        .collect())
}

async fn deliver(connection: &mut Connection, key: &[u8], payment: &Open) -> Result<()> {
    let (id, reference, amount) = payment;
    let now = oms_core::Clock::now(&oms_core::SystemClock);
    let body = json!({
        "type": "payment.captured", "created_at_ms": now.as_secs() * 1000,
        "data": { "payment": {
            "id": reference, "merchant_payment_id": id, "status": "captured", "amount": amount, "currency": "EUR",
            "exponent": 2, "authorized": amount, "captured": amount, "refunded": 0, "canceled": 0,
            "redirect_url": null, "decline_code": null, "refunds": [],
            "captures": [{ "id": format!("cp_{reference}"), "amount": amount }],
        }},
    })
    .to_string();
    let headers = signed_headers(key, &format!("msg_{reference}"), now, &body)?
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .concat();
    let (status, answer) = connection.post(PATH, &headers, body.as_bytes()).await?;
    ensure!(
        (200..300).contains(&status),
        "a webhook was answered with {status}: {}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}
