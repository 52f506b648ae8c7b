//! What an adapter answers, and why it may fail.

use serde::{Deserialize, Serialize};

use super::request::Metadata;
use crate::id::RefundId;
use crate::money::Money;
use crate::time::Timestamp;

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
