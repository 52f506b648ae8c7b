//! How the databases find the orders of a list.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::OrderState;
use super::store::{Listed, list, list_sql};
use crate::db::{Tx, run};
use crate::fresh::with_postgres;
use crate::id::{OrderId, UserId};
use crate::oms::Oms;
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);
const PAGE: i64 = 51;

/// A hundred thousand orders, while the statistics are from a shop that had three.
#[tokio::test]
async fn a_page_reads_what_it_shows_however_far_behind() {
    let folder = tempfile::tempdir().unwrap();
    grow(&format!("sqlite://{}", folder.path().join("oms.db").display())).await;
    with_postgres(grow).await;
}

async fn grow(url: &str) {
    let oms = Oms::builder(url).connect().await.unwrap();
    oms.migrate().await.unwrap();
    let [ann, bob, thing] = [UserId::new(NOW), UserId::new(NOW), UserId::new(NOW)].map(UserId::uuid);
    for (user, name) in [(ann, "ann"), (bob, "bob")] {
        let sql = format!(
            "INSERT INTO oms_user (id, username, username_key, email, email_key, password_hash, created_at, updated_at)
             VALUES ($1, '{name}', '{name}', '{name}', '{name}', 'none', $2, $2)"
        );
        execute(&oms, &[user], &sql).await;
    }
    for sql in [
        "INSERT INTO oms_business (id, owner_id, name, created_at, updated_at) VALUES ($1, $2, 'Shop', $3, $3)",
        "INSERT INTO oms_product (id, business_id, name, name_key, search_text, images, created_at, updated_at)
         VALUES ($1, $1, 'Mug', 'mug', 'mug', '[]', $3, $3)",
        "INSERT INTO oms_variant (id, product_id, business_id, sku, price, currency, created_at, updated_at)
         VALUES ($1, $1, $1, 'mug', 100, 'EUR', $3, $3)",
    ] {
        execute(&oms, &[thing, ann], sql).await;
    }
    orders(&oms, [ann, bob, thing], 1, 3).await;
    execute(&oms, &[], "ANALYZE").await;
    orders(&oms, [ann, bob, thing], 4, 100_000).await;
    let ann = UserId::from_uuid(ann);
    let mut tx = oms.db().read().await.unwrap();
    let far: Option<OrderId> = run!(&mut tx, |conn| {
        sqlx::query_scalar("SELECT id FROM oms_order ORDER BY id DESC LIMIT 1 OFFSET 50000")
            .fetch_optional(conn)
            .await
    })
    .unwrap();
    tx.rollback().await.unwrap();
    assert!(far.is_some());
    let (all, own) = ("oms_order_pkey", "oms_order_user");
    for after in [None, far] {
        for (user, index) in [(None, all), (Some(ann), own)] {
            let state = None;
            page(&oms, &Listed { user, state, after }, index).await;
        }
        // As most orders are in this state, walking on until the page is full is the shortest way.
        let state = Some(OrderState::AwaitingPayment);
        page(
            &oms,
            &Listed {
                user: None,
                state,
                after,
            },
            all,
        )
        .await;
        page(
            &oms,
            &Listed {
                user: Some(ann),
                state,
                after,
            },
            own,
        )
        .await;
    }
    oms.shutdown().await;
}

/// The statement's `$1` and so on are the ids, then the time.
async fn execute(oms: &Oms, ids: &[Uuid], sql: &str) {
    let mut tx = oms.db().write().await.unwrap();
    if let Tx::Postgres(tx) = &mut tx {
        tx.take_your_time().await.unwrap();
    }
    run!(&mut tx, |conn| {
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for id in ids {
            query = query.bind(*id);
        }
        if sql.contains(&format!("${}", ids.len() + 1)) {
            query = query.bind(NOW);
        }
        query.execute(conn).await.map(drop)
    })
    .unwrap();
    tx.commit().await.unwrap();
}

/// Orders of both users by turns, one in ten of them paid, each with a line.
async fn orders(oms: &Oms, ids: [Uuid; 3], first: i64, last: i64) {
    let tx = oms.db().read().await.unwrap();
    let (id, numbers) = match &tx {
        Tx::Sqlite(_) => (
            "randomblob(16)",
            format!("RECURSIVE n (i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last})"),
        ),
        Tx::Postgres(_) => (
            "gen_random_uuid()",
            format!("n (i) AS (SELECT generate_series({first}, {last}))"),
        ),
    };
    tx.rollback().await.unwrap();
    let new = format!(
        "WITH {numbers}
         INSERT INTO oms_order (id, number, user_id, email, currency, subtotal, total, state, payment_state, created_at,
                                updated_at)
         SELECT {id}, i, CASE WHEN i % 2 = 0 THEN $1 ELSE $2 END, 'a@example.com', 'EUR', 100, 100,
                CASE WHEN i % 10 = 0 THEN 'paid' ELSE 'awaiting_payment' END, 'unpaid', $3, $3
         FROM n"
    );
    execute(oms, &ids[..2], &new).await;
    let lines = format!(
        "INSERT INTO oms_order_line (order_id, line, variant_id, business_id, sku, name, unit_price, quantity, total)
         SELECT id, 1, $1, $1, 'mug', 'Mug', 100, 1, 100 FROM oms_order WHERE number >= {first}"
    );
    execute(oms, &ids[2..], &lines).await;
}

async fn page(oms: &Oms, listed: &Listed, index: &str) {
    let mut tx = oms.db().read().await.unwrap();
    let plan = plan(&mut tx, listed).await;
    match tx {
        Tx::Sqlite(_) => {
            // SQLite names the index of a primary key in its own way.
            let index = index.replace("oms_order_pkey", "sqlite_autoindex_oms_order_1");
            assert!(plan.contains(&format!("INDEX {index}")), "{listed:?}\n{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{listed:?}\n{plan}");
        }
        Tx::Postgres(_) => {
            assert!(
                plan.contains(&format!("Index Scan Backward using {index}")),
                "{listed:?}\n{plan}"
            );
            assert!(
                !plan.contains("Seq Scan") && !plan.contains("Sort"),
                "{listed:?}\n{plan}"
            );
        }
    }
    tx.rollback().await.unwrap();

    // The plan that is really used, and what it read.
    let mut tx = oms.db().snapshot().await.unwrap();
    let before = rows_read(&mut tx).await;
    let found = list(&mut tx, listed, PAGE).await.unwrap();
    let after = rows_read(&mut tx).await;
    tx.rollback().await.unwrap();
    assert_eq!(found.len(), usize::try_from(PAGE).unwrap());
    assert_eq!(after.0 - before.0, 0, "a whole table was read: {listed:?}");
    let read = after.1 - before.1;
    assert!(read <= 3 * PAGE, "{read} rows were read for {listed:?}");
}

async fn plan(tx: &mut Tx, listed: &Listed) -> String {
    // With values, as the planner sees them in a statement that is planned anew.
    let (explain, before, after) = match tx {
        Tx::Sqlite(_) => ("EXPLAIN QUERY PLAN", "x", ""),
        Tx::Postgres(_) => ("EXPLAIN", "", "::uuid"),
    };
    let uuid = |id: Uuid| format!("{before}'{}'{after}", id.simple());
    let mut values: Vec<String> = Vec::new();
    values.extend(listed.user.map(|user| uuid(user.uuid())));
    values.extend(listed.state.map(|state| format!("'{}'", state.as_str())));
    values.extend(listed.after.map(|after| uuid(after.uuid())));
    values.push(PAGE.to_string());
    let explain = (1..)
        .zip(values)
        .fold(format!("{explain} {}", list_sql(listed)), |sql, (n, value)| {
            sql.replace(&format!("${n}"), &value)
        });
    let steps: Vec<String> = match tx {
        Tx::Sqlite(tx) => {
            let steps: Vec<(i64, i64, i64, String)> = sqlx::query_as(AssertSqlSafe(explain))
                .fetch_all(&mut **tx)
                .await
                .unwrap();
            steps.into_iter().map(|step| step.3).collect()
        }
        Tx::Postgres(tx) => sqlx::query_scalar(AssertSqlSafe(explain))
            .fetch_all(&mut **tx)
            .await
            .unwrap(),
    };
    steps.join("\n")
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
