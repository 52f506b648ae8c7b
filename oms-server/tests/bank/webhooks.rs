//! Webhooks that are wrong, late, early or meant for somebody else.

use serde_json::json;

use crate::faults::{NO_WEBHOOKS, SLOW_ANSWERS};
use crate::support::{Shop, Terms, Webhook, on_both};

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_bank_signed_now_counts() {
    on_both(Terms::default(), only_what_is_signed).await;
}

pub async fn only_what_is_signed(shop: &Shop) {
    let (order, payment) = shop.checkout(2_500).await;
    let good = payment
        .webhook("evt_own", "payment.captured", "captured", 2_500)
        .await;
    assert_eq!(good.tampered(shop).await.status, 400);
    for bad in [
        Webhook {
            shift: -600,
            ..good.clone()
        },
        Webhook {
            shift: 600,
            ..good.clone()
        },
        Webhook {
            signed: false,
            ..good.clone()
        },
        Webhook {
            account: "other".into(),
            ..good.clone()
        },
    ] {
        shop.deliver(&bad).await.problem(400, "invalid_request");
    }
    let nobody = Webhook {
        account: "nobody".into(),
        ..good.clone()
    };
    shop.deliver(&nobody).await.problem(404, "not_found");
    let huge = Webhook {
        body: format!("{}{}", good.body, " ".repeat(2 << 20)),
        ..good.clone()
    };
    assert_eq!(shop.deliver(&huge).await.status, 413);
    assert_eq!(shop.inbox().await.len(), 0, "nothing of these is kept");
    assert_eq!(order.status().await, "awaiting_payment");
    assert_eq!(payment.now().await["status"], "action_required");

    // The bank itself is still believed.
    payment.approve().await;
    order.becomes("paid", "paid").await;
}

/// A merchant's other account is another one: its signature moves no payment of this one.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_cannot_pay_for_another() {
    on_both(Terms::default(), async |shop| {
        let (order, payment) = shop.checkout(2_500).await;
        let event = payment
            .webhook("evt_other", "payment.captured", "captured", 2_500)
            .await;
        let other = Webhook {
            account: "other".into(),
            secret: crate::support::OTHER_SECRET.into(),
            ..event
        };
        assert_eq!(shop.deliver(&other).await.status, 204);
        assert_eq!(shop.inbox_of(1).await[0]["status"], "unmatched");
        assert_eq!(order.status().await, "awaiting_payment");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_has_no_effect() {
    on_both(Terms::default(), copied).await;
}

pub async fn copied(shop: &Shop) {
    let (order, payment) = shop.checkout(2_500).await;
    payment.approve().await;
    order.becomes("paid", "paid").await;
    shop.inbox_of(2).await;
    let before = order.now().await;
    let copy = payment
        .webhook("evt_copy", "payment.captured", "captured", 2_500)
        .await;
    for _ in 0..3 {
        assert_eq!(shop.deliver(&copy).await.status, 204);
    }
    shop.inbox_of(3).await;
    // Known by its id alone: what else it says is not even looked at.
    let changed = Webhook {
        body: copy.body.replace("2500", "2400"),
        ..copy
    };
    assert_eq!(shop.deliver(&changed).await.status, 204);
    shop.inbox_of(3).await;
    assert_eq!(order.now().await["version"], before["version"]);
    payment.becomes("captured").await;
}

/// The start takes three seconds; the customer has paid and the bank has told of it before it is answered.
#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_outruns_the_answer() {
    on_both(Terms::default(), async |shop| {
        shop.sells("LAMP", SLOW_ANSWERS, 1).await;
        let order = shop.order("LAMP").await;
        let approve = async {
            let at_bank = crate::support::eventually("the payment at the bank", async || {
                let payment = shop.bank_books().await.pop();
                payment.ok_or_else(|| "none".to_owned())
            });
            let reference = at_bank.await["id"].as_str().unwrap().to_owned();
            let page = format!("{}/mock-gateway/pay/{reference}", shop.url);
            let pressed = shop.send(shop.http.post(page).body("decision=approve"));
            pressed.await.expect(200);
            order.becomes("paid", "paid").await;
            std::time::Instant::now()
        };
        let start = async {
            let payment = order.pay().await;
            (payment, std::time::Instant::now())
        };
        let ((payment, answered), paid) = tokio::join!(start, approve);
        assert!(paid < answered, "the answer was to come later");
        assert_eq!(payment.started["status"], "captured", "{}", payment.started);
        assert_eq!(payment.started["next_action"], json!(null));
        payment.moves(SLOW_ANSWERS, 0).await;
        assert_eq!(order.status().await, "paid");
        let timeline = order.timeline().await;
        assert_eq!(timeline.iter().filter(|kind| *kind == "paid").count(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_and_replay_the_inbox() {
    on_both(Terms::default(), async |shop| {
        let (order, payment) = shop.checkout(NO_WEBHOOKS).await;
        payment.approve().await;
        let told = payment
            .webhook("evt_told", "payment.captured", "captured", NO_WEBHOOKS)
            .await;
        assert_eq!(shop.deliver(&told).await.status, 204);
        let paid = order.becomes("paid", "paid").await;
        let inbox = shop.inbox_of(1).await;
        assert_eq!(inbox[0]["event_id"], "evt_told");
        assert_eq!(inbox[0]["payment_id"], payment.id);
        let path = format!("/v1/admin/webhooks/{}/replay", inbox[0]["id"].as_str().unwrap());
        let replayed = shop.operator_posts(&path, json!({})).await.expect(200);
        assert_eq!(
            (&replayed["status"], &replayed["tries"]),
            (&json!("applied"), &json!(2))
        );
        assert_eq!(order.now().await["version"], paid["version"]);
        payment.moves(NO_WEBHOOKS, 0).await;
        shop.get("/v1/admin/webhooks").await.problem(403, "forbidden");
        shop.post(&path, json!({})).await.problem(403, "forbidden");
    })
    .await;
}
