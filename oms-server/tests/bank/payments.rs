//! What goes as it should: capture at once and by hand, refunds, 3-D Secure, declines, cancellations.

use serde_json::json;

use crate::support::{Shop, Terms, euros, on_both};

#[tokio::test(flavor = "multi_thread")]
async fn money_is_captured_at_once() {
    on_both(Terms::default(), captured_at_once).await;
}

pub async fn captured_at_once(shop: &Shop) {
    let (order, payment) = shop.checkout(2_500).await;
    assert_eq!(payment.started["status"], "action_required");
    payment.approve().await;
    order.becomes("paid", "paid").await;
    payment.moves(2_500, 0).await;
    let timeline = order.timeline().await;
    assert_eq!(timeline.first().map(String::as_str), Some("placed"));
    assert_eq!(timeline.iter().filter(|kind| *kind == "paid").count(), 1);
    // The bank tells of both steps, and both are kept.
    let inbox = shop.inbox_of(2).await;
    assert!(
        inbox.iter().all(|event| event["status"] == "applied"),
        "{inbox:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_captured_and_refunded_in_parts() {
    on_both(Terms::default(), captured_and_refunded_in_parts).await;
}

pub async fn captured_and_refunded_in_parts(shop: &Shop) {
    shop.sells("LAMP", 9_000, 3).await;
    let order = shop.order("LAMP").await;
    let payment = order.pay_manually().await;
    payment.approve().await;
    order.becomes("awaiting_payment", "authorized").await;

    let first = payment.capture(euros(4_000)).await;
    assert_eq!(first["status"], "partially_captured", "{first}");
    assert_eq!(order.status().await, "awaiting_payment", "half is not paid");
    let second = payment.capture(json!({})).await;
    assert_eq!(second["status"], "captured", "{second}");
    assert_eq!(second["captures"].as_array().unwrap().len(), 2);
    order.becomes("paid", "paid").await;

    let refund = payment.refund(euros(2_500)).await;
    assert_eq!(refund["status"], "succeeded", "{refund}");
    order.becomes("paid", "partially_refunded").await;
    payment.refund(json!({"reason": "sent back"})).await;
    order.becomes("paid", "refunded").await;
    payment.moves(9_000, 9_000).await;
    let path = format!("/v1/payments/{}/refunds", payment.id);
    let too_much = shop.operator_posts(&path, euros(1)).await;
    too_much.problem(409, "invalid_state");
    assert_eq!(payment.at_bank().await["refunds"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorized_payment_is_given_up() {
    on_both(Terms::default(), given_up).await;
}

pub async fn given_up(shop: &Shop) {
    shop.sells("LAMP", 9_000, 1).await;
    let order = shop.order("LAMP").await;
    let payment = order.pay_manually().await;
    payment.approve().await;
    payment.becomes("authorized").await;
    let canceled = payment.cancel().await;
    assert_eq!(canceled["status"], "canceled", "{canceled}");
    assert_eq!(payment.at_bank().await["status"], "canceled");
    order.becomes("awaiting_payment", "unpaid").await;
    // The order still waits: another payment may follow.
    let payment = order.pay().await;
    payment.approve().await;
    order.becomes("paid", "paid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_customers_bank_asks_for_a_code() {
    on_both(Terms::default(), async |shop| {
        let (order, payment) = shop.checkout(2_500).await;
        let to_challenge = payment.press(&[("decision", "challenge")]).await;
        assert_eq!(to_challenge.status, 303);
        let page = shop.send(shop.http.get(to_challenge.location.unwrap())).await;
        assert!(page.text.contains("name=\"code\""), "{}", page.text);
        payment
            .press(&[("decision", "approve"), ("code", "123456")])
            .await
            .expect(200);
        order.becomes("paid", "paid").await;
        assert_eq!(payment.at_bank().await["three_d_secure"], true);

        let (order, payment) = shop.checkout(2_600).await;
        let wrong = [("decision", "approve"), ("code", "654321")];
        payment.press(&wrong).await.expect(200);
        let failed = payment.becomes("failed").await;
        assert_eq!(failed["decline_code"], "authentication_failed");
        order.becomes("awaiting_payment", "unpaid").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_payment_follows_a_decline() {
    on_both(Terms::default(), async |shop| {
        let (order, first) = shop.checkout(2_500).await;
        let path = order.path("/payments");
        let meanwhile = shop.post(&path, json!({"account": "mock"})).await;
        meanwhile.problem(409, "payment_in_progress");
        first.decline().await;
        let failed = first.becomes("failed").await;
        assert_eq!(failed["decline_code"], "card_declined");
        let second = order.pay().await;
        second.approve().await;
        order.becomes("paid", "paid").await;
        // What was decided stays decided.
        first.approve().await;
        assert_eq!(first.at_bank().await["status"], "failed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_order_is_refunded() {
    on_both(Terms::default(), async |shop| {
        shop.sells("LAMP", 9_000, 1).await;
        let order = shop.order("LAMP").await;
        let payment = order.pay().await;
        payment.approve().await;
        order.becomes("paid", "paid").await;
        let path = order.path("/cancel");
        shop.post(&path, json!({})).await.problem(403, "forbidden");
        let canceled = shop.operator_posts(&path, json!({"reason": "broken"})).await;
        assert_eq!(canceled.expect(200)["status"], "canceled");
        order.becomes("canceled", "refunded").await;
        assert_eq!(payment.at_bank().await["refunded"], 9_000);
        assert_eq!(shop.available("LAMP").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn canceling_an_order_gives_its_open_payment_up() {
    on_both(Terms::default(), async |shop| {
        shop.sells("LAMP", 9_000, 1).await;
        let order = shop.order("LAMP").await;
        let payment = order.pay().await;
        let canceled = shop.post(&order.path("/cancel"), json!({})).await;
        assert_eq!(canceled.expect(200)["status"], "canceled");
        payment.becomes("canceled").await;
        payment.approve().await;
        let at_bank = payment.at_bank().await;
        assert_eq!(
            (&at_bank["status"], &at_bank["captured"]),
            (&json!("canceled"), &json!(0))
        );
        assert_eq!(shop.available("LAMP").await, 1);
        order.becomes("canceled", "unpaid").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_authorized_for_a_canceled_order_is_released() {
    on_both(Terms::default(), async |shop| {
        shop.sells("LAMP", 9_000, 1).await;
        let order = shop.order("LAMP").await;
        let payment = order.pay_manually().await;
        payment.approve().await;
        payment.becomes("authorized").await;
        let path = order.path("/cancel");
        shop.operator_posts(&path, json!({})).await.expect(200);
        payment.becomes("canceled").await;
        let at_bank = payment.at_bank().await;
        assert_eq!(
            (&at_bank["captured"], &at_bank["canceled"]),
            (&json!(0), &json!(9_000))
        );
    })
    .await;
}
