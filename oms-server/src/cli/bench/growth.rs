//! Whether the shop gets slower as it grows: orders are written in bulk, then placed and listed as ever.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use oms_core::orders::OrderFilter;
use oms_core::{Actor, Oms, PageRequest};
use sqlx::AssertSqlSafe;

use super::pgbench::UUID_V7;
use super::shop::{CUSTOMERS, Pool, SKUS, Shop};

/// Orders of a page.
const PAGE: u32 = 50;
/// The page whose time is held against the first one's.
const FAR: usize = 1_000;
const LOOKS: usize = 200;
/// Orders of one statement.
const CHUNK: u64 = 100_000;

/// Brings the shop to so many orders, consistent in every row, with fresh statistics as autovacuum would have made them.
pub(super) async fn grow_to(shop: &Shop, orders: u64) -> Result<()> {
    let Pool::Postgres(pool) = &shop.pool else {
        anyhow::bail!("growth is measured on PostgreSQL")
    };
    let (have,): (i64,) = sqlx::query_as("SELECT count(*) FROM oms_order")
        .fetch_one(pool)
        .await?;
    let mut missing = orders.saturating_sub(u64::try_from(have)?);
    while missing > 0 {
        let rows = missing.min(CHUNK);
        let mut tx = pool.begin().await?;
        for statement in statements(rows) {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        missing -= rows;
    }
    sqlx::query("VACUUM ANALYZE").execute(pool).await?;
    sqlx::query("CHECKPOINT").execute(pool).await?;
    Ok(())
}

fn statements(rows: u64) -> [String; 8] {
    let actor = "usr_01h455vb4pex5vsknk084sn02q";
    [
        "DROP TABLE IF EXISTS seeded".into(),
        format!(
            "CREATE TEMP TABLE seeded AS
             SELECT {UUID_V7} AS id, {UUID_V7} AS movement, u.id AS user_id, u.email, v.id AS variant_id,
                    v.business_id, v.sku, v.price, now() - make_interval(secs => n) AS at
             FROM generate_series(1, {rows}) AS n
             JOIN oms_user u ON u.username_key = 'bench-' || n % {CUSTOMERS}
             JOIN oms_variant v ON v.sku = 'uniform-' || lpad((n % {SKUS})::text, 5, '0')"
        ),
        "INSERT INTO oms_idempotency (id, operation, key, fingerprint, result_id, created_at)
         SELECT gen_random_uuid(), 'place_order', 'seeded-' || id, decode(repeat('00', 32), 'hex'), id, at FROM seeded"
            .into(),
        "INSERT INTO oms_order (id, number, user_id, email, currency, subtotal, total, state, payment_state,
                                expires_at, created_at, updated_at)
         SELECT id, nextval('oms_order_number'), user_id, email, 'EUR', price, price, 'awaiting_payment', 'unpaid',
                now() + interval '1 day', at, at FROM seeded"
            .into(),
        "INSERT INTO oms_order_line (order_id, line, variant_id, business_id, sku, name, unit_price, quantity, total)
         SELECT id, 1, variant_id, business_id, sku, sku, price, 1, price FROM seeded"
            .into(),
        format!(
            "INSERT INTO oms_stock_movement
                 (variant_id, id, delta_on_hand, delta_allocated, cause, order_id, actor, created_at)
             SELECT variant_id, movement, 0, 1, 'allocate', id, '{actor}', at FROM seeded"
        ),
        format!(
            "INSERT INTO oms_order_event (order_id, version, kind, actor, data, created_at)
             SELECT id, 1, 'placed', '{actor}', '{{}}', at FROM seeded"
        ),
        "UPDATE oms_stock s SET allocated = s.allocated + n.units, version = s.version + 1
         FROM (SELECT variant_id, count(*) AS units FROM seeded GROUP BY variant_id) AS n
         WHERE s.variant_id = n.variant_id"
            .into(),
    ]
}

/// The median time of the first page of all orders, and of one that is far behind it.
pub(super) async fn pages(oms: &Oms) -> Result<(Duration, Duration)> {
    let first = PageRequest {
        limit: Some(PAGE),
        cursor: None,
    };
    let mut far = first.clone();
    for _ in 1..FAR {
        let page = list(oms, &far).await?;
        far.cursor = Some(page.context("there are fewer pages")?);
    }
    Ok((median_of(oms, &first).await?, median_of(oms, &far).await?))
}

async fn median_of(oms: &Oms, page: &PageRequest) -> Result<Duration> {
    let mut times = Vec::with_capacity(LOOKS);
    for _ in 0..LOOKS {
        let started = Instant::now();
        list(oms, page).await?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(times[LOOKS / 2])
}

/// The cursor of the page after it.
async fn list(oms: &Oms, page: &PageRequest) -> Result<Option<String>> {
    let page = oms
        .orders()
        .list(&Actor::System, &OrderFilter::default(), page)
        .await?;
    Ok(page.next_cursor)
}
