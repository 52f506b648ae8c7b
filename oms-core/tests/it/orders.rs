//! Orders: placing, idempotency, canceling, fulfilling, expiring.

use std::time::Duration;

use oms_core::orders::{
    Address, CancelOrder, FulfillOrder, FulfillmentLine, NewLine, OrderFilter, OrderState, PlaceOrder,
};
use oms_core::{Actor, Error, PageRequest};

use crate::support::{TestOms, each_db};

pub fn order(key: &str, lines: &[(&str, i64)]) -> PlaceOrder {
    let lines = lines.iter().map(|(sku, quantity)| NewLine {
        sku: (*sku).into(),
        quantity: *quantity,
    });
    PlaceOrder {
        idempotency_key: key.parse().unwrap(),
        lines: lines.collect(),
        shipping_address: None,
        note: None,
    }
}

fn cancel(key: &str) -> CancelOrder {
    CancelOrder {
        idempotency_key: key.parse().unwrap(),
        reason: Some("changed my mind".into()),
        expected_version: None,
    }
}

async fn kinds(t: &TestOms, id: oms_core::OrderId) -> Vec<String> {
    t.oms
        .orders()
        .timeline(&Actor::System, id)
        .await
        .unwrap()
        .into_iter()
        .map(|e| e.kind)
        .collect()
}

#[tokio::test]
async fn placing_allocates_and_remembers() {
    each_db(async |t| {
        t.seller_with("mug", 1299, 10).await;
        let buyer = t.user("ann").await;
        let address = Address {
            name: "Ann".into(),
            line1: "Street 1".into(),
            line2: None,
            city: "Oslo".into(),
            region: None,
            postal_code: Some("0150".into()),
            country: "NO".into(),
        };
        // Two lines of one SKU are one.
        let mut command = order("k1", &[("mug", 2), ("mug", 1)]);
        command.shipping_address = Some(address.clone());
        let placed = t.oms.orders().place(&buyer, command.clone()).await.unwrap();
        assert!(!placed.replayed);
        let placed = placed.value;
        assert_eq!(
            (placed.total.minor(), placed.state, placed.version),
            (3897, OrderState::AwaitingPayment, 1)
        );
        assert_eq!((placed.lines.len(), placed.lines[0].quantity), (1, 3));
        assert_eq!(t.stock("mug").await, (10, 3));

        let read = t.oms.orders().get(&buyer, placed.id).await.unwrap();
        assert_eq!(read, placed, "what was answered is what is stored");
        assert_eq!(read.shipping_address, Some(address));

        let again = t.oms.orders().place(&buyer, command).await.unwrap();
        assert!(again.replayed);
        assert_eq!(again.value, placed);
        let other = t
            .oms
            .orders()
            .place(&buyer, order("k1", &[("mug", 1)]))
            .await
            .unwrap_err();
        assert!(matches!(other, Error::IdempotencyKeyReused));
        let neighbour = t.user("bob").await;
        let own = t
            .oms
            .orders()
            .place(&neighbour, order("k1", &[("mug", 1)]))
            .await
            .unwrap();
        assert!(!own.replayed, "another user's key is independent");
        assert!(own.value.number > placed.number);
        assert_eq!(kinds(&t, placed.id).await, ["placed"]);
        t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn refusals_take_nothing_and_free_their_key() {
    each_db(async |t| {
        t.seller_with("mug", 1299, 2).await;
        let buyer = t.user("ann").await;
        let orders = t.oms.orders();
        let short = orders.place(&buyer, order("k", &[("mug", 3)])).await.unwrap_err();
        assert!(matches!(short, Error::OutOfStock(s) if s[0].wanted == 3 && s[0].available == 2));
        let unknown = orders
            .place(&buyer, order("k", &[("mug", 1), ("jug", 1)]))
            .await
            .unwrap_err();
        assert!(matches!(unknown, Error::UnknownSku(s) if s == [(1, "jug".into())]));
        for lines in [
            &[][..],
            &[("mug", 0)],
            &[("mug", -1)],
            &[("mug", 1 << 31)],
            &[("mug", i64::MAX)],
        ] {
            let refused = orders.place(&buyer, order("k", lines)).await.unwrap_err();
            assert!(matches!(refused, Error::Invalid(_)), "{lines:?}: {refused}");
        }
        for shapeless in ["", "a b", "mug\0", &"x".repeat(65)] {
            let refused = orders
                .place(&buyer, order("k", &[(shapeless, 1)]))
                .await
                .unwrap_err();
            assert!(
                matches!(refused, Error::UnknownSku(_)),
                "{shapeless:?}: {refused}"
            );
        }
        let many: Vec<_> = (0..10_000).map(|_| ("mug", 1)).collect();
        assert!(matches!(
            orders.place(&buyer, order("k", &many)).await.unwrap_err(),
            Error::Invalid(_)
        ));
        assert_eq!(t.stock("mug").await, (2, 0));
        assert!(matches!(
            orders.place(&Actor::Anonymous, order("k", &[("mug", 1)])).await,
            Err(Error::Unauthorized)
        ));
        assert!(
            !orders
                .place(&buyer, order("k", &[("mug", 2)]))
                .await
                .unwrap()
                .replayed
        );
        t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn the_same_key_ten_times_at_once_is_one_order() {
    each_db(async |t| {
        t.seller_with("mug", 100, 100).await;
        let buyer = t.user("ann").await;
        for round in 0..5 {
            let key = format!("k{round}");
            let answers = at_once((0..10).map(|_| {
                let (oms, buyer, command) = (t.oms.clone(), buyer.clone(), order(&key, &[("mug", 1)]));
                async move { oms.orders().place(&buyer, command).await.unwrap() }
            }))
            .await;
            let fresh = answers.iter().filter(|o| !o.replayed).count();
            assert_eq!(fresh, 1);
            assert!(answers.iter().all(|o| o.value == answers[0].value));
        }
        assert_eq!(t.stock("mug").await, (100, 5));
        t.verify().await;
    })
    .await;
}

/// Runs all of them on their own tasks, on several threads.
pub async fn at_once<F>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut outputs = Vec::new();
    for task in tasks {
        outputs.push(task.await.unwrap());
    }
    outputs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_buyers_for_one_unit() {
    each_db(async |t| {
        let mut buyers = Vec::new();
        for n in 0..200 {
            buyers.push(t.user(&format!("buyer{n}")).await);
        }
        for round in 0..50 {
            let sku = format!("last-{round}");
            t.seller_with(&sku, 100, 1).await;
            let results = at_once(buyers.iter().cloned().map(|buyer| {
                let (oms, command) = (t.oms.clone(), order(&format!("r{round}"), &[(&sku, 1)]));
                async move { oms.orders().place(&buyer, command).await }
            }))
            .await;
            let placed = results.iter().filter(|r| r.is_ok()).count();
            let sold_out = results
                .iter()
                .filter(|r| matches!(r, Err(Error::OutOfStock(_))))
                .count();
            assert_eq!((placed, sold_out), (1, 199), "round {round}");
            assert_eq!(t.stock(&sku).await, (1, 1));
        }
        t.verify().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crossed_carts_do_not_deadlock() {
    each_db(async |t| {
        t.seller_with("a", 100, 10_000).await;
        t.seller_with("b", 100, 10_000).await;
        let mut tasks = Vec::new();
        for n in 0..32 {
            let (oms, buyer) = (t.oms.clone(), t.user(&format!("buyer{n}")).await);
            let lines = if n % 2 == 0 {
                [("a", 1), ("b", 1)]
            } else {
                [("b", 1), ("a", 1)]
            };
            tasks.push(async move {
                for round in 0..20 {
                    oms.orders()
                        .place(&buyer, order(&format!("k{round}"), &lines))
                        .await
                        .unwrap();
                }
            });
        }
        at_once(tasks).await;
        assert_eq!(
            (t.stock("a").await, t.stock("b").await),
            ((10_000, 640), (10_000, 640))
        );
        t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn own_orders_only() {
    each_db(async |t| {
        t.seller_with("mug", 100, 100).await;
        let (ann, bob) = (t.user("ann").await, t.user("bob").await);
        let mut placed = Vec::new();
        for n in 0..5 {
            t.clock.advance(Duration::from_millis(5));
            placed.push(
                t.oms
                    .orders()
                    .place(&ann, order(&format!("k{n}"), &[("mug", 1)]))
                    .await
                    .unwrap()
                    .value
                    .id,
            );
        }
        t.oms
            .orders()
            .place(&bob, order("k", &[("mug", 1)]))
            .await
            .unwrap();
        placed.reverse();
        let orders = t.oms.orders();
        assert!(matches!(
            orders.get(&bob, placed[0]).await,
            Err(Error::NotFound(_))
        ));
        assert!(matches!(
            orders.timeline(&bob, placed[0]).await,
            Err(Error::NotFound(_))
        ));
        assert!(matches!(
            orders.cancel(&bob, placed[0], cancel("c")).await,
            Err(Error::NotFound(_))
        ));
        let mut seen = Vec::new();
        let mut page = PageRequest {
            cursor: None,
            limit: Some(2),
        };
        loop {
            let part = orders.list(&ann, &OrderFilter::default(), &page).await.unwrap();
            seen.extend(part.data.iter().map(|o| o.id));
            let Some(next) = part.next_cursor else { break };
            page.cursor = Some(next);
        }
        assert_eq!(seen, placed, "the newest first, all of one's own");
        let all = orders
            .list(&t.operator(), &OrderFilter::default(), &PageRequest::default())
            .await
            .unwrap();
        assert_eq!(all.data.len(), 6);
        let paid = OrderFilter {
            state: Some(OrderState::Paid),
            user: None,
        };
        assert!(
            orders
                .list(&ann, &paid, &PageRequest::default())
                .await
                .unwrap()
                .data
                .is_empty()
        );
    })
    .await;
}

#[tokio::test]
async fn canceling_gives_the_stock_back_once() {
    each_db(async |t| {
        t.seller_with("mug", 100, 10).await;
        let ann = t.user("ann").await;
        let orders = t.oms.orders();
        let placed = orders.place(&ann, order("k", &[("mug", 4)])).await.unwrap().value;
        let mut stale = cancel("c0");
        stale.expected_version = Some(7);
        let refused = orders.cancel(&ann, placed.id, stale).await.unwrap_err();
        assert!(matches!(
            refused,
            Error::VersionConflict {
                expected: 7,
                actual: 1
            }
        ));
        let canceled = orders.cancel(&ann, placed.id, cancel("c")).await.unwrap().value;
        assert_eq!(
            (canceled.state, canceled.version, canceled.lines[0].canceled),
            (OrderState::Canceled, 2, 4)
        );
        assert_eq!(t.stock("mug").await, (10, 0));
        let again = orders.cancel(&ann, placed.id, cancel("c")).await.unwrap();
        assert!(again.replayed && again.value == canceled);
        let refused = orders.cancel(&ann, placed.id, cancel("c2")).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidState { .. }));
        assert_eq!(kinds(&t, placed.id).await, ["placed", "canceled"]);
        t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn unpaid_orders_expire_and_unpaid_orders_do_not_ship() {
    each_db(async |t| {
        t.seller_with("mug", 100, 10).await;
        let ann = t.user("ann").await;
        let orders = t.oms.orders();
        let placed = orders.place(&ann, order("k", &[("mug", 4)])).await.unwrap().value;
        let fulfil = FulfillOrder {
            idempotency_key: "f".parse().unwrap(),
            lines: Some(vec![FulfillmentLine {
                sku: "mug".into(),
                quantity: 1,
            }]),
            tracking: None,
            expected_version: None,
        };
        assert!(matches!(
            orders.fulfill(&ann, placed.id, fulfil.clone()).await,
            Err(Error::Forbidden(_))
        ));
        let unpaid = orders
            .fulfill(&t.operator(), placed.id, fulfil)
            .await
            .unwrap_err();
        assert!(matches!(unpaid, Error::InvalidState { .. }), "{unpaid}");

        t.clock.advance(Duration::from_secs(29 * 60));
        assert_eq!(orders.expire_due().await.unwrap(), 0);
        t.clock.advance(Duration::from_secs(60));
        assert_eq!(orders.expire_due().await.unwrap(), 1);
        assert_eq!(orders.expire_due().await.unwrap(), 0);
        assert_eq!(
            orders.get(&ann, placed.id).await.unwrap().state,
            OrderState::Expired
        );
        assert_eq!(t.stock("mug").await, (10, 0));
        assert_eq!(kinds(&t, placed.id).await, ["placed", "expired"]);
        t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn what_waits_is_placed_when_the_shop_closes() {
    each_db(async |t| {
        t.seller_with("mug", 100, 100).await;
        let ann = t.user("ann").await;
        let waiting: Vec<_> = (0..20)
            .map(|n| {
                let (oms, ann) = (t.oms.clone(), ann.clone());
                tokio::spawn(async move {
                    oms.orders()
                        .place(&ann, order(&format!("k{n}"), &[("mug", 1)]))
                        .await
                })
            })
            .collect();
        tokio::task::yield_now().await;
        t.oms.shutdown().await;
        let mut placed = 0;
        for task in waiting {
            match task.await.unwrap() {
                Ok(_) => placed += 1,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        }
        assert_eq!(t.stock("mug").await, (100, placed));
    })
    .await;
}
