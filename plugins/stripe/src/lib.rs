//! Stripe: PaymentIntents, their refunds and disputes, and the webhooks about them.
//!
//! The folder's README describes the account's settings and how to set Stripe up.

mod api;
mod currency;
mod events;
mod intent;
mod lookup;
mod refund;
mod refusal;
mod request;
mod settings;

use api::{Answer, Api, Canceled, intent_path};
use currency::Units;
use intent::Intent;
use oms_plugin_sdk::{
    CancelRequest, CaptureRequest, CompleteRequest, Delivery, Detail, Features, Gateway, Info, Outcome,
    PaymentError, PaymentResult, PaymentStatus, RefundRequest, RefundResult, RefundStatus, Snapshot,
    StartRequest, SyncRequest, WebhookError, Webhooks,
    crypto::Key,
    currency as iso, export_plugin,
    form::Form,
    log,
    timestamped::{self, Names},
};
use refund::{Page, Refund};
use refusal::Ask;
use settings::Settings;

/// Five hundred refunds of one payment are all that the host takes.
const MAX_REFUND_PAGES: usize = 5;

const SIGNATURE: Names = Names {
    header: "stripe-signature",
    time: "t",
    signature: "v1",
};

/// The plugin, for what is compiled together with it: a fuzzer calls it without a component.
pub struct Stripe;

export_plugin!(Stripe);

impl Gateway for Stripe {
    fn describe() -> Info {
        Info {
            id: "stripe".into(),
            name: "Stripe".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            features: Features::MANUAL_CAPTURE
                | Features::PARTIAL_CAPTURE
                | Features::CANCEL
                | Features::REFUND
                | Features::PARTIAL_REFUND
                | Features::SYNC
                | Features::COMPLETE
                | Features::WEBHOOKS
                | Features::CLIENT_TOKENS,
            config_schema: include_str!("../config-schema.json").into(),
            hosts: vec!["https://api.stripe.com".into(), "config:base-url".into()],
            currencies: Vec::new(),
        }
    }

    fn start(request: StartRequest) -> Result<PaymentResult, PaymentError> {
        let settings = Settings::load()?;
        let units = Units::of_money(&request.amount)?;
        let form = request::start(&request, &settings, &units)?;
        let api = Api::of(&settings, &request.call)?;
        let answer = api.post(Ask::Start, "/v1/payment_intents", &request.call, &form)?;
        decided(&answer, &units, &settings)
    }

    /// What the customer brought back is unsigned, so it is not looked at.
    fn complete(request: CompleteRequest) -> Result<PaymentResult, PaymentError> {
        let settings = Settings::load()?;
        let units = Units::of_money(&request.amount)?;
        let api = Api::of(&settings, &request.call)?;
        let answer = api.get(&intent_path(&request.reference, ""), &with_charge())?;
        decided(&answer, &units, &settings)
    }

    fn capture(request: CaptureRequest) -> Result<PaymentResult, PaymentError> {
        let settings = Settings::load()?;
        let units = Units::of_money(&request.amount)?;
        let form = request::capture(units.write(request.amount.minor)?);
        let path = intent_path(&request.reference, "/capture");
        let api = Api::of(&settings, &request.call)?;
        let answer = api.post(Ask::Change, &path, &request.call, &form)?;
        decided(&answer, &units, &settings)
    }

    fn cancel(request: CancelRequest) -> Result<PaymentResult, PaymentError> {
        let settings = Settings::load()?;
        let path = intent_path(&request.reference, "/cancel");
        let api = Api::of(&settings, &request.call)?;
        let form = request::cancel(&settings);
        let intent: Intent = match api.cancel(&path, &request.call, &form)? {
            Canceled::Now(answer) => answer.json()?,
            Canceled::Before(intent) => *intent,
        };
        intent.result(&units_of(&intent.currency)?, &settings, None)
    }

    fn refund(request: RefundRequest) -> Result<RefundResult, PaymentError> {
        let settings = Settings::load()?;
        let units = Units::of_money(&request.amount)?;
        let form = request::refund(&request, &settings, &units)?;
        let api = Api::of(&settings, &request.call)?;
        let answer = api.post(Ask::Refund, "/v1/refunds", &request.call, &form)?;
        let refund: Refund = answer.json()?;
        refund.result(&units)
    }

    fn sync(request: SyncRequest) -> Result<Snapshot, PaymentError> {
        let settings = Settings::load()?;
        let api = Api::of(&settings, &request.call)?;
        let found = match &request.reference {
            Some(reference) => reference.clone(),
            None => lookup::by_payment_id(&api, &request)?.id,
        };
        let answer = api.get(&intent_path(&found, ""), &with_charge())?;
        let intent: Intent = answer.json()?;
        // Payments from before this plugin, or from another program, carry no id of ours.
        if let Some(payment) = intent.payment_id().filter(|id| *id != request.payment_id) {
            return Err(PaymentError::internal(format!(
                "Stripe's {} is of payment {payment}, asked for {}",
                intent.id, request.payment_id
            )));
        }
        let units = units_of(&intent.currency)?;
        let refunds = refunds(&api, &intent)?;
        let succeeded = refunds
            .iter()
            .filter(|refund| refund.standing() == RefundStatus::Succeeded);
        let refunded = units.read(succeeded.map(|refund| refund.amount).sum())?;
        let mut payment = intent.result(&units, &settings, answer.request_id())?;
        payment.totals.refunded = Some(refunded);
        Ok(Snapshot {
            refunds: refunds
                .iter()
                .map(|refund| refund.result(&units))
                .collect::<Result<_, _>>()?,
            payment,
        })
    }
}

impl Webhooks for Stripe {
    fn receive(delivery: Delivery) -> Result<Outcome, WebhookError> {
        let key = Key::Secret("webhook-secret".into());
        let signed_at_ms = timestamped::verify(&delivery, SIGNATURE, &key)?;
        let event = events::read(&delivery.body, |code| iso::exponent(&code.to_ascii_uppercase()))?;
        log::debug("webhook verified", &[("event", &event.id), ("kind", &event.kind)]);
        Ok(Outcome::event(event, Some(signed_at_ms)))
    }
}

/// The answer about a payment; an error when the customer's bank has said no.
fn decided(answer: &Answer, units: &Units, settings: &Settings) -> Result<PaymentResult, PaymentError> {
    let intent: Intent = answer.json()?;
    let result = intent.result(units, settings, answer.request_id())?;
    match &intent.last_payment_error {
        Some(failure) if result.status == PaymentStatus::Failed => {
            Err(PaymentError::Declined(refusal::decline(failure)))
        }
        _ => Ok(result),
    }
}

/// What is refunded of a payment, without what a partial capture released.
fn refunds(api: &Api<'_>, intent: &Intent) -> Result<Vec<Refund>, PaymentError> {
    let mut refunds: Vec<Refund> = Vec::new();
    // Before something is captured there is nothing to refund.
    if !matches!(
        intent.standing(),
        PaymentStatus::Captured | PaymentStatus::PartiallyCaptured
    ) {
        return Ok(refunds);
    }
    let mut after: Option<String> = None;
    for _ in 0..MAX_REFUND_PAGES {
        let query = Form::new()
            .field("payment_intent", &intent.id)
            .field("limit", 100)
            .optional("starting_after", after.as_deref());
        let page: Page<Refund> = api.get("/v1/refunds", &query)?.json()?;
        after = page.data.last().map(|refund| refund.id.clone());
        refunds.extend(page.data.into_iter().filter(|refund| !refund.is_release(intent)));
        if !page.has_more || after.is_none() {
            return Ok(refunds);
        }
    }
    Err(PaymentError::unavailable(Detail::new(
        "too_many",
        "Stripe has more refunds of this payment than can be read",
    )))
}

/// So that the answer tells how was paid.
fn with_charge() -> Form {
    Form::new().item("expand", "latest_charge")
}

fn units_of(currency: &str) -> Result<Units, PaymentError> {
    let code = currency.to_ascii_uppercase();
    let exponent = iso::exponent(&code)
        .ok_or_else(|| PaymentError::internal(format!("Stripe answered in {code}, which is unknown")))?;
    Units::of(&code, exponent).map_err(PaymentError::internal)
}
