//! What orders call inside their transactions, and what `verify` finds, on both databases.

use futures_util::future::join_all;

use super::store::{apply, try_allocate};
use super::{Adjust, Cause, StockLevel, verify};
use crate::actor::{Actor, Roles};
use crate::catalog::{NewBusiness, NewProduct, NewVariant};
use crate::db::{Table, Tx, lock, run};
use crate::error::{Error, Result};
use crate::fresh::with_postgres;
use crate::id::{BusinessId, OrderId, UserId, VariantId};
use crate::money::Money;
use crate::oms::Oms;
use crate::testing::ManualClock;
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// A seller with two variants: A with 5 units and B with 2.
struct Shop {
    oms: Oms,
    business: BusinessId,
    a: VariantId,
    b: VariantId,
}

#[tokio::test]
async fn all_or_nothing_is_allocated() {
    each_db(async |shop| {
        let order = OrderId::new(NOW);
        assert!(!shop.allocate(order, &[(shop.a, 3), (shop.b, 3)]).await.unwrap());
        assert_eq!(shop.levels().await, [(5, 0), (2, 0)]);
        assert_eq!(shop.verify().await, [""; 0]);

        assert!(shop.allocate(order, &[(shop.a, 3), (shop.b, 2)]).await.unwrap());
        assert_eq!(shop.levels().await, [(5, 3), (2, 2)]);
        assert!(matches!(
            shop.allocate(order, &[(shop.a, 0)]).await,
            Err(Error::Internal(_))
        ));
    })
    .await;
}

#[tokio::test]
async fn no_unit_is_allocated_twice() {
    each_db(async |shop| {
        let wanted = [(shop.b, 1), (shop.a, 1)];
        let orders = (0..12).map(|_| shop.allocate(OrderId::new(NOW), &wanted));
        let taken = join_all(orders)
            .await
            .into_iter()
            .filter(|r| *r.as_ref().unwrap());
        assert_eq!(taken.count(), 2);
        assert_eq!(shop.levels().await, [(5, 2), (2, 2)]);
    })
    .await;
}

#[tokio::test]
async fn a_change_that_does_not_fit_is_refused_whole() {
    each_db(async |shop| {
        for changes in [
            vec![(shop.a, 0, 1), (shop.b, 0, 3)],
            vec![(shop.a, 0, -1)],
            vec![(shop.a, -6, 0)],
            vec![(shop.a, 0, 1), (shop.a, 0, 1)],
            vec![(VariantId::new(NOW), 1, 0)],
        ] {
            let mut tx = shop.oms.db().write().await.unwrap();
            let result = apply(&mut tx, NOW, "system", None, Cause::Adjust, &changes).await;
            assert!(matches!(result, Err(Error::Internal(_))), "{changes:?}");
            tx.rollback().await.unwrap();
        }
        assert_eq!(shop.levels().await, [(5, 0), (2, 0)]);
        assert_eq!(shop.verify().await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn verify_finds_each_difference() {
    each_db(async |shop| {
        let order = OrderId::new(NOW);
        let a = shop.a;
        shop.allocate(order, &[(a, 3)]).await.unwrap();
        let orphan = format!("{a} (A): allocated is 3, open orders have 0");
        assert_eq!(shop.verify().await, [orphan]);

        shop.insert_order(order, 3).await;
        assert_eq!(shop.verify().await, [""; 0]);

        let mut tx = shop.oms.db().write().await.unwrap();
        apply(&mut tx, NOW, "system", Some(order), Cause::Ship, &[(a, -1, -1)])
            .await
            .unwrap();
        tx.commit().await.unwrap();
        shop.sql("UPDATE oms_order_line SET fulfilled = 1").await;
        assert_eq!(shop.levels().await[0], (4, 2));
        assert_eq!(shop.verify().await, [""; 0]);

        shop.sql("UPDATE oms_order SET state = 'expired'").await;
        let kept = format!("{a} (A): allocated is 2, open orders have 0");
        assert_eq!(shop.verify().await, [kept]);
        shop.sql("UPDATE oms_order SET state = 'partially_fulfilled'")
            .await;

        shop.sql("UPDATE oms_stock SET on_hand = on_hand + 1").await;
        let b = shop.b;
        let mut expected = [
            format!("{a} (A): on hand is 5, its movements add up to 4"),
            format!("{b} (B): on hand is 3, its movements add up to 2"),
        ];
        expected.sort();
        assert_eq!(shop.verify().await, expected);
    })
    .await;
}

impl Shop {
    async fn open(url: &str) -> Result<Self> {
        let oms = Oms::builder(url).clock(ManualClock::at(NOW)).connect().await?;
        oms.migrate().await?;
        let user = UserId::new(NOW);
        let mut tx = oms.db().write().await?;
        run!(&mut tx, |conn| {
            sqlx::query(
                "INSERT INTO oms_user (id, username, username_key, email, email_key, password_hash, created_at, updated_at)
                 VALUES ($1, 's', 's', 's', 's', 'none', $2, $2)",
            )
            .bind(user)
            .bind(NOW)
            .execute(conn)
            .await
            .map(drop)
        })?;
        tx.commit().await?;
        let seller = Actor::User {
            id: user,
            roles: Roles::NONE,
            verified: true,
        };
        let new = NewBusiness {
            name: "Shop".into(),
            ..NewBusiness::default()
        };
        let business = oms.catalog().create_business(&seller, new).await?.id;
        let variant = |sku: &str| NewVariant {
            sku: sku.into(),
            name: None,
            price: Money::zero("EUR".parse().unwrap()),
        };
        let new = NewProduct {
            business,
            name: "Thing".into(),
            category: None,
            description: None,
            variants: vec![variant("A"), variant("B")],
            images: Vec::new(),
        };
        let variants = oms.catalog().create_product(&seller, new).await?.variants;
        for (sku, delta) in [("A", 5), ("B", 2)] {
            let (sku, reason) = (sku.into(), "first".into());
            let idempotency_key = "k".parse()?;
            oms.inventory()
                .adjust(
                    &seller,
                    Adjust {
                        sku,
                        delta,
                        reason,
                        idempotency_key,
                    },
                )
                .await?;
        }
        Ok(Self {
            oms,
            business,
            a: variants[0].id,
            b: variants[1].id,
        })
    }

    /// As orders do it: lock, ask, commit.
    async fn allocate(&self, order: OrderId, wanted: &[(VariantId, i64)]) -> Result<bool> {
        let mut tx = self.oms.db().write().await?;
        let mut ids: Vec<_> = wanted.iter().map(|(variant, _)| variant.uuid()).collect();
        ids.sort();
        lock(&mut tx, Table::Stock, &ids).await?;
        let done = try_allocate(&mut tx, NOW, "system", order, wanted).await?;
        tx.commit().await?;
        Ok(done)
    }

    async fn levels(&self) -> [(i64, i64); 2] {
        let level = async |sku| self.oms.inventory().level(&Actor::Anonymous, sku).await.unwrap();
        let numbers = |level: StockLevel| (level.on_hand, level.allocated);
        [numbers(level("A").await), numbers(level("B").await)]
    }

    async fn verify(&self) -> Vec<String> {
        let mut tx = self.oms.db().snapshot().await.unwrap();
        let lines = verify(&mut tx).await.unwrap();
        tx.rollback().await.unwrap();
        lines
    }

    async fn insert_order(&self, id: OrderId, quantity: i64) {
        let mut tx: Tx = self.oms.db().write().await.unwrap();
        run!(&mut tx, |conn| {
            sqlx::query(
                "INSERT INTO oms_order (id, number, email, currency, subtotal, total, state, payment_state,
                     created_at, updated_at)
                 VALUES ($1, 1, 'a@example.com', 'EUR', 0, 0, 'paid', 'paid', $2, $2)",
            )
            .bind(id)
            .bind(NOW)
            .execute(&mut *conn)
            .await
            .unwrap();
            sqlx::query(
                "INSERT INTO oms_order_line (order_id, line, variant_id, business_id, sku, name, unit_price,
                     quantity, total)
                 VALUES ($1, 0, $2, $3, 'A', 'Thing', 0, $4, 0)",
            )
            .bind(id)
            .bind(self.a)
            .bind(self.business)
            .bind(quantity)
            .execute(&mut *conn)
            .await
            .map(drop)
        })
        .unwrap();
        tx.commit().await.unwrap();
    }

    async fn sql(&self, text: &'static str) {
        let mut tx = self.oms.db().write().await.unwrap();
        run!(&mut tx, |conn| sqlx::query(text).execute(conn).await.map(drop)).unwrap();
        tx.commit().await.unwrap();
    }
}

/// Plays the story on SQLite and on PostgreSQL.
async fn each_db(story: impl AsyncFn(&Shop)) {
    let folder = tempfile::tempdir().unwrap();
    play(
        &format!("sqlite://{}", folder.path().join("oms.db").display()),
        &story,
    )
    .await;
    with_postgres(async |url| play(url, &story).await).await;
}

async fn play(url: &str, story: &impl AsyncFn(&Shop)) {
    let shop = Shop::open(url).await.unwrap();
    story(&shop).await;
    shop.oms.shutdown().await;
}
