//! Payments and refunds as the library keeps them.

use serde::{Deserialize, Serialize};

use super::gateway::{CaptureMode, GatewayStatus, Metadata, NextAction, RefundStatus};
use crate::id::{CaptureId, OrderId, PaymentId, RefundId};
use crate::idempotency::IdempotencyKey;
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

/// Start the payment of an order. The amount is the order's total.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartPayment {
    /// Makes a retry safe; required.
    pub idempotency_key: IdempotencyKey,
    /// The name of the merchant's account that takes the money.
    pub account: String,
    /// Where the gateway sends the customer when it is done.
    pub return_url: Option<String>,
    /// Whether the money is taken at once.
    pub capture: CaptureMode,
    /// A token that the gateway's browser library made.
    pub instrument: Option<String>,
    /// What goes with the token.
    pub instrument_data: Metadata,
    /// The customer's address in the network, for the gateway's fraud checks. Not part of the command: a retry may
    /// come from another one.
    pub customer_ip: Option<String>,
}

/// Take money that is authorized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturePayment {
    /// Makes a retry safe; required.
    pub idempotency_key: IdempotencyKey,
    /// How much; all that is left when none.
    pub amount: Option<Money>,
    /// Whether what is left is given up. When none: yes if nothing is left or if the gateway captures only once.
    pub final_capture: Option<bool>,
}

/// Money came that no gateway tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoneyReceived {
    /// Makes a retry safe; required.
    pub idempotency_key: IdempotencyKey,
    /// How much came now; all that was missing when none.
    pub amount: Option<Money>,
    /// Where it is seen, such as the line of a bank statement; at most 500 characters.
    pub note: Option<String>,
}

/// A refund was sent that no gateway sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundSent {
    /// Makes a retry safe; required.
    pub idempotency_key: IdempotencyKey,
    /// How it was sent; at most 500 characters.
    pub note: Option<String>,
}

/// Send captured money back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundPayment {
    /// Makes a retry safe; required.
    pub idempotency_key: IdempotencyKey,
    /// How much; all that is left when none.
    pub amount: Option<Money>,
    /// Why, at most 500 characters.
    pub reason: Option<String>,
}

/// How an operator leads a payment out of review.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// What the gateway says now is right, even where it differs from the order.
    Accept,
    /// All that is captured goes back; what is not captured is given up. The order is not paid by it.
    Refund,
    /// Ask the gateway again and judge by the usual rules.
    Sync,
}

impl Payment {
    /// What the API shows as its status: what needs attention first, else what the gateway says.
    pub fn shown_status(&self) -> &'static str {
        match &self.attention {
            Some(attention) => attention.as_str(),
            None => self.status.as_str(),
        }
    }

    /// Whether money may still come of it: an order has at most one such payment.
    pub fn is_open(&self) -> bool {
        use PaymentStatus::{ActionRequired, Authorized, Captured, Created, PartiallyCaptured, Pending};
        match self.status {
            Created | Pending | ActionRequired | Authorized | PartiallyCaptured => true,
            status => self.attention == Some(Attention::Unknown) && status != Captured,
        }
    }

    /// Minor units that may still be refunded: captured, and neither refunded nor promised.
    pub fn refundable(&self) -> i64 {
        let promised = self.refunds.iter().filter(|r| r.status.holds_money());
        self.captured - promised.map(|r| r.amount.minor()).sum::<i64>()
    }

    /// Minor units that may still be captured: authorized, and neither captured nor asked for.
    pub fn capturable(&self) -> i64 {
        let asked = self.captures.iter().filter(|c| c.status.is_unsettled());
        self.authorized - self.captured - asked.map(|c| c.amount.minor()).sum::<i64>()
    }

    /// Whether the gateway has still to say something, so that it is asked from time to time.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.attention == Some(Attention::Unknown)
            || matches!(self.status, PaymentStatus::Created | PaymentStatus::Pending)
            || self.captures.iter().any(|c| c.status.is_unsettled())
            || self.refunds.iter().any(|r| r.status.is_unsettled())
    }

    /// An amount in the payment's currency. What cannot be money is corrupt.
    pub(crate) fn money(&self, minor: i64) -> crate::error::Result<Money> {
        Money::new(minor, self.amount.currency()).map_err(|detail| crate::error::Error::Corrupt {
            table: "oms_payment",
            column: "amount",
            id: self.id.to_string(),
            detail,
        })
    }
}

impl Attention {
    /// Its spelling in the API and in the database, without the reason.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NeedsReview(_) => "needs_review",
        }
    }
}

impl From<GatewayStatus> for PaymentStatus {
    fn from(status: GatewayStatus) -> Self {
        match status {
            GatewayStatus::Pending => Self::Pending,
            GatewayStatus::ActionRequired => Self::ActionRequired,
            GatewayStatus::Authorized => Self::Authorized,
            GatewayStatus::PartiallyCaptured => Self::PartiallyCaptured,
            GatewayStatus::Captured => Self::Captured,
            GatewayStatus::Canceled => Self::Canceled,
            GatewayStatus::Failed => Self::Failed,
        }
    }
}

impl From<RefundStatus> for OperationStatus {
    fn from(status: RefundStatus) -> Self {
        match status {
            RefundStatus::Pending => Self::Pending,
            RefundStatus::Succeeded => Self::Succeeded,
            RefundStatus::Failed => Self::Failed,
            RefundStatus::Reversed => Self::Reversed,
        }
    }
}

impl PaymentStatus {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Created,
        Self::Pending,
        Self::ActionRequired,
        Self::Authorized,
        Self::PartiallyCaptured,
        Self::Captured,
        Self::Canceled,
        Self::Failed,
    ];

    /// Reads the spelling of [`PaymentStatus::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

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
    /// Reads the spelling of [`OperationStatus::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Pending,
            Self::Succeeded,
            Self::Failed,
            Self::Reversed,
            Self::Unknown,
        ]
        .into_iter()
        .find(|s| s.as_str() == text)
    }

    /// Whether the outcome is still to come.
    pub(crate) const fn is_unsettled(self) -> bool {
        matches!(self, Self::Pending | Self::Unknown)
    }

    /// Whether a refund in this state may have sent money, or still may.
    pub(crate) const fn holds_money(self) -> bool {
        matches!(self, Self::Pending | Self::Succeeded | Self::Unknown)
    }
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

impl StartPayment {
    /// A payment that is captured at once at this account, without the optional facts.
    pub fn new(idempotency_key: IdempotencyKey, account: impl Into<String>) -> Self {
        Self {
            idempotency_key,
            account: account.into(),
            return_url: None,
            capture: CaptureMode::Automatic,
            instrument: None,
            instrument_data: Metadata::new(),
            customer_ip: None,
        }
    }
}
