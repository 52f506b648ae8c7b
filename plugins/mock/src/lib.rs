//! The mock gateway: a plugin like any other, whose gateway is the fake bank of `oms-server`.
//!
//! Account settings: `base-url` (where the bank is mounted), `timeout-ms` (optional, how long to wait
//! for an answer). Secrets: `api-key`, `webhook-secret` (as the bank shows it, with `whsec_`).

mod bank;
mod events;
mod wire;

use bank::Bank;
use oms_plugin_sdk::{
    CancelRequest, CaptureMode, CaptureRequest, CompleteRequest, Delivery, Features, Gateway, Info, Outcome,
    PaymentError, PaymentResult, RefundRequest, RefundResult, Snapshot, StartRequest, SyncRequest,
    WebhookError, Webhooks, crypto::Key, export_plugin, log, standard_webhooks,
};

/// The plugin, for what is compiled together with it: a fuzzer calls it without a component.
pub struct Mock;

export_plugin!(Mock);

impl Gateway for Mock {
    fn describe() -> Info {
        Info {
            id: "mock".into(),
            name: "Mock gateway".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            features: Features::MANUAL_CAPTURE
                | Features::PARTIAL_CAPTURE
                | Features::MULTIPLE_CAPTURE
                | Features::CANCEL
                | Features::REFUND
                | Features::PARTIAL_REFUND
                | Features::SYNC
                | Features::COMPLETE
                | Features::WEBHOOKS,
            config_schema: include_str!("../config-schema.json").into(),
            hosts: vec!["config:base-url".into()],
            currencies: Vec::new(),
        }
    }

    fn start(request: StartRequest) -> Result<PaymentResult, PaymentError> {
        let body = wire::Start {
            merchant_payment_id: &request.payment_id,
            order_number: &request.order_number,
            amount: request.amount.minor,
            currency: &request.amount.currency,
            exponent: request.amount.exponent,
            capture: match request.capture {
                CaptureMode::Automatic => "automatic",
                CaptureMode::Manual => "manual",
            },
            description: request.description.as_deref(),
            return_url: request.return_url.as_deref(),
            cancel_url: request.cancel_url.as_deref(),
            webhook_url: request.webhook_url.as_deref(),
            off_session: request.off_session,
        };
        let answer = Bank::connect()?.change("/v1/payments", &request.call, &body)?;
        let payment: wire::Payment = answer.read_change()?;
        Ok(payment.result(Some(answer.raw())))
    }

    /// The query that the customer brought back is unsigned, so it is not looked at.
    fn complete(request: CompleteRequest) -> Result<PaymentResult, PaymentError> {
        let answer = Bank::connect()?.payment(&request.reference)?;
        let payment: wire::Payment = answer.read()?;
        Ok(payment.result(Some(answer.raw())))
    }

    fn capture(request: CaptureRequest) -> Result<PaymentResult, PaymentError> {
        let path = bank::payment_path(&request.reference, "/capture");
        let body = wire::Capture {
            amount: request.amount.minor,
            currency: &request.amount.currency,
            r#final: request.final_capture,
        };
        let answer = Bank::connect()?.change(&path, &request.call, &body)?;
        let payment: wire::Payment = answer.read_change()?;
        // The answer shows the payment as it was right after this capture, so the last one is ours.
        let capture = payment.captures.last().map(|capture| capture.id.clone());
        Ok(PaymentResult {
            operation_reference: capture,
            ..payment.result(Some(answer.raw()))
        })
    }

    fn cancel(request: CancelRequest) -> Result<PaymentResult, PaymentError> {
        let path = bank::payment_path(&request.reference, "/cancel");
        let body = wire::Cancel {
            reason: request.reason.as_deref(),
        };
        let answer = Bank::connect()?.change(&path, &request.call, &body)?;
        let payment: wire::Payment = answer.read_change()?;
        Ok(payment.result(Some(answer.raw())))
    }

    fn refund(request: RefundRequest) -> Result<RefundResult, PaymentError> {
        let path = bank::payment_path(&request.reference, "/refunds");
        let body = wire::StartRefund {
            merchant_refund_id: &request.refund_id,
            amount: request.amount.minor,
            currency: &request.amount.currency,
            reason: request.reason.as_deref(),
        };
        let answer = Bank::connect()?.change(&path, &request.call, &body)?;
        let refund: wire::Refund = answer.read_change()?;
        Ok(refund.result(&request.amount, Some(answer.raw())))
    }

    fn sync(request: SyncRequest) -> Result<Snapshot, PaymentError> {
        let bank = Bank::connect()?;
        let answer = match &request.reference {
            Some(reference) => bank.payment(reference)?,
            None => bank.payment_of_merchant(&request.payment_id)?,
        };
        let payment: wire::Payment = answer.read()?;
        if payment.merchant_payment_id != request.payment_id {
            return Err(PaymentError::internal(format!(
                "the bank answered with payment {} of {}, asked for {}",
                payment.id, payment.merchant_payment_id, request.payment_id
            )));
        }
        Ok(payment.snapshot(Some(answer.raw())))
    }
}

impl Webhooks for Mock {
    fn receive(delivery: Delivery) -> Result<Outcome, WebhookError> {
        let key = Key::SecretBase64("webhook-secret".into());
        let signed = standard_webhooks::verify(&delivery, &key)?;
        let event = events::read(&signed.id, &delivery.body)?;
        log::debug("webhook verified", &[("event", &event.id), ("kind", &event.kind)]);
        Ok(Outcome::event(event, Some(signed.at_ms)))
    }
}
