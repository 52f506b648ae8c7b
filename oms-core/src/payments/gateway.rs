//! What the library asks of a payment gateway, in plain types. A WASM plugin and a native adapter look the same here;
//! `wit/payment.wit` says the same for plugins, with the reasons for each shape.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::account::Account;
use crate::id::{PaymentId, RefundId};
use crate::money::Money;
use crate::time::Timestamp;

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

/// Pairs of texts, kept in order.
pub type Metadata = Vec<(String, String)>;

/// What every operation carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Stable over every retry of one logical operation: `[A-Za-z0-9_-]{1,64}`.
    pub idempotency_key: String,
    /// 1, 2, ..
    pub attempt: u32,
    /// The library's clock.
    pub now: Timestamp,
    /// Whether the account is one for tests.
    pub test_mode: bool,
}

/// Whether the money is taken at once or by [`PaymentGateway::capture`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureMode {
    /// At once.
    #[default]
    Automatic,
    /// By a capture of its own.
    Manual,
}

impl CaptureMode {
    /// Its spelling in the API and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Manual => "manual",
        }
    }

    /// Reads the spelling of [`CaptureMode::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Automatic, Self::Manual]
            .into_iter()
            .find(|m| m.as_str() == text)
    }
}

/// A postal address, as gateways want it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct GatewayAddress {
    pub name: Option<String>,
    pub line1: Option<String>,
    pub line2: Option<String>,
    pub city: Option<String>,
    pub region: Option<String>,
    pub postal_code: Option<String>,
    pub country: Option<String>,
}

/// Who pays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Customer {
    pub id: Option<String>,
    pub email: Option<String>,
    pub phone: Option<String>,
    pub ip: Option<String>,
    pub billing: Option<GatewayAddress>,
    pub shipping: Option<GatewayAddress>,
}

/// Begin a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "wit/payment.wit describes each field")]
pub struct StartRequest {
    pub call: Call,
    pub payment: PaymentId,
    pub order_number: String,
    pub amount: Money,
    pub capture: CaptureMode,
    pub instrument: Option<String>,
    pub instrument_data: Metadata,
    pub customer: Customer,
    pub description: Option<String>,
    pub return_url: Option<String>,
    pub cancel_url: Option<String>,
    pub webhook_url: Option<String>,
    pub off_session: bool,
    pub metadata: Metadata,
}

/// The customer came back: redirect query, or what a browser SDK posted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "wit/payment.wit describes each field")]
pub struct CompleteRequest {
    pub call: Call,
    pub payment: PaymentId,
    pub reference: String,
    pub amount: Money,
    pub state: Option<String>,
    pub params: Metadata,
    pub body: Option<Vec<u8>>,
}

/// Take money that is authorized.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "wit/payment.wit describes each field")]
pub struct CaptureRequest {
    pub call: Call,
    pub payment: PaymentId,
    pub reference: String,
    pub state: Option<String>,
    pub amount: Money,
    pub final_capture: bool,
}

/// Give up what is not captured.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "wit/payment.wit describes each field")]
pub struct CancelRequest {
    pub call: Call,
    pub payment: PaymentId,
    pub reference: String,
    pub state: Option<String>,
    pub reason: Option<String>,
}

/// Send captured money back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "wit/payment.wit describes each field")]
pub struct RefundRequest {
    pub call: Call,
    pub payment: PaymentId,
    pub refund: RefundId,
    pub reference: String,
    pub capture_reference: Option<String>,
    pub state: Option<String>,
    pub amount: Money,
    pub reason: Option<String>,
}

/// Ask where a payment stands; without a reference, by our own id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "wit/payment.wit describes each field")]
pub struct SyncRequest {
    pub call: Call,
    pub payment: PaymentId,
    pub reference: Option<String>,
    pub state: Option<String>,
}

/// Where a payment stands at its gateway. Refunds are tracked apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayStatus {
    /// Accepted; the outcome comes by webhook or sync.
    Pending,
    /// The customer must carry out the next action.
    ActionRequired,
    /// Held, nothing captured.
    Authorized,
    /// A part is captured and more may be.
    PartiallyCaptured,
    /// All that will be captured is.
    Captured,
    /// Voided, abandoned or expired before capture.
    Canceled,
    /// Declined or failed for good.
    Failed,
}

/// Where a refund stands at its gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum RefundStatus {
    Pending,
    Succeeded,
    Failed,
    Reversed,
}

/// Cumulative totals in minor units as the gateway gives them; none where it does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Totals {
    pub currency: Option<String>,
    pub authorized: Option<i64>,
    pub captured: Option<i64>,
    pub refunded: Option<i64>,
    pub canceled: Option<i64>,
}

/// What the customer has to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum NextAction {
    /// Send the customer there.
    Redirect {
        /// Where to.
        url: String,
        /// GET or POST.
        method: RedirectMethod,
        /// Fields of a form that is posted.
        form_fields: Metadata,
    },
    /// JSON for the gateway's own browser library.
    ClientSdk {
        /// JSON.
        data: String,
    },
    /// JSON to show: a voucher, bank details, a QR code.
    Present {
        /// JSON.
        data: String,
    },
    /// Ask again after some seconds.
    Wait {
        /// Seconds.
        seconds: u32,
    },
    /// Something else that client and gateway agree on.
    Other {
        /// Free text.
        data: String,
    },
}

/// How the customer is sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum RedirectMethod {
    Get,
    Post,
}

/// What a gateway answers about a payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentReport {
    /// Where it stands.
    pub status: GatewayStatus,
    /// The gateway's own id of the payment.
    pub reference: Option<String>,
    /// The gateway's id of this capture or cancellation.
    pub operation_reference: Option<String>,
    /// Cumulative totals.
    pub totals: Totals,
    /// What the customer has to do.
    pub next_action: Option<NextAction>,
    /// When the authorization or the payment page ends.
    pub expires_at: Option<Timestamp>,
    /// Opaque, at most 8 KiB; handed back with the next operation.
    pub state: Option<String>,
    /// Brand, last four digits, ..: for display only.
    pub method: Metadata,
    /// Why it failed, where it did.
    pub decline: Option<Decline>,
}

impl PaymentReport {
    /// A report of the status alone.
    pub fn new(status: GatewayStatus) -> Self {
        Self {
            status,
            reference: None,
            operation_reference: None,
            totals: Totals::default(),
            next_action: None,
            expires_at: None,
            state: None,
            method: Metadata::new(),
            decline: None,
        }
    }

    /// All of the money was taken at once, under this reference.
    pub fn captured(reference: impl Into<String>, amount: Money) -> Self {
        let totals = Totals {
            currency: Some(amount.currency().to_string()),
            authorized: Some(amount.minor()),
            captured: Some(amount.minor()),
            ..Totals::default()
        };
        Self {
            reference: Some(reference.into()),
            totals,
            ..Self::new(GatewayStatus::Captured)
        }
    }
}

/// What a gateway answers about a refund.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundReport {
    /// Our id, where the gateway repeats it.
    pub refund: Option<RefundId>,
    /// Where it stands.
    pub status: RefundStatus,
    /// The gateway's own id of the refund.
    pub reference: Option<String>,
    /// Minor units, in the payment's currency.
    pub amount: Option<i64>,
}

/// What a sync answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The payment.
    pub payment: PaymentReport,
    /// Its refunds.
    pub refunds: Vec<RefundReport>,
}

/// A final no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decline {
    /// A stable code, such as `card_declined`.
    pub code: String,
    /// For the customer.
    pub message: String,
}

/// Why an operation failed. Each case tells what may be done next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "kind", content = "detail", rename_all = "snake_case")]
pub enum GatewayError {
    /// A final no: record it, do not retry.
    #[error("declined: {}", .0.message)]
    Declined(Decline),
    /// Will never work as sent.
    #[error("the gateway refused the request: {0}")]
    InvalidRequest(String),
    /// The gateway is in another state: sync, then decide.
    #[error("the gateway's payment is in another state: {0}")]
    InvalidState(String),
    /// The gateway has never seen this payment or refund.
    #[error("the gateway does not know it: {0}")]
    NotFound(String),
    /// It cannot do this at all.
    #[error("the gateway cannot do this: {0}")]
    Unsupported(String),
    /// The credentials were refused.
    #[error("the gateway refused the credentials: {0}")]
    NotAuthenticated(String),
    /// Did not happen; retry with the same key, after so many seconds if given.
    #[error("the gateway asks to slow down")]
    RateLimited(Option<u32>),
    /// Certainly did not happen; retry with the same key.
    #[error("the gateway could not be reached: {0}")]
    Unavailable(String),
    /// May have happened; retry with the same key or sync, never a new key.
    #[error("the outcome is unknown: {0}")]
    Indeterminate(String),
    /// A setting or secret is missing or malformed.
    #[error("the account is set up wrongly: {0}")]
    Misconfigured(String),
    /// A defect of the adapter: a trap, a deadline, an answer that breaks the contract. What it did is not known.
    #[error("the adapter failed: {0}")]
    Internal(String),
}

/// A webhook as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Usually POST.
    pub method: String,
    /// The public address exactly as registered at the gateway.
    pub url: String,
    /// The raw query.
    pub query: String,
    /// Names in lower case; order and duplicates kept.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The bytes as received.
    pub body: Vec<u8>,
    /// The only clock that verification may use.
    pub received_at: Timestamp,
    /// The sender's address.
    pub remote_ip: Option<String>,
    /// How far a signed time may be from `received_at`, in both directions; seconds, never 0.
    pub tolerance_seconds: u32,
}

/// What a webhook says, after it was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayEvent {
    /// The gateway's own id of the event: what duplicates are known by.
    pub id: String,
    /// The gateway's own name of the type.
    pub kind: String,
    /// When it happened there.
    pub occurred_at: Option<Timestamp>,
    /// The gateway's id of the payment.
    pub reference: Option<String>,
    /// Our id of the payment, where the gateway repeats it.
    pub payment: Option<PaymentId>,
    /// What changed.
    pub change: Change,
}

/// What a webhook event changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Change {
    /// The payment moved.
    Payment {
        /// Where it stands now, where said.
        status: Option<GatewayStatus>,
        /// Cumulative totals.
        totals: Totals,
        /// Why it was declined.
        decline_code: Option<String>,
        /// The gateway's id of the capture or cancellation.
        operation_reference: Option<String>,
    },
    /// A refund moved.
    Refund {
        /// Our id, where repeated.
        refund: Option<RefundId>,
        /// The gateway's id.
        reference: String,
        /// Where it stands now.
        status: RefundStatus,
        /// Minor units with their currency.
        amount: Option<(i64, String)>,
    },
    /// The customer's bank disputes the payment.
    Dispute {
        /// The gateway's id of the dispute.
        reference: String,
        /// Opened, or closed.
        opened: bool,
        /// When closed: whether the merchant won.
        won: Option<bool>,
        /// Why.
        reason: Option<String>,
    },
    /// The event says only that something changed: ask.
    NeedsSync,
    /// Nothing that concerns payments.
    Irrelevant,
}

/// An answer that the gateway wants to its webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Content type.
    pub content_type: Option<String>,
    /// Body.
    pub body: Vec<u8>,
}

/// What came of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Verified; made by [`Proof::verified`] alone.
    Verified(Verified),
    /// The gateway does not sign: nothing may be believed but "look again at these references".
    UnsignedHint(Vec<String>),
    /// A handshake: answer with this, record nothing.
    Challenge(Reply),
}

/// Events whose signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    events: Vec<GatewayEvent>,
    reply: Option<Reply>,
}

impl Verified {
    /// The events and the answer that the gateway wants, if any.
    pub fn into_parts(self) -> (Vec<GatewayEvent>, Option<Reply>) {
        (self.events, self.reply)
    }
}

/// The right to say "verified". Only the library makes one, for each call of [`PaymentGateway::receive`].
#[derive(Debug)]
pub struct Proof(());

impl Proof {
    pub(crate) const fn new() -> Self {
        Self(())
    }

    /// Spends the proof: the signature of these events was checked.
    pub fn verified(self, events: Vec<GatewayEvent>, reply: Option<Reply>) -> Received {
        Received::Verified(Verified { events, reply })
    }
}

/// Why a webhook was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// There is no signature to check.
    #[error("the signature is missing: {0}")]
    MissingSignature(String),
    /// The signature does not fit the bytes.
    #[error("the signature does not fit")]
    BadSignature,
    /// The signed time is outside the tolerance, in either direction.
    #[error("the signed time is outside the tolerance")]
    Stale,
    /// It is signed but cannot be read.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A secret is missing or malformed: the operator's fault, the gateway shall send again.
    #[error("the account is set up wrongly: {0}")]
    Misconfigured(String),
    /// It could not be checked now: the gateway shall send again.
    #[error("could not be checked now: {0}")]
    Unavailable(String),
}
