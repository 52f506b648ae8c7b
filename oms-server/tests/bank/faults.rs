//! Every fault of the bank's table: in the end the order is right, the customer was charged at most once, and both
//! books say the same (which the end of every story checks).

use std::time::Duration;

use serde_json::json;

use crate::support::{MOCK, Order, Payment, Shop, Terms, euros, eventually, on_both};

const DECLINE: i64 = 99_901;
pub const TIMEOUT_AFTER_CHARGE: i64 = 99_902;
const DUPLICATE_WEBHOOKS: i64 = 99_903;
const OUT_OF_ORDER_WEBHOOKS: i64 = 99_904;
const TAMPERED_WEBHOOKS: i64 = 99_905;
const STALE_WEBHOOKS: i64 = 99_906;
const FUTURE_WEBHOOKS: i64 = 99_907;
pub const WRONG_AMOUNT: i64 = 99_908;
pub const SLOW_ANSWERS: i64 = 99_909;
pub const NO_WEBHOOKS: i64 = 99_910;
pub const TIMEOUT_ON_CHANGE: i64 = 99_911;
pub const REFUND_FAILS: i64 = 99_912;

/// The plugin gives up before the bank's answer comes.
pub const IMPATIENT: Terms = Terms {
    plugin: MOCK,
    timeout_ms: 1_500,
    tolerance_seconds: 300,
    worker: true,
    record: false,
};

/// When the shop asks the bank for the first time.
pub const FIRST_LOOK: Duration = Duration::from_secs(31);

#[tokio::test(flavor = "multi_thread")]
async fn decline() {
    on_both(Terms::default(), declined).await;
}

pub async fn declined(shop: &Shop) {
    let (order, payment) = shop.checkout(DECLINE).await;
    payment.approve().await;
    let failed = payment.becomes("failed").await;
    assert_eq!(failed["decline_code"], "insufficient_funds");
    order.becomes("awaiting_payment", "unpaid").await;
    assert_eq!(payment.at_bank().await["captured"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn timeout_after_charge() {
    on_both(IMPATIENT, charged_but_not_answered).await;
}

pub async fn charged_but_not_answered(shop: &Shop) {
    let (order, payment) = shop.checkout(TIMEOUT_AFTER_CHARGE).await;
    assert_eq!(payment.started["status"], "unknown", "{}", payment.started);
    let path = order.path("/payments");
    let again = shop.post(&path, json!({"account": "mock"})).await;
    again.problem(409, "payment_in_progress");
    shop.later(FIRST_LOOK).await;
    order.becomes("paid", "paid").await;
    charged_once(shop, &payment, TIMEOUT_AFTER_CHARGE).await;
}

/// The same, by the system's own clock: nothing but the job finds out.
#[tokio::test(flavor = "multi_thread")]
async fn timeout_after_charge_in_real_time() {
    on_both(IMPATIENT, async |shop| {
        let (order, payment) = shop.checkout(TIMEOUT_AFTER_CHARGE).await;
        assert_eq!(payment.started["status"], "unknown", "{}", payment.started);
        tokio::time::sleep(Duration::from_secs(28)).await;
        order.becomes("paid", "paid").await;
        charged_once(shop, &payment, TIMEOUT_AFTER_CHARGE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_webhooks() {
    on_both(Terms::default(), told_twice).await;
}

pub async fn told_twice(shop: &Shop) {
    let (order, payment) = shop.checkout(DUPLICATE_WEBHOOKS).await;
    payment.approve().await;
    order.becomes("paid", "paid").await;
    shop.inbox_of(2).await;
    charged_once(shop, &payment, DUPLICATE_WEBHOOKS).await;
    assert_eq!(paid_entries(&order).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_order_webhooks() {
    on_both(Terms::default(), async |shop| {
        let (order, payment) = shop.checkout(OUT_OF_ORDER_WEBHOOKS).await;
        payment.approve().await;
        order.becomes("paid", "paid").await;
        let inbox = shop.inbox_of(2).await;
        assert_eq!(inbox[0]["kind"], "payment.authorized", "it came last");
        order.becomes("paid", "paid").await;
        charged_once(shop, &payment, OUT_OF_ORDER_WEBHOOKS).await;
        assert_eq!(paid_entries(&order).await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tampered_stale_and_future_webhooks() {
    on_both(Terms::default(), told_wrongly).await;
}

pub async fn told_wrongly(shop: &Shop) {
    for amount in [TAMPERED_WEBHOOKS, STALE_WEBHOOKS, FUTURE_WEBHOOKS] {
        let known = shop.inbox().await.len();
        let (order, payment) = shop.checkout(amount).await;
        payment.approve().await;
        order.becomes("paid", "paid").await;
        charged_once(shop, &payment, amount).await;
        // The two good ones; of the two bad ones nothing was kept.
        shop.inbox_of(known + 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_amount() {
    on_both(Terms::default(), async |shop| {
        for decision in ["accept", "sync", "refund"] {
            let known = shop.inbox().await.len();
            let (order, payment) = shop.checkout(WRONG_AMOUNT).await;
            payment.approve().await;
            let in_review = payment.becomes("needs_review").await;
            let reason = in_review["review_reason"].as_str().unwrap();
            assert!(reason.contains("99808"), "{reason}");
            shop.inbox_of(known + 2).await;
            assert_eq!(order.status().await, "awaiting_payment");
            let listed = shop.operator_gets("/v1/admin/payments").await.expect(200);
            assert_eq!(listed["data"][0]["id"], payment.id, "{listed}");

            let led_out = payment.review(decision).await.expect(200);
            assert_eq!(led_out["status"], "captured", "{decision}: {led_out}");
            let listed = shop.operator_gets("/v1/admin/payments").await.expect(200);
            assert_eq!(listed["data"], json!([]));
            payment.review(decision).await.problem(409, "invalid_state");
            if decision == "refund" {
                payment.moves(WRONG_AMOUNT, WRONG_AMOUNT).await;
                order.becomes("awaiting_payment", "refunded").await;
                assert_eq!(payment.at_bank().await["refunded"], WRONG_AMOUNT);
            } else {
                order.becomes("paid", "paid").await;
                charged_once(shop, &payment, WRONG_AMOUNT).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_answers() {
    on_both(Terms::default(), async |shop| {
        let (order, payment) = shop.checkout(SLOW_ANSWERS).await;
        assert_eq!(payment.started["status"], "action_required");
        payment.approve().await;
        order.becomes("paid", "paid").await;
        charged_once(shop, &payment, SLOW_ANSWERS).await;
    })
    .await;
}

/// So slow that the plugin gives up: the next tries give up too, but the payment was made and is found in the end.
#[tokio::test(flavor = "multi_thread")]
async fn answers_slower_than_the_plugins_patience() {
    on_both(IMPATIENT, async |shop| {
        let (order, payment) = shop.checkout(SLOW_ANSWERS).await;
        assert_eq!(payment.started["status"], "unknown", "{}", payment.started);
        // The second request under the same key is answered from the bank's memory, at once.
        shop.later(FIRST_LOOK).await;
        let found = payment.becomes("action_required").await;
        let url = found["next_action"]["url"].as_str().unwrap();
        let request = shop.http.post(url).body("decision=approve");
        shop.send(request).await.expect(200);
        order.becomes("paid", "paid").await;
        charged_once(shop, &payment, SLOW_ANSWERS).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_webhooks() {
    on_both(Terms::default(), told_nothing).await;
}

pub async fn told_nothing(shop: &Shop) {
    // The customer comes back, which makes the shop ask.
    let (order, payment) = shop.checkout(NO_WEBHOOKS).await;
    payment.approve().await;
    let completed = payment.complete().await;
    assert_eq!(completed["status"], "captured", "{completed}");
    order.becomes("paid", "paid").await;
    charged_once(shop, &payment, NO_WEBHOOKS).await;
    assert_eq!(shop.inbox().await.len(), 0);

    // The customer does not come back: at the latest when the order's time is over the shop learns of it.
    let (order, payment) = shop.checkout(NO_WEBHOOKS).await;
    payment.approve().await;
    shop.later(Duration::from_secs(31 * 60)).await;
    order.becomes("paid", "paid").await;
    charged_once(shop, &payment, NO_WEBHOOKS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timeout_on_refund() {
    on_both(IMPATIENT, async |shop| {
        let (order, payment) = shop.checkout(TIMEOUT_ON_CHANGE).await;
        payment.approve().await;
        order.becomes("paid", "paid").await;
        let refund = payment.refund(euros(10_000)).await;
        assert_eq!(refund["status"], "unknown", "{refund}");
        assert_eq!(payment.at_bank().await["refunded"], 10_000);
        shop.later(FIRST_LOOK).await;
        order.becomes("paid", "partially_refunded").await;
        let settled = payment.moves(TIMEOUT_ON_CHANGE, 10_000).await;
        assert_eq!(settled["status"], "captured", "{settled}");
        assert_eq!(payment.at_bank().await["refunds"].as_array().unwrap().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timeout_on_capture_and_cancel() {
    on_both(IMPATIENT, changed_but_not_answered).await;
}

pub async fn changed_but_not_answered(shop: &Shop) {
    shop.sells("CAPTURED", TIMEOUT_ON_CHANGE, 1).await;
    shop.sells("CANCELED", TIMEOUT_ON_CHANGE, 1).await;
    let (captured, canceled) = (shop.order("CAPTURED").await, shop.order("CANCELED").await);
    let to_capture = captured.pay_manually().await;
    let to_cancel = canceled.pay_manually().await;
    for payment in [&to_capture, &to_cancel] {
        payment.approve().await;
        payment.becomes("authorized").await;
    }
    assert_eq!(to_capture.capture(json!({})).await["status"], "unknown");
    assert_eq!(to_cancel.cancel().await["status"], "unknown");
    shop.later(FIRST_LOOK).await;
    captured.becomes("paid", "paid").await;
    charged_once(shop, &to_capture, TIMEOUT_ON_CHANGE).await;
    to_cancel.becomes("canceled").await;
    canceled.becomes("awaiting_payment", "unpaid").await;
    assert_eq!(to_cancel.at_bank().await["captured"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn refund_fails() {
    on_both(Terms::default(), refund_failed).await;
}

pub async fn refund_failed(shop: &Shop) {
    let (order, payment) = shop.checkout(REFUND_FAILS).await;
    payment.approve().await;
    order.becomes("paid", "paid").await;
    for _ in 0..2 {
        // What a failed refund held is free again, so that the second is refused by the bank alone.
        let refund = payment.refund(json!({})).await;
        assert_eq!(refund["status"], "failed", "{refund}");
    }
    let paid = order.becomes("paid", "paid").await;
    assert_eq!(paid["payments"][0]["refunded"], 0);
    let timeline = order.timeline().await;
    assert!(
        timeline.iter().any(|kind| kind == "refund_failed"),
        "{timeline:?}"
    );
    charged_once(shop, &payment, REFUND_FAILS).await;
}

/// The bank told a wrong amount of money that is only held yet.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_amount_of_an_authorization() {
    on_both(Terms::default(), async |shop| {
        shop.sells("HELD", WRONG_AMOUNT, 2).await;
        let (taken, refused) = (shop.order("HELD").await, shop.order("HELD").await);
        let (to_take, to_refuse) = (taken.pay_manually().await, refused.pay_manually().await);
        for payment in [&to_take, &to_refuse] {
            payment.approve().await;
            payment.becomes("needs_review").await;
        }
        let led_out = to_take.review("sync").await.expect(200);
        assert_eq!(led_out["status"], "authorized", "{led_out}");
        to_take.capture(json!({})).await;
        taken.becomes("paid", "paid").await;
        charged_once(shop, &to_take, WRONG_AMOUNT).await;

        to_refuse.review("refund").await.expect(200);
        to_refuse.becomes("canceled").await;
        let at_bank = to_refuse.at_bank().await;
        assert_eq!(
            (&at_bank["captured"], &at_bank["canceled"]),
            (&json!(0), &json!(WRONG_AMOUNT))
        );
        refused.becomes("awaiting_payment", "unpaid").await;
    })
    .await;
}

async fn charged_once(shop: &Shop, payment: &Payment<'_>, amount: i64) {
    payment.moves(amount, 0).await;
    let at_bank = eventually("the bank's answer", async || {
        let books = shop.bank_books().await;
        let mut of_this = books
            .into_iter()
            .filter(|p| p["merchant_payment_id"] == payment.id);
        of_this.next().ok_or_else(|| "nothing".to_owned())
    });
    let at_bank = at_bank.await;
    assert_eq!(
        (&at_bank["captured"], &at_bank["refunded"]),
        (&json!(amount), &json!(0))
    );
    assert_eq!(at_bank["captures"].as_array().unwrap().len(), 1, "{at_bank}");
}

async fn paid_entries(order: &Order<'_>) -> usize {
    let timeline = order.timeline().await;
    timeline.iter().filter(|kind| *kind == "paid").count()
}
