//! What a plugin was asked, in a shape that can be kept.

use serde::{Deserialize, Serialize};

use crate::id::{PaymentId, RefundId};
use crate::money::Money;
use crate::payments::{
    Call, CancelRequest, CaptureMode, CaptureRequest, CompleteRequest, Customer, Delivery, Metadata,
    RefundRequest, StartRequest, SyncRequest,
};
use crate::plugins::tape::Text;

/// A request of any operation: what an operation does not have is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::plugins) struct Asked {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::plugins) call: Option<Call>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::plugins) payment: Option<PaymentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::plugins) refund: Option<RefundId>,
    /// Minor units and currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::plugins) amount: Option<(i64, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::plugins) reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::plugins) capture_reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::plugins) state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::plugins) reason: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub(in crate::plugins) final_capture: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::plugins) params: Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::plugins) body: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::plugins) start: Option<Start>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::plugins) delivery: Option<Address>,
}

/// What `start` has besides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::plugins) struct Start {
    pub(in crate::plugins) order_number: String,
    pub(in crate::plugins) capture: CaptureMode,
    pub(in crate::plugins) instrument: Option<String>,
    pub(in crate::plugins) instrument_data: Metadata,
    pub(in crate::plugins) customer: Customer,
    pub(in crate::plugins) description: Option<String>,
    pub(in crate::plugins) return_url: Option<String>,
    pub(in crate::plugins) cancel_url: Option<String>,
    pub(in crate::plugins) webhook_url: Option<String>,
    pub(in crate::plugins) off_session: bool,
    pub(in crate::plugins) metadata: Metadata,
}

/// Where a webhook came in; the inbox has the rest of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::plugins) struct Address {
    pub(in crate::plugins) method: String,
    pub(in crate::plugins) url: String,
    pub(in crate::plugins) query: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it like this")]
const fn is_false(yes: &bool) -> bool {
    !*yes
}

fn amount(money: Money) -> Option<(i64, String)> {
    Some((money.minor(), money.currency().to_string()))
}

impl From<&StartRequest> for Asked {
    fn from(r: &StartRequest) -> Self {
        Self {
            call: Some(r.call.clone()),
            payment: Some(r.payment),
            amount: amount(r.amount),
            start: Some(Start {
                order_number: r.order_number.clone(),
                capture: r.capture,
                instrument: r.instrument.clone(),
                instrument_data: r.instrument_data.clone(),
                customer: r.customer.clone(),
                description: r.description.clone(),
                return_url: r.return_url.clone(),
                cancel_url: r.cancel_url.clone(),
                webhook_url: r.webhook_url.clone(),
                off_session: r.off_session,
                metadata: r.metadata.clone(),
            }),
            ..Self::default()
        }
    }
}

impl From<&CompleteRequest> for Asked {
    fn from(r: &CompleteRequest) -> Self {
        Self {
            call: Some(r.call.clone()),
            payment: Some(r.payment),
            amount: amount(r.amount),
            reference: Some(r.reference.clone()),
            state: r.state.clone(),
            params: r.params.clone(),
            body: r.body.clone().map(Text),
            ..Self::default()
        }
    }
}

impl From<&CaptureRequest> for Asked {
    fn from(r: &CaptureRequest) -> Self {
        Self {
            call: Some(r.call.clone()),
            payment: Some(r.payment),
            amount: amount(r.amount),
            reference: Some(r.reference.clone()),
            state: r.state.clone(),
            final_capture: r.final_capture,
            ..Self::default()
        }
    }
}

impl From<&CancelRequest> for Asked {
    fn from(r: &CancelRequest) -> Self {
        Self {
            call: Some(r.call.clone()),
            payment: Some(r.payment),
            reference: Some(r.reference.clone()),
            state: r.state.clone(),
            reason: r.reason.clone(),
            ..Self::default()
        }
    }
}

impl From<&RefundRequest> for Asked {
    fn from(r: &RefundRequest) -> Self {
        Self {
            call: Some(r.call.clone()),
            payment: Some(r.payment),
            refund: Some(r.refund),
            amount: amount(r.amount),
            reference: Some(r.reference.clone()),
            capture_reference: r.capture_reference.clone(),
            state: r.state.clone(),
            reason: r.reason.clone(),
            ..Self::default()
        }
    }
}

impl From<&SyncRequest> for Asked {
    fn from(r: &SyncRequest) -> Self {
        Self {
            call: Some(r.call.clone()),
            payment: Some(r.payment),
            reference: r.reference.clone(),
            state: r.state.clone(),
            ..Self::default()
        }
    }
}

impl From<&Delivery> for Asked {
    fn from(d: &Delivery) -> Self {
        Self {
            delivery: Some(Address {
                method: d.method.clone(),
                url: d.url.clone(),
                query: d.query.clone(),
            }),
            ..Self::default()
        }
    }
}
