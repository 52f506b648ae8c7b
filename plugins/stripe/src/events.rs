//! What a verified webhook says.

use oms_plugin_sdk::{Change, DisputeEvent, Event, PaymentEvent, PaymentStatus, RefundEvent, WebhookError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::currency::Units;
use crate::intent::{Intent, text};
use crate::refund::Refund;

#[derive(Deserialize)]
struct Message {
    id: String,
    object: String,
    #[serde(rename = "type")]
    kind: String,
    created: Option<u64>,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    object: Value,
}

/// What is read of a dispute.
#[derive(Deserialize)]
struct Dispute {
    id: String,
    amount: i64,
    currency: String,
    status: String,
    reason: Option<String>,
    payment_intent: Option<String>,
}

/// The payment that an event is about, and what changed.
#[derive(Default)]
struct About {
    reference: Option<String>,
    payment_id: Option<String>,
}

/// `exponent` is that of ISO 4217.
pub(crate) fn read(body: &[u8], exponent: impl Fn(&str) -> Option<u8>) -> Result<Event, WebhookError> {
    let message: Message = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    if message.object != "event" {
        return Err(WebhookError::Malformed(format!(
            "a {:?} instead of an event: the endpoint must send snapshots, not thin events",
            message.object
        )));
    }
    let object = message.data.map_or(Value::Null, |data| data.object);
    let units = |code: &str| Units::of(code, exponent(code)?).ok();
    let (about, change) = change(&message.kind, object, units)?;
    Ok(Event {
        occurred_at_ms: message.created.and_then(|seconds| seconds.checked_mul(1000)),
        reference: about.reference,
        payment_id: about.payment_id,
        ..Event::new(message.id, message.kind, change)
    })
}

fn change(
    kind: &str,
    object: Value,
    units: impl Fn(&str) -> Option<Units>,
) -> Result<(About, Change), WebhookError> {
    match kind {
        // It says less than the answer to our own request, which made it.
        "payment_intent.created" => Ok((About::default(), Change::Irrelevant)),
        _ if kind.starts_with("payment_intent.") => payment(&parse(object)?, units),
        "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => {
            refund(&parse(object)?, units)
        }
        // The charge's total counts what a partial capture released as well: only a sync tells one from the other.
        "charge.refunded" => Ok(look(&object)),
        "charge.dispute.created" | "charge.dispute.closed" => {
            Ok(dispute(parse(object)?, kind == "charge.dispute.closed", units))
        }
        // Everything else about a charge is said of its payment too.
        _ => Ok((About::default(), Change::Irrelevant)),
    }
}

fn payment(intent: &Intent, units: impl Fn(&str) -> Option<Units>) -> Result<(About, Change), WebhookError> {
    let about = About {
        reference: Some(intent.id.clone()),
        payment_id: intent.payment_id().map(str::to_owned),
    };
    let totals = units(&intent.currency).and_then(|units| intent.totals(&units).ok());
    let Some(totals) = totals else {
        return Ok((about, Change::NeedsSync));
    };
    let status = intent.standing();
    let failure = intent.last_payment_error.as_ref();
    let failure = failure.filter(|_| status == PaymentStatus::Failed);
    let change = PaymentEvent {
        status: Some(status),
        totals,
        decline_code: failure.map(|failure| failure.code.clone().unwrap_or_else(|| "card_declined".into())),
        operation_reference: intent.charge_id().map(str::to_owned),
    };
    Ok((about, Change::Payment(change)))
}

fn refund(refund: &Refund, units: impl Fn(&str) -> Option<Units>) -> Result<(About, Change), WebhookError> {
    let Some(intent) = &refund.payment_intent else {
        return Ok((About::default(), Change::Irrelevant));
    };
    let about = About {
        reference: Some(intent.clone()),
        payment_id: refund.payment_id().map(str::to_owned),
    };
    let amount = units(&refund.currency).and_then(|units| units.money(refund.amount).ok());
    let change = match (refund.refund_id(), amount) {
        (Some(id), Some(amount)) => Change::Refund(RefundEvent {
            refund_id: Some(id.to_owned()),
            reference: refund.id.clone(),
            status: refund.standing(),
            amount: Some(amount),
        }),
        // Made at Stripe without us, or what a partial capture released.
        _ => Change::NeedsSync,
    };
    Ok((about, change))
}

fn look(charge: &Value) -> (About, Change) {
    let fields = Map::new();
    let fields = charge.as_object().unwrap_or(&fields);
    match text(fields, "payment_intent") {
        Some(intent) => {
            let about = About {
                reference: Some(intent.to_owned()),
                payment_id: None,
            };
            (about, Change::NeedsSync)
        }
        // A charge of another kind than ours.
        None => (About::default(), Change::Irrelevant),
    }
}

fn dispute(dispute: Dispute, closed: bool, units: impl Fn(&str) -> Option<Units>) -> (About, Change) {
    let Some(intent) = dispute.payment_intent else {
        return (About::default(), Change::Irrelevant);
    };
    let about = About {
        reference: Some(intent),
        payment_id: None,
    };
    // A `warning` that is closed never became a chargeback.
    let won = match dispute.status.as_str() {
        "won" | "warning_closed" | "prevented" => Some(true),
        "lost" => Some(false),
        _ => None,
    };
    let amount = units(&dispute.currency).and_then(|units| units.money(dispute.amount).ok());
    let change = DisputeEvent {
        reference: dispute.id,
        opened: !closed,
        won: won.filter(|_| closed),
        amount,
        reason: dispute.reason,
    };
    (about, Change::Dispute(change))
}

fn parse<T: DeserializeOwned>(object: Value) -> Result<T, WebhookError> {
    serde_json::from_value(object).map_err(|error| malformed(&error))
}

fn malformed(error: &serde_json::Error) -> WebhookError {
    WebhookError::Malformed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oms_plugin_sdk::RefundStatus;

    fn event(kind: &str, object: &str) -> Result<Event, WebhookError> {
        let body = format!(
            r#"{{"id":"evt_1","object":"event","type":"{kind}","created":1700000000,"livemode":false,
                "data":{{"object":{object}}}}}"#
        );
        read(body.as_bytes(), |code| match code {
            "eur" => Some(2),
            "ugx" => Some(0),
            _ => None,
        })
    }

    const INTENT: &str = r#"{"id":"pi_1","object":"payment_intent","amount":1999,"amount_received":1999,
        "currency":"eur","status":"succeeded","latest_charge":"ch_1","metadata":{"oms_payment":"pay_1"}}"#;

    #[test]
    fn a_payment_event_carries_totals_and_our_id() {
        let event = event("payment_intent.succeeded", INTENT).unwrap();
        assert_eq!(
            (event.id.as_str(), event.occurred_at_ms),
            ("evt_1", Some(1_700_000_000_000))
        );
        assert_eq!(event.reference.as_deref(), Some("pi_1"));
        assert_eq!(event.payment_id.as_deref(), Some("pay_1"));
        let Change::Payment(change) = event.change else {
            panic!("a payment event expected");
        };
        assert_eq!(change.status, Some(PaymentStatus::Captured));
        assert_eq!(change.totals.captured, Some(1999));
        assert_eq!(change.operation_reference.as_deref(), Some("ch_1"));
    }

    #[test]
    fn a_failed_try_says_why() {
        let failed = INTENT.replace("succeeded", "requires_payment_method").replace(
            r#""latest_charge""#,
            r#""last_payment_error":{"code":"expired_card"},"latest_charge""#,
        );
        let Change::Payment(change) = event("payment_intent.payment_failed", &failed).unwrap().change else {
            panic!("a payment event expected");
        };
        assert_eq!(change.status, Some(PaymentStatus::Failed));
        assert_eq!(change.decline_code.as_deref(), Some("expired_card"));
        // In the browser the customer just tries another card.
        let browser = failed.replace(r#""oms_payment":"pay_1""#, r#""oms_flow":"client""#);
        let Change::Payment(change) = event("payment_intent.payment_failed", &browser).unwrap().change else {
            panic!("a payment event expected");
        };
        assert_eq!(
            (change.status, change.decline_code),
            (Some(PaymentStatus::ActionRequired), None)
        );
    }

    #[test]
    fn refund_events_name_our_refund() {
        let ours = r#"{"id":"re_1","amount":500,"currency":"ugx","status":"failed","payment_intent":"pi_1",
            "failure_balance_transaction":"txn_1","metadata":{"oms_refund":"ref_1","oms_payment":"pay_1"}}"#;
        let event_of_ours = event("refund.failed", ours).unwrap();
        assert_eq!(event_of_ours.payment_id.as_deref(), Some("pay_1"));
        let Change::Refund(change) = event_of_ours.change else {
            panic!("a refund event expected");
        };
        assert_eq!(change.refund_id.as_deref(), Some("ref_1"));
        assert_eq!(
            (change.status, change.amount.unwrap().minor),
            (RefundStatus::Reversed, 5)
        );
        let foreign =
            r#"{"id":"re_1","amount":500,"currency":"eur","status":"succeeded","payment_intent":"pi_1"}"#;
        assert_eq!(
            event("refund.created", foreign).unwrap().change,
            Change::NeedsSync
        );
        let charge = r#"{"id":"ch_1","amount_refunded":499,"payment_intent":"pi_1"}"#;
        let thin = event("charge.refunded", charge).unwrap();
        assert_eq!(
            (thin.change, thin.reference.as_deref()),
            (Change::NeedsSync, Some("pi_1"))
        );
        let old = event("charge.refunded", r#"{"id":"ch_1","payment_intent":null}"#).unwrap();
        assert_eq!(old.change, Change::Irrelevant);
    }

    #[test]
    fn disputes_open_and_close() {
        let of = |kind: &str, status: &str| {
            let object = format!(
                r#"{{"id":"dp_1","amount":1999,"currency":"eur","status":"{status}","reason":"fraudulent",
                    "payment_intent":"pi_1","charge":"ch_1"}}"#
            );
            match event(kind, &object).unwrap().change {
                Change::Dispute(change) => (change.opened, change.won, change.reason),
                other => panic!("{other:?}"),
            }
        };
        let reason = || Some("fraudulent".to_owned());
        let closed = "charge.dispute.closed";
        assert_eq!(
            of("charge.dispute.created", "needs_response"),
            (true, None, reason())
        );
        assert_eq!(of(closed, "won"), (false, Some(true), reason()));
        assert_eq!(of(closed, "warning_closed"), (false, Some(true), reason()));
        assert_eq!(of(closed, "lost"), (false, Some(false), reason()));
        let other = event("charge.dispute.funds_withdrawn", "{}").unwrap();
        assert_eq!(other.change, Change::Irrelevant);
    }

    #[test]
    fn what_cannot_be_counted_is_asked_for() {
        let odd = INTENT.replace("\"eur\"", "\"xyz\"");
        let odd = event("payment_intent.succeeded", &odd).unwrap();
        assert_eq!(
            (odd.change, odd.reference.as_deref()),
            (Change::NeedsSync, Some("pi_1"))
        );
    }

    #[test]
    fn other_kinds_are_irrelevant_and_broken_bodies_malformed() {
        for kind in ["customer.created", "charge.succeeded", "payment_intent.created"] {
            assert_eq!(event(kind, INTENT).unwrap().change, Change::Irrelevant, "{kind}");
        }
        let none = |_: &str| None;
        for broken in [
            "",
            "[]",
            "{}",
            r#"{"id":"evt_1","object":"v2.core.event","type":"x"}"#,
            r#"{"id":"evt_1","object":"event","type":"payment_intent.succeeded"}"#,
            r#"{"id":"evt_1","object":"event","type":"refund.failed","data":{"object":{"id":"re_1"}}}"#,
        ] {
            let result = read(broken.as_bytes(), none);
            assert!(matches!(result, Err(WebhookError::Malformed(_))), "{broken}");
        }
    }
}
