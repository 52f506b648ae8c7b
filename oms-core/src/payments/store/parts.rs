//! SQL of captures and refunds.

use sqlx::QueryBuilder;

use crate::db::{Tx, push_list, run};
use crate::error::{Error, Result};
use crate::id::{CaptureId, PaymentId, RefundId};
use crate::payments::model::{Capture, OperationStatus, Payment, Refund};
use crate::time::Timestamp;

#[derive(sqlx::FromRow)]
struct CaptureRow {
    id: CaptureId,
    payment_id: PaymentId,
    amount: i64,
    r#final: bool,
    status: String,
    reference: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct RefundRow {
    id: RefundId,
    payment_id: PaymentId,
    amount: i64,
    reason: Option<String>,
    status: String,
    reference: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

fn status(table: &'static str, id: &impl ToString, text: &str) -> Result<OperationStatus> {
    OperationStatus::parse(text).ok_or_else(|| Error::Corrupt {
        table,
        column: "status",
        id: id.to_string(),
        detail: format!("{text:?} is not one of its values"),
    })
}

fn ids(payments: &[Payment]) -> Vec<PaymentId> {
    payments.iter().map(|payment| payment.id).collect()
}

fn of(payments: &mut [Payment], id: PaymentId) -> Result<&mut Payment> {
    let mut payments = payments.iter_mut();
    let payment = payments.find(|payment| payment.id == id);
    payment.ok_or_else(|| Error::Internal(format!("payment {id} was not asked for")))
}

/// Of at least one payment, the oldest first.
pub(super) async fn add_captures(tx: &mut Tx, payments: &mut [Payment]) -> Result<()> {
    let rows: Vec<CaptureRow> = run!(tx, |conn| {
        let mut sql = QueryBuilder::new(
            "SELECT id, payment_id, amount, final, status, reference, created_at, updated_at
             FROM oms_capture WHERE payment_id IN ",
        );
        push_list(&mut sql, &ids(payments));
        sql.push(" ORDER BY id").build_query_as().fetch_all(conn).await
    })?;
    for row in rows {
        let payment = of(payments, row.payment_id)?;
        let capture = Capture {
            status: status("oms_capture", &row.id, &row.status)?,
            amount: payment.money(row.amount)?,
            id: row.id,
            payment: payment.id,
            final_capture: row.r#final,
            reference: row.reference,
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        payment.captures.push(capture);
    }
    Ok(())
}

/// Of at least one payment, the oldest first.
pub(super) async fn add_refunds(tx: &mut Tx, payments: &mut [Payment]) -> Result<()> {
    let rows: Vec<RefundRow> = run!(tx, |conn| {
        let mut sql = QueryBuilder::new(
            "SELECT id, payment_id, amount, reason, status, reference, created_at, updated_at
             FROM oms_refund WHERE payment_id IN ",
        );
        push_list(&mut sql, &ids(payments));
        sql.push(" ORDER BY id").build_query_as().fetch_all(conn).await
    })?;
    for row in rows {
        let payment = of(payments, row.payment_id)?;
        let refund = Refund {
            status: status("oms_refund", &row.id, &row.status)?,
            amount: payment.money(row.amount)?,
            id: row.id,
            payment: payment.id,
            reason: row.reason,
            reference: row.reference,
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        payment.refunds.push(refund);
    }
    Ok(())
}

/// The payment of a refund, which never changes.
pub(in crate::payments) async fn payment_of_refund(tx: &mut Tx, id: RefundId) -> Result<PaymentId> {
    let payment: Option<(PaymentId,)> = run!(tx, |conn| {
        sqlx::query_as("SELECT payment_id FROM oms_refund WHERE id = $1")
            .bind(id)
            .fetch_optional(conn)
            .await
    })?;
    payment.map(|(id,)| id).ok_or(Error::NotFound("refund"))
}

/// Stores a new capture or what changed of it.
pub(in crate::payments) async fn save_capture(tx: &mut Tx, capture: &Capture) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "INSERT INTO oms_capture (id, payment_id, amount, final, status, reference, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (id) DO UPDATE
             SET status = excluded.status, reference = excluded.reference, updated_at = excluded.updated_at",
        )
        .bind(capture.id)
        .bind(capture.payment)
        .bind(capture.amount.minor())
        .bind(capture.final_capture)
        .bind(capture.status.as_str())
        .bind(&capture.reference)
        .bind(capture.created_at)
        .bind(capture.updated_at)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Stores a new refund or what changed of it.
pub(in crate::payments) async fn save_refund(tx: &mut Tx, refund: &Refund) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "INSERT INTO oms_refund (id, payment_id, amount, reason, status, reference, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (id) DO UPDATE
             SET status = excluded.status, reference = excluded.reference, updated_at = excluded.updated_at",
        )
        .bind(refund.id)
        .bind(refund.payment)
        .bind(refund.amount.minor())
        .bind(&refund.reason)
        .bind(refund.status.as_str())
        .bind(&refund.reference)
        .bind(refund.created_at)
        .bind(refund.updated_at)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}
