//! A bank that is slow or away is the trouble of those who pay, not of everybody.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::faults::SLOW_ANSWERS;
use crate::support::{Order, Terms, on_both};

#[tokio::test(flavor = "multi_thread")]
async fn others_do_not_wait_for_a_slow_bank() {
    on_both(Terms::default(), async |shop| {
        shop.sells("SLOW", SLOW_ANSWERS, 20).await;
        let mut orders = Vec::new();
        for _ in 0..12 {
            orders.push(shop.order("SLOW").await);
        }
        let payments = join_all(orders.iter().map(Order::pay));
        let others = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let mut slowest = Duration::ZERO;
            for _ in 0..10 {
                let begun = Instant::now();
                shop.get("/v1/products").await.expect(200);
                slowest = slowest.max(begun.elapsed());
            }
            (slowest, Instant::now())
        };
        let begun = Instant::now();
        let (payments, (slowest, others_done)) = tokio::join!(payments, others);
        assert!(begun.elapsed() >= Duration::from_secs(3), "the bank was not slow");
        assert!(
            others_done - begun < Duration::from_secs(3),
            "they were to be served while the bank made the others wait"
        );
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
        for payment in &payments {
            assert_eq!(payment.started["status"], "action_required");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_happens_at_a_bank_that_is_away() {
    on_both(Terms::default(), async |shop| {
        shop.sells("LAMP", 4_000, 1).await;
        let order = shop.order("LAMP").await;
        let path = order.path("/payments");
        let away = shop.post(&path, json!({"account": "closed"})).await;
        away.problem(503, "gateway_unavailable");
        assert_eq!(shop.bank_books().await.len(), 0);
        // The order is free for the account that works.
        let payment = order.pay().await;
        payment.approve().await;
        order.becomes("paid", "paid").await;
    })
    .await;
}
