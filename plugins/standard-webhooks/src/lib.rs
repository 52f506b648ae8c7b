//! A gateway that has a JSON API and signs its webhooks by the Standard Webhooks specification. Which one it is, only
//! the account's settings say: paths, templates of bodies, JSON pointers to fields, and the words of states.

mod api;
mod events;
mod settings;
mod template;
mod wire;

use api::Api;
use oms_plugin_sdk::{
    CancelRequest, CaptureMode, CaptureRequest, CompleteRequest, Delivery, Features, Gateway, Info, Money,
    Outcome, PaymentError, PaymentResult, RefundRequest, RefundResult, Snapshot, StartRequest, SyncRequest,
    WebhookError, Webhooks, config, crypto::Key, export_plugin, standard_webhooks,
};
use serde_json::{Value, json};
use settings::{Operation, Settings};
use template::Variables;

/// The plugin, for what is compiled together with it: a fuzzer calls it without a component.
pub struct StandardWebhooks;

export_plugin!(StandardWebhooks);

impl Gateway for StandardWebhooks {
    fn describe() -> Info {
        Info {
            id: "standard-webhooks".into(),
            name: "Standard Webhooks".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            // What a gateway can do is the account's business: an operation without a path answers `unsupported`.
            features: Features::MANUAL_CAPTURE
                | Features::PARTIAL_CAPTURE
                | Features::MULTIPLE_CAPTURE
                | Features::CANCEL
                | Features::REFUND
                | Features::PARTIAL_REFUND
                | Features::SYNC
                | Features::COMPLETE
                | Features::WEBHOOKS
                | Features::CLIENT_TOKENS,
            config_schema: include_str!("../config-schema.json").into(),
            hosts: vec!["config:base-url".into()],
            currencies: Vec::new(),
        }
    }

    fn start(request: StartRequest) -> Result<PaymentResult, PaymentError> {
        let settings = Settings::read(config::get)?;
        let manual = request.capture == CaptureMode::Manual;
        let mut variables = Variables::new();
        variables.set("payment-id", &request.payment_id);
        variables.set("order-number", &request.order_number);
        money(&settings, &mut variables, &request.amount);
        variables.set("capture", if manual { "manual" } else { "automatic" });
        variables.set("manual", manual);
        variables.set("automatic", !manual);
        variables.set("instrument", request.instrument);
        variables.set("description", request.description);
        variables.set("return-url", request.return_url);
        variables.set("cancel-url", request.cancel_url);
        variables.set("webhook-url", request.webhook_url);
        variables.set("off-session", request.off_session);
        variables.set("customer-id", request.customer.id);
        variables.set("customer-email", request.customer.email);
        let answer = Api::connect(&settings)?.change(Operation::Start, &variables, &request.call)?;
        answer.payment(&settings, request.amount.exponent)
    }

    /// The query that the customer brought back is unsigned, so it is not looked at.
    fn complete(request: CompleteRequest) -> Result<PaymentResult, PaymentError> {
        let settings = Settings::read(config::get)?;
        let variables = Variables::of(&request.payment_id, Some(&request.reference));
        let answer = Api::connect(&settings)?.read(Operation::Sync, &variables)?;
        answer.payment(&settings, request.amount.exponent)
    }

    fn capture(request: CaptureRequest) -> Result<PaymentResult, PaymentError> {
        let settings = Settings::read(config::get)?;
        let mut variables = Variables::of(&request.payment_id, Some(&request.reference));
        money(&settings, &mut variables, &request.amount);
        variables.set("final", request.final_capture);
        let answer = Api::connect(&settings)?.change(Operation::Capture, &variables, &request.call)?;
        answer.payment(&settings, request.amount.exponent)
    }

    fn cancel(request: CancelRequest) -> Result<PaymentResult, PaymentError> {
        let settings = Settings::read(config::get)?;
        let mut variables = Variables::of(&request.payment_id, Some(&request.reference));
        variables.set("reason", request.reason);
        let answer = Api::connect(&settings)?.change(Operation::Cancel, &variables, &request.call)?;
        answer.payment_of_its_currency(&settings)
    }

    fn refund(request: RefundRequest) -> Result<RefundResult, PaymentError> {
        let settings = Settings::read(config::get)?;
        let mut variables = Variables::of(&request.payment_id, Some(&request.reference));
        money(&settings, &mut variables, &request.amount);
        variables.set("refund-id", &request.refund_id);
        variables.set("capture-reference", request.capture_reference);
        variables.set("reason", request.reason);
        let answer = Api::connect(&settings)?.change(Operation::Refund, &variables, &request.call)?;
        answer.refund(&settings, &request.amount, &request.refund_id)
    }

    fn sync(request: SyncRequest) -> Result<Snapshot, PaymentError> {
        let settings = Settings::read(config::get)?;
        let variables = Variables::of(&request.payment_id, request.reference.as_deref());
        let operation = match request.reference {
            Some(_) => Operation::Sync,
            None => Operation::Find,
        };
        Api::connect(&settings)?
            .read(operation, &variables)?
            .snapshot(&settings, &request.payment_id)
    }
}

impl Webhooks for StandardWebhooks {
    fn receive(delivery: Delivery) -> Result<Outcome, WebhookError> {
        let settings = Settings::read(config::get).map_err(|fault| WebhookError::Misconfigured(fault.0))?;
        let key = Key::SecretBase64("webhook-secret".into());
        let signed = standard_webhooks::verify(&delivery, &key)?;
        let body: Value = serde_json::from_slice(&delivery.body)
            .map_err(|error| WebhookError::Malformed(error.to_string()))?;
        let event = events::read(&settings, &signed.id, &body, oms_plugin_sdk::currency::exponent)?;
        Ok(Outcome::event(event, Some(signed.at_ms)))
    }
}

fn money(settings: &Settings, variables: &mut Variables, amount: &Money) {
    let value = match settings.decimal_amounts {
        true => json!(amount.decimal()),
        false => json!(amount.minor),
    };
    variables.set("amount", value);
    variables.set("currency", settings.currency(&amount.currency));
    variables.set("exponent", amount.exponent);
}
