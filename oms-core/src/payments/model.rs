//! Payments and refunds as the library keeps them.

use serde::{Deserialize, Serialize};

use super::gateway::{CaptureMode, Metadata, NextAction};
use crate::id::{CaptureId, OrderId, PaymentId, RefundId};
use crate::money::Money;
use crate::time::Timestamp;

/// What the gateway says of a payment. See [`Payment::attention`] for what the library says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// Recorded here; the gateway has not answered yet.
    Created,
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

/// What the library says of a payment beyond its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attention {
    /// The outcome of an operation is not known; the reconcile job finds out.
    Unknown,
    /// A person must look: the reason.
    NeedsReview(String),
}

/// A payment of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it; design in docs/payments")]
pub struct Payment {
    pub id: PaymentId,
    pub order: OrderId,
    pub account: String,
    /// The adapter that started it, which stays in charge: id, version and digest (none for a native one).
    pub plugin_id: String,
    pub plugin_version: String,
    pub plugin_digest: Option<String>,
    pub test_mode: bool,
    pub amount: Money,
    pub capture: CaptureMode,
    pub status: PaymentStatus,
    pub attention: Option<Attention>,
    /// The gateway's id.
    pub reference: Option<String>,
    /// Cumulative, minor units of the amount's currency.
    pub authorized: i64,
    pub captured: i64,
    pub refunded: i64,
    pub canceled: i64,
    pub decline_code: Option<String>,
    pub decline_message: Option<String>,
    pub next_action: Option<NextAction>,
    /// The adapter's own memory.
    pub state: Option<String>,
    /// For display: brand, last four digits, ..
    pub method: Metadata,
    pub return_url: Option<String>,
    pub expires_at: Option<Timestamp>,
    pub sync_tries: i64,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub refunds: Vec<Refund>,
    pub captures: Vec<Capture>,
}

/// A refund of (a part of) a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Refund {
    pub id: RefundId,
    pub payment: PaymentId,
    pub amount: Money,
    pub reason: Option<String>,
    pub status: OperationStatus,
    pub reference: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A capture of (a part of) a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Capture {
    pub id: CaptureId,
    pub payment: PaymentId,
    pub amount: Money,
    pub final_capture: bool,
    pub status: OperationStatus,
    pub reference: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Where a capture or a refund stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationStatus {
    /// Asked for, or accepted with the outcome to come.
    Pending,
    /// Done.
    Succeeded,
    /// Refused: no money moved.
    Failed,
    /// A refund that came back.
    Reversed,
    /// The outcome is not known; the reconcile job finds out.
    Unknown,
}

impl PaymentStatus {
    /// Its spelling in the API and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Pending => "pending",
            Self::ActionRequired => "action_required",
            Self::Authorized => "authorized",
            Self::PartiallyCaptured => "partially_captured",
            Self::Captured => "captured",
            Self::Canceled => "canceled",
            Self::Failed => "failed",
        }
    }
}

impl OperationStatus {
    /// Its spelling in the API and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Reversed => "reversed",
            Self::Unknown => "unknown",
        }
    }
}
