//! Orders that are canceled while the bank does something wrong with their money.

use std::time::Duration;

use serde_json::json;

use crate::faults::{
    FIRST_LOOK, IMPATIENT, REFUND_FAILS, SLOW_ANSWERS, TIMEOUT_AFTER_CHARGE, TIMEOUT_ON_CHANGE, WRONG_AMOUNT,
};
use crate::support::{Terms, eventually, on_both};

/// The order was given up before the shop learned that it was paid: all of it goes back.
#[tokio::test(flavor = "multi_thread")]
async fn timeout_after_charge_of_an_order_that_is_canceled() {
    on_both(IMPATIENT, async |shop| {
        let (order, payment) = shop.checkout(TIMEOUT_AFTER_CHARGE).await;
        shop.post(&order.path("/cancel"), json!({})).await.expect(200);
        shop.later(FIRST_LOOK).await;
        order.becomes("canceled", "refunded").await;
        payment.moves(TIMEOUT_AFTER_CHARGE, TIMEOUT_AFTER_CHARGE).await;
    })
    .await;
}

/// Once somebody has looked, the money of an order that is gone goes back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_amount_for_an_order_that_is_canceled_under_review() {
    on_both(Terms::default(), async |shop| {
        let (order, payment) = shop.checkout(WRONG_AMOUNT).await;
        payment.approve().await;
        payment.becomes("needs_review").await;
        shop.inbox_of(2).await;
        shop.post(&order.path("/cancel"), json!({})).await.expect(200);
        payment.review("accept").await.expect(200);
        payment.moves(WRONG_AMOUNT, WRONG_AMOUNT).await;
        order.becomes("canceled", "refunded").await;
    })
    .await;
}

/// The payment is still being started when its order is canceled.
#[tokio::test(flavor = "multi_thread")]
async fn slow_answers_while_the_order_is_canceled() {
    on_both(Terms::default(), async |shop| {
        shop.sells("SLOW", SLOW_ANSWERS, 1).await;
        let order = shop.order("SLOW").await;
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(1_000)).await;
            shop.post(&order.path("/cancel"), json!({})).await.expect(200);
        };
        let (payment, ()) = tokio::join!(order.pay(), cancel);
        shop.later(FIRST_LOOK).await;
        payment.becomes("canceled").await;
        assert_eq!(payment.at_bank().await["status"], "canceled");
        order.becomes("canceled", "unpaid").await;
        assert_eq!(shop.available("SLOW").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timeout_on_the_refund_of_a_canceled_order() {
    on_both(IMPATIENT, async |shop| {
        let (order, payment) = shop.checkout(TIMEOUT_ON_CHANGE).await;
        payment.approve().await;
        order.becomes("paid", "paid").await;
        shop.operator_posts(&order.path("/cancel"), json!({}))
            .await
            .expect(200);
        payment.becomes("unknown").await;
        shop.later(FIRST_LOOK).await;
        order.becomes("canceled", "refunded").await;
        payment.moves(TIMEOUT_ON_CHANGE, TIMEOUT_ON_CHANGE).await;
        assert_eq!(payment.at_bank().await["refunds"].as_array().unwrap().len(), 1);
    })
    .await;
}

/// Money that the shop owes and cannot send back is a matter for a person.
#[tokio::test(flavor = "multi_thread")]
async fn refund_of_a_canceled_order_fails() {
    on_both(Terms::default(), async |shop| {
        let (order, payment) = shop.checkout(REFUND_FAILS).await;
        payment.approve().await;
        order.becomes("paid", "paid").await;
        shop.operator_posts(&order.path("/cancel"), json!({}))
            .await
            .expect(200);
        payment.becomes("needs_review").await;
        order.becomes("canceled", "paid").await;
        // Another try fails as well, and the payment is listed again.
        payment.review("refund").await.expect(200);
        eventually("a second refund that fails", async || {
            let now = payment.now().await;
            let failed = now["refunds"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|r| r["status"] == "failed");
            match failed.count() {
                2 if now["status"] == "needs_review" => Ok(()),
                _ => Err(now.to_string()),
            }
        })
        .await;
        // Paid back in some other way: the operator closes the case.
        assert_eq!(payment.review("accept").await.expect(200)["status"], "captured");
    })
    .await;
}
