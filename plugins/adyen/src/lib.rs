//! Adyen Checkout. Modifications are asynchronous: Adyen answers "received" and tells the outcome in a notification.
//! There is no way to ask where a payment stands, so `sync` is not offered.
//!
//! With payment data of the browser (`instrument`) a payment is made through `/payments`; without it the customer is
//! sent to a page of Adyen's (`/paymentLinks`).

mod amounts;
mod api;
mod checkout;
mod link;
mod merchant_reference;
mod notification;
mod signature;

use api::{Api, Doing, segment};
use merchant_reference::{Flow, MerchantReference};
use oms_plugin_sdk::{
    CancelRequest, CaptureMode, CaptureRequest, CompleteRequest, Delivery, Features, Gateway, Info, Outcome,
    PaymentError, PaymentResult, PaymentStatus, RefundRequest, RefundResult, RefundStatus, StartRequest,
    WebhookError, Webhooks, export_plugin,
};
use serde::Deserialize;
use serde_json::json;

/// The plugin, for what is compiled together with it: a fuzzer calls it without a component.
pub struct Adyen;

export_plugin!(Adyen);

impl Gateway for Adyen {
    fn describe() -> Info {
        Info {
            id: "adyen".into(),
            name: "Adyen".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            // Several captures of one payment need a contract of their own with Adyen, and each is told without a total.
            features: Features::MANUAL_CAPTURE
                | Features::PARTIAL_CAPTURE
                | Features::CANCEL
                | Features::REFUND
                | Features::PARTIAL_REFUND
                | Features::COMPLETE
                | Features::WEBHOOKS
                | Features::CLIENT_TOKENS,
            config_schema: include_str!("../config-schema.json").into(),
            hosts: vec!["config:base-url".into()],
            currencies: Vec::new(),
        }
    }

    fn start(request: StartRequest) -> Result<PaymentResult, PaymentError> {
        let api = Api::connect()?;
        match &request.instrument {
            Some(instrument) => checkout::start(&api, &request, instrument),
            None => link::start(&api, &request),
        }
    }

    fn complete(request: CompleteRequest) -> Result<PaymentResult, PaymentError> {
        let api = Api::connect()?;
        if link::is_link(&request.reference) {
            return link::look(&api, &request.reference);
        }
        checkout::complete(&api, &request)
    }

    fn capture(request: CaptureRequest) -> Result<PaymentResult, PaymentError> {
        let api = Api::connect()?;
        let body = json!({
            "merchantAccount": api.merchant_account,
            "amount": amounts::to_adyen(&request.amount)?,
            "reference": merchant_reference(&request.payment_id, request.state.as_deref()),
        });
        let path = format!("/payments/{}/captures", segment(&request.reference));
        let received: Received = api.post(&path, &request.call, Doing::Modifies, &body)?.read()?;
        Ok(PaymentResult {
            operation_reference: Some(received.psp_reference),
            // What it is until the notification comes.
            ..PaymentResult::new(PaymentStatus::Authorized)
        })
    }

    fn cancel(request: CancelRequest) -> Result<PaymentResult, PaymentError> {
        let api = Api::connect()?;
        if link::is_link(&request.reference) {
            return link::expire(&api, &request.call, &request.reference);
        }
        let mut body = json!({
            "merchantAccount": api.merchant_account,
            "reference": merchant_reference(&request.payment_id, request.state.as_deref()),
        });
        let mut path = format!("/payments/{}/cancels", segment(&request.reference));
        // Adyen has not said yet what it calls this payment, but knows what we do.
        if MerchantReference::parse(&request.reference).is_some() {
            body["paymentReference"] = json!(request.reference);
            path = "/cancels".into();
        }
        let received: Received = api.post(&path, &request.call, Doing::Modifies, &body)?.read()?;
        Ok(PaymentResult {
            operation_reference: Some(received.psp_reference),
            ..PaymentResult::new(PaymentStatus::Pending)
        })
    }

    fn refund(request: RefundRequest) -> Result<RefundResult, PaymentError> {
        let api = Api::connect()?;
        let body = json!({
            "merchantAccount": api.merchant_account,
            "amount": amounts::to_adyen(&request.amount)?,
            "reference": request.refund_id,
        });
        let path = format!("/payments/{}/refunds", segment(&request.reference));
        let received: Received = api.post(&path, &request.call, Doing::Modifies, &body)?.read()?;
        Ok(RefundResult {
            refund_id: Some(request.refund_id),
            status: RefundStatus::Pending,
            reference: Some(received.psp_reference),
            amount: Some(request.amount),
            raw: None,
        })
    }
}

impl Webhooks for Adyen {
    fn receive(delivery: Delivery) -> Result<Outcome, WebhookError> {
        signature::check_basic_auth(&delivery)?;
        let items = notification::items(&delivery.body)?;
        // Every item is verified before the first one is read: one forged among genuine ones spoils the delivery.
        for item in &items {
            signature::verify(item)?;
        }
        notification::outcome(&items)
    }
}

/// The answer to a modification.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Received {
    psp_reference: String,
}

/// What was sent when the payment was started; it is kept as the payment's state.
fn merchant_reference(payment_id: &str, state: Option<&str>) -> String {
    let kept = state.filter(|text| MerchantReference::parse(text).is_some());
    kept.map_or_else(
        || MerchantReference::new(payment_id, CaptureMode::Manual, Flow::Payment).to_string(),
        str::to_owned,
    )
}
