//! PayPal Orders v2. The customer approves an order on PayPal's page; then it is captured, or authorized and captured
//! later. An order that was approved is finished when the customer comes back, or, if the browser never does, when the
//! gateway is asked after PayPal told of the approval.

mod amounts;
mod api;
mod certificate;
mod events;
mod order;
mod token;

use api::{Api, segment};
use oms_plugin_sdk::{
    CancelRequest, CaptureMode, CaptureRequest, CompleteRequest, Delivery, Detail, Features, Gateway, Info,
    Outcome, PaymentError, PaymentResult, PaymentStatus, RefundRequest, RefundResult, Snapshot, StartRequest,
    SyncRequest, Totals, WebhookError, Webhooks, config, export_plugin,
};
use order::{Intent, Order, Part, State};
use serde_json::{Value, json};

/// The plugin, for what is compiled together with it: a fuzzer calls it without a component.
pub struct PayPal;

export_plugin!(PayPal);

impl Gateway for PayPal {
    fn describe() -> Info {
        Info {
            id: "paypal".into(),
            name: "PayPal".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            // A refund names one capture, so that a payment has at most one.
            features: Features::MANUAL_CAPTURE
                | Features::PARTIAL_CAPTURE
                | Features::CANCEL
                | Features::REFUND
                | Features::PARTIAL_REFUND
                | Features::SYNC
                | Features::COMPLETE
                | Features::WEBHOOKS,
            config_schema: include_str!("../config-schema.json").into(),
            hosts: [
                "config:base-url",
                "config:certificate-origin",
                "https://api.paypal.com",
                "https://api.sandbox.paypal.com",
            ]
            .map(str::to_owned)
            .into(),
            currencies: amounts::CURRENCIES.map(str::to_owned).into(),
        }
    }

    fn start(request: StartRequest) -> Result<PaymentResult, PaymentError> {
        let body = start_body(&request, config::get("brand-name"))?;
        let key = &request.call.idempotency_key;
        let order: Order = Api::connect()?.post("/v2/checkout/orders", key, &body)?.read()?;
        order.result(&State::default())
    }

    /// What the customer brought back is unsigned, so it is not looked at: PayPal knows whether the order was approved.
    fn complete(request: CompleteRequest) -> Result<PaymentResult, PaymentError> {
        finish(
            &Api::connect()?,
            &request.payment_id,
            &request.reference,
            &State::read(request.state),
        )
    }

    fn capture(request: CaptureRequest) -> Result<PaymentResult, PaymentError> {
        let api = Api::connect()?;
        let mut state = State::read(request.state);
        let authorization = match state.authorization.clone() {
            Some(id) => id,
            None => order::read(&api, &request.reference)?.authorization_id()?,
        };
        let body = json!({
            "amount": amounts::to_paypal(&request.amount)?,
            "final_capture": request.final_capture,
        });
        let path = format!("/v2/payments/authorizations/{}/capture", segment(&authorization));
        let capture: Part = api.post(&path, &request.call.idempotency_key, &body)?.read()?;
        let status = capture.capture_status();
        if status == PaymentStatus::Failed {
            return Err(capture.declined());
        }
        state.authorization = Some(authorization);
        state.capture = Some(capture.id.clone());
        Ok(PaymentResult {
            reference: Some(request.reference),
            operation_reference: Some(capture.id.clone()),
            totals: match status {
                PaymentStatus::Captured => Totals {
                    captured: Some(capture.minor(&request.amount)?),
                    currency: Some(request.amount.currency.clone()),
                    ..Totals::default()
                },
                _ => Totals::default(),
            },
            state: Some(state.write()),
            ..PaymentResult::new(match status {
                PaymentStatus::Captured => PaymentStatus::Captured,
                // PayPal looks at it first; the outcome comes by webhook.
                _ => PaymentStatus::Authorized,
            })
        })
    }

    fn cancel(request: CancelRequest) -> Result<PaymentResult, PaymentError> {
        let api = Api::connect()?;
        let order = order::read(&api, &request.reference)?;
        let mut state = State::read(request.state);
        // An order that nobody captures lapses by itself, and from now on this plugin does not.
        state.given_up = true;
        let result = order.result(&state)?;
        let mut status = PaymentStatus::Canceled;
        match result.status {
            PaymentStatus::Captured | PaymentStatus::PartiallyCaptured => {
                return Err(PaymentError::invalid_state((
                    "captured",
                    "the order is captured: refund it",
                )));
            }
            PaymentStatus::Authorized => {
                let path = format!(
                    "/v2/payments/authorizations/{}/void",
                    segment(&order.authorization_id()?)
                );
                let answer = api.post(&path, &request.call.idempotency_key, &json!({}))?;
                // PayPal may leave the body out; what is there must be the authorization.
                if !answer.is_empty() {
                    status = answer.read::<Part>()?.authorization_status();
                }
            }
            _ => {}
        }
        Ok(PaymentResult {
            status,
            next_action: None,
            state: Some(state.write()),
            ..result
        })
    }

    fn refund(request: RefundRequest) -> Result<RefundResult, PaymentError> {
        let api = Api::connect()?;
        let known = request
            .capture_reference
            .or_else(|| State::read(request.state).capture);
        let capture = match known {
            Some(id) => id,
            None => order::read(&api, &request.reference)?.capture_id()?,
        };
        let mut body = json!({
            "amount": amounts::to_paypal(&request.amount)?,
            "custom_id": request.refund_id,
        });
        if let Some(reason) = request.reason {
            body["note_to_payer"] = json!(reason.chars().take(255).collect::<String>());
        }
        let path = format!("/v2/payments/captures/{}/refund", segment(&capture));
        let refund: Part = api.post(&path, &request.call.idempotency_key, &body)?.read()?;
        Ok(RefundResult {
            refund_id: Some(request.refund_id),
            status: refund.refund_status(),
            amount: Some(request.amount),
            reference: Some(refund.id),
            raw: None,
        })
    }

    fn sync(request: SyncRequest) -> Result<Snapshot, PaymentError> {
        let Some(reference) = request.reference else {
            // Orders cannot be searched, and starting again with the same key gives the same order.
            return Err(PaymentError::unsupported("sync without PayPal's order id"));
        };
        let api = Api::connect()?;
        let state = State::read(request.state);
        let payment = finish(&api, &request.payment_id, &reference, &state)?;
        let refunds = order::read(&api, &reference)?.refunds()?;
        Ok(Snapshot { payment, refunds })
    }
}

impl Webhooks for PayPal {
    fn receive(delivery: Delivery) -> Result<Outcome, WebhookError> {
        certificate::verify(&delivery)?;
        let event = events::read(&delivery.body, oms_plugin_sdk::currency::exponent)?;
        // PayPal sends a message again for three days, and does not promise a new time with each attempt.
        Ok(Outcome::event(event, None))
    }
}

fn start_body(request: &StartRequest, brand: Option<String>) -> Result<Value, PaymentError> {
    let Some(return_url) = &request.return_url else {
        let why = "PayPal needs the address to which the customer comes back";
        return Err(PaymentError::invalid_request(Detail::new("return_url", why)));
    };
    let intent = match request.capture {
        CaptureMode::Automatic => "CAPTURE",
        CaptureMode::Manual => "AUTHORIZE",
    };
    let mut context = json!({
        "return_url": return_url,
        "cancel_url": request.cancel_url.as_ref().unwrap_or(return_url),
        "user_action": "PAY_NOW",
        // The order has its address already.
        "shipping_preference": "NO_SHIPPING",
    });
    if let Some(brand) = brand.filter(|brand| !brand.is_empty()) {
        context["brand_name"] = json!(brand);
    }
    let mut unit = json!({
        "custom_id": request.payment_id,
        "amount": amounts::to_paypal(&request.amount)?,
    });
    if let Some(description) = &request.description {
        unit["description"] = json!(description.chars().take(127).collect::<String>());
    }
    Ok(json!({
        "intent": intent,
        "purchase_units": [unit],
        "payment_source": { "paypal": { "experience_context": context } },
    }))
}

/// Looks at the order, and when the customer has approved it takes or holds the money. The key is made of the payment, so
/// that however many come here at once it is done once.
fn finish(
    api: &Api,
    payment_id: &str,
    reference: &str,
    state: &State,
) -> Result<PaymentResult, PaymentError> {
    let order = order::read(api, reference)?;
    order.check_owner(payment_id)?;
    if !order.is_approved() || state.given_up {
        return order.result(state);
    }
    let verb = match order.intent {
        Intent::Capture => "capture",
        Intent::Authorize => "authorize",
    };
    let path = format!("/v2/checkout/orders/{}/{verb}", segment(reference));
    let finished = api.post(&path, &format!("{payment_id}-{verb}"), &json!({}));
    let finished: Order = match finished {
        Ok(answer) => answer.read()?,
        // Somebody else was faster: the order says what came of it.
        Err(PaymentError::InvalidState(_)) => order::read(api, reference)?,
        Err(error) => return Err(error),
    };
    finished.with_intent(order.intent).result(state)
}
