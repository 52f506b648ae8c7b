//! SQLite has no arrays: rows come as multi-row VALUES.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sqlx::types::Json;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::{NewOrder, OfferRow, Written, miscounted};
use crate::error::Result;
use crate::id::{MovementId, OrderId, VariantId};
use crate::idempotency::Claim;
use crate::orders::model::{OrderState, PaymentState};
use crate::time::Timestamp;

#[tracing::instrument(level = "debug", name = "sql", skip_all)]
pub(super) async fn take_keys(
    conn: &mut SqliteConnection,
    keys: &[(&Claim, &OrderId)],
    now: Timestamp,
) -> Result<HashSet<Uuid>> {
    let mut sql = QueryBuilder::<Sqlite>::new(
        "INSERT INTO oms_idempotency (id, operation, key, fingerprint, result_id, created_at) ",
    );
    sql.push_values(keys, |mut row, (claim, id)| {
        row.push_bind(claim.id)
            .push_bind(claim.operation)
            .push_bind(claim.key.as_str())
            .push_bind(&claim.fingerprint)
            .push_bind(id.uuid())
            .push_bind(now);
    });
    sql.push(" ON CONFLICT DO NOTHING RETURNING id");
    let fresh: Vec<(Uuid,)> = sql.build_query_as().fetch_all(conn).await?;
    Ok(fresh.into_iter().map(|(id,)| id).collect())
}

pub(super) const OFFERS: &str = "
    SELECT v.sku, v.id AS variant_id, v.business_id, p.name AS product_name, v.name AS variant_name,
           v.price, v.currency, s.on_hand - s.allocated AS available
    FROM json_each($1) wanted
    JOIN oms_variant v ON v.sku = wanted.value AND v.deleted_at IS NULL
    JOIN oms_product p ON p.id = v.product_id
    JOIN oms_stock s ON s.variant_id = v.id";

/// The write transaction is the lock.
#[tracing::instrument(level = "debug", name = "sql", skip_all)]
pub(super) async fn offers(conn: &mut SqliteConnection, skus: &BTreeSet<&str>) -> Result<Vec<OfferRow>> {
    // A JSON text is one value of any length.
    let rows = sqlx::query_as(OFFERS).bind(Json(skus));
    Ok(rows.fetch_all(conn).await?)
}

pub(super) async fn insert(
    conn: &mut SqliteConnection,
    orders: &[NewOrder<'_>],
    net: &BTreeMap<VariantId, i64>,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<Vec<Written>> {
    for (variant, quantity) in net {
        let updated = sqlx::query(
            "UPDATE oms_stock SET allocated = allocated + $2, version = version + 1
             WHERE variant_id = $1 AND on_hand - allocated >= $2",
        )
        .bind(variant)
        .bind(quantity)
        .execute(&mut *conn)
        .await?;
        if updated.rows_affected() != 1 {
            return Err(miscounted("stock rows"));
        }
    }
    let written = insert_orders(conn, orders, now, expires_at).await?;
    insert_lines(conn, orders).await?;
    insert_movements(conn, orders, now).await?;
    insert_events(conn, orders, now).await?;
    Ok(written)
}

async fn insert_orders(
    conn: &mut SqliteConnection,
    orders: &[NewOrder<'_>],
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<Vec<Written>> {
    let count = i64::try_from(orders.len()).unwrap_or(i64::MAX);
    let (last,): (i64,) = sqlx::query_as(
        "UPDATE oms_counter SET value = value + $1 WHERE name = 'order_number' RETURNING value",
    )
    .bind(count)
    .fetch_one(&mut *conn)
    .await?;
    let mut sql = QueryBuilder::<Sqlite>::new(
        "INSERT INTO oms_order (id, number, user_id, email, shipping_address, note, currency, subtotal, total,
                                state, payment_state, expires_at, created_at, updated_at) ",
    );
    let mut number = last - count;
    sql.push_values(orders, |mut row, new| {
        number += 1;
        row.push_bind(new.id)
            .push_bind(number)
            .push_bind(new.user())
            .push("(SELECT email FROM oms_user WHERE id = ")
            .push_bind_unseparated(new.user())
            .push_unseparated(")")
            .push_bind(new.address())
            .push_bind(new.ticket.draft.note.as_deref())
            .push_bind(new.sale.total.currency().code())
            .push_bind(new.sale.total.minor())
            .push_bind(new.sale.total.minor())
            .push_bind(OrderState::AwaitingPayment.as_str())
            .push_bind(PaymentState::Unpaid.as_str())
            .push_bind(expires_at)
            .push_bind(now)
            .push_bind(now);
    });
    sql.push(" RETURNING id, number, email");
    Ok(sql.build_query_as().fetch_all(conn).await?)
}

async fn insert_lines(conn: &mut SqliteConnection, orders: &[NewOrder<'_>]) -> Result<()> {
    let mut sql = QueryBuilder::<Sqlite>::new(
        "INSERT INTO oms_order_line (order_id, line, variant_id, business_id, sku, name, unit_price, quantity, total) ",
    );
    let lines = orders
        .iter()
        .flat_map(|o| (1i64..).zip(&o.sale.lines).map(move |(n, line)| (o.id, n, line)));
    sql.push_values(lines, |mut row, (order, n, line)| {
        row.push_bind(order)
            .push_bind(n)
            .push_bind(line.offer.variant)
            .push_bind(line.offer.business)
            .push_bind(&line.sku)
            .push_bind(&line.offer.name)
            .push_bind(line.offer.price.minor())
            .push_bind(line.quantity)
            .push_bind(line.total.minor());
    });
    sql.build().execute(conn).await?;
    Ok(())
}

async fn insert_movements(
    conn: &mut SqliteConnection,
    orders: &[NewOrder<'_>],
    now: Timestamp,
) -> Result<()> {
    let mut sql = QueryBuilder::<Sqlite>::new(
        "INSERT INTO oms_stock_movement
             (variant_id, id, delta_on_hand, delta_allocated, cause, order_id, actor, created_at) ",
    );
    let lines = orders
        .iter()
        .flat_map(|o| o.sale.lines.iter().map(move |line| (o, line)));
    sql.push_values(lines, |mut row, (new, line)| {
        row.push_bind(line.offer.variant)
            .push_bind(MovementId::new(now))
            .push_bind(0i64)
            .push_bind(line.quantity)
            .push_bind("allocate")
            .push_bind(new.id)
            .push_bind(new.user().to_string())
            .push_bind(now);
    });
    sql.build().execute(conn).await?;
    Ok(())
}

async fn insert_events(conn: &mut SqliteConnection, orders: &[NewOrder<'_>], now: Timestamp) -> Result<()> {
    let mut sql = QueryBuilder::<Sqlite>::new(
        "INSERT INTO oms_order_event (order_id, version, kind, actor, data, created_at) ",
    );
    sql.push_values(orders, |mut row, new| {
        row.push_bind(new.id)
            .push_bind(1i64)
            .push_bind("placed")
            .push_bind(new.user().to_string())
            .push_bind("{}")
            .push_bind(now);
    });
    sql.build().execute(conn).await?;
    Ok(())
}
