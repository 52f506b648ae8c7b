//! Stock: levels, adjustments, movements.

use futures_util::future::join_all;
use oms_core::inventory::{Adjust, Cause, StockLevel};
use oms_core::{Actor, Error, Outcome, PageRequest, Result};

use crate::support::{TestOms, each_db};

async fn adjust(t: &TestOms, actor: &Actor, sku: &str, delta: i64, key: &str) -> Result<Outcome<StockLevel>> {
    let adjust = Adjust {
        sku: sku.into(),
        delta,
        reason: "counted".into(),
        idempotency_key: key.parse()?,
    };
    t.oms.inventory().adjust(actor, adjust).await
}

async fn on_hand(t: &TestOms, sku: &str) -> i64 {
    t.oms
        .inventory()
        .level(&Actor::Anonymous, sku)
        .await
        .unwrap()
        .on_hand
}

#[tokio::test]
async fn units_come_and_go() {
    each_db(async |t| {
        let (seller, _) = t.seller_with("MUG-1", 1299, 5).await;
        let level = adjust(&t, &seller, "MUG-1", 7, "in").await.unwrap();
        assert!(!level.replayed);
        let level = level.value;
        assert_eq!((level.on_hand, level.allocated, level.available()), (12, 0, 12));
        assert_eq!((level.sku.as_str(), level.version), ("MUG-1", 3));

        adjust(&t, &seller, "MUG-1", -12, "out").await.unwrap();
        let refused = adjust(&t, &seller, "MUG-1", -1, "more").await;
        assert!(
            matches!(&refused, Err(Error::InvalidState { what: "stock", state, .. }) if state == "0 on hand, 0 allocated"),
            "{refused:?}"
        );
        // A refusal keeps no key: the same key may try again when there is stock.
        adjust(&t, &seller, "MUG-1", 1, "again").await.unwrap();
        assert!(!adjust(&t, &seller, "MUG-1", -1, "more").await.unwrap().replayed);
        assert_eq!(on_hand(&t, "MUG-1").await, 0);
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    each_db(async |t| {
        let (seller, _) = t.seller_with("A", 100, 5).await;
        for delta in [0, i64::MAX, i64::MIN, 1_000_000_001, -1_000_000_001] {
            let Err(Error::Invalid(violations)) = adjust(&t, &seller, "A", delta, "k").await else {
                panic!("{delta} was taken")
            };
            assert_eq!(violations[0].pointer, "/delta");
        }
        for sku in ["a", "B", "", "A\0", "é"] {
            let refused = adjust(&t, &seller, sku, 1, "k").await;
            assert!(
                matches!(refused, Err(Error::NotFound("SKU"))),
                "{sku:?} {refused:?}"
            );
        }
        assert_eq!(on_hand(&t, "A").await, 5);
    })
    .await;
}

#[tokio::test]
async fn only_the_seller_and_operators_adjust() {
    each_db(async |t| {
        let (seller, _) = t.seller_with("A", 100, 5).await;
        let (other, _) = t.seller_with("B", 100, 5).await;
        let refused = adjust(&t, &Actor::Anonymous, "A", 1, "k").await;
        assert!(matches!(refused, Err(Error::Unauthorized)), "{refused:?}");
        let refused = adjust(&t, &other, "A", 1, "k").await;
        assert!(matches!(refused, Err(Error::NotFound("SKU"))), "{refused:?}");
        let unverified = Actor::User {
            id: seller.user_id().unwrap(),
            roles: Default::default(),
            verified: false,
        };
        let refused = adjust(&t, &unverified, "A", 1, "k").await;
        assert!(matches!(refused, Err(Error::EmailNotVerified)), "{refused:?}");
        let movements = t
            .oms
            .inventory()
            .movements(&other, "A", PageRequest::default())
            .await;
        assert!(matches!(movements, Err(Error::NotFound("SKU"))), "{movements:?}");

        // The same key in other hands is another key.
        for actor in [&seller, &t.operator(), &Actor::System] {
            assert!(!adjust(&t, actor, "A", 1, "k").await.unwrap().replayed);
        }
        assert_eq!(on_hand(&t, "A").await, 8);
    })
    .await;
}

#[tokio::test]
async fn twenty_adjustments_at_once_all_count() {
    each_db(async |t| {
        let (seller, _) = t.seller_with("A", 100, 0).await;
        let keys: Vec<_> = (0..20).map(|i| format!("in-{i}")).collect();
        let all = join_all(keys.iter().map(|key| adjust(&t, &seller, "A", 3, key))).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        let level = t.oms.inventory().level(&seller, "A").await.unwrap();
        assert_eq!((level.on_hand, level.version), (60, 21));

        // 60 units, 20 who want 5 each: 12 get them, and nobody goes below zero.
        let keys: Vec<_> = (0..20).map(|i| format!("out-{i}")).collect();
        let all = join_all(keys.iter().map(|key| adjust(&t, &seller, "A", -5, key))).await;
        let (done, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
        assert!(
            refused
                .iter()
                .all(|r| matches!(r, Err(Error::InvalidState { .. }))),
            "{refused:?}"
        );
        assert_eq!((done.len(), on_hand(&t, "A").await), (12, 0));
    })
    .await;
}

#[tokio::test]
async fn one_key_moves_stock_once() {
    each_db(async |t| {
        let (seller, product) = t.seller_with("A", 100, 0).await;
        let all = join_all((0..10).map(|_| adjust(&t, &seller, "A", 4, "same"))).await;
        let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
        assert_eq!(all.iter().filter(|outcome| !outcome.replayed).count(), 1);
        assert!(all.iter().all(|outcome| outcome.value == all[0].value));
        let movements = t
            .oms
            .inventory()
            .movements(&seller, "A", PageRequest::default())
            .await
            .unwrap();
        assert_eq!((movements.data.len(), on_hand(&t, "A").await), (1, 4));

        let other = adjust(&t, &seller, "A", 5, "same").await;
        assert!(matches!(other, Err(Error::IdempotencyKeyReused)), "{other:?}");

        // A late repetition gets its answer although the SKU is not on sale any more.
        t.oms.catalog().delete_product(&seller, product, 1).await.unwrap();
        let late = adjust(&t, &seller, "A", 4, "same").await.unwrap();
        assert_eq!((late.replayed, late.value.on_hand), (true, 4));
        let fresh = adjust(&t, &seller, "A", 4, "another").await;
        assert!(matches!(fresh, Err(Error::NotFound("SKU"))), "{fresh:?}");
    })
    .await;
}

#[tokio::test]
async fn movements_tell_the_story_in_pages() {
    each_db(async |t| {
        let (seller, _) = t.seller_with("A", 100, 10).await;
        for (i, delta) in [5, -3, 2, -1].into_iter().enumerate() {
            t.clock.advance(std::time::Duration::from_secs(1));
            adjust(&t, &seller, "A", delta, &format!("k{i}")).await.unwrap();
        }
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page = PageRequest {
                cursor,
                limit: Some(2),
            };
            let page = t.oms.inventory().movements(&seller, "A", page).await.unwrap();
            assert!((1..=2).contains(&page.data.len()));
            all.extend(page.data);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        let told: Vec<_> = all.iter().map(|m| (m.cause, m.delta_on_hand)).collect();
        assert_eq!(
            told,
            [
                (Cause::Adjust, -1),
                (Cause::Receive, 2),
                (Cause::Adjust, -3),
                (Cause::Receive, 5),
                (Cause::Receive, 10)
            ]
        );
        assert_eq!(all[0].actor, seller.to_string());
        assert_eq!((all[0].reason.as_deref(), all[0].order), (Some("counted"), None));
        assert_eq!(all[0].at, t.oms.now());
    })
    .await;
}
