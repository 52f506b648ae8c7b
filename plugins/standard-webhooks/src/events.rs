//! What a verified webhook says.

use crate::settings::Settings;
use crate::wire::View;
use oms_plugin_sdk::{Change, Event, PaymentEvent, PaymentStatus, RefundEvent, WebhookError, rfc3339};
use serde_json::Value;

/// `id` is the signed id of the message, the same in every attempt: it is what the host deduplicates by.
pub(crate) fn read(
    settings: &Settings,
    id: &str,
    body: &Value,
    exponent: impl Fn(&str) -> Option<u8>,
) -> Result<Event, WebhookError> {
    let envelope = View::new(settings, body, 0);
    let kind = envelope.text("event-kind").unwrap_or_else(|| "event".into());
    let Some(value) = View::find(settings, body, "event-payment").filter(|value| value.is_object()) else {
        // Gateways tell of other things too.
        return Ok(Event::new(id, kind, Change::Irrelevant));
    };
    // Without its currency a decimal cannot be read; the host would not take it either.
    let currency = View::new(settings, value, 0).currency();
    let payment = View::new(
        settings,
        value,
        currency.as_deref().and_then(exponent).unwrap_or(2),
    );
    let refund = View::find(settings, body, "event-refund").filter(|value| value.is_object());
    let change = match refund {
        Some(refund) => refund_change(settings, refund, &payment, currency.as_deref()),
        None => payment_change(&payment),
    };
    let occurred_at_ms = View::find(settings, body, "event-time").and_then(|at| match at {
        Value::Number(ms) => ms.as_u64(),
        Value::String(text) => rfc3339::parse_ms(text),
        _ => None,
    });
    Ok(Event {
        occurred_at_ms,
        reference: payment.text("field-reference"),
        payment_id: payment.text("field-payment-id"),
        ..Event::new(id, kind, change.map_err(WebhookError::Malformed)?)
    })
}

/// A word that nothing explains: the gateway is asked, and its answer tells the operator what is missing.
fn payment_change(payment: &View<'_>) -> Result<Change, String> {
    let Ok(status) = payment.status() else {
        return Ok(Change::NeedsSync);
    };
    Ok(Change::Payment(PaymentEvent {
        status: Some(status),
        totals: payment.totals()?,
        decline_code: match status {
            PaymentStatus::Failed => payment.text("field-decline-code"),
            _ => None,
        },
        operation_reference: None,
    }))
}

fn refund_change(
    settings: &Settings,
    value: &Value,
    payment: &View<'_>,
    currency: Option<&str>,
) -> Result<Change, String> {
    let refund = payment.of(settings, value);
    let (Ok(status), Some(reference)) = (refund.refund_status(), refund.text("refund-reference")) else {
        return Ok(Change::NeedsSync);
    };
    Ok(Change::Refund(RefundEvent {
        refund_id: refund.text("refund-id"),
        reference,
        status,
        amount: refund.refund_amount(currency)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;
    use crate::wire::SAMPLE;
    use oms_plugin_sdk::RefundStatus;
    use serde_json::json;

    fn read_with(more: &[(&str, &str)], body: &Value) -> Result<Event, WebhookError> {
        read(&settings(more).unwrap(), "evt_1", body, |code| {
            (code == "EUR").then_some(2)
        })
    }

    fn message(kind: &str) -> Value {
        let payment: Value = serde_json::from_str(SAMPLE).unwrap();
        json!({"type": kind, "created_at_ms": 1_700_000_000_000_u64, "data": {"payment": payment}})
    }

    #[test]
    fn payments_and_refunds() {
        let event = read_with(&[], &message("payment.captured")).unwrap();
        assert_eq!(
            (event.id.as_str(), event.kind.as_str()),
            ("evt_1", "payment.captured")
        );
        assert_eq!(
            (event.reference.as_deref(), event.payment_id.as_deref()),
            (Some("bp_1"), Some("pay_1"))
        );
        assert_eq!(event.occurred_at_ms, Some(1_700_000_000_000));
        assert!(matches!(event.change, Change::Payment(p) if p.totals.captured == Some(3_000)));
        let mut refund = message("refund.failed");
        refund["data"]["refund"] =
            json!({"id": "rf_2", "merchant_refund_id": "ref_2", "amount": 250, "status": "failed"});
        let Change::Refund(change) = read_with(&[], &refund).unwrap().change else {
            panic!("a refund expected");
        };
        assert_eq!(
            (change.status, change.refund_id.as_deref()),
            (RefundStatus::Failed, Some("ref_2"))
        );
        assert_eq!(change.amount.unwrap().minor, 250);
    }

    #[test]
    fn what_is_not_understood_is_asked_or_left() {
        let unknown_word = read_with(&[("word-partially-captured", "PARTLY")], &message("x")).unwrap();
        assert_eq!(unknown_word.change, Change::NeedsSync);
        for body in [
            json!({}),
            json!([]),
            json!({"type": "account.updated", "data": {}}),
        ] {
            assert_eq!(
                read_with(&[], &body).unwrap().change,
                Change::Irrelevant,
                "{body}"
            );
        }
        let mut odd = message("payment.captured");
        odd["data"]["payment"]["captured"] = json!("30.00");
        assert!(matches!(read_with(&[], &odd), Err(WebhookError::Malformed(_))));
    }
}
