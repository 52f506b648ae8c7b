//! Write a payment gateway plugin for oms in Rust.
//!
//! A plugin is a WebAssembly component. It cannot read files, open sockets or see the environment:
//! it talks to its gateway through [`http`], reads the merchant's settings through [`config`], and
//! lets the host compute with secrets through [`crypto`]. Every call runs in a fresh instance.
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! oms-plugin-sdk = { path = "../oms/plugins/sdk" }
//! serde_json = "1"
//! ```
//!
//! A whole plugin, for a gateway that takes a card token and answers at once:
//!
//! ```
//! use oms_plugin_sdk::{
//!     Change, Delivery, Detail, Event, Features, Gateway, Info, Outcome, PaymentError, PaymentEvent,
//!     PaymentResult, PaymentStatus, StartRequest, Totals, WebhookError, Webhooks,
//!     config, crypto::Key, export_plugin, http, standard_webhooks,
//! };
//! use serde_json::{Value, json};
//!
//! struct Acme;
//!
//! impl Gateway for Acme {
//!     fn describe() -> Info {
//!         Info {
//!             id: "acme".into(),
//!             name: "Acme Pay".into(),
//!             version: env!("CARGO_PKG_VERSION").into(),
//!             features: Features::WEBHOOKS | Features::CLIENT_TOKENS,
//!             config_schema: r#"{"type":"object","required":["api-key","webhook-secret"],"properties":{
//!                 "api-key":{"type":"string","writeOnly":true},
//!                 "webhook-secret":{"type":"string","writeOnly":true}}}"#.into(),
//!             hosts: vec!["https://api.acme.example".into()],
//!             currencies: vec![],
//!         }
//!     }
//!
//!     fn start(request: StartRequest) -> Result<PaymentResult, PaymentError> {
//!         let response = http::post("https://api.acme.example/charges")
//!             .bearer(&config::secret("api-key")?)
//!             .header("idempotency-key", &request.call.idempotency_key)
//!             .json(&json!({
//!                 "amount": request.amount.decimal(),
//!                 "currency": request.amount.currency,
//!                 "card": request.instrument,
//!                 "reference": request.payment_id,
//!             }))?
//!             .send()?;                               // a lost answer becomes `indeterminate`
//!         match response.status {
//!             201 => Ok(PaymentResult {
//!                 reference: response.header("location").map(str::to_owned),
//!                 ..PaymentResult::new(PaymentStatus::Captured)
//!             }),
//!             402 => Err(PaymentError::declined("declined", response.text())),
//!             status if status >= 500 => Err(PaymentError::indeterminate(
//!                 Detail::new("server_error", response.text()).with_http_status(status),
//!             )),
//!             status => Err(PaymentError::invalid_request(
//!                 Detail::new("refused", response.text()).with_http_status(status),
//!             )),
//!         }
//!     }
//! }
//!
//! impl Webhooks for Acme {
//!     fn receive(delivery: Delivery) -> Result<Outcome, WebhookError> {
//!         let signed = standard_webhooks::verify(&delivery, &Key::SecretBase64("webhook-secret".into()))?;
//!         let body: Value = serde_json::from_slice(&delivery.body)
//!             .map_err(|error| WebhookError::Malformed(error.to_string()))?;
//!         let text = |name: &str| body[name].as_str().map(str::to_owned);
//!         let change = match body["type"].as_str() {
//!             Some("charge.captured") => Change::Payment(PaymentEvent {
//!                 status: Some(PaymentStatus::Captured),
//!                 totals: Totals { captured: body["captured"].as_i64(), ..Totals::default() },
//!                 decline_code: None,
//!                 operation_reference: None,
//!             }),
//!             _ => Change::Irrelevant,
//!         };
//!         let event = Event {
//!             reference: text("charge"),
//!             payment_id: text("reference"),
//!             ..Event::new(signed.id, text("type").unwrap_or_default(), change)
//!         };
//!         Ok(Outcome::event(event, Some(signed.at_ms)))
//!     }
//! }
//!
//! export_plugin!(Acme);
//! # fn main() {}
//! ```
//!
//! Build it with `cargo build --release --target wasm32-wasip2`; put the `.wasm` and a `plugin.toml`
//! into a folder of the server's plugin folder. On other targets the crate compiles too, so that
//! pure functions can be unit-tested natively, but calling the host there panics, unless the test brings one
//! (feature `native-host`).

pub mod basic;
#[doc(hidden)]
pub mod bindings;
mod crc32;
pub mod crypto;
mod error;
pub mod form;
mod gateway;
mod host;
pub mod http;
#[cfg(all(feature = "native-host", not(target_family = "wasm")))]
pub mod native_host;
pub mod rfc3339;
pub mod standard_webhooks;
pub mod timestamped;
mod types;

pub use crc32::crc32;
pub use error::MissingSetting;
pub use gateway::{Gateway, Webhooks};
pub use host::{cache, config, currency, log};

// What a plugin asks of its host.
#[cfg(not(all(feature = "native-host", not(target_family = "wasm"))))]
use bindings::gateway::oms::payment as imports;
#[cfg(all(feature = "native-host", not(target_family = "wasm")))]
use native_host::imports;

// What the host asks a plugin, and what it answers.
pub use bindings::gateway::exports::oms::payment::descriptor::{Feature as Features, Info};
pub use bindings::gateway::exports::oms::payment::gateway::{
    Address, Call, CancelRequest, CaptureRequest, CompleteRequest, Customer, PaymentResult, RefundRequest,
    RefundResult, Snapshot, StartRequest, SyncRequest,
};
pub use bindings::gateway::oms::payment::types::{
    CaptureMode, Decline, Detail, Metadata, Money, NextAction, PaymentError, PaymentStatus, Redirect,
    RedirectMethod, RefundStatus, Totals,
};
pub use bindings::webhooks::exports::oms::payment::webhooks::{
    Change, Delivery, DisputeEvent, Event, Outcome, PaymentEvent, RefundEvent, Reply, Verified, WebhookError,
};

/// The first header of this name, in any case, if it is text.
pub fn header<'a>(headers: &'a [(String, Vec<u8>)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(header, _)| header.eq_ignore_ascii_case(name))
        .and_then(|(_, value)| std::str::from_utf8(value).ok())
}

/// The one header of this name, in any case: with two, sender and receiver might look at different ones.
///
/// A header that is absent or empty is a missing signature; two of them, or one that is not text, are malformed.
pub fn required_header<'a>(delivery: &'a Delivery, name: &str) -> Result<&'a str, WebhookError> {
    let mut values = delivery
        .headers
        .iter()
        .filter(|(header, _)| header.eq_ignore_ascii_case(name));
    let (_, value) = values
        .next()
        .ok_or_else(|| WebhookError::MissingSignature(format!("no header `{name}`")))?;
    if values.next().is_some() {
        return Err(WebhookError::Malformed(format!("two headers `{name}`")));
    }
    match std::str::from_utf8(value) {
        Ok(text) if !text.is_empty() => Ok(text),
        Ok(_) => Err(WebhookError::MissingSignature(format!("empty header `{name}`"))),
        Err(_) => Err(WebhookError::Malformed(format!("header `{name}` is not text"))),
    }
}
