//! PostgreSQL: a batch is two statements, whatever its size. Arrays carry the rows, so that both are prepared once.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};
use uuid::Uuid;

use super::{NewOrder, OfferRow, Written, miscounted};
use crate::db::{PgTx, limited};
use crate::error::Result;
use crate::id::{MovementId, OrderId, VariantId};
use crate::idempotency::Claim;
use crate::time::Timestamp;

/// Keys first, then stock, for whoever holds keys waits for no other keys: the offers' lock waits for the count of the
/// keys that were taken. The sort stands below the lock in the plan, so that rows are locked in the order of their ids.
/// When no key is fresh, nothing is to be sold and nothing is locked. `LATERAL` with its `LIMIT` keeps each SKU a look
/// into the index, in a plan from when there were three as well.
const TAKE: &str = "
    WITH fresh AS (
        INSERT INTO oms_idempotency (id, operation, key, fingerprint, result_id, created_at)
        SELECT id, operation, key, fingerprint, result_id, $6
        FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::uuid[])
             AS k (id, operation, key, fingerprint, result_id)
        ORDER BY id ON CONFLICT DO NOTHING RETURNING id
    )
    SELECT id AS fresh, NULL AS sku, NULL AS variant_id, NULL AS business_id, NULL AS product_name,
           NULL AS variant_name, NULL AS price, NULL AS currency, NULL AS available
    FROM fresh
    UNION ALL
    SELECT NULL, offer.*
    FROM (SELECT v.sku, v.id AS variant_id, v.business_id, p.name AS product_name, v.name AS variant_name,
                 v.price, v.currency, s.on_hand - s.allocated AS available
          FROM UNNEST($7::text[]) AS wanted (sku)
          CROSS JOIN LATERAL (SELECT * FROM oms_variant
                              WHERE sku = wanted.sku AND deleted_at IS NULL LIMIT 1) AS v
          JOIN oms_product p ON p.id = v.product_id
          JOIN oms_stock s ON s.variant_id = v.id
          WHERE (SELECT count(*) FROM fresh) > 0
          ORDER BY v.id FOR NO KEY UPDATE OF s) AS offer";

/// A row of [`TAKE`].
enum Taken {
    Key(Uuid),
    Offer(OfferRow),
}

impl<'r> FromRow<'r, PgRow> for Taken {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        match row.try_get("fresh")? {
            Some(key) => Ok(Self::Key(key)),
            None => OfferRow::from_row(row).map(Self::Offer),
        }
    }
}

#[tracing::instrument(level = "debug", name = "sql", skip_all)]
pub(super) async fn take(
    tx: &mut PgTx,
    keys: &[(&Claim, &OrderId)],
    skus: &BTreeSet<&str>,
    now: Timestamp,
) -> Result<(HashSet<Uuid>, Vec<OfferRow>)> {
    let take = sqlx::query_as(TAKE)
        .bind(keys.iter().map(|(c, _)| c.id).collect::<Vec<_>>())
        .bind(keys.iter().map(|(c, _)| c.operation).collect::<Vec<_>>())
        .bind(keys.iter().map(|(c, _)| c.key.as_str()).collect::<Vec<_>>())
        .bind(
            keys.iter()
                .map(|(c, _)| c.fingerprint.as_slice())
                .collect::<Vec<_>>(),
        )
        .bind(keys.iter().map(|(_, id)| id.uuid()).collect::<Vec<_>>())
        .bind(now)
        .bind(skus.iter().copied().collect::<Vec<_>>());
    let rows: Vec<Taken> = limited!(tx, |conn| take.fetch_all(conn).await)?;
    let (mut fresh, mut offers) = (HashSet::new(), Vec::new());
    for row in rows {
        match row {
            Taken::Key(id) => {
                fresh.insert(id);
            }
            Taken::Offer(offer) => offers.push(offer),
        }
    }
    Ok((fresh, offers))
}

/// Everything in one statement: a batch costs its round trips and its commit once.
const INSERT: &str = "
    WITH taken AS (
        UPDATE oms_stock s SET allocated = s.allocated + n.quantity, version = s.version + 1
        FROM UNNEST($1::uuid[], $2::bigint[]) AS n (variant_id, quantity)
        WHERE s.variant_id = n.variant_id AND s.on_hand - s.allocated >= n.quantity
        RETURNING 1
    ), new_order AS (
        INSERT INTO oms_order (id, number, user_id, email, shipping_address, note, currency, subtotal, total,
                               state, payment_state, expires_at, created_at, updated_at)
        SELECT o.id, nextval('oms_order_number'), o.user_id,
               (SELECT email FROM oms_user WHERE id = o.user_id), o.shipping_address, o.note, o.currency,
               o.total, o.total, 'awaiting_payment', 'unpaid', $9, $10, $10
        FROM UNNEST($3::uuid[], $4::uuid[], $5::jsonb[], $6::text[], $7::text[], $8::bigint[])
             AS o (id, user_id, shipping_address, note, currency, total)
        RETURNING id, number, email, user_id
    ), new_line AS (
        INSERT INTO oms_order_line (order_id, line, variant_id, business_id, sku, name, unit_price, quantity, total)
        SELECT * FROM UNNEST($11::uuid[], $12::bigint[], $13::uuid[], $14::uuid[], $15::text[], $16::text[],
                             $17::bigint[], $18::bigint[], $19::bigint[])
    ), new_movement AS (
        INSERT INTO oms_stock_movement
            (variant_id, id, delta_on_hand, delta_allocated, cause, order_id, actor, created_at)
        SELECT m.variant_id, m.id, 0, m.quantity, 'allocate', m.order_id, m.actor, $10
        FROM UNNEST($13::uuid[], $20::uuid[], $18::bigint[], $11::uuid[], $21::text[])
             AS m (variant_id, id, quantity, order_id, actor)
    ), new_event AS (
        INSERT INTO oms_order_event (order_id, version, kind, actor, data, created_at)
        SELECT e.order_id, 1, 'placed', e.actor, '{}', $10
        FROM UNNEST($3::uuid[], $22::text[]) AS e (order_id, actor)
    )
    SELECT id, number, email, (SELECT count(*) FROM taken) FROM new_order";

pub(super) async fn insert(
    tx: &mut PgTx,
    orders: &[NewOrder<'_>],
    net: &BTreeMap<VariantId, i64>,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<Vec<Written>> {
    let lines: Vec<_> = orders
        .iter()
        .flat_map(|o| (1i64..).zip(&o.sale.lines).map(move |(n, line)| (o, n, line)))
        .collect();
    let actors: Vec<String> = orders.iter().map(|o| o.user().to_string()).collect();
    let insert = sqlx::query_as(INSERT)
        .bind(net.keys().copied().collect::<Vec<_>>())
        .bind(net.values().copied().collect::<Vec<_>>())
        .bind(orders.iter().map(|o| o.id).collect::<Vec<_>>())
        .bind(orders.iter().map(NewOrder::user).collect::<Vec<_>>())
        .bind(orders.iter().map(NewOrder::address).collect::<Vec<_>>())
        .bind(
            orders
                .iter()
                .map(|o| o.ticket.draft.note.as_deref())
                .collect::<Vec<_>>(),
        )
        .bind(
            orders
                .iter()
                .map(|o| o.sale.total.currency().to_string())
                .collect::<Vec<_>>(),
        )
        .bind(orders.iter().map(|o| o.sale.total.minor()).collect::<Vec<_>>())
        .bind(expires_at)
        .bind(now)
        .bind(lines.iter().map(|(o, _, _)| o.id).collect::<Vec<_>>())
        .bind(lines.iter().map(|(_, n, _)| *n).collect::<Vec<_>>())
        .bind(lines.iter().map(|(_, _, l)| l.offer.variant).collect::<Vec<_>>())
        .bind(lines.iter().map(|(_, _, l)| l.offer.business).collect::<Vec<_>>())
        .bind(lines.iter().map(|(_, _, l)| l.sku.as_str()).collect::<Vec<_>>())
        .bind(
            lines
                .iter()
                .map(|(_, _, l)| l.offer.name.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(
            lines
                .iter()
                .map(|(_, _, l)| l.offer.price.minor())
                .collect::<Vec<_>>(),
        )
        .bind(lines.iter().map(|(_, _, l)| l.quantity).collect::<Vec<_>>())
        .bind(lines.iter().map(|(_, _, l)| l.total.minor()).collect::<Vec<_>>())
        .bind(lines.iter().map(|_| MovementId::new(now)).collect::<Vec<_>>())
        .bind(
            lines
                .iter()
                .map(|(o, _, _)| o.user().to_string())
                .collect::<Vec<_>>(),
        )
        .bind(actors);
    let rows: Vec<(OrderId, i64, String, i64)> = limited!(tx, |conn| insert.fetch_all(conn).await)?;
    if rows.iter().any(|row| usize::try_from(row.3) != Ok(net.len())) {
        return Err(miscounted("stock rows"));
    }
    Ok(rows
        .into_iter()
        .map(|(id, number, email, _)| (id, number, email))
        .collect())
}
