//! What a gateway tells by itself.

use serde::{Deserialize, Serialize};

use super::answer::{GatewayStatus, RefundStatus, Totals};
use crate::id::{PaymentId, RefundId};
use crate::time::Timestamp;

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
    /// What was verified.
    pub fn events(&self) -> &[GatewayEvent] {
        &self.events
    }

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
