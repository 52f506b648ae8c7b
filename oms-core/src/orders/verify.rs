//! What must hold for every order, recomputed from the rows.

use crate::db::{Tx, run};
use crate::error::Result;
use crate::id::OrderId;

/// One query for each rule: it selects the orders that break it.
const RULES: [(&str, &str); 4] = [
    (
        "its subtotal is not the sum of its lines",
        "SELECT o.id FROM oms_order o WHERE o.subtotal <>
             (SELECT COALESCE(SUM(l.total), 0) FROM oms_order_line l WHERE l.order_id = o.id)",
    ),
    ("it has no lines", "SELECT o.id FROM oms_order o WHERE NOT EXISTS (SELECT 1 FROM oms_order_line l WHERE l.order_id = o.id)"),
    (
        "its timeline does not have one entry for each version",
        "SELECT o.id FROM oms_order o WHERE o.version <>
             (SELECT COUNT(*) FROM oms_order_event e WHERE e.order_id = o.id AND e.version BETWEEN 1 AND o.version)",
    ),
    (
        "its state does not fit what was fulfilled",
        "SELECT o.id FROM oms_order o WHERE
            (o.state = 'fulfilled' AND EXISTS (SELECT 1 FROM oms_order_line l
                WHERE l.order_id = o.id AND l.fulfilled + l.canceled < l.quantity))
            OR (o.state IN ('awaiting_payment', 'paid', 'canceled', 'expired') AND EXISTS (SELECT 1 FROM oms_order_line l
                WHERE l.order_id = o.id AND l.fulfilled > 0))",
    ),
];

/// A line for each order and rule that it breaks.
pub(crate) async fn verify(tx: &mut Tx) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for (rule, sql) in RULES {
        let broken: Vec<(OrderId,)> = run!(tx, |conn| sqlx::query_as(sql).fetch_all(conn).await)?;
        violations.extend(broken.into_iter().map(|(id,)| format!("order {id}: {rule}")));
    }
    let keys: Vec<(OrderId,)> = run!(tx, |conn| {
        // A key without its order would be a promise that was not kept.
        sqlx::query_as(
            "SELECT i.result_id FROM oms_idempotency i WHERE i.operation = 'place_order'
             AND NOT EXISTS (SELECT 1 FROM oms_order o WHERE o.id = i.result_id)",
        )
        .fetch_all(conn)
        .await
    })?;
    violations.extend(
        keys.into_iter()
            .map(|(id,)| format!("order {id}: its idempotency key stands, the order does not")),
    );
    Ok(violations)
}
