//! What a verified webhook says.

use crate::amounts::Amount;
use oms_plugin_sdk::{
    Change, DisputeEvent, Event, Money, PaymentEvent, PaymentStatus, RefundEvent, RefundStatus, Totals,
    WebhookError, rfc3339,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Message {
    /// The same in every attempt.
    id: String,
    event_type: String,
    create_time: Option<String>,
    #[serde(default)]
    resource: Value,
}

/// The parts of a resource that matter here; which of them there are depends on the event.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Resource {
    id: Option<String>,
    status: Option<String>,
    amount: Option<Amount>,
    custom_id: Option<String>,
    supplementary_data: Supplement,
    dispute_id: Option<String>,
    reason: Option<String>,
    dispute_outcome: Option<Outcome>,
    disputed_transactions: Vec<Disputed>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Supplement {
    related_ids: Related,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Related {
    order_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Outcome {
    outcome_code: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Disputed {
    custom: Option<String>,
}

pub(crate) fn read(body: &[u8], exponent: impl Fn(&str) -> Option<u8>) -> Result<Event, WebhookError> {
    let malformed = |error: serde_json::Error| WebhookError::Malformed(error.to_string());
    let message: Message = serde_json::from_slice(body).map_err(malformed)?;
    let (family, what) = message.event_type.rsplit_once('.').unwrap_or_default();
    let ours = matches!(
        family,
        "CHECKOUT.ORDER"
            | "PAYMENT.CAPTURE"
            | "PAYMENT.AUTHORIZATION"
            | "PAYMENT.REFUND"
            | "CUSTOMER.DISPUTE"
    );
    if !ours {
        // PayPal tells of many things, in as many shapes.
        return Ok(Event::new(message.id, message.event_type, Change::Irrelevant));
    }
    let resource: Resource = serde_json::from_value(message.resource).map_err(malformed)?;
    let change = match family {
        "CHECKOUT.ORDER" => Change::NeedsSync,
        "PAYMENT.CAPTURE" if matches!(what, "REFUNDED") => refund(&resource, &exponent)?,
        "PAYMENT.REFUND" => refund(&resource, &exponent)?,
        "PAYMENT.CAPTURE" => capture(what, &resource, &exponent)?,
        "PAYMENT.AUTHORIZATION" => authorization(what, &resource, &exponent)?,
        _ => dispute(what, &resource)?,
    };
    let own = |text: Option<String>| text.filter(|text| text.starts_with("pay_"));
    let disputed = resource
        .disputed_transactions
        .into_iter()
        .find_map(|disputed| own(disputed.custom));
    let order = resource.supplementary_data.related_ids.order_id;
    Ok(Event {
        occurred_at_ms: message.create_time.as_deref().and_then(rfc3339::parse_ms),
        reference: match family {
            "CHECKOUT.ORDER" => resource.id,
            _ => order,
        },
        payment_id: own(resource.custom_id).or(disputed),
        ..Event::new(message.id, message.event_type, change)
    })
}

fn money(resource: &Resource, exponent: impl Fn(&str) -> Option<u8>) -> Result<Money, WebhookError> {
    let Some(amount) = &resource.amount else {
        return Err(WebhookError::Malformed("the resource has no amount".into()));
    };
    let money = exponent(&amount.currency_code).and_then(|digits| amount.money(digits));
    let Amount { value, currency_code } = amount;
    money.ok_or_else(|| WebhookError::Malformed(format!("{value:?} is no amount of {currency_code:?}")))
}

fn capture(
    what: &str,
    resource: &Resource,
    exponent: impl Fn(&str) -> Option<u8>,
) -> Result<Change, WebhookError> {
    let event = |status, totals, decline: Option<&str>| {
        Change::Payment(PaymentEvent {
            status,
            totals,
            decline_code: decline.map(str::to_owned),
            operation_reference: resource.id.clone(),
        })
    };
    Ok(match what {
        "COMPLETED" => {
            let money = money(resource, exponent)?;
            let totals = Totals {
                currency: Some(money.currency),
                captured: Some(money.minor),
                ..Totals::default()
            };
            event(Some(PaymentStatus::Captured), totals, None)
        }
        // Whether the payment failed, or one capture of an authorization that stands, PayPal's order says.
        "DENIED" | "DECLINED" | "PENDING" => Change::NeedsSync,
        // PayPal took the money back: its own name for a chargeback.
        "REVERSED" => Change::Dispute(DisputeEvent {
            reference: resource.id.clone().unwrap_or_default(),
            opened: true,
            won: None,
            amount: None,
            reason: Some("PayPal reversed the capture".into()),
        }),
        _ => Change::Irrelevant,
    })
}

fn authorization(
    what: &str,
    resource: &Resource,
    exponent: impl Fn(&str) -> Option<u8>,
) -> Result<Change, WebhookError> {
    let event = |status, totals| {
        Change::Payment(PaymentEvent {
            status: Some(status),
            totals,
            decline_code: None,
            operation_reference: None,
        })
    };
    Ok(match what {
        "CREATED" if resource.status.as_deref() == Some("CREATED") => {
            let money = money(resource, exponent)?;
            let totals = Totals {
                currency: Some(money.currency),
                authorized: Some(money.minor),
                ..Totals::default()
            };
            event(PaymentStatus::Authorized, totals)
        }
        "VOIDED" => event(PaymentStatus::Canceled, Totals::default()),
        _ => Change::NeedsSync,
    })
}

fn refund(resource: &Resource, exponent: impl Fn(&str) -> Option<u8>) -> Result<Change, WebhookError> {
    let Some(reference) = resource.id.clone() else {
        return Err(WebhookError::Malformed("a refund without an id".into()));
    };
    Ok(Change::Refund(RefundEvent {
        refund_id: resource.custom_id.clone().filter(|text| text.starts_with("ref_")),
        reference,
        status: match resource.status.as_deref() {
            Some("COMPLETED") => RefundStatus::Succeeded,
            Some("FAILED" | "CANCELLED") => RefundStatus::Failed,
            _ => RefundStatus::Pending,
        },
        amount: Some(money(resource, exponent)?),
    }))
}

fn dispute(what: &str, resource: &Resource) -> Result<Change, WebhookError> {
    let Some(reference) = resource.dispute_id.clone() else {
        return Err(WebhookError::Malformed("a dispute without an id".into()));
    };
    let outcome = resource
        .dispute_outcome
        .as_ref()
        .and_then(|outcome| outcome.outcome_code.as_deref());
    let (opened, won) = match (what, outcome) {
        ("CREATED", _) => (true, None),
        ("RESOLVED", Some("RESOLVED_SELLER_FAVOUR" | "CANCELED_BY_BUYER" | "DENIED")) => (false, Some(true)),
        ("RESOLVED", _) => (false, Some(false)),
        _ => return Ok(Change::Irrelevant),
    };
    Ok(Change::Dispute(DisputeEvent {
        reference,
        opened,
        won,
        amount: None,
        reason: resource.reason.clone(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, resource: &str) -> Result<Event, WebhookError> {
        let body = format!(
            r#"{{"id":"WH-1","event_type":"{kind}","create_time":"2026-01-01T00:00:00Z","resource":{resource}}}"#
        );
        read(body.as_bytes(), |code| (code == "EUR").then_some(2))
    }

    const CAPTURE: &str = r#"{"id":"C1","status":"COMPLETED","amount":{"currency_code":"EUR","value":"19.99"},
        "custom_id":"pay_1","supplementary_data":{"related_ids":{"order_id":"5O1"}}}"#;

    #[test]
    fn a_capture_names_payment_and_order() {
        let event = event("PAYMENT.CAPTURE.COMPLETED", CAPTURE).unwrap();
        assert_eq!(
            (event.id.as_str(), event.payment_id.as_deref()),
            ("WH-1", Some("pay_1"))
        );
        assert_eq!(event.reference.as_deref(), Some("5O1"));
        assert_eq!(event.occurred_at_ms, Some(1_767_225_600_000));
        let Change::Payment(change) = event.change else {
            panic!("a payment expected");
        };
        assert_eq!(
            (change.status, change.totals.captured),
            (Some(PaymentStatus::Captured), Some(1_999))
        );
    }

    #[test]
    fn refunds_name_ours() {
        let resource = CAPTURE.replace("pay_1", "ref_1");
        for kind in ["PAYMENT.CAPTURE.REFUNDED", "PAYMENT.REFUND.COMPLETED"] {
            let event = event(kind, &resource).unwrap();
            assert_eq!(event.payment_id, None);
            let Change::Refund(change) = event.change else {
                panic!("a refund expected");
            };
            assert_eq!(
                (change.refund_id.as_deref(), change.status),
                (Some("ref_1"), RefundStatus::Succeeded)
            );
        }
    }

    #[test]
    fn what_only_the_order_knows_is_asked() {
        for kind in [
            "CHECKOUT.ORDER.APPROVED",
            "PAYMENT.CAPTURE.DENIED",
            "PAYMENT.CAPTURE.PENDING",
        ] {
            assert_eq!(event(kind, CAPTURE).unwrap().change, Change::NeedsSync, "{kind}");
        }
        let approved = event("CHECKOUT.ORDER.APPROVED", r#"{"id":"5O1"}"#).unwrap();
        assert_eq!(approved.reference.as_deref(), Some("5O1"));
    }

    #[test]
    fn disputes_open_and_close() {
        let dispute = |what: &str, code: &str| {
            let resource = format!(
                r#"{{"dispute_id":"PP-1","reason":"NOT_RECEIVED","dispute_outcome":{{"outcome_code":"{code}"}},
                    "disputed_transactions":[{{"custom":"pay_1"}}]}}"#
            );
            let event = event(&format!("CUSTOMER.DISPUTE.{what}"), &resource).unwrap();
            assert_eq!(event.payment_id.as_deref(), Some("pay_1"));
            match event.change {
                Change::Dispute(dispute) => Some((dispute.opened, dispute.won)),
                _ => None,
            }
        };
        assert_eq!(dispute("CREATED", ""), Some((true, None)));
        assert_eq!(
            dispute("RESOLVED", "RESOLVED_SELLER_FAVOUR"),
            Some((false, Some(true)))
        );
        assert_eq!(
            dispute("RESOLVED", "RESOLVED_BUYER_FAVOUR"),
            Some((false, Some(false)))
        );
        assert_eq!(dispute("UPDATED", ""), None);
        assert!(
            matches!(event("PAYMENT.CAPTURE.REVERSED", CAPTURE).unwrap().change, Change::Dispute(d) if d.opened)
        );
    }

    #[test]
    fn other_events_and_broken_ones() {
        assert_eq!(
            event("BILLING.PLAN.CREATED", "[1]").unwrap().change,
            Change::Irrelevant
        );
        for resource in [
            "[1]",
            "{}",
            r#"{"amount":{"currency_code":"EUR","value":"19.999"}}"#,
        ] {
            let read = event("PAYMENT.CAPTURE.COMPLETED", resource);
            assert!(matches!(read, Err(WebhookError::Malformed(_))), "{resource}");
        }
        assert!(matches!(read(b"{", |_| None), Err(WebhookError::Malformed(_))));
    }
}
