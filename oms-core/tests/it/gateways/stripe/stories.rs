//! Whole payments against localstripe, a stateful fake of Stripe in a process of its own.

use oms_core::payments::{
    CaptureMode, CapturePayment, GatewayError, InboxStatus, NextAction, OperationStatus, PaymentStatus,
    RefundPayment, WebhookOutcome,
};
use oms_core::{Actor, Error, PageRequest};
use serde_json::Value;

use super::{API_KEY, PRICE, Shop, WEBHOOK_SECRET, account, command, eur, register, stripe};
use crate::gateways::support::{Hook, Peer};
use crate::orders::order as cart;
use crate::plugins::guests::{Logs, cached, plugin_dir};
use crate::support::{TestOms, each_db_with};

const GOOD: &str = "4242424242424242";
const DECLINED: &str = "4000000000000341";
const ASKS: &str = "4000002500003155";

async fn each_shop(story: impl AsyncFn(Shop<'_>)) {
    let peer = Peer::start("localstripe_serve.py");
    let setup = |builder| cached(builder).account(account(&peer.origin));
    Box::pin(each_db_with(setup, async |t: TestOms| {
        stripe(&peer, "DELETE", "/_config/data", "").await;
        Box::pin(story(Shop::open(t, &peer).await)).await;
    }))
    .await;
}

#[tokio::test]
async fn a_payment_is_taken_at_once_and_partly_refunded() {
    each_shop(async |s| {
        let (order, payment) = s.pay("good", GOOD, CaptureMode::Automatic).await;
        assert_eq!(
            (payment.status, payment.captured),
            (PaymentStatus::Captured, PRICE)
        );
        assert_eq!(s.order_state(&order).await, "paid");
        let there = s.at_stripe(&payment).await;
        assert_eq!(there["status"], "succeeded");
        assert_eq!(there["metadata"]["oms_payment"], payment.id.to_string());
        assert_eq!(there["metadata"]["oms_order"], order.number.to_string());

        let command = RefundPayment {
            idempotency_key: "part".parse().unwrap(),
            amount: Some(eur(1_500)),
            reason: Some("scratched".into()),
        };
        let payments = s.t.oms.payments();
        let refund = payments
            .refund(&s.operator, payment.id, command)
            .await
            .unwrap()
            .value;
        assert_eq!(
            (refund.status, refund.amount),
            (OperationStatus::Succeeded, eur(1_500))
        );
        let path = format!("/v1/refunds/{}", refund.reference.as_ref().unwrap());
        let there = stripe(s.peer, "GET", &path, "").await;
        assert_eq!(
            (&there["amount"], &there["metadata"]["oms_refund"]),
            (&1_500.into(), &refund.id.to_string().into())
        );

        let synced = payments.sync(&s.operator, payment.id).await.unwrap();
        assert_eq!((synced.refunded, synced.refunds.len()), (1_500, 1));
        assert_eq!(synced.shown_status(), "captured");
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_payment_is_held_and_captured_in_part_or_given_up() {
    each_shop(async |s| {
        let payments = s.t.oms.payments();
        let (_, held) = s.pay("held", GOOD, CaptureMode::Manual).await;
        assert_eq!(
            (held.status, held.authorized, held.captured),
            (PaymentStatus::Authorized, PRICE, 0)
        );
        let command = CapturePayment {
            idempotency_key: "capture".parse().unwrap(),
            amount: Some(eur(3_000)),
            final_capture: None,
        };
        let part = payments
            .capture(&s.operator, held.id, command)
            .await
            .unwrap()
            .value;
        assert_eq!((part.status, part.captured), (PaymentStatus::Captured, 3_000));
        assert!(part.captures[0].reference.as_ref().unwrap().starts_with("ch_"));
        // The fake writes the 2000 that it released down as a refund. That is none.
        let synced = payments.sync(&s.operator, held.id).await.unwrap();
        assert_eq!(
            (synced.captured, synced.refunded, synced.refunds.len()),
            (3_000, 0, 0)
        );
        assert_eq!(synced.shown_status(), "captured");

        let (_, held) = s.pay("given-up", GOOD, CaptureMode::Manual).await;
        let canceled = payments
            .cancel(&s.buyer, held.id, "cancel".parse().unwrap())
            .await
            .unwrap()
            .value;
        assert_eq!(canceled.status, PaymentStatus::Canceled);
        assert_eq!(s.at_stripe(&held).await["status"], "canceled");
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_decline_is_a_result() {
    each_shop(async |s| {
        let (order, payment) = s.pay("declined", DECLINED, CaptureMode::Automatic).await;
        assert_eq!(payment.status, PaymentStatus::Failed);
        assert_eq!(payment.decline_code.as_deref(), Some("card_declined"));
        assert_eq!(s.order_state(&order).await, "awaiting_payment");
        // What is no token never gets as far as Stripe.
        let (_, refused) = s.start("number", Some(GOOD), CaptureMode::Automatic).await;
        assert_eq!(refused.status, PaymentStatus::Failed);
        let seen = stripe(s.peer, "GET", "/_config/requests", "").await.to_string();
        assert!(!seen.contains("payment_method=4242"), "{seen}");
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_customer_authenticates_and_comes_back() {
    each_shop(async |s| {
        let payments = s.t.oms.payments();
        let (order, payment) = s.pay("asks", ASKS, CaptureMode::Automatic).await;
        assert_eq!(payment.status, PaymentStatus::ActionRequired);
        let Some(NextAction::ClientSdk { data }) = &payment.next_action else {
            panic!("{:?}", payment.next_action);
        };
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(
            (&data["step"], &data["publishable_key"]),
            (&"handle_next_action".into(), &"pk_test_1".into())
        );
        // Back too early: nothing is believed but what Stripe says.
        let params = vec![("redirect_status".to_owned(), "succeeded".to_owned())];
        let early = payments.complete(&s.buyer, payment.id, params).await.unwrap();
        assert_eq!(early.status, PaymentStatus::ActionRequired);
        s.authenticate(&payment, true).await;
        let done = payments.complete(&s.buyer, payment.id, Vec::new()).await.unwrap();
        assert_eq!(
            (done.status, s.order_state(&order).await.as_str()),
            (PaymentStatus::Captured, "paid")
        );

        let (order, payment) = s.pay("refuses", ASKS, CaptureMode::Automatic).await;
        s.authenticate(&payment, false).await;
        let failed = payments.complete(&s.buyer, payment.id, Vec::new()).await.unwrap();
        assert_eq!(
            failed.decline_code.as_deref(),
            Some("payment_intent_authentication_failure")
        );
        assert_eq!(
            (failed.status, s.order_state(&order).await.as_str()),
            (PaymentStatus::Failed, "awaiting_payment")
        );

        // Without an instrument the browser does all of it, and a look by us finds it done or not.
        let (_, payment) = s.start("browser", None, CaptureMode::Automatic).await;
        let Some(NextAction::ClientSdk { data }) = &payment.next_action else {
            panic!("{:?}", payment.next_action);
        };
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["step"], "confirm");
        let secret = data["client_secret"].as_str().unwrap();
        assert!(secret.starts_with(payment.reference.as_ref().unwrap()));
        let looked = payments.sync(&s.operator, payment.id).await.unwrap();
        assert_eq!(looked.status, PaymentStatus::ActionRequired);
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_webhook_pays_the_order() {
    let logs = Logs::capture();
    each_shop(async |s| {
        let hook = Hook::listen().await;
        register(s.peer, &hook).await;
        let payments = s.t.oms.payments();
        let (order, payment) = s.pay("asks", ASKS, CaptureMode::Automatic).await;
        s.authenticate(&payment, true).await;
        assert_eq!(s.order_state(&order).await, "awaiting_payment");

        let incoming = hook.next().await;
        let delivery = incoming.delivery.clone();
        let accept = async |delivery| payments.receive_webhook("shop", delivery).await.unwrap();
        let mut tampered = delivery.clone();
        tampered.body.push(b' ');
        assert!(matches!(accept(tampered).await, WebhookOutcome::Refused(_)));
        assert_eq!(s.order_state(&order).await, "awaiting_payment");
        for _ in 0..2 {
            let outcome = accept(delivery.clone()).await;
            assert!(matches!(outcome, WebhookOutcome::Accepted(None)), "{outcome:?}");
        }
        incoming.answer(200).await;
        assert_eq!(s.order_state(&order).await, "paid");
        let paid = s.payment(&payment).await;
        assert_eq!((paid.status, paid.captured), (PaymentStatus::Captured, PRICE));

        // A decline is told by a webhook too, after the answer; it adds the reference.
        let (_, declined) = s.pay("declined", DECLINED, CaptureMode::Automatic).await;
        assert_eq!(declined.reference, None);
        let incoming = hook.next().await;
        let outcome = accept(incoming.delivery.clone()).await;
        assert!(matches!(outcome, WebhookOutcome::Accepted(None)), "{outcome:?}");
        incoming.answer(200).await;
        let declined = s.payment(&declined).await;
        assert!(declined.reference.as_ref().unwrap().starts_with("pi_"));
        assert_eq!(declined.decline_code.as_deref(), Some("card_declined"));

        let page = PageRequest::default();
        let applied = payments
            .inbox(&s.operator, &page, Some(InboxStatus::Applied))
            .await;
        assert_eq!(applied.unwrap().data.len(), 2, "each event counts once");
        s.t.verify().await;
    })
    .await;
    let text = logs.text();
    assert!(
        text.contains("webhook verified") && text.contains("a plugin sent a request"),
        "{text}"
    );
    for secret in [API_KEY, WEBHOOK_SECRET, "_secret_"] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn the_least_is_sent() {
    each_shop(async |s| {
        let before = requests(s.peer).await.len();
        s.pay("lean", GOOD, CaptureMode::Automatic).await;
        let seen = requests(s.peer).await;
        let started = seen[before..]
            .iter()
            .find(|request| request["path"] == "/v1/payment_intents");
        let started = started.unwrap();
        let headers = &started["headers"];
        assert!(
            headers["idempotency-key"]
                .as_str()
                .is_some_and(|key| !key.is_empty())
        );
        assert_eq!(headers["stripe-version"], "2026-07-29.dahlia");
        assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
        let body = started["body"].as_str().unwrap();
        let names: Vec<_> = body
            .split('&')
            .map(|pair| pair.split('=').next().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "amount",
                "currency",
                "capture_method",
                "metadata%5Boms_payment%5D",
                "metadata%5Boms_order%5D",
                "metadata%5Border_id%5D",
                "payment_method",
                "confirm",
                "payment_method_types%5B%5D",
                "expand%5B%5D"
            ]
        );
    })
    .await;
}

async fn requests(peer: &Peer) -> Vec<Value> {
    let seen = stripe(peer, "GET", "/_config/requests", "").await;
    seen["requests"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_gateway_that_is_away_did_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let setup = |builder| cached(builder).account(account(&origin));
    Box::pin(each_db_with(setup, async |t: TestOms| {
        t.oms
            .plugins()
            .load_dir(&Actor::System, &plugin_dir())
            .await
            .unwrap();
        t.seller_with("mug", PRICE, 100).await;
        let buyer = t.user("bob").await;
        let order = t
            .oms
            .orders()
            .place(&buyer, cart("away", &[("mug", 1)]))
            .await
            .unwrap()
            .value;
        let refused = t
            .oms
            .payments()
            .start(&buyer, order.id, command("away", Some("pm_1")))
            .await;
        let Err(Error::Gateway {
            source: GatewayError::Unavailable(why),
            ..
        }) = refused
        else {
            panic!("{refused:?}");
        };
        assert!(why.contains("not_sent"), "{why}");
        let payments = t.oms.payments().of_order(&buyer, order.id).await.unwrap();
        assert_eq!(
            (payments[0].status, payments[0].captured),
            (PaymentStatus::Failed, 0)
        );
        t.verify().await;
    }))
    .await;
}
