//! Orders whose time is over, and money that comes after it.

use std::time::Duration;

use serde_json::json;

use crate::support::{MOCK, Terms, on_both};

/// More than the half hour for which an order waits.
const TOO_LONG: Duration = Duration::from_secs(31 * 60);

/// Jobs run when the story says so, and the bank's webhooks are good although the shop's clock was moved.
const BY_HAND: Terms = Terms {
    plugin: MOCK,
    timeout_ms: 10_000,
    tolerance_seconds: 7_200,
    worker: false,
    record: false,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_unpaid_order_expires() {
    on_both(Terms::default(), async |shop| {
        shop.sells("VASE", 4_000, 1).await;
        let unpaid = shop.order("VASE").await;
        assert_eq!(shop.available("VASE").await, 0);
        shop.later(TOO_LONG).await;
        unpaid.becomes("expired", "unpaid").await;
        assert_eq!(shop.available("VASE").await, 1);
        let path = unpaid.path("/payments");
        let too_late = shop.post(&path, json!({"account": "mock"})).await;
        too_late.problem(409, "invalid_state");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_open_payment_of_an_expired_order_is_given_up_at_the_bank() {
    on_both(Terms::default(), async |shop| {
        let (order, payment) = shop.checkout(4_000).await;
        shop.later(TOO_LONG).await;
        payment.becomes("canceled").await;
        payment.approve().await;
        assert_eq!(payment.at_bank().await["captured"], 0);
        order.becomes("expired", "unpaid").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorized_payment_holds_its_order() {
    on_both(BY_HAND, async |shop| {
        shop.sells("VASE", 4_000, 1).await;
        let order = shop.order("VASE").await;
        let payment = order.pay_manually().await;
        payment.approve().await;
        payment.becomes("authorized").await;
        shop.later(TOO_LONG).await;
        assert_eq!(shop.oms.orders().expire_due().await.unwrap(), 0);
        payment.capture(json!({})).await;
        order.becomes("paid", "paid").await;
        shop.work().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_after_expiry_is_taken_while_there_is_stock() {
    on_both(BY_HAND, async |shop| {
        shop.sells("VASE", 4_000, 1).await;
        let order = shop.order("VASE").await;
        let payment = order.pay().await;
        shop.later(TOO_LONG).await;
        // The customer is quicker than the job that would give the payment up.
        assert_eq!(shop.oms.orders().expire_due().await.unwrap(), 1);
        order.becomes("expired", "pending").await;
        assert_eq!(shop.available("VASE").await, 1);
        payment.approve().await;
        order.becomes("paid", "paid").await;
        assert_eq!(shop.available("VASE").await, 0);
        shop.work().await;
        payment.moves(4_000, 0).await;
        let timeline = order.timeline().await;
        assert!(timeline.iter().any(|kind| kind == "paid_late"), "{timeline:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_after_expiry_goes_back_when_the_goods_are_gone() {
    on_both(BY_HAND, async |shop| {
        shop.sells("VASE", 4_000, 1).await;
        let late = shop.order("VASE").await;
        let payment = late.pay().await;
        shop.later(TOO_LONG).await;
        assert_eq!(shop.oms.orders().expire_due().await.unwrap(), 1);
        let quick = shop.order("VASE").await;
        payment.approve().await;
        payment.moves(4_000, 0).await;
        shop.work().await;
        payment.moves(4_000, 4_000).await;
        late.becomes("expired", "refunded").await;
        assert_eq!(payment.at_bank().await["refunded"], 4_000);
        let timeline = late.timeline().await;
        for kind in ["expired", "payment_refused", "refunded"] {
            assert!(timeline.iter().any(|entry| entry == kind), "{kind}: {timeline:?}");
        }
        assert!(
            !timeline.iter().any(|entry| entry.starts_with("paid")),
            "{timeline:?}"
        );
        assert_eq!(quick.status().await, "awaiting_payment");
    })
    .await;
}

/// The customer canceled and paid all the same, before the job could give the payment up.
#[tokio::test(flavor = "multi_thread")]
async fn money_for_a_canceled_order_goes_back() {
    on_both(BY_HAND, async |shop| {
        let (order, payment) = shop.checkout(4_000).await;
        shop.post(&order.path("/cancel"), json!({})).await.expect(200);
        payment.approve().await;
        payment.moves(4_000, 0).await;
        shop.work().await;
        payment.moves(4_000, 4_000).await;
        order.becomes("canceled", "refunded").await;
    })
    .await;
}
