//! Webhooks through a plugin: verified first, then read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oms_core::payments::{Account, Change, Delivery, GatewayStatus, Received, Secret, WebhookError};
use oms_core::{Actor, PaymentId, Timestamp};

use super::guests::{self, LANGUAGES, Sandbox, dir_of, hostile_account, hostile_dir};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn account(plugin: &str) -> Account {
    let mut account = Account::new("shop", plugin);
    account
        .secrets
        .insert("webhook-secret".into(), Secret::new(SECRET));
    account
}

fn delivery(id: &str, signed_at: i64, signature: &str, body: &str) -> Delivery {
    let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    Delivery {
        method: "POST".into(),
        url: "https://shop.test/v1/webhooks/shop".into(),
        query: String::new(),
        headers: vec![
            header("webhook-id", id),
            header("webhook-timestamp", &signed_at.to_string()),
            header("webhook-signature", signature),
        ],
        body: body.as_bytes().to_vec(),
        received_at: Timestamp::from_millis(signed_at * 1_000),
        remote_ip: None,
        tolerance_seconds: 300,
    }
}

async fn receive(t: &Sandbox, account: &Account, delivery: Delivery) -> Result<Received, WebhookError> {
    t.oms
        .plugins()
        .try_webhook(&Actor::System, account, delivery)
        .await
        .unwrap()
}

/// One story for both, as loading the plugin of Python takes most of the time.
#[tokio::test]
async fn genuine_deliveries_are_read_in_every_language() {
    for plugin in LANGUAGES {
        let t = Sandbox::with(&dir_of(plugin), plugin).await;
        the_vector_of_the_specification(&t, plugin).await;
        an_event_is_verified_and_read(&t, plugin).await;
        println!("{plugin}: right");
    }
}

async fn the_vector_of_the_specification(t: &Sandbox, plugin: &str) {
    let (id, at) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330);
    let (signature, body) = (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        r#"{"test": 2432232314}"#,
    );
    // Its signature fits; that it is no message of the fake bank is found after that.
    let genuine = receive(t, &account(plugin), delivery(id, at, signature, body)).await;
    assert!(matches!(genuine, Err(WebhookError::Malformed(_))), "{genuine:?}");
    for (signature, body) in [(signature, r#"{"test": 2432232315}"#), ("v1,AAAA", body)] {
        let refused = receive(t, &account(plugin), delivery(id, at, signature, body)).await;
        assert_eq!(refused, Err(WebhookError::BadSignature));
    }
    for off in [-301, 301] {
        let mut late = delivery(id, at, signature, body);
        late.received_at = Timestamp::from_millis((at + off) * 1_000);
        assert_eq!(receive(t, &account(plugin), late).await, Err(WebhookError::Stale));
    }
    let mut unsigned = delivery(id, at, signature, body);
    unsigned.headers.pop();
    let refused = receive(t, &account(plugin), unsigned).await;
    assert!(
        matches!(refused, Err(WebhookError::MissingSignature(_))),
        "{refused:?}"
    );
    let refused = receive(
        t,
        &Account::new("shop", plugin),
        delivery(id, at, signature, body),
    )
    .await;
    let no_secret = WebhookError::Misconfigured("the account has no secret `webhook-secret`".into());
    assert_eq!(refused, Err(no_secret));
}

async fn an_event_is_verified_and_read(t: &Sandbox, plugin: &str) {
    let payment = PaymentId::new(t.oms.now());
    let body = format!(
        r#"{{"type":"payment.captured","created_at_ms":1700000000123,"data":{{"payment":{{"id":"bp_1",
            "merchant_payment_id":"{payment}","status":"captured","currency":"EUR","exponent":2,"authorized":1999,
            "captured":1999,"refunded":0,"canceled":0,"redirect_url":null,"decline_code":null}}}}}}"#
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &BASE64.decode(&SECRET[6..]).unwrap());
    let signature = ring::hmac::sign(&key, format!("evt_1.1700000000.{body}").as_bytes());
    let signature = format!("v1,{}", BASE64.encode(signature));
    let received = receive(
        t,
        &account(plugin),
        delivery("evt_1", 1_700_000_000, &signature, &body),
    )
    .await;
    let Ok(Received::Verified(verified)) = received else {
        panic!("{received:?}");
    };
    let (events, reply) = verified.into_parts();
    assert_eq!(reply, None);
    let [event] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(
        (event.id.as_str(), event.kind.as_str()),
        ("evt_1", "payment.captured")
    );
    assert_eq!(event.payment, Some(payment));
    assert_eq!(event.occurred_at, Some(Timestamp::from_millis(1_700_000_000_123)));
    let Change::Payment { status, totals, .. } = &event.change else {
        panic!("{event:?}");
    };
    assert_eq!(
        (*status, totals.captured),
        (Some(GatewayStatus::Captured), Some(1_999))
    );
}

#[tokio::test]
async fn a_guest_that_fails_asks_the_gateway_to_send_again() {
    let t = Sandbox::with(&hostile_dir(), "hostile").await;
    for (behaviour, says) in [
        ("panic", "it broke"),
        ("loop", "computed for more than 1 s"),
        ("html-reply", "only text/plain"),
        ("many-events", "101 events in one delivery"),
    ] {
        let refused = receive(
            &t,
            &hostile_account(behaviour),
            delivery("m", 1_700_000_000, "", "<p>"),
        )
        .await;
        let Err(WebhookError::Unavailable(cause)) = refused else {
            panic!("{behaviour}: {refused:?}");
        };
        assert!(guests::says(&cause, says), "{behaviour}: {cause}");
    }
    // The host looks at the signed time too.
    let old = receive(
        &t,
        &hostile_account("old-event"),
        delivery("m", 1_700_000_000, "", ""),
    )
    .await;
    assert_eq!(old, Err(WebhookError::Stale));
}

#[tokio::test]
async fn webhooks_that_take_long_keep_no_payment_waiting() {
    let t = Sandbox::with(&hostile_dir(), "hostile").await;
    let account = hostile_account("sleep");
    // More than may run at once, each until its deadline.
    let junk = (0..200).map(|_| receive(&t, &account, delivery("x", 0, "", "")));
    let mut junk = std::pin::pin!(futures_util::future::join_all(junk));
    // Lets each of them take its permit or stand in the queue.
    let begun = tokio::time::timeout(std::time::Duration::from_millis(500), &mut junk);
    assert!(begun.await.is_err(), "the webhooks were over at once");
    tokio::select! {
        biased;
        answered = t.neighbour() => answered.unwrap(),
        _ = junk => panic!("the payment waited for the webhooks"),
    }
}
