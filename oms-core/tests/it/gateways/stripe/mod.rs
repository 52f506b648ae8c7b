//! The plugin for Stripe: the compiled component in the real host.

mod idempotency;
mod lookup;
mod names;
mod stories;
mod webhooks;

use std::time::Duration;

use oms_core::orders::Order;
use oms_core::payments::{Account, CaptureMode, Grant, Payment, Secret, StartPayment};
use oms_core::{Actor, Money};
use serde_json::Value;

use super::support::{Hook, Peer, ask};
use crate::orders::order as cart;
use crate::plugins::guests::plugin_dir;
use crate::support::TestOms;

const PRICE: i64 = 5_000;
const API_KEY: &str = "sk_test_9rJqTz4sVnB2";
const WEBHOOK_SECRET: &str = "whsec_u8Qd0KeyOfTheEndpoint";

/// An account at a fake of Stripe, set so that the fake takes what is sent.
fn account(origin: &str) -> Account {
    let mut account = Account::new("shop", "stripe");
    for (name, value) in [
        ("base-url", origin),
        ("payment-methods", "card"),
        ("customer-action", "sdk"),
        ("publishable-key", "pk_test_1"),
    ] {
        account.config.insert(name.into(), value.into());
    }
    for (name, value) in [("api-key", API_KEY), ("webhook-secret", WEBHOOK_SECRET)] {
        account.secrets.insert(name.into(), Secret::new(value));
    }
    account.grants = vec![Grant {
        origin: origin.into(),
        private: true,
    }];
    account
}

fn eur(minor: i64) -> Money {
    Money::new(minor, "EUR".parse().unwrap()).unwrap()
}

fn command(key: &str, instrument: Option<&str>) -> StartPayment {
    StartPayment {
        idempotency_key: key.parse().unwrap(),
        account: "shop".into(),
        return_url: Some("https://shop.example/thanks".into()),
        capture: CaptureMode::Automatic,
        instrument: instrument.map(Into::into),
        instrument_data: Vec::new(),
        customer_ip: None,
    }
}

/// Asks the fake of Stripe as somebody else with its key.
async fn stripe(peer: &Peer, method: &str, path: &str, form: &str) -> Value {
    let headers =
        format!("authorization: Bearer {API_KEY}\r\ncontent-type: application/x-www-form-urlencoded\r\n");
    let (status, body) = ask(&peer.origin, method, path, &headers, form).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_default()
}

/// What the browser makes of a card.
async fn card(peer: &Peer, number: &str) -> String {
    let form =
        format!("type=card&card[number]={number}&card[exp_month]=12&card[exp_year]=2040&card[cvc]=123");
    let made = stripe(peer, "POST", "/v1/payment_methods", &form).await;
    made["id"].as_str().unwrap().to_owned()
}

/// A shop whose orders can be paid with Stripe.
struct Shop<'a> {
    t: TestOms,
    peer: &'a Peer,
    buyer: Actor,
    operator: Actor,
}

impl<'a> Shop<'a> {
    async fn open(t: TestOms, peer: &'a Peer) -> Self {
        t.oms
            .plugins()
            .load_dir(&Actor::System, &plugin_dir())
            .await
            .unwrap();
        t.seller_with("mug", PRICE, 100).await;
        // The fake signs by the clock on the wall.
        let made = card(peer, "4242424242424242").await;
        let made = stripe(peer, "GET", &format!("/v1/payment_methods/{made}"), "").await;
        let wall = made["created"].as_u64().unwrap() * 1_000;
        let ours = u64::try_from(t.oms.now().as_millis()).unwrap();
        t.clock.advance(Duration::from_millis(wall - ours));
        Self {
            buyer: t.user("ann").await,
            operator: t.operator(),
            t,
            peer,
        }
    }

    async fn order(&self, key: &str) -> Order {
        let order = cart(key, &[("mug", 1)]);
        self.t.oms.orders().place(&self.buyer, order).await.unwrap().value
    }

    async fn start(&self, key: &str, instrument: Option<&str>, capture: CaptureMode) -> (Order, Payment) {
        let order = self.order(key).await;
        let command = StartPayment {
            capture,
            ..command(key, instrument)
        };
        let started = self.t.oms.payments().start(&self.buyer, order.id, command).await;
        (order, started.unwrap().value)
    }

    async fn pay(&self, key: &str, number: &str, capture: CaptureMode) -> (Order, Payment) {
        let method = card(self.peer, number).await;
        self.start(key, Some(&method), capture).await
    }

    async fn order_state(&self, order: &Order) -> String {
        let order = self.t.oms.orders().get(&self.buyer, order.id).await.unwrap();
        order.state.as_str().to_owned()
    }

    async fn payment(&self, payment: &Payment) -> Payment {
        self.t.oms.payments().get(&self.buyer, payment.id).await.unwrap()
    }

    /// The payment as the fake has it.
    async fn at_stripe(&self, payment: &Payment) -> Value {
        let path = format!("/v1/payment_intents/{}", payment.reference.as_ref().unwrap());
        stripe(self.peer, "GET", &path, "").await
    }

    /// The customer answers the bank's question in the browser.
    async fn authenticate(&self, payment: &Payment, success: bool) {
        let secret = self.at_stripe(payment).await["client_secret"].clone();
        let path = format!(
            "/v1/payment_intents/{}/_authenticate",
            payment.reference.as_ref().unwrap()
        );
        let form = format!("client_secret={}&success={success}", secret.as_str().unwrap());
        stripe(self.peer, "POST", &path, &form).await;
    }
}

/// Registers the listener at the fake.
async fn register(peer: &Peer, hook: &Hook) {
    let form = format!("url={}&secret={WEBHOOK_SECRET}", hook.url());
    stripe(peer, "POST", "/_config/webhooks/shop", &form).await;
}
