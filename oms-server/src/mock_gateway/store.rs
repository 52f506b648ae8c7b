//! The bank's own small SQLite file: payments, answers by idempotency key, and the outbox.
//!
//! A payment is one JSON document: nothing ever asks for a part of one.

use super::faults::{Flaw, Planned};
use super::model::Payment;
use anyhow::Context as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Sqlite, SqliteConnection};
use std::path::Path;
use std::time::Duration;

pub(super) type Tx = sqlx::Transaction<'static, Sqlite>;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS payment (
        id TEXT NOT NULL PRIMARY KEY,
        merchant_payment_id TEXT NOT NULL UNIQUE,
        document TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS answer (
        key TEXT NOT NULL PRIMARY KEY,
        fingerprint TEXT NOT NULL,
        status INTEGER NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS delivery (
        id INTEGER PRIMARY KEY,
        payment_id TEXT NOT NULL REFERENCES payment (id),
        url TEXT NOT NULL,
        message_id TEXT NOT NULL,
        body TEXT NOT NULL,
        flaw TEXT,
        attempts INTEGER NOT NULL DEFAULT 0,
        next_at_ms INTEGER,
        last_result TEXT
    ) STRICT;
    CREATE INDEX IF NOT EXISTS delivery_due ON delivery (next_at_ms) WHERE next_at_ms IS NOT NULL;
";

/// Opens the file, making it and its folder when they are missing.
pub(super) async fn open(path: &Path) -> anyhow::Result<SqlitePool> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // An answer says that money moved: it must survive the power going.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5));
    // One connection: the bank is never busy enough for two to be worth their lock conflicts.
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .with_context(|| format!("cannot open the bank's database {}", path.display()))?;
    sqlx::raw_sql(SCHEMA).execute(&pool).await?;
    Ok(pool)
}

pub(super) async fn insert_payment(tx: &mut Tx, payment: &Payment) -> anyhow::Result<()> {
    sqlx::query("INSERT INTO payment (id, merchant_payment_id, document) VALUES ($1, $2, $3)")
        .bind(&payment.id)
        .bind(&payment.merchant_payment_id)
        .bind(serde_json::to_string(payment)?)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(super) async fn update_payment(tx: &mut Tx, payment: &Payment) -> anyhow::Result<()> {
    sqlx::query("UPDATE payment SET document = $2 WHERE id = $1")
        .bind(&payment.id)
        .bind(serde_json::to_string(payment)?)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(super) async fn payment(conn: &mut SqliteConnection, id: &str) -> anyhow::Result<Option<Payment>> {
    let document: Option<String> = sqlx::query_scalar("SELECT document FROM payment WHERE id = $1")
        .bind(id)
        .fetch_optional(conn)
        .await?;
    document.map(read_document).transpose()
}

pub(super) async fn payment_of_merchant(
    conn: &mut SqliteConnection,
    merchant_payment_id: &str,
) -> anyhow::Result<Option<Payment>> {
    let document: Option<String> =
        sqlx::query_scalar("SELECT document FROM payment WHERE merchant_payment_id = $1")
            .bind(merchant_payment_id)
            .fetch_optional(conn)
            .await?;
    document.map(read_document).transpose()
}

#[expect(clippy::needless_pass_by_value, reason = "reads well in `Option::map`")]
fn read_document(document: String) -> anyhow::Result<Payment> {
    serde_json::from_str(&document).context("payment.document of the bank cannot be read")
}

/// What was answered to the first request with a key.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Stored {
    pub(super) fingerprint: String,
    pub(super) status: u16,
    pub(super) body: String,
}

pub(super) async fn answer(tx: &mut Tx, key: &str) -> anyhow::Result<Option<Stored>> {
    let stored = sqlx::query_as("SELECT fingerprint, status, body FROM answer WHERE key = $1")
        .bind(key)
        .fetch_optional(&mut **tx)
        .await?;
    Ok(stored)
}

pub(super) async fn insert_answer(tx: &mut Tx, key: &str, stored: &Stored) -> anyhow::Result<()> {
    sqlx::query("INSERT INTO answer (key, fingerprint, status, body) VALUES ($1, $2, $3, $4)")
        .bind(key)
        .bind(&stored.fingerprint)
        .bind(stored.status)
        .bind(&stored.body)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// A webhook to be sent.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct Delivery {
    pub(super) id: i64,
    pub(super) payment_id: String,
    pub(super) url: String,
    pub(super) message_id: String,
    pub(super) body: String,
    pub(super) flaw: Option<Flaw>,
    pub(super) attempts: u32,
}

pub(super) async fn insert_delivery(
    tx: &mut Tx,
    payment_id: &str,
    url: &str,
    planned: &Planned,
    now_ms: i64,
) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO delivery (payment_id, url, message_id, body, flaw, next_at_ms)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(payment_id)
    .bind(url)
    .bind(&planned.message_id)
    .bind(&planned.body)
    .bind(planned.flaw)
    .bind(now_ms + planned.after_ms)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Deliveries whose time has come, oldest first.
pub(super) async fn due(pool: &SqlitePool, now_ms: i64) -> anyhow::Result<Vec<Delivery>> {
    let due = sqlx::query_as(
        "SELECT id, payment_id, url, message_id, body, flaw, attempts FROM delivery
         WHERE next_at_ms <= $1 ORDER BY next_at_ms, id LIMIT 256",
    )
    .bind(now_ms)
    .fetch_all(pool)
    .await?;
    Ok(due)
}

/// When the next delivery after this moment is due.
pub(super) async fn next_due(pool: &SqlitePool, now_ms: i64) -> anyhow::Result<Option<i64>> {
    let next = sqlx::query_scalar("SELECT min(next_at_ms) FROM delivery WHERE next_at_ms > $1")
        .bind(now_ms)
        .fetch_one(pool)
        .await?;
    Ok(next)
}

/// Writes down an attempt; without a next time the delivery is over, for better or worse.
pub(super) async fn record_attempt(
    pool: &SqlitePool,
    id: i64,
    result: &str,
    next_at_ms: Option<i64>,
) -> anyhow::Result<()> {
    sqlx::query(
        "UPDATE delivery SET attempts = attempts + 1, last_result = $2, next_at_ms = $3 WHERE id = $1",
    )
    .bind(id)
    .bind(result)
    .bind(next_at_ms)
    .execute(pool)
    .await?;
    Ok(())
}
