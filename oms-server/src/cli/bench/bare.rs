//! As fast as SQLite goes from here: one connection, nobody to wait for or to answer, batches that are always full, and
//! the statements of a batch with nothing between them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use oms_core::{BusinessId, Clock, MovementId, OrderId, SystemClock, Timestamp, UserId, VariantId};
use sha2::{Digest, Sha256};
use sqlx::types::Json;
use sqlx::{Connection, QueryBuilder, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::load::Span;
use super::shop::{Pool, Shop, Wishes, address};

/// The most that the library puts into one transaction.
const BATCH: usize = 128;
const EXPIRY: Duration = Duration::from_secs(30 * 60);

/// An order of one unit.
struct Wanted {
    id: OrderId,
    user: UserId,
    sku: String,
    key: String,
}

/// SKU, variant, business, name, price.
type Offer = (String, VariantId, BusinessId, String, i64);

/// Orders in a second.
pub(super) async fn measure(shop: &Shop, mut wishes: Wishes, span: Span) -> Result<f64> {
    let Pool::Sqlite(pool) = &shop.pool else {
        bail!("the bare loop is written for SQLite")
    };
    let mut connection = pool.acquire().await?;
    let begin = Instant::now() + span.warm_up;
    let mut customers = shop.customers.iter().copied().cycle();
    let mut orders = 0;
    loop {
        let now = SystemClock.now();
        let wanted = customers.by_ref().take(BATCH).map(|user| Wanted {
            id: OrderId::new(now),
            user,
            sku: wishes.skus().swap_remove(0),
            key: wishes.key(),
        });
        place(&mut connection, &wanted.collect::<Vec<_>>(), now).await?;
        let ended = Instant::now();
        if ended >= begin {
            orders += BATCH;
        }
        if ended >= begin + span.measured {
            return Ok(orders as f64 / (ended - begin).as_secs_f64());
        }
    }
}

async fn place(connection: &mut SqliteConnection, wanted: &[Wanted], now: Timestamp) -> Result<()> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    take_keys(&mut tx, wanted, now).await?;
    let skus: Vec<&str> = wanted.iter().map(|order| order.sku.as_str()).collect();
    let offers: Vec<Offer> = sqlx::query_as(
        "SELECT v.sku, v.id, v.business_id, p.name, v.price
         FROM (SELECT DISTINCT value AS sku FROM json_each($1)) wanted
         JOIN oms_variant v ON v.sku = wanted.sku AND v.deleted_at IS NULL
         JOIN oms_product p ON p.id = v.product_id
         JOIN oms_stock s ON s.variant_id = v.id AND s.on_hand - s.allocated >= 1",
    )
    .bind(Json(skus))
    .fetch_all(&mut *tx)
    .await?;
    let sold: Vec<(&Wanted, &Offer)> = wanted
        .iter()
        .map(|order| {
            let offer = offers.iter().find(|offer| offer.0 == order.sku);
            Ok((
                order,
                offer.with_context(|| format!("{} is not on sale", order.sku))?,
            ))
        })
        .collect::<Result<_>>()?;
    let units = offers.iter().map(|offer| {
        let count = wanted.iter().filter(|order| order.sku == offer.0).count();
        (offer.1.uuid().simple().to_string(), count)
    });
    let units: Vec<(String, usize)> = units.collect();
    let taken = sqlx::query(
        "UPDATE oms_stock SET allocated = allocated + (wanted.value ->> 1), version = version + 1
         FROM json_each($1) wanted
         WHERE variant_id = unhex(wanted.value ->> 0) AND on_hand - allocated >= (wanted.value ->> 1)",
    )
    .bind(Json(&units))
    .execute(&mut *tx)
    .await?;
    ensure!(taken.rows_affected() == units.len() as u64, "a SKU is sold out");
    insert(&mut tx, &sold, now).await?;
    Ok(tx.commit().await?)
}

async fn take_keys(tx: &mut SqliteConnection, wanted: &[Wanted], now: Timestamp) -> Result<()> {
    let mut keys = QueryBuilder::<Sqlite>::new(
        "INSERT INTO oms_idempotency (id, operation, key, fingerprint, result_id, created_at) ",
    );
    keys.push_values(wanted, |mut row, order| {
        let hash = Sha256::digest(&order.key);
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        row.push_bind(Uuid::from_bytes(id))
            .push_bind("place_order")
            .push_bind(&order.key);
        row.push_bind(hash.to_vec()).push_bind(order.id).push_bind(now);
    });
    keys.build().execute(tx).await?;
    Ok(())
}

async fn insert(tx: &mut SqliteConnection, sold: &[(&Wanted, &Offer)], now: Timestamp) -> Result<()> {
    let count = i64::try_from(sold.len())?;
    let (mut number,): (i64,) = sqlx::query_as(
        "UPDATE oms_counter SET value = value + $1 WHERE name = 'order_number' RETURNING value - $1",
    )
    .bind(count)
    .fetch_one(&mut *tx)
    .await?;
    let mut orders = QueryBuilder::<Sqlite>::new(
        "INSERT INTO oms_order (id, number, user_id, email, shipping_address, currency, subtotal, total,
                                state, payment_state, expires_at, created_at, updated_at) ",
    );
    let to = address();
    orders.push_values(sold, |mut row, (order, offer)| {
        number += 1;
        row.push_bind(order.id).push_bind(number).push_bind(order.user);
        row.push("(SELECT email FROM oms_user WHERE id = ")
            .push_bind_unseparated(order.user);
        row.push_unseparated(")").push_bind(Json(&to)).push_bind("EUR");
        row.push_bind(offer.4)
            .push_bind(offer.4)
            .push_bind("awaiting_payment")
            .push_bind("unpaid");
        row.push_bind(now + EXPIRY).push_bind(now).push_bind(now);
    });
    orders.build().execute(&mut *tx).await?;
    let mut lines = QueryBuilder::<Sqlite>::new(
        "INSERT INTO oms_order_line (order_id, line, variant_id, business_id, sku, name, unit_price, quantity, total) ",
    );
    lines.push_values(sold, |mut row, (order, (sku, variant, business, name, price))| {
        row.push_bind(order.id)
            .push_bind(1i64)
            .push_bind(*variant)
            .push_bind(*business);
        row.push_bind(sku)
            .push_bind(name)
            .push_bind(*price)
            .push_bind(1i64)
            .push_bind(*price);
    });
    lines.build().execute(&mut *tx).await?;
    let mut movements = QueryBuilder::<Sqlite>::new(
        "INSERT INTO oms_stock_movement
             (variant_id, id, delta_on_hand, delta_allocated, cause, order_id, actor, created_at) ",
    );
    movements.push_values(sold, |mut row, (order, offer)| {
        row.push_bind(offer.1)
            .push_bind(MovementId::new(now))
            .push_bind(0i64)
            .push_bind(1i64);
        row.push_bind("allocate")
            .push_bind(order.id)
            .push_bind(order.user.to_string())
            .push_bind(now);
    });
    movements.build().execute(&mut *tx).await?;
    let mut events = QueryBuilder::<Sqlite>::new(
        "INSERT INTO oms_order_event (order_id, version, kind, actor, data, created_at) ",
    );
    events.push_values(sold, |mut row, (order, _)| {
        row.push_bind(order.id)
            .push_bind(1i64)
            .push_bind("placed")
            .push_bind(order.user.to_string());
        row.push_bind("{}").push_bind(now);
    });
    events.build().execute(&mut *tx).await?;
    Ok(())
}
