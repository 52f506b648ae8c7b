//! What an adapter is asked to do.

use serde::{Deserialize, Serialize};

use crate::id::{PaymentId, RefundId};
use crate::money::Money;
use crate::time::Timestamp;

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
