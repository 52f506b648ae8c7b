//! Payments whose answer was lost, and accounts that are set up wrongly: the adapter asked directly.

use oms_core::PaymentId;
use oms_core::payments::{
    Account, CancelRequest, GatewayError, GatewayStatus, PaymentReport, Secret, StartRequest, SyncRequest,
};

use super::{account, card};
use crate::gateways::support::Peer;
use crate::plugins::guests::{Sandbox, plugin_dir, start_request};

async fn start(
    t: &Sandbox,
    account: &Account,
    request: &StartRequest,
) -> Result<PaymentReport, GatewayError> {
    t.gateway.start(account, request.clone()).await
}

fn sync(request: &StartRequest, reference: Option<&str>) -> SyncRequest {
    SyncRequest {
        call: request.call.clone(),
        payment: request.payment,
        reference: reference.map(Into::into),
        state: None,
    }
}

/// A shop whose clock is that of the fake.
async fn sandbox(peer: &Peer) -> (Sandbox, StartRequest) {
    let t = Sandbox::with(&plugin_dir(), "stripe").await;
    let method = card(peer, "4242424242424242").await;
    let made = super::stripe(peer, "GET", &format!("/v1/payment_methods/{method}"), "").await;
    let wall = made["created"].as_u64().unwrap() * 1_000;
    let ours = u64::try_from(t.oms.now().as_millis()).unwrap();
    t.clock.advance(std::time::Duration::from_millis(wall - ours));
    let mut request = start_request(&t.oms);
    request.instrument = Some(method);
    (t, request)
}

#[tokio::test]
async fn a_payment_is_found_without_its_reference() {
    let peer = Peer::start("localstripe_serve.py");
    let (t, request) = sandbox(&peer).await;
    let account = account(&peer.origin);
    let never = t.gateway.sync(&account, sync(&request, None)).await;
    assert!(matches!(never, Err(GatewayError::NotFound(_))), "{never:?}");

    let started = start(&t, &account, &request).await.unwrap();
    assert_eq!(started.status, GatewayStatus::Captured);
    // Others lie around it, over more than one page.
    for _ in 0..120 {
        let mut other = request.clone();
        other.payment = PaymentId::new(t.oms.now());
        start(&t, &account, &other).await.unwrap();
    }
    let found = t.gateway.sync(&account, sync(&request, None)).await.unwrap();
    assert_eq!(found.payment.reference, started.reference);
    assert_eq!(found.payment.status, GatewayStatus::Captured);

    // A reference that is not this payment's, and one that Stripe does not know.
    let mut foreign = sync(&request, started.reference.as_deref());
    foreign.payment = PaymentId::new(t.oms.now());
    let foreign = t.gateway.sync(&account, foreign).await;
    assert!(matches!(foreign, Err(GatewayError::Internal(_))), "{foreign:?}");
    let unknown = t.gateway.sync(&account, sync(&request, Some("pi_unknown"))).await;
    assert!(matches!(unknown, Err(GatewayError::NotFound(_))), "{unknown:?}");
    let cancel = CancelRequest {
        call: request.call.clone(),
        payment: request.payment,
        reference: "pi_unknown".into(),
        state: None,
        reason: None,
    };
    let unknown = t.gateway.cancel(&account, cancel).await;
    assert!(matches!(unknown, Err(GatewayError::NotFound(_))), "{unknown:?}");
}

#[tokio::test]
async fn a_wrong_key_is_noticed_before_and_after() {
    let peer = Peer::start("localstripe_serve.py");
    let (t, request) = sandbox(&peer).await;
    let with = |key: &str| {
        let mut account = account(&peer.origin);
        account.secrets.insert("api-key".into(), Secret::new(key));
        account
    };
    for key in ["sk_live_9rJqTz4sVnB2", "pk_test_9rJqTz4sVnB2", " "] {
        let refused = start(&t, &with(key), &request).await;
        let Err(GatewayError::Misconfigured(why)) = refused else {
            panic!("{key}: {refused:?}");
        };
        assert!(key == " " || !why.contains("9rJqTz4sVnB2"), "{why}");
    }
    let refused = start(&t, &with("rk_test_9rJqTz4sVnB2"), &request).await;
    assert!(
        matches!(refused, Err(GatewayError::NotAuthenticated(_))),
        "{refused:?}"
    );
    let mut odd = account(&peer.origin);
    odd.config.insert("customer-action".into(), "popup".into());
    let refused = start(&t, &odd, &request).await;
    assert!(
        matches!(refused, Err(GatewayError::Misconfigured(_))),
        "{refused:?}"
    );
}
