//! Against a fake that keeps idempotency keys as Stripe does.
//!
//! It knows charges alone, so a translator stands in front of it (the sister script says how). What this shows: the
//! operation's key arrives as Stripe's header, a request that is sent again is the same to the last byte and is done
//! once, other contents under one key are refused, and Stripe's errors are read as what they mean. It does not show how
//! Stripe keeps PaymentIntents.

use oms_core::payments::{
    Account, CaptureMode, CaptureRequest, GatewayError, GatewayStatus, RefundRequest, RefundStatus,
    StartRequest,
};
use oms_core::{PaymentId, RefundId};

use super::{account, eur};
use crate::gateways::support::Peer;
use crate::plugins::guests::{Sandbox, plugin_dir, start_request};

struct Counter {
    t: Sandbox,
    account: Account,
    _peer: Peer,
}

async fn counter() -> Counter {
    let peer = Peer::start("stripe_stateful.js");
    Counter {
        t: Sandbox::with(&plugin_dir(), "stripe").await,
        account: account(&peer.origin),
        _peer: peer,
    }
}

fn request(c: &Counter, key: &str, instrument: &str) -> StartRequest {
    let mut request = start_request(&c.t.oms);
    request.call.idempotency_key = key.into();
    request.instrument = Some(instrument.into());
    request
}

fn refund(c: &Counter, of: &StartRequest, reference: &str, key: &str, minor: i64) -> RefundRequest {
    let mut call = of.call.clone();
    call.idempotency_key = key.into();
    RefundRequest {
        call,
        payment: of.payment,
        refund: RefundId::new(c.t.oms.now()),
        reference: reference.into(),
        capture_reference: None,
        state: None,
        amount: eur(minor),
        reason: None,
    }
}

#[tokio::test]
async fn one_key_is_one_payment_and_one_refund() {
    let c = counter().await;
    let gateway = &c.t.gateway;
    let mut again = request(&c, "start-1", "pm_visa");
    let first = gateway.start(&c.account, again.clone()).await.unwrap();
    again.call.attempt = 2;
    let second = gateway.start(&c.account, again.clone()).await.unwrap();
    assert_eq!(first, second, "the same answer to the same key");
    assert_eq!(first.method[1], ("brand".into(), "visa".into()));
    let mut other = again.clone();
    other.call.idempotency_key = "start-2".into();
    let other = gateway.start(&c.account, other).await.unwrap();
    assert_ne!(first.reference, other.reference, "another key is another payment");

    let reference = first.reference.unwrap();
    let part = refund(&c, &again, &reference, "refund-1", 500);
    let first = gateway.refund(&c.account, part.clone()).await.unwrap();
    let second = gateway.refund(&c.account, part.clone()).await.unwrap();
    assert_eq!(
        (first.reference.clone(), first.status),
        (second.reference, RefundStatus::Succeeded)
    );
    assert_eq!(first.refund, Some(part.refund));
    // 1499 are left, not 999: the refund was made once.
    let rest = gateway
        .refund(&c.account, refund(&c, &again, &reference, "refund-2", 1_499))
        .await;
    assert_eq!(rest.unwrap().amount, Some(1_499));
    let more = gateway
        .refund(&c.account, refund(&c, &again, &reference, "refund-3", 1))
        .await;
    assert!(matches!(more, Err(GatewayError::InvalidState(why)) if why.contains("charge_already_refunded")));
}

#[tokio::test]
async fn other_contents_under_a_key_are_refused() {
    let c = counter().await;
    let first = request(&c, "key-1", "pm_visa");
    let started = c.t.gateway.start(&c.account, first.clone()).await.unwrap();
    let mut changed = [first.clone(), first.clone(), first.clone()];
    changed[0].amount = eur(2_000);
    changed[1].payment = PaymentId::new(c.t.oms.now());
    changed[2].order_number = "1002".into();
    for other in changed {
        let refused = c.t.gateway.start(&c.account, other).await;
        let Err(GatewayError::InvalidRequest(why)) = refused else {
            panic!("{refused:?}");
        };
        assert!(why.contains("idempotency_error"), "{why}");
    }
    let again = c.t.gateway.start(&c.account, first).await.unwrap();
    assert_eq!(again.reference, started.reference);
}

#[tokio::test]
async fn a_capture_under_a_key_is_made_once() {
    let c = counter().await;
    let mut held = request(&c, "start", "pm_visa");
    held.capture = CaptureMode::Manual;
    let authorized = c.t.gateway.start(&c.account, held.clone()).await.unwrap();
    assert_eq!(authorized.status, GatewayStatus::Authorized);
    let mut call = held.call.clone();
    call.idempotency_key = "capture".into();
    let mut part = CaptureRequest {
        call,
        payment: held.payment,
        reference: authorized.reference.unwrap(),
        state: None,
        amount: eur(1_500),
        final_capture: true,
    };
    for _ in 0..2 {
        let captured = c.t.gateway.capture(&c.account, part.clone()).await.unwrap();
        assert_eq!(captured.status, GatewayStatus::Captured);
        assert_eq!(
            (captured.totals.captured, captured.totals.canceled),
            (Some(1_500), Some(499))
        );
    }
    part.call.idempotency_key = "once-more".into();
    let twice = c.t.gateway.capture(&c.account, part).await;
    assert!(matches!(twice, Err(GatewayError::InvalidState(why)) if why.contains("charge_already_captured")));
}

#[tokio::test]
async fn a_decline_stays_a_decline() {
    let c = counter().await;
    let declined = request(&c, "declined", "pm_declined");
    for _ in 0..2 {
        let refused = c.t.gateway.start(&c.account, declined.clone()).await;
        assert!(
            matches!(&refused, Err(GatewayError::Declined(d)) if d.code == "card_declined" && d.message.contains("insufficient")),
            "{refused:?}"
        );
    }
}
