//! What one would write without this library: one transaction for each order, with a lock on the stock row.
//!
//! The same rows through the same driver, prepared statements included: key, stock, order, line, movement, event.

use std::time::Duration;

use anyhow::{Result, ensure};
use oms_core::orders::Address;
use oms_core::{BusinessId, Clock, MovementId, OrderId, SystemClock, Timestamp, UserId, VariantId};
use sha2::{Digest, Sha256};
use sqlx::types::Json;
use sqlx::{PgPool, SqlitePool};
use uuid::Uuid;

use super::load::{Answer, Caller};
use super::shop::{Pool, Shop, Wishes, address};

const EXPIRY: Duration = Duration::from_secs(30 * 60);

pub(super) struct Baseline {
    pool: Pool,
    customer: UserId,
    wishes: Wishes,
    address: Address,
}

impl Baseline {
    pub(super) fn callers(shop: &Shop, wishes: Vec<Wishes>) -> Vec<Self> {
        let customers = shop.customers.iter().copied().cycle();
        let callers = customers.zip(wishes).map(|(customer, wishes)| Self {
            pool: shop.pool.clone(),
            customer,
            wishes,
            address: address(),
        });
        callers.collect()
    }
}

impl Caller for Baseline {
    async fn call(&mut self) -> Result<Answer> {
        let order = Order {
            customer: self.customer,
            actor: self.customer.to_string(),
            skus: self.wishes.skus(),
            key: self.wishes.key(),
            address: &self.address,
            now: SystemClock.now(),
        };
        let placed = match &self.pool {
            Pool::Sqlite(pool) => on_sqlite(pool, &order).await?,
            Pool::Postgres(pool) => on_postgres(pool, &order).await?,
        };
        Ok(if placed { Answer::Done } else { Answer::Judged })
    }
}

struct Order<'a> {
    customer: UserId,
    actor: String,
    /// Sorted: whoever takes rows in one order waits and does not deadlock.
    skus: Vec<String>,
    key: String,
    address: &'a Address,
    now: Timestamp,
}

/// Variant, business, name, price, currency, available.
type Stock = (VariantId, BusinessId, String, i64, String, i64);

const SELECT_SQLITE: &str = "
    SELECT v.id, v.business_id, p.name, v.price, v.currency, s.on_hand - s.allocated
    FROM oms_variant v JOIN oms_product p ON p.id = v.product_id JOIN oms_stock s ON s.variant_id = v.id
    WHERE v.sku = $1 AND v.deleted_at IS NULL";

const SELECT_POSTGRES: &str = "
    SELECT v.id, v.business_id, p.name, v.price, v.currency, s.on_hand - s.allocated
    FROM oms_variant v JOIN oms_product p ON p.id = v.product_id JOIN oms_stock s ON s.variant_id = v.id
    WHERE v.sku = $1 AND v.deleted_at IS NULL FOR UPDATE OF s";

/// The statements between BEGIN and COMMIT: one text for both databases, but a connection has a type. Returns early when
/// a SKU is unknown: the transaction is rolled back.
macro_rules! place {
    ($tx:expr, $order:ident, select: $select:expr, number: $number:expr) => {{
        let (id, tx) = (OrderId::new($order.now), &mut *$tx);
        let key = sqlx::query(
            "INSERT INTO oms_idempotency (id, operation, key, fingerprint, result_id, created_at)
             VALUES ($1, 'place_order', $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        );
        let key = key
            .bind($order.key_id())
            .bind(&$order.key)
            .bind($order.fingerprint())
            .bind(id);
        let taken = key.bind($order.now).execute(&mut *tx).await?.rows_affected();
        ensure!(taken == 1, "the key {} was used before", $order.key);
        let mut lines: Vec<(&str, Stock)> = Vec::new();
        for sku in &$order.skus {
            let stock: Option<Stock> = sqlx::query_as($select).bind(sku).fetch_optional(&mut *tx).await?;
            let Some(stock) = stock else {
                return Ok(false);
            };
            ensure!(stock.5 >= 1, "{sku} is sold out");
            sqlx::query(
                "UPDATE oms_stock SET allocated = allocated + 1, version = version + 1 WHERE variant_id = $1",
            )
            .bind(stock.0)
            .execute(&mut *tx)
            .await?;
            lines.push((sku, stock));
        }
        let total: i64 = lines.iter().map(|(_, stock)| stock.3).sum();
        let currency = lines.first().map(|(_, stock)| stock.4.as_str());
        let (number,): (i64,) = sqlx::query_as($number).fetch_one(&mut *tx).await?;
        let insert = sqlx::query(
            "INSERT INTO oms_order (id, number, user_id, email, shipping_address, currency, subtotal, total,
                                    state, payment_state, expires_at, created_at, updated_at)
             SELECT $1, $2, u.id, u.email, $4, $5, $6, $6, 'awaiting_payment', 'unpaid', $7, $8, $8
             FROM oms_user u WHERE u.id = $3",
        );
        let insert = insert.bind(id).bind(number).bind($order.customer);
        let insert = insert.bind(Json($order.address)).bind(currency).bind(total);
        let insert = insert.bind($order.now + EXPIRY).bind($order.now);
        insert.execute(&mut *tx).await?;
        for (number, (sku, (variant, business, name, price, ..))) in (1i64..).zip(&lines) {
            let line = sqlx::query(
                "INSERT INTO oms_order_line
                     (order_id, line, variant_id, business_id, sku, name, unit_price, quantity, total)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $7)",
            );
            let line = line.bind(id).bind(number).bind(variant).bind(business).bind(sku);
            line.bind(name).bind(price).execute(&mut *tx).await?;
            let movement = sqlx::query(
                "INSERT INTO oms_stock_movement
                     (variant_id, id, delta_on_hand, delta_allocated, cause, order_id, actor, created_at)
                 VALUES ($1, $2, 0, 1, 'allocate', $3, $4, $5)",
            );
            let movement = movement.bind(variant).bind(MovementId::new($order.now)).bind(id);
            movement
                .bind(&$order.actor)
                .bind($order.now)
                .execute(&mut *tx)
                .await?;
        }
        let event = sqlx::query(
            "INSERT INTO oms_order_event (order_id, version, kind, actor, data, created_at)
             VALUES ($1, 1, 'placed', $2, '{}', $3)",
        );
        event
            .bind(id)
            .bind(&$order.actor)
            .bind($order.now)
            .execute(&mut *tx)
            .await?;
    }};
}

async fn on_sqlite(pool: &SqlitePool, order: &Order<'_>) -> Result<bool> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    place!(tx, order, select: SELECT_SQLITE, number:
        "UPDATE oms_counter SET value = value + 1 WHERE name = 'order_number' RETURNING value");
    tx.commit().await?;
    Ok(true)
}

async fn on_postgres(pool: &PgPool, order: &Order<'_>) -> Result<bool> {
    let mut tx = pool.begin().await?;
    place!(tx, order, select: SELECT_POSTGRES, number: "SELECT nextval('oms_order_number')");
    tx.commit().await?;
    Ok(true)
}

impl Order<'_> {
    /// As the library does: the hash of actor and key is the row's id.
    fn key_id(&self) -> Uuid {
        let hash = Sha256::new()
            .chain_update(&self.actor)
            .chain_update(&self.key)
            .finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        Uuid::from_bytes(id)
    }

    fn fingerprint(&self) -> Vec<u8> {
        Sha256::digest(self.skus.join(" ")).to_vec()
    }
}
