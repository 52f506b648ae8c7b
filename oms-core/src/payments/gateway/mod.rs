//! What the library asks of a payment gateway, in plain types. A WASM plugin and a native adapter look the same here;
//! `wit/payment.wit` says the same for plugins, with the reasons for each shape.

mod answer;
mod request;
mod webhook;

use async_trait::async_trait;

pub use answer::*;
pub use request::*;
pub use webhook::*;

use super::account::Account;

/// An adapter to one payment gateway. It sees snapshots, never domain objects, and is called with no transaction open.
///
/// Every operation must be safe to repeat with the same [`Call::idempotency_key`].
#[async_trait]
pub trait PaymentGateway: Send + Sync + 'static {
    /// What it is and what it can do.
    fn info(&self) -> &GatewayInfo;
    /// Begins a payment.
    async fn start(&self, account: &Account, request: StartRequest) -> Result<PaymentReport, GatewayError>;
    /// The customer came back from what [`NextAction`] asked for.
    async fn complete(
        &self,
        account: &Account,
        request: CompleteRequest,
    ) -> Result<PaymentReport, GatewayError>;
    /// Takes (a part of) the money that is authorized.
    async fn capture(
        &self,
        account: &Account,
        request: CaptureRequest,
    ) -> Result<PaymentReport, GatewayError>;
    /// Gives up what is not captured.
    async fn cancel(&self, account: &Account, request: CancelRequest) -> Result<PaymentReport, GatewayError>;
    /// Sends (a part of) the captured money back.
    async fn refund(&self, account: &Account, request: RefundRequest) -> Result<RefundReport, GatewayError>;
    /// Asks where the payment stands.
    async fn sync(&self, account: &Account, request: SyncRequest) -> Result<Snapshot, GatewayError>;
    /// Verifies a webhook, then reads it. Only `proof` can make a [`Received::Verified`]: spend it after the signature
    /// was checked, never before.
    async fn receive(
        &self,
        account: &Account,
        proof: Proof,
        delivery: Delivery,
    ) -> Result<Received, WebhookError>;
}

/// What a gateway adapter is and can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayInfo {
    /// Its id, such as `mock`.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the component in hexadecimal; none for a native adapter.
    pub digest: Option<String>,
    /// What it can do.
    pub features: Features,
    /// ISO 4217 codes; empty for any.
    pub currencies: Vec<String>,
}

/// The abilities of a gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it; wit/payment.wit has the same list")]
pub struct Features {
    pub manual_capture: bool,
    pub partial_capture: bool,
    pub multiple_capture: bool,
    pub cancel: bool,
    pub refund: bool,
    pub partial_refund: bool,
    pub sync: bool,
    pub complete: bool,
    pub webhooks: bool,
    pub client_tokens: bool,
}

impl GatewayInfo {
    /// A native adapter that takes every currency and can do nothing but start payments: set the rest.
    pub fn native(id: impl Into<String>) -> Self {
        let id = id.into();
        Self {
            name: id.clone(),
            id,
            version: env!("CARGO_PKG_VERSION").into(),
            digest: None,
            features: Features::default(),
            currencies: Vec::new(),
        }
    }
}
