//! Attempts: one row for each operation at a gateway, with all its tries under one key of the gateway.

use serde::{Deserialize, Serialize};
use sqlx::QueryBuilder;
use sqlx::types::Json;
use uuid::Uuid;

use crate::db::{Tx, push_list, run};
use crate::error::{Error, Result};
use crate::id::{AttemptId, CaptureId, PaymentId, RefundId};
use crate::idempotency::Claim;
use crate::payments::gateway::{Customer, GatewayError, Metadata};
use crate::time::Timestamp;

/// What is asked of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::payments) enum Operation {
    Start,
    Complete,
    Capture,
    Cancel,
    Refund,
}

/// Where an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::payments) enum Progress {
    /// Between the two transactions.
    InFlight,
    /// The gateway did it, or took it on.
    Succeeded,
    /// The gateway's final no.
    Declined,
    /// Certainly did not happen.
    Failed,
    /// May have happened.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::payments) struct Attempt {
    pub(in crate::payments) id: AttemptId,
    pub(in crate::payments) payment: PaymentId,
    pub(in crate::payments) operation: Operation,
    pub(in crate::payments) status: Progress,
    /// Minor units, for captures and refunds.
    pub(in crate::payments) amount: Option<i64>,
    pub(in crate::payments) reference: Option<String>,
    pub(in crate::payments) refund: Option<RefundId>,
    pub(in crate::payments) capture: Option<CaptureId>,
    pub(in crate::payments) tries: i64,
    pub(in crate::payments) error: Option<GatewayError>,
    pub(in crate::payments) memo: Memo,
    pub(in crate::payments) created_at: Timestamp,
    pub(in crate::payments) updated_at: Timestamp,
}

/// What a later try needs to send the very same request. Forgotten when the attempt has ended: it may hold tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::payments) struct Memo {
    /// The client's idempotency key, which becomes free when nothing happened.
    pub(in crate::payments) claim: Option<Uuid>,
    /// An earlier try may have happened, so that a refusal of this one proves nothing.
    #[serde(default)]
    pub(in crate::payments) doubtful: bool,
    pub(in crate::payments) start: Option<StartMemo>,
    #[serde(default)]
    pub(in crate::payments) params: Metadata,
    pub(in crate::payments) reason: Option<String>,
}

/// The parts of a start request that the payment's own row does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::payments) struct StartMemo {
    pub(in crate::payments) order_number: i64,
    pub(in crate::payments) instrument: Option<String>,
    pub(in crate::payments) instrument_data: Metadata,
    pub(in crate::payments) customer: Customer,
    pub(in crate::payments) webhook_url: Option<String>,
}

impl Attempt {
    /// The first try of an operation, about to be made.
    pub(in crate::payments) fn new(payment: PaymentId, operation: Operation, now: Timestamp) -> Self {
        Self {
            id: AttemptId::new(now),
            payment,
            operation,
            status: Progress::InFlight,
            amount: None,
            reference: None,
            refund: None,
            capture: None,
            tries: 1,
            error: None,
            memo: Memo::default(),
            created_at: now,
            updated_at: now,
        }
    }

    /// Binds the client's key to it.
    pub(in crate::payments) fn claimed_by(mut self, claim: &Claim) -> Self {
        self.memo.claim = Some(claim.id);
        self
    }

    /// The gateway's idempotency key: one for all tries, made once, within `[A-Za-z0-9_-]{1,64}`.
    pub(in crate::payments) fn gateway_key(&self) -> String {
        self.id.to_string()
    }
}

impl Operation {
    pub(in crate::payments) const ALL: [Self; 5] = [
        Self::Start,
        Self::Complete,
        Self::Capture,
        Self::Cancel,
        Self::Refund,
    ];

    pub(in crate::payments) const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Complete => "complete",
            Self::Capture => "capture",
            Self::Cancel => "cancel",
            Self::Refund => "refund",
        }
    }
}

impl Progress {
    const ALL: [Self; 5] = [
        Self::InFlight,
        Self::Succeeded,
        Self::Declined,
        Self::Failed,
        Self::Unknown,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Succeeded => "succeeded",
            Self::Declined => "declined",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: AttemptId,
    payment_id: PaymentId,
    operation: String,
    status: String,
    amount: Option<i64>,
    reference: Option<String>,
    refund_id: Option<RefundId>,
    capture_id: Option<CaptureId>,
    tries: i64,
    error: Option<Json<GatewayError>>,
    request: Option<Json<Memo>>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl Row {
    fn attempt(self) -> Result<Attempt> {
        let unread = |column, text: &str| Error::Corrupt {
            table: "oms_payment_attempt",
            column,
            id: self.id.to_string(),
            detail: format!("{text:?} is not one of its values"),
        };
        let operation = Operation::ALL.into_iter().find(|o| o.as_str() == self.operation);
        let status = Progress::ALL.into_iter().find(|s| s.as_str() == self.status);
        Ok(Attempt {
            operation: operation.ok_or_else(|| unread("operation", &self.operation))?,
            status: status.ok_or_else(|| unread("status", &self.status))?,
            id: self.id,
            payment: self.payment_id,
            amount: self.amount,
            reference: self.reference,
            refund: self.refund_id,
            capture: self.capture_id,
            tries: self.tries,
            error: self.error.map(|json| json.0),
            memo: self.request.map(|json| json.0).unwrap_or_default(),
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

macro_rules! columns {
    () => {
        "id, payment_id, operation, status, amount, reference, refund_id, capture_id, tries, error, request,
         created_at, updated_at"
    };
}

pub(in crate::payments) async fn get(tx: &mut Tx, id: AttemptId) -> Result<Attempt> {
    let row: Option<Row> = run!(tx, |conn| {
        sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM oms_payment_attempt WHERE id = $1"
        ))
        .bind(id)
        .fetch_optional(conn)
        .await
    })?;
    row.ok_or(Error::NotFound("payment attempt"))?.attempt()
}

/// All attempts of a payment, the oldest first.
pub(in crate::payments) async fn of_payment(tx: &mut Tx, payment: PaymentId) -> Result<Vec<Attempt>> {
    of_payments(tx, &[payment]).await
}

/// All attempts of at least one payment, the oldest first.
pub(in crate::payments) async fn of_payments(tx: &mut Tx, payments: &[PaymentId]) -> Result<Vec<Attempt>> {
    let rows: Vec<Row> = run!(tx, |conn| {
        let mut sql = QueryBuilder::new(concat!(
            "SELECT ",
            columns!(),
            " FROM oms_payment_attempt WHERE payment_id IN "
        ));
        push_list(&mut sql, payments);
        sql.push(" ORDER BY id").build_query_as().fetch_all(conn).await
    })?;
    rows.into_iter().map(Row::attempt).collect()
}

/// Attempts between their two transactions that nobody has touched since `before`.
pub(in crate::payments) async fn stale(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<Vec<Attempt>> {
    let rows: Vec<Row> = run!(tx, |conn| {
        sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM oms_payment_attempt WHERE status = 'in_flight' AND updated_at < $1 ORDER BY updated_at LIMIT $2"
        ))
        .bind(before)
        .bind(limit)
        .fetch_all(conn)
        .await
    })?;
    rows.into_iter().map(Row::attempt).collect()
}

/// Stores a new attempt or what changed of it.
pub(in crate::payments) async fn save(tx: &mut Tx, attempt: &Attempt) -> Result<()> {
    let again = matches!(attempt.operation, Operation::Refund | Operation::Cancel);
    let ended = match attempt.status {
        Progress::Succeeded | Progress::Declined => true,
        Progress::Failed => !again,
        Progress::InFlight | Progress::Unknown => false,
    };
    run!(tx, |conn| {
        sqlx::query(
            "INSERT INTO oms_payment_attempt (id, payment_id, operation, gateway_key, status, amount, reference,
                 refund_id, capture_id, tries, error, request, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
             ON CONFLICT (id) DO UPDATE
             SET status = excluded.status, reference = excluded.reference, tries = excluded.tries,
                 error = excluded.error, request = excluded.request, updated_at = excluded.updated_at",
        )
        .bind(attempt.id)
        .bind(attempt.payment)
        .bind(attempt.operation.as_str())
        .bind(attempt.gateway_key())
        .bind(attempt.status.as_str())
        .bind(attempt.amount)
        .bind(&attempt.reference)
        .bind(attempt.refund)
        .bind(attempt.capture)
        .bind(attempt.tries)
        .bind(attempt.error.as_ref().map(Json))
        .bind((!ended).then_some(Json(&attempt.memo)))
        .bind(attempt.created_at)
        .bind(attempt.updated_at)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Sets a client's key free: nothing happened, so that a retry is judged anew.
pub(in crate::payments) async fn release(tx: &mut Tx, claim: Uuid) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query("DELETE FROM oms_idempotency WHERE id = $1")
            .bind(claim)
            .execute(conn)
            .await
            .map(drop)
    })?;
    Ok(())
}
