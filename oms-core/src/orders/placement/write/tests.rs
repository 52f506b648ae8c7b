//! How the databases find what a batch needs.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use tokio::sync::oneshot;
use tracing::Span;

use super::*;
use crate::actor::Actor;
use crate::db::run;
use crate::fresh::with_postgres;
use crate::id::ProductId;
use crate::oms::Oms;
use crate::orders::model::NewLine;
use crate::orders::placement::Draft;
use crate::testing::ManualClock;

const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// A hundred thousand SKUs, while the statistics and the connections' kept plans are from a shop that had three.
#[tokio::test]
async fn postgres_never_reads_a_whole_table_for_a_batch() {
    with_postgres(grow).await;
}

async fn grow(url: &str) {
    let clock = ManualClock::at(NOW);
    let oms = Oms::builder(url).clock(clock).connect().await.unwrap();
    oms.migrate().await.unwrap();
    let user = UserId::new(NOW);
    stock(&oms, user, 1, 3).await;
    let mut tx = oms.db().write().await.unwrap();
    run!(&mut tx, |conn| sqlx::query("ANALYZE")
        .execute(conn)
        .await
        .map(drop))
    .unwrap();
    tx.commit().await.unwrap();
    for _ in 0..3 {
        place(&oms, user, &[1, 2, 3]).await;
    }
    stock(&oms, user, 4, 100_000).await;
    let many: Vec<i64> = (1..=100).map(|n| n * 1_000).collect();
    for skus in [&many[..], &[50_000]] {
        let (scans, read) = place(&oms, user, skus).await;
        assert_eq!(scans, 0, "a whole table was read");
        // User, variant, product and stock; the stock again to change it; users, variants and so on as foreign keys.
        let most = 20 * i64::try_from(skus.len()).unwrap();
        assert!(read <= most, "{read} rows were read for {} lines", skus.len());
    }
    oms.shutdown().await;
}

/// The variants `s<first>` to `s<last>`, with ten of each on hand; the seller comes with the first.
async fn stock(oms: &Oms, user: UserId, first: i64, last: i64) {
    let (business, product) = (BusinessId::new(NOW), ProductId::new(NOW));
    let mut tx = oms.db().write().await.unwrap();
    let Tx::Postgres(pg) = &mut tx else {
        panic!("not PostgreSQL")
    };
    pg.take_your_time().await.unwrap();
    limited!(pg, |conn| {
        sqlx::query(
            "INSERT INTO oms_user (id, username, username_key, email, email_key, password_hash, created_at, updated_at)
             VALUES ($1, 's', 's', 's', 's', 'none', $2, $2) ON CONFLICT DO NOTHING",
        )
        .bind(user)
        .bind(NOW)
        .execute(&mut *conn)
        .await?;
        sqlx::query(
            "INSERT INTO oms_business (id, owner_id, name, created_at, updated_at) VALUES ($1, $2, 'Shop', $3, $3)",
        )
        .bind(business)
        .bind(user)
        .bind(NOW)
        .execute(&mut *conn)
        .await?;
        sqlx::query(
            "INSERT INTO oms_product (id, business_id, name, name_key, search_text, images, created_at, updated_at)
             VALUES ($1, $2, 'Thing', 'thing', 'thing', '[]', $3, $3)",
        )
        .bind(product)
        .bind(business)
        .bind(NOW)
        .execute(&mut *conn)
        .await?;
        sqlx::query(
            "INSERT INTO oms_variant (id, product_id, business_id, sku, price, currency, created_at, updated_at)
             SELECT gen_random_uuid(), $3, $4, 's' || i, 100, 'EUR', $5, $5 FROM generate_series($1, $2) AS n (i)",
        )
        .bind(first)
        .bind(last)
        .bind(product)
        .bind(business)
        .bind(NOW)
        .execute(&mut *conn)
        .await?;
        sqlx::query(
            "INSERT INTO oms_stock (variant_id, on_hand)
             SELECT v.id, 10 FROM oms_variant v WHERE v.product_id = $1",
        )
        .bind(product)
        .execute(conn)
        .await
        .map(drop)
    })
    .unwrap();
    tx.commit().await.unwrap();
}

/// Places an order for each of the variants in one batch, looks at how the rows were found, and takes it back.
async fn place(oms: &Oms, user: UserId, skus: &[i64]) -> (i64, i64) {
    let tickets: Vec<Ticket> = skus.iter().map(|n| ticket(user, *n)).collect();
    let mut tx = oms.db().routine().await.unwrap();
    let before = rows_read(&mut tx).await;
    let expiry = Duration::from_secs(60);
    let placed = batch(&mut tx, &tickets, NOW, NOW + expiry).await.unwrap();
    assert_eq!(placed.len(), skus.len());
    assert!(
        placed.iter().all(|one| matches!(one, Ok(Placed::Fresh(_)))),
        "{placed:?}"
    );
    let after = rows_read(&mut tx).await;
    tx.rollback().await.unwrap();
    (after.0 - before.0, after.1 - before.1)
}

fn ticket(user: UserId, n: i64) -> Ticket {
    let key = format!("k{n}").parse().unwrap();
    let line = NewLine {
        sku: format!("s{n}"),
        quantity: 1,
    };
    Ticket {
        claim: Claim::new(&Actor::System, "place", "", &key, &n).unwrap(),
        draft: Draft {
            user,
            lines: vec![line],
            shipping_address: None,
            note: None,
        },
        reply: oneshot::channel().0,
        span: Span::none(),
    }
}

/// Whole-table scans and rows read in this transaction, from the PostgreSQL server itself.
async fn rows_read(tx: &mut Tx) -> (i64, i64) {
    let Tx::Postgres(tx) = tx else { return (0, 0) };
    let counted = sqlx::query_as(
        "SELECT sum(seq_scan)::bigint, sum(seq_tup_read + COALESCE(idx_tup_fetch, 0))::bigint
         FROM pg_stat_xact_user_tables",
    );
    counted.fetch_one(&mut **tx).await.unwrap()
}

/// SQLite plans by its schema alone.
#[tokio::test]
async fn sqlite_finds_offers_by_their_sku() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("oms.db").display());
    let oms = Oms::builder(url).connect().await.unwrap();
    oms.migrate().await.unwrap();
    let mut tx = oms.db().routine().await.unwrap();
    let explain = format!("EXPLAIN QUERY PLAN {}", sqlite::OFFERS);
    let plan: Vec<(i64, i64, i64, String)> = run!(&mut tx, |conn| {
        sqlx::query_as(AssertSqlSafe(explain)).fetch_all(conn).await
    })
    .unwrap();
    tx.rollback().await.unwrap();
    let steps: Vec<_> = plan.iter().map(|(_, _, _, step)| step.as_str()).collect();
    let [list, variant, product, stock] = steps[..] else {
        panic!("{steps:#?}")
    };
    assert!(list.starts_with("SCAN wanted VIRTUAL TABLE"), "{steps:#?}");
    assert!(variant.contains("INDEX oms_variant_sku (sku=?)"), "{steps:#?}");
    assert!(
        product.contains("INDEX sqlite_autoindex_oms_product_1 (id=?)"),
        "{steps:#?}"
    );
    assert!(
        stock.contains("INDEX sqlite_autoindex_oms_stock_1 (variant_id=?)"),
        "{steps:#?}"
    );
    oms.shutdown().await;
}
