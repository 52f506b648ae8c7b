//! Webhooks as a gateway sends them: each captures a payment, and with it an order is paid. Over HTTP, verified by the
//! real component, kept in the inbox, merged, durable before the answer.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::task::JoinSet;

use super::load::Latencies;
use super::over_http::{Connection, OverHttp, Server};
use super::pgbench::UUID_V7;
use super::shop::{Pool, Shop};
use super::webhooks::{PATH, bank_key, signed_headers};

/// How many deliver at once.
pub(super) const SENDERS: usize = 32;

/// A payment that waits for its customer: its id, the bank's and its amount.
type Open = (String, String, i64);

/// Webhooks in a second, and their median time. Each captures one of the payments that are open.
pub(super) async fn measure(shop: &Shop, server: &Server, data_dir: &Path) -> Result<(f64, Duration)> {
    look_over(shop).await?;
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
    ensure_captured(shop).await?;
    let load = all.load(took, payments.len() as u64);
    Ok((load.per_second, load.p50))
}

/// The statements of [`measure`] from PostgreSQL's own load generator, which sends them as fast as the server takes them:
/// no HTTP, no signature, nothing to decide. Transactions in a second.
pub(super) async fn yardstick(shop: &Shop, program: &Path, dir: &Path) -> Result<f64> {
    let Pool::Postgres(pool) = &shop.pool else {
        anyhow::bail!("webhooks are measured on PostgreSQL")
    };
    let each = open(shop).await?.len() / SENDERS;
    look_over(shop).await?;
    for statement in [
        "CREATE TABLE bench_payment AS
         SELECT (row_number() OVER () - 1)::int AS n, id
         FROM oms_payment WHERE open AND reference IS NOT NULL",
        "ALTER TABLE bench_payment ADD PRIMARY KEY (n)",
        "ANALYZE bench_payment",
    ] {
        sqlx::query(statement).execute(pool).await?;
    }
    let script = dir.join("event.sql");
    fs::write(
        &script,
        SCRIPT
            .replace("<id>", UUID_V7)
            .replace("<each>", &each.to_string()),
    )?;
    let mut command = Command::new(program);
    command
        .args(["-n", "-M", "prepared", "-j", "2", "-D", "i=0"])
        .args(["-c", &SENDERS.to_string(), "-t", &each.to_string(), "-f"])
        .arg(script)
        .arg(&shop.url);
    let ended = tokio::task::spawn_blocking(move || command.output())
        .await?
        .context("pgbench")?;
    let said = String::from_utf8_lossy(&ended.stdout);
    let rate = said
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    ensure!(
        ended.status.success() && rate.is_some(),
        "pgbench failed: {said}{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    sqlx::query("DROP TABLE bench_payment").execute(pool).await?;
    ensure_captured(shop).await?;
    rate.context("no rate")
}

/// What the library asks PostgreSQL for one event that comes alone, statement by statement (`log_statement = all` shows
/// it); those of one moment share these statements there. Where the library looks for the event's payment, this finds
/// out which one is next. A colon with something behind it would be a variable of pgbench.
const SCRIPT: &str = r#"
\set n :client_id * <each> + :i
\set i :i + 1
BEGIN;
SELECT p.id AS payment, p.order_id, p.reference FROM bench_payment b JOIN oms_payment p ON p.id = b.id
    WHERE b.n = :n AND p.account = 'mock' \gset
INSERT INTO oms_webhook_inbox (id, account, event_id, kind, payment_id, reference, event, headers,
        body, status, detail, received_at, applied_at)
    VALUES (<id>, 'mock', 'msg_' || :reference, 'payment.captured', :payment, :reference,
        '{"id": "msg_bench","kind": "payment.captured","payment": null,"reference": "bp_bench","occurred_at_ms": 1767225600000,"change": {"payment": {"status": "captured","totals": {"authorized": 1299,"captured": 1299,"refunded": 0,"canceled": 0,"currency": "EUR"},"decline_code": null,"operation_reference": null}}}',
        '[["host","bench"],["content-type","application/json"],["webhook-id","msg_bench"],["webhook-timestamp","1767225600"],["webhook-signature","v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="],["content-length","460"]]',
        convert_to(repeat('0123456789', 46), 'UTF8'), 'applied', NULL, now(), now())
    ON CONFLICT (account, event_id) DO NOTHING RETURNING id;
SELECT * FROM oms_order WHERE id IN (:order_id) ORDER BY id FOR NO KEY UPDATE;
SELECT * FROM oms_order_line WHERE order_id IN (:order_id) ORDER BY order_id, line;
SELECT * FROM oms_payment WHERE id IN (:payment) ORDER BY id FOR NO KEY UPDATE;
SELECT id, payment_id, amount, final, status, reference, created_at, updated_at
    FROM oms_capture WHERE payment_id IN (:payment) ORDER BY id;
SELECT id, payment_id, amount, reason, status, reference, created_at, updated_at
    FROM oms_refund WHERE payment_id IN (:payment) ORDER BY id;
SELECT * FROM oms_payment_attempt WHERE payment_id IN (:payment) ORDER BY id;
UPDATE oms_payment SET status = 'captured', attention = NULL, attention_reason = NULL, open = false,
        reference = :reference, authorized = amount, captured = amount, refunded = 0, canceled = 0,
        decline_code = NULL, decline_message = NULL, next_action = NULL, state = NULL, method = '[]',
        expires_at = NULL, sync_tries = 0, version = version + 1, updated_at = now()
    WHERE id = :payment;
SELECT COUNT(CASE WHEN open THEN 1 END) AS open, COUNT(CASE WHEN status = 'authorized' THEN 1 END) AS authorized,
        CAST(COALESCE(SUM(captured), 0) AS BIGINT) AS captured, CAST(COALESCE(SUM(refunded), 0) AS BIGINT) AS refunded
    FROM oms_payment WHERE order_id = :order_id;
UPDATE oms_order SET state = 'paid', payment_state = 'paid', expires_at = NULL, version = version + 1, updated_at = now()
    WHERE id = :order_id AND version = 2;
INSERT INTO oms_order_event (order_id, version, kind, actor, data, created_at)
    VALUES (:order_id, 3, 'paid', 'gateway mock',
        '{"payment": "pay_01h455vb4pex5vsknk084sn02q","captured": 1299,"currency": "EUR"}', now());
INSERT INTO oms_job (id, kind, payload, unique_key, run_at, created_at, request_id, traceparent)
    VALUES (<id>, 'send_email', '{"mail": "order_paid","order": "ord_01h455vb4pex5vsknk084sn02q"}', NULL, now(), now(),
        'bench', NULL)
    ON CONFLICT DO NOTHING;
COMMIT;
"#;

/// What autovacuum does within a minute: until then connections keep the plans of a shop that had no orders, which walk
/// over whole tables.
async fn look_over(shop: &Shop) -> Result<()> {
    if let Pool::Postgres(pool) = &shop.pool {
        sqlx::query("ANALYZE").execute(pool).await?;
    }
    Ok(())
}

async fn ensure_captured(shop: &Shop) -> Result<()> {
    let left = open(shop).await?.len();
    ensure!(left == 0, "{left} payments are not captured");
    Ok(())
}

/// Orders and starts payments at the fake bank, all customers at once: a few more than `count`, the same number for
/// each sender.
pub(super) async fn start_payments(customers: Vec<OverHttp>, count: usize) -> Result<Vec<OverHttp>> {
    let each = count.next_multiple_of(SENDERS).div_ceil(customers.len().max(1));
    let mut tasks = JoinSet::new();
    for mut customer in customers {
        tasks.spawn(async move {
            for _ in 0..each {
                customer.start_payment().await?;
            }
            anyhow::Ok(customer)
        });
    }
    let mut customers = Vec::new();
    while let Some(task) = tasks.join_next().await {
        customers.push(task.context("a customer panicked")??);
    }
    Ok(customers)
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
