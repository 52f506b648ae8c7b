//! SQL of payments. Captures and refunds are loaded with their payment and stored by [`parts`].

pub(super) mod attempts;
pub(crate) mod inbox;
mod parts;
mod verify;

use std::time::Duration;

use sqlx::QueryBuilder;
use sqlx::types::Json;
use uuid::Uuid;

use super::gateway::{CaptureMode, Metadata, NextAction};
use super::model::{Attention, Payment, PaymentStatus};
use crate::db::{Tx, push_list, row_lock, run};
use crate::error::{Error, Result};
use crate::id::{OrderId, PaymentId, UserId};
use crate::money::Money;
use crate::time::Timestamp;

pub(super) use parts::{payment_of_refund, save_capture, save_refund};
pub(super) use verify::verify;

macro_rules! columns {
    () => {
        "id, order_id, account, plugin_id, plugin_version, plugin_digest, test_mode, currency, amount,
         capture_mode, status, attention, attention_reason, reference, authorized, captured, refunded, canceled,
         decline_code, decline_message, next_action, state, method, return_url, expires_at, sync_tries, version,
         created_at, updated_at"
    };
}

#[derive(sqlx::FromRow)]
struct Row {
    id: PaymentId,
    order_id: OrderId,
    account: String,
    plugin_id: String,
    plugin_version: String,
    plugin_digest: Option<String>,
    test_mode: bool,
    currency: String,
    amount: i64,
    capture_mode: String,
    status: String,
    attention: Option<String>,
    attention_reason: Option<String>,
    reference: Option<String>,
    authorized: i64,
    captured: i64,
    refunded: i64,
    canceled: i64,
    decline_code: Option<String>,
    decline_message: Option<String>,
    next_action: Option<Json<NextAction>>,
    state: Option<String>,
    method: Json<Metadata>,
    return_url: Option<String>,
    expires_at: Option<Timestamp>,
    sync_tries: i64,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl Row {
    fn payment(self) -> Result<Payment> {
        let corrupt = |column, detail: String| Error::Corrupt {
            table: "oms_payment",
            column,
            id: self.id.to_string(),
            detail,
        };
        let unread = |column, text: &str| corrupt(column, format!("{text:?} is not one of its values"));
        let currency = self.currency.parse().map_err(|e| corrupt("currency", e))?;
        let attention = match self.attention.as_deref() {
            None => None,
            Some("unknown") => Some(Attention::Unknown),
            Some("needs_review") => Some(Attention::NeedsReview(
                self.attention_reason.clone().unwrap_or_default(),
            )),
            Some(other) => return Err(unread("attention", other)),
        };
        Ok(Payment {
            amount: Money::new(self.amount, currency).map_err(|e| corrupt("amount", e))?,
            capture: CaptureMode::parse(&self.capture_mode)
                .ok_or_else(|| unread("capture_mode", &self.capture_mode))?,
            status: PaymentStatus::parse(&self.status).ok_or_else(|| unread("status", &self.status))?,
            attention,
            id: self.id,
            order: self.order_id,
            account: self.account,
            plugin_id: self.plugin_id,
            plugin_version: self.plugin_version,
            plugin_digest: self.plugin_digest,
            test_mode: self.test_mode,
            reference: self.reference,
            authorized: self.authorized,
            captured: self.captured,
            refunded: self.refunded,
            canceled: self.canceled,
            decline_code: self.decline_code,
            decline_message: self.decline_message,
            next_action: self.next_action.map(|json| json.0),
            state: self.state,
            method: self.method.0,
            return_url: self.return_url,
            expires_at: self.expires_at,
            sync_tries: self.sync_tries,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
            refunds: Vec::new(),
            captures: Vec::new(),
        })
    }
}

/// Rows become payments with their captures and refunds.
async fn whole(tx: &mut Tx, rows: Vec<Row>) -> Result<Vec<Payment>> {
    let mut payments = rows.into_iter().map(Row::payment).collect::<Result<Vec<_>>>()?;
    if !payments.is_empty() {
        parts::add_captures(tx, &mut payments).await?;
        parts::add_refunds(tx, &mut payments).await?;
    }
    Ok(payments)
}

/// A payment with its captures and refunds.
pub(super) async fn get(tx: &mut Tx, id: PaymentId) -> Result<Payment> {
    let row: Option<Row> = run!(tx, |conn| {
        sqlx::query_as(concat!("SELECT ", columns!(), " FROM oms_payment WHERE id = $1"))
            .bind(id)
            .fetch_optional(conn)
            .await
    })?;
    let payments = whole(tx, row.into_iter().collect()).await?;
    payments.into_iter().next().ok_or(Error::NotFound("payment"))
}

/// As [`get`], those that there are of at least one, with their rows locked. Lock their orders before.
pub(super) async fn all_locked(tx: &mut Tx, ids: &[PaymentId]) -> Result<Vec<Payment>> {
    let lock = row_lock(tx);
    let rows: Vec<Row> = run!(tx, |conn| {
        let mut sql = QueryBuilder::new(concat!("SELECT ", columns!(), " FROM oms_payment WHERE id IN "));
        push_list(&mut sql, ids);
        sql.push(" ORDER BY id").push(lock);
        sql.build_query_as().fetch_all(conn).await
    })?;
    whole(tx, rows).await
}

/// A payment and the order that it belongs to for ever.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(super) struct Place {
    #[sqlx(rename = "id")]
    pub(super) payment: PaymentId,
    #[sqlx(rename = "order_id")]
    pub(super) order: OrderId,
}

/// Where a payment belongs.
pub(super) async fn place_of(tx: &mut Tx, id: PaymentId) -> Result<Place> {
    let known = by_ids(tx, &[id]).await?.pop();
    known.map(|known| known.place).ok_or(Error::NotFound("payment"))
}

/// The same, if it is this account's.
pub(super) async fn of_account(tx: &mut Tx, account: &str, id: PaymentId) -> Result<Option<Place>> {
    let known = by_ids(tx, &[id]).await?.into_iter();
    let mut of_account = known.filter(|known| known.account == account);
    Ok(of_account.next().map(|known| known.place))
}

/// A payment's place with what gateways know it by.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Known {
    #[sqlx(flatten)]
    pub(super) place: Place,
    pub(super) account: String,
    pub(super) reference: Option<String>,
}

/// Those of these payments that there are.
pub(super) async fn by_ids(tx: &mut Tx, ids: &[PaymentId]) -> Result<Vec<Known>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    Ok(run!(tx, |conn| {
        let mut sql =
            QueryBuilder::new("SELECT id, order_id, account, reference FROM oms_payment WHERE id IN ");
        push_list(&mut sql, ids);
        sql.build_query_as().fetch_all(conn).await
    })?)
}

/// Those that gateways know by these references, each of the account beside it.
pub(super) async fn by_references(tx: &mut Tx, names: &[(&str, &str)]) -> Result<Vec<Known>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let (mut accounts, references): (Vec<_>, Vec<_>) = names.iter().copied().unzip();
    accounts.sort_unstable();
    accounts.dedup();
    let mut known: Vec<Known> = run!(tx, |conn| {
        let mut sql =
            QueryBuilder::new("SELECT id, order_id, account, reference FROM oms_payment WHERE account IN ");
        push_list(&mut sql, &accounts);
        sql.push(" AND reference IN ");
        push_list(&mut sql, &references);
        sql.build_query_as().fetch_all(conn).await
    })?;
    // Two accounts may have the same reference.
    known.retain(|known| {
        let of_this = |(account, reference): &(&str, &str)| {
            known.account == *account && known.reference.as_deref() == Some(*reference)
        };
        names.iter().any(of_this)
    });
    Ok(known)
}

/// Who placed the order; none for a guest.
pub(super) async fn owner_of_order(tx: &mut Tx, order: OrderId) -> Result<Option<UserId>> {
    let owner: Option<(Option<UserId>,)> = run!(tx, |conn| {
        sqlx::query_as("SELECT user_id FROM oms_order WHERE id = $1")
            .bind(order)
            .fetch_optional(conn)
            .await
    })?;
    owner.map(|(id,)| id).ok_or(Error::NotFound("order"))
}

/// All payments of an order, the oldest first.
pub(crate) async fn of_order(tx: &mut Tx, order: OrderId) -> Result<Vec<Payment>> {
    let rows: Vec<Row> = run!(tx, |conn| {
        sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM oms_payment WHERE order_id = $1 ORDER BY id"
        ))
        .bind(order)
        .fetch_all(conn)
        .await
    })?;
    whole(tx, rows).await
}

/// The payment of an order of which money may still come. There is at most one.
pub(crate) async fn open_of_order(tx: &mut Tx, order: OrderId) -> Result<Option<PaymentId>> {
    let id: Option<(PaymentId,)> = run!(tx, |conn| {
        sqlx::query_as("SELECT id FROM oms_payment WHERE order_id = $1 AND open")
            .bind(order)
            .fetch_optional(conn)
            .await
    })?;
    Ok(id.map(|(id,)| id))
}

/// The payment that an account's gateway knows by this reference.
pub(super) async fn by_reference(tx: &mut Tx, account: &str, reference: &str) -> Result<Option<Place>> {
    let known = by_references(tx, &[(account, reference)]).await?.pop();
    Ok(known.map(|known| known.place))
}

/// Payments with this attention, by id.
pub(super) async fn with_attention(
    tx: &mut Tx,
    attention: &str,
    after: Option<PaymentId>,
    limit: i64,
) -> Result<Vec<Payment>> {
    let rows: Vec<Row> = run!(tx, |conn| {
        sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM oms_payment WHERE attention = $1 AND id > $2 ORDER BY id LIMIT $3"
        ))
        .bind(attention)
        .bind(after.map_or(Uuid::nil(), PaymentId::uuid))
        .bind(limit)
        .fetch_all(conn)
        .await
    })?;
    whole(tx, rows).await
}

/// Payments after `after` by id, untouched since `before`, of which the gateway has still to say something and which
/// nobody reviews. Captures and refunds are sought among those of the last weeks: no schedule is longer.
pub(super) async fn unsettled(
    tx: &mut Tx,
    before: Timestamp,
    after: Option<PaymentId>,
    limit: i64,
) -> Result<Vec<PaymentId>> {
    let weeks = before - Duration::from_secs(30 * 24 * 3600);
    let ids: Vec<(PaymentId,)> = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT id FROM (
                 SELECT id, attention, updated_at FROM oms_payment WHERE attention = 'unknown'
                 UNION SELECT id, attention, updated_at FROM oms_payment
                     WHERE open AND status IN ('created', 'pending')
                 UNION SELECT p.id, p.attention, p.updated_at
                     FROM oms_payment p JOIN oms_order o ON o.id = p.order_id
                     WHERE p.open AND o.state <> 'awaiting_payment'
                 UNION SELECT p.id, p.attention, p.updated_at
                     FROM oms_refund r JOIN oms_payment p ON p.id = r.payment_id
                     WHERE r.id > $1 AND r.status IN ('pending', 'unknown')
                 UNION SELECT p.id, p.attention, p.updated_at
                     FROM oms_capture c JOIN oms_payment p ON p.id = c.payment_id
                     WHERE c.id > $1 AND c.status IN ('pending', 'unknown')
             ) waiting
             WHERE COALESCE(attention, '') <> 'needs_review' AND updated_at < $2 AND id > $3
             ORDER BY id LIMIT $4",
        )
        .bind(first_id(weeks))
        .bind(before)
        .bind(after.map_or(Uuid::nil(), PaymentId::uuid))
        .bind(limit)
        .fetch_all(conn)
        .await
    })?;
    Ok(ids.into_iter().map(|(id,)| id).collect())
}

/// Below all ids that were made at this time or later: they begin with it.
fn first_id(at: Timestamp) -> Uuid {
    let millis = u64::try_from(at.as_millis()).unwrap_or(0);
    Uuid::from_u128(u128::from(millis) << 80)
}

/// A payment that has just begun.
pub(super) async fn insert(tx: &mut Tx, payment: &Payment) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "INSERT INTO oms_payment (id, order_id, account, plugin_id, plugin_version, plugin_digest, test_mode,
                 currency, amount, capture_mode, status, open, return_url, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        )
        .bind(payment.id)
        .bind(payment.order)
        .bind(&payment.account)
        .bind(&payment.plugin_id)
        .bind(&payment.plugin_version)
        .bind(&payment.plugin_digest)
        .bind(payment.test_mode)
        .bind(payment.amount.currency().code())
        .bind(payment.amount.minor())
        .bind(payment.capture.as_str())
        .bind(payment.status.as_str())
        .bind(payment.is_open())
        .bind(&payment.return_url)
        .bind(payment.created_at)
        .bind(payment.updated_at)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Stores all that can change. `open` is the caller's: it knows the order's other payments.
pub(super) async fn update(tx: &mut Tx, payment: &Payment, open: bool) -> Result<()> {
    let reason = match &payment.attention {
        Some(Attention::NeedsReview(reason)) => Some(reason),
        _ => None,
    };
    run!(tx, |conn| {
        sqlx::query(
            "UPDATE oms_payment SET status = $2, attention = $3, attention_reason = $4, open = $5, reference = $6,
                 authorized = $7, captured = $8, refunded = $9, canceled = $10, decline_code = $11,
                 decline_message = $12, next_action = $13, state = $14, method = $15, expires_at = $16,
                 sync_tries = $17, version = $18, updated_at = $19
             WHERE id = $1",
        )
        .bind(payment.id)
        .bind(payment.status.as_str())
        .bind(payment.attention.as_ref().map(Attention::as_str))
        .bind(reason)
        .bind(open)
        .bind(&payment.reference)
        .bind(payment.authorized)
        .bind(payment.captured)
        .bind(payment.refunded)
        .bind(payment.canceled)
        .bind(&payment.decline_code)
        .bind(&payment.decline_message)
        .bind(payment.next_action.as_ref().map(Json))
        .bind(&payment.state)
        .bind(Json(&payment.method))
        .bind(payment.expires_at)
        .bind(payment.sync_tries)
        .bind(payment.version)
        .bind(payment.updated_at)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Brings a waiting look at a payment forward: its job is unique, so that a second one would not be added.
pub(super) async fn hasten_reconcile(tx: &mut Tx, payment: PaymentId, at: Timestamp) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "UPDATE oms_job SET run_at = $2
             WHERE kind = 'reconcile_payment' AND unique_key = $1 AND leased_until IS NULL AND run_at > $2",
        )
        .bind(payment.to_string())
        .bind(at)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// How many looks at a payment are under way: by the schedule, and asked for besides. The keys of the latter begin with
/// `asked`.
pub(super) async fn running_looks(tx: &mut Tx, scheduled: &str, asked: &str) -> Result<(i64, i64)> {
    let looks = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT CAST(COALESCE(SUM(CASE WHEN unique_key = $1 THEN 1 ELSE 0 END), 0) AS BIGINT),
                 CAST(COALESCE(SUM(CASE WHEN unique_key LIKE $2 THEN 1 ELSE 0 END), 0) AS BIGINT)
             FROM oms_job WHERE kind = 'reconcile_payment' AND leased_until IS NOT NULL",
        )
        .bind(scheduled)
        .bind(format!("{asked}%"))
        .fetch_one(conn)
        .await
    })?;
    Ok(looks)
}

/// Gives a look that is under way another key, so that one may follow it.
pub(super) async fn release_look(tx: &mut Tx, asked: &str, other: &str) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "UPDATE oms_job SET unique_key = $2
             WHERE kind = 'reconcile_payment' AND unique_key = $1 AND leased_until IS NOT NULL",
        )
        .bind(asked)
        .bind(other)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Ends looks that are under way: their lease is lost, so that they do not come again.
pub(super) async fn end_looks(tx: &mut Tx, asked: &str) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "DELETE FROM oms_job
             WHERE kind = 'reconcile_payment' AND unique_key LIKE $1 AND leased_until IS NOT NULL",
        )
        .bind(format!("{asked}%"))
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}
