//! Payments of orders.

use std::collections::BTreeMap;

use oms_core::payments::{
    Attention, Capture, CaptureMode, CapturePayment, NextAction, Payment, RedirectMethod, Refund,
    RefundPayment, StartPayment,
};
use oms_core::{Outcome, PaymentId};
use poem::Request;
use poem_openapi::param::{Header, Path};
use poem_openapi::{Enum, Object, OpenApi};
use serde::Serialize;

use super::Tag;
use super::auth::Auth;
use super::error::{Result, idempotency_key};
use super::json::JsonBody;
use super::reply::{Created, Reply};
use super::values::{MoneyBody, id};

pub(super) struct PaymentsApi;

#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct NewPayment {
    /// The merchant's account that takes the money.
    account: String,
    /// Where the gateway sends the customer when it is done.
    return_url: Option<String>,
    /// Whether the money is taken at once; `automatic` when not given.
    capture: Option<CaptureModeBody>,
    /// A token that the gateway's browser library made.
    instrument: Option<String>,
    /// What goes with the token.
    instrument_data: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Copy, Enum, Serialize)]
#[oai(rename_all = "snake_case", rename = "CaptureMode")]
#[serde(rename_all = "snake_case")]
enum CaptureModeBody {
    Automatic,
    Manual,
}

#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct Completion {
    /// The query of the address that the customer came back to, or what a browser library gave.
    params: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct NewCapture {
    /// All that is left when not given.
    amount: Option<MoneyBody>,
    /// Whether what is left is given up.
    #[oai(rename = "final")]
    final_capture: Option<bool>,
}

#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct PaymentCancellation {}

#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct NewRefund {
    /// All that is left when not given.
    amount: Option<MoneyBody>,
    reason: Option<String>,
}

/// A payment of an order.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Payment")]
pub(crate) struct PaymentBody {
    id: String,
    order_id: String,
    account: String,
    /// `created`, `pending`, `action_required`, `authorized`, `partially_captured`, `captured`, `canceled`, `failed`;
    /// or `unknown` while the outcome is being found out, or `needs_review`.
    status: String,
    /// What the gateway said last, whatever `status` shows.
    gateway_status: String,
    /// Why it needs review.
    review_reason: Option<String>,
    amount: MoneyBody,
    capture: CaptureModeBody,
    test_mode: bool,
    authorized: i64,
    captured: i64,
    refunded: i64,
    canceled: i64,
    next_action: Option<NextActionBody>,
    decline_code: Option<String>,
    decline_message: Option<String>,
    /// The gateway's own id.
    reference: Option<String>,
    /// For display: brand, last four digits, ..
    method: BTreeMap<String, String>,
    plugin: String,
    plugin_version: String,
    expires_at: Option<String>,
    captures: Vec<CaptureBody>,
    refunds: Vec<RefundBody>,
    version: i64,
    created_at: String,
    updated_at: String,
}

/// What the customer has to do next. Which fields there are depends on `type`.
#[derive(Debug, Default, Object, Serialize)]
#[oai(rename = "NextAction", skip_serializing_if_is_none)]
struct NextActionBody {
    /// `redirect` (url, method, form_fields), `client_sdk` (data), `present` (data), `wait` (seconds) or `other` (data).
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// `get` or `post`.
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    form_fields: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<u32>,
}

/// A capture of (a part of) a payment.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Capture")]
struct CaptureBody {
    id: String,
    amount: MoneyBody,
    #[oai(rename = "final")]
    #[serde(rename = "final")]
    final_capture: bool,
    /// `pending`, `succeeded`, `failed` or `unknown`.
    status: String,
    created_at: String,
}

/// A refund of (a part of) a payment.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Refund")]
pub(super) struct RefundBody {
    id: String,
    payment_id: String,
    amount: MoneyBody,
    reason: Option<String>,
    /// `pending`, `succeeded`, `failed`, `reversed` or `unknown`.
    status: String,
    created_at: String,
    updated_at: String,
}

#[OpenApi(prefix_path = "/v1", tag = "Tag::Payments")]
impl PaymentsApi {
    /// Start the payment of an order
    ///
    /// Over the order's total. A declined payment is one with status `failed`.
    #[oai(path = "/orders/:id/payments", method = "post", operation_id = "startPayment")]
    async fn start(
        &self,
        request: &Request,
        auth: Auth,
        id: Path<String>,
        #[oai(name = "Idempotency-Key")] key: Header<Option<String>>,
        body: JsonBody<NewPayment>,
    ) -> Result<Created<PaymentBody>> {
        let (Auth(me), JsonBody(new)) = (auth, body);
        let command = StartPayment {
            idempotency_key: idempotency_key(key.0.as_deref())?,
            account: new.account,
            return_url: new.return_url,
            capture: new.capture.map(Into::into).unwrap_or_default(),
            instrument: new.instrument,
            instrument_data: new.instrument_data.unwrap_or_default().into_iter().collect(),
            customer_ip: request
                .remote_addr()
                .as_socket_addr()
                .map(|address| address.ip().to_string()),
        };
        let order = self::id(&id, "order")?;
        Ok(reply(me.oms.payments().start(&me.actor, order, command).await?))
    }

    /// A payment
    #[oai(path = "/payments/:id", method = "get", operation_id = "getPayment")]
    async fn get(&self, auth: Auth, id: Path<String>) -> Result<Reply<PaymentBody>> {
        let Auth(me) = auth;
        let payment = me.oms.payments().get(&me.actor, payment_id(&id)?).await?;
        Ok(versioned(payment))
    }

    /// The customer came back from the gateway
    ///
    /// Safe to repeat.
    #[oai(
        path = "/payments/:id/complete",
        method = "post",
        operation_id = "completePayment"
    )]
    async fn complete(
        &self,
        auth: Auth,
        id: Path<String>,
        body: JsonBody<Completion>,
    ) -> Result<Reply<PaymentBody>> {
        let Auth(me) = auth;
        let params = body.0.params.unwrap_or_default().into_iter().collect();
        let payment = me
            .oms
            .payments()
            .complete(&me.actor, payment_id(&id)?, params)
            .await?;
        Ok(versioned(payment))
    }

    /// Take (a part of) the authorized money
    ///
    /// For operators.
    #[oai(
        path = "/payments/:id/capture",
        method = "post",
        operation_id = "capturePayment"
    )]
    async fn capture(
        &self,
        auth: Auth,
        id: Path<String>,
        #[oai(name = "Idempotency-Key")] key: Header<Option<String>>,
        body: JsonBody<NewCapture>,
    ) -> Result<Reply<PaymentBody>> {
        let (Auth(me), JsonBody(new)) = (auth, body);
        let command = CapturePayment {
            idempotency_key: idempotency_key(key.0.as_deref())?,
            amount: new.amount.map(|amount| amount.read("/amount")).transpose()?,
            final_capture: new.final_capture,
        };
        Ok(reply(
            me.oms
                .payments()
                .capture(&me.actor, payment_id(&id)?, command)
                .await?,
        ))
    }

    /// Give up what is not captured
    #[oai(
        path = "/payments/:id/cancel",
        method = "post",
        operation_id = "cancelPayment"
    )]
    async fn cancel(
        &self,
        auth: Auth,
        id: Path<String>,
        #[oai(name = "Idempotency-Key")] key: Header<Option<String>>,
        body: JsonBody<PaymentCancellation>,
    ) -> Result<Reply<PaymentBody>> {
        let (Auth(me), JsonBody(PaymentCancellation {})) = (auth, body);
        let key = idempotency_key(key.0.as_deref())?;
        Ok(reply(
            me.oms.payments().cancel(&me.actor, payment_id(&id)?, key).await?,
        ))
    }

    /// Send (a part of) the captured money back
    ///
    /// For operators.
    #[oai(
        path = "/payments/:id/refunds",
        method = "post",
        operation_id = "refundPayment"
    )]
    async fn refund(
        &self,
        auth: Auth,
        id: Path<String>,
        #[oai(name = "Idempotency-Key")] key: Header<Option<String>>,
        body: JsonBody<NewRefund>,
    ) -> Result<Created<RefundBody>> {
        let (Auth(me), JsonBody(new)) = (auth, body);
        let command = RefundPayment {
            idempotency_key: idempotency_key(key.0.as_deref())?,
            amount: new.amount.map(|amount| amount.read("/amount")).transpose()?,
            reason: new.reason,
        };
        let outcome = me
            .oms
            .payments()
            .refund(&me.actor, payment_id(&id)?, command)
            .await?;
        Ok(Reply::outcome(outcome))
    }
}

fn payment_id(text: &str) -> Result<PaymentId> {
    id(text, "payment")
}

pub(super) fn reply<const STATUS: u16>(outcome: Outcome<Payment>) -> Reply<PaymentBody, STATUS> {
    let version = outcome.value.version;
    Reply::outcome(outcome).version(version)
}

pub(super) fn versioned(payment: Payment) -> Reply<PaymentBody> {
    let version = payment.version;
    Reply::new(payment.into()).version(version)
}

impl From<CaptureModeBody> for CaptureMode {
    fn from(mode: CaptureModeBody) -> Self {
        match mode {
            CaptureModeBody::Automatic => Self::Automatic,
            CaptureModeBody::Manual => Self::Manual,
        }
    }
}

impl From<CaptureMode> for CaptureModeBody {
    fn from(mode: CaptureMode) -> Self {
        match mode {
            CaptureMode::Automatic => Self::Automatic,
            CaptureMode::Manual => Self::Manual,
        }
    }
}

impl From<Payment> for PaymentBody {
    fn from(payment: Payment) -> Self {
        Self {
            id: payment.id.to_string(),
            order_id: payment.order.to_string(),
            status: payment.shown_status().into(),
            gateway_status: payment.status.as_str().into(),
            review_reason: match payment.attention {
                Some(Attention::NeedsReview(reason)) => Some(reason),
                _ => None,
            },
            account: payment.account,
            amount: payment.amount.into(),
            capture: payment.capture.into(),
            test_mode: payment.test_mode,
            authorized: payment.authorized,
            captured: payment.captured,
            refunded: payment.refunded,
            canceled: payment.canceled,
            next_action: payment.next_action.map(Into::into),
            decline_code: payment.decline_code,
            decline_message: payment.decline_message,
            reference: payment.reference,
            method: payment.method.into_iter().collect(),
            plugin: payment.plugin_id,
            plugin_version: payment.plugin_version,
            expires_at: payment.expires_at.map(|at| at.to_string()),
            captures: payment.captures.into_iter().map(Into::into).collect(),
            refunds: payment.refunds.into_iter().map(Into::into).collect(),
            version: payment.version,
            created_at: payment.created_at.to_string(),
            updated_at: payment.updated_at.to_string(),
        }
    }
}

impl From<NextAction> for NextActionBody {
    fn from(action: NextAction) -> Self {
        let with_data = |kind: &str, data| Self {
            kind: kind.into(),
            data: Some(data),
            ..Self::default()
        };
        match action {
            NextAction::Redirect {
                url,
                method,
                form_fields,
            } => Self {
                kind: "redirect".into(),
                url: Some(url),
                method: Some(match method {
                    RedirectMethod::Get => "get".into(),
                    RedirectMethod::Post => "post".into(),
                }),
                form_fields: (!form_fields.is_empty()).then(|| form_fields.into_iter().collect()),
                ..Self::default()
            },
            NextAction::ClientSdk { data } => with_data("client_sdk", data),
            NextAction::Present { data } => with_data("present", data),
            NextAction::Other { data } => with_data("other", data),
            NextAction::Wait { seconds } => Self {
                kind: "wait".into(),
                seconds: Some(seconds),
                ..Self::default()
            },
        }
    }
}

impl From<Capture> for CaptureBody {
    fn from(capture: Capture) -> Self {
        Self {
            id: capture.id.to_string(),
            amount: capture.amount.into(),
            final_capture: capture.final_capture,
            status: capture.status.as_str().into(),
            created_at: capture.created_at.to_string(),
        }
    }
}

impl From<Refund> for RefundBody {
    fn from(refund: Refund) -> Self {
        Self {
            id: refund.id.to_string(),
            payment_id: refund.payment.to_string(),
            amount: refund.amount.into(),
            reason: refund.reason,
            status: refund.status.as_str().into(),
            created_at: refund.created_at.to_string(),
            updated_at: refund.updated_at.to_string(),
        }
    }
}
