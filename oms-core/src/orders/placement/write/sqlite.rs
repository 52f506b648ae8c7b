//! SQLite has no arrays: rows come as multi-row VALUES, in parts whose sizes are powers of two. A text for each size of
//! batch would be parsed anew nearly every time, which takes longer than running it.

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
    let mut fresh = HashSet::new();
    for part in parts(keys) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO oms_idempotency (id, operation, key, fingerprint, result_id, created_at) ",
        );
        sql.push_values(part, |mut row, (claim, id)| {
            row.push_bind(claim.id)
                .push_bind(claim.operation)
                .push_bind(claim.key.as_str())
                .push_bind(&claim.fingerprint)
                .push_bind(id.uuid())
                .push_bind(now);
        });
        sql.push(" ON CONFLICT DO NOTHING RETURNING id");
        let ids: Vec<(Uuid,)> = sql.build_query_as().fetch_all(&mut *conn).await?;
        fresh.extend(ids.into_iter().map(|(id,)| id));
    }
    Ok(fresh)
}

/// The most rows of one statement.
const MOST: usize = 128;

/// The rows in parts of 128, 64, 32, ..: at most eight texts for each table, all of them kept prepared.
fn parts<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let size = 1 << rest.len().checked_ilog2()?;
        let (part, others) = rest.split_at(size.min(MOST));
        rest = others;
        Some(part)
    })
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

/// Pairs of an id in hexadecimal, as JSON has no bytes, and units.
pub(super) const TAKE: &str = "
    UPDATE oms_stock SET allocated = allocated + (wanted.value ->> 1), version = version + 1
    FROM json_each($1) wanted
    WHERE variant_id = unhex(wanted.value ->> 0) AND on_hand - allocated >= (wanted.value ->> 1)";

pub(super) async fn insert(
    conn: &mut SqliteConnection,
    orders: &[NewOrder<'_>],
    net: &BTreeMap<VariantId, i64>,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<Vec<Written>> {
    let wanted: Vec<(String, i64)> = net
        .iter()
        .map(|(variant, quantity)| (variant.uuid().simple().to_string(), *quantity))
        .collect();
    let taken = sqlx::query(TAKE).bind(Json(wanted)).execute(&mut *conn).await?;
    if usize::try_from(taken.rows_affected()) != Ok(net.len()) {
        return Err(miscounted("stock rows"));
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
    let mut number = last - count;
    let mut written = Vec::with_capacity(orders.len());
    for part in parts(orders) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO oms_order (id, number, user_id, email, shipping_address, note, currency, subtotal, total,
                                    state, payment_state, expires_at, created_at, updated_at) ",
        );
        sql.push_values(part, |mut row, new| {
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
        let rows: Vec<Written> = sql.build_query_as().fetch_all(&mut *conn).await?;
        written.extend(rows);
    }
    Ok(written)
}

async fn insert_lines(conn: &mut SqliteConnection, orders: &[NewOrder<'_>]) -> Result<()> {
    let lines = orders
        .iter()
        .flat_map(|o| (1i64..).zip(&o.sale.lines).map(move |(n, line)| (o.id, n, line)));
    for part in parts(&lines.collect::<Vec<_>>()) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO oms_order_line
                 (order_id, line, variant_id, business_id, sku, name, unit_price, quantity, total) ",
        );
        sql.push_values(part, |mut row, (order, n, line)| {
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
        sql.build().execute(&mut *conn).await?;
    }
    Ok(())
}

async fn insert_movements(
    conn: &mut SqliteConnection,
    orders: &[NewOrder<'_>],
    now: Timestamp,
) -> Result<()> {
    let lines = orders
        .iter()
        .flat_map(|o| o.sale.lines.iter().map(move |line| (o, line)));
    for part in parts(&lines.collect::<Vec<_>>()) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO oms_stock_movement
                 (variant_id, id, delta_on_hand, delta_allocated, cause, order_id, actor, created_at) ",
        );
        sql.push_values(part, |mut row, (new, line)| {
            row.push_bind(line.offer.variant)
                .push_bind(MovementId::new(now))
                .push_bind(0i64)
                .push_bind(line.quantity)
                .push_bind("allocate")
                .push_bind(new.id)
                .push_bind(new.user().to_string())
                .push_bind(now);
        });
        sql.build().execute(&mut *conn).await?;
    }
    Ok(())
}

async fn insert_events(conn: &mut SqliteConnection, orders: &[NewOrder<'_>], now: Timestamp) -> Result<()> {
    for part in parts(orders) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO oms_order_event (order_id, version, kind, actor, data, created_at) ",
        );
        sql.push_values(part, |mut row, new| {
            row.push_bind(new.id)
                .push_bind(1i64)
                .push_bind("placed")
                .push_bind(new.user().to_string())
                .push_bind("{}")
                .push_bind(now);
        });
        sql.build().execute(&mut *conn).await?;
    }
    Ok(())
}
