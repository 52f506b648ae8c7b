//! Whether the books add up.

use crate::db::{Tx, run};
use crate::error::Result;
use crate::id::{OrderId, PaymentId};

/// Every broken rule in words. Run it in a snapshot.
pub(in crate::payments) async fn verify(tx: &mut Tx) -> Result<Vec<String>> {
    let mut broken = captures(tx).await?;
    broken.extend(refunds(tx).await?);
    broken.extend(open(tx).await?);
    broken.extend(orders(tx).await?);
    broken.extend(gone(tx).await?);
    Ok(broken)
}

/// Where captures were asked for, they make up what is captured.
async fn captures(tx: &mut Tx) -> Result<Vec<String>> {
    let rows: Vec<(PaymentId, i64, i64)> = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT p.id, p.captured,
                 CAST(SUM(CASE WHEN c.status = 'succeeded' THEN c.amount ELSE 0 END) AS BIGINT)
             FROM oms_payment p JOIN oms_capture c ON c.payment_id = p.id
             GROUP BY p.id, p.captured
             HAVING p.captured <> SUM(CASE WHEN c.status = 'succeeded' THEN c.amount ELSE 0 END)",
        )
        .fetch_all(conn)
        .await
    })?;
    let broken =
        |(id, captured, sum)| format!("payment {id}: captured is {captured}, its captures sum to {sum}");
    Ok(rows.into_iter().map(broken).collect())
}

/// What is refunded is the sum of the refunds, and no more is promised than was captured.
async fn refunds(tx: &mut Tx) -> Result<Vec<String>> {
    let rows: Vec<(PaymentId, i64, i64, i64, i64)> = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT * FROM (
                 SELECT p.id, p.captured, p.refunded,
                     CAST(COALESCE(SUM(CASE WHEN r.status = 'succeeded' THEN r.amount END), 0) AS BIGINT) AS done,
                     CAST(COALESCE(SUM(CASE WHEN r.status IN ('pending', 'unknown', 'succeeded') THEN r.amount END),
                         0) AS BIGINT) AS promised
                 FROM oms_payment p LEFT JOIN oms_refund r ON r.payment_id = p.id
                 GROUP BY p.id, p.captured, p.refunded
             ) sums WHERE refunded <> done OR promised > captured",
        )
        .fetch_all(conn)
        .await
    })?;
    let broken = |(id, captured, refunded, done, promised)| {
        format!(
            "payment {id}: captured {captured}, refunded {refunded}, its refunds sum to {done} done and {promised} promised"
        )
    };
    Ok(rows.into_iter().map(broken).collect())
}

/// The flag says what the status says, unless another payment of the order is open. One that came late beside another
/// is under review and stays closed after that one has ended.
async fn open(tx: &mut Tx) -> Result<Vec<String>> {
    let rows: Vec<(PaymentId, String)> = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT p.id, p.status FROM oms_payment p
             WHERE COALESCE(p.attention, '') <> 'needs_review' AND p.open <> (p.status IN ('created', 'pending', 'action_required', 'authorized',
                     'partially_captured')
                 OR (p.status <> 'captured' AND COALESCE(p.attention, '') = 'unknown'))
               AND (p.open OR NOT EXISTS (
                     SELECT 1 FROM oms_payment o WHERE o.order_id = p.order_id AND o.id <> p.id AND o.open))",
        )
        .fetch_all(conn)
        .await
    })?;
    let broken = |(id, status)| format!("payment {id}: the open flag does not fit the status {status}");
    Ok(rows.into_iter().map(broken).collect())
}

/// A paid order has its money, or what an operator chose to capture of it, and no order keeps the money of two payments,
/// unless a person is looking at it.
async fn orders(tx: &mut Tx) -> Result<Vec<String>> {
    let rows: Vec<(OrderId, String, i64, i64, i64)> = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT id, state, total, captured, refunded FROM (
                 SELECT o.id, o.state, o.total,
                     CAST(COALESCE((SELECT SUM(p.captured) FROM oms_payment p WHERE p.order_id = o.id), 0)
                         AS BIGINT) AS captured,
                     CAST(COALESCE((SELECT SUM(r.amount) FROM oms_refund r JOIN oms_payment p ON p.id = r.payment_id
                         WHERE p.order_id = o.id AND r.status IN ('pending', 'unknown', 'succeeded')), 0)
                         AS BIGINT) AS refunded,
                     (SELECT COUNT(*) FROM oms_payment p WHERE p.order_id = o.id AND p.captured > 0) AS payments
                 FROM oms_order o
             ) sums
             WHERE (state IN ('paid', 'partially_fulfilled', 'fulfilled') AND captured < total AND NOT EXISTS (
                     SELECT 1 FROM oms_payment p
                     WHERE p.order_id = sums.id AND p.status = 'captured' AND p.captured > 0))
                OR (payments > 1 AND captured - refunded > total AND NOT EXISTS (
                     SELECT 1 FROM oms_payment p WHERE p.order_id = sums.id AND p.attention = 'needs_review'))",
        )
        .fetch_all(conn)
        .await
    })?;
    let broken = |(id, state, total, captured, refunded)| {
        format!(
            "order {id}: {state}, total {total}, captured {captured} over all its payments, {refunded} of it refunded or about to be"
        )
    };
    Ok(rows.into_iter().map(broken).collect())
}

/// An order that was given up keeps no money, unless a person is looking at it.
async fn gone(tx: &mut Tx) -> Result<Vec<String>> {
    let rows: Vec<(OrderId, String, i64)> = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT id, state, kept FROM (
                 SELECT o.id, o.state,
                     CAST(COALESCE((SELECT SUM(p.captured) FROM oms_payment p WHERE p.order_id = o.id), 0)
                         - COALESCE((SELECT SUM(r.amount) FROM oms_refund r JOIN oms_payment p ON p.id = r.payment_id
                             WHERE p.order_id = o.id AND r.status IN ('pending', 'unknown', 'succeeded')), 0)
                         AS BIGINT) AS kept
                 FROM oms_order o WHERE o.state IN ('canceled', 'expired')
             ) sums
             WHERE kept > 0 AND NOT EXISTS (
                 SELECT 1 FROM oms_payment p WHERE p.order_id = sums.id AND p.attention = 'needs_review')
             -- Unless a person decided so.
             AND NOT EXISTS (
                 SELECT 1 FROM oms_order_event e WHERE e.order_id = sums.id AND e.kind = 'money_kept')",
        )
        .fetch_all(conn)
        .await
    })?;
    let broken =
        |(id, state, kept)| format!("order {id}: {state}, and {kept} of its money is not on its way back");
    Ok(rows.into_iter().map(broken).collect())
}
