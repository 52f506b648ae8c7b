//! What a verified webhook says.

use crate::wire;
use oms_plugin_sdk::{Change, Event, PaymentEvent, RefundEvent, WebhookError};
use serde::Deserialize;

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    created_at_ms: u64,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    payment: wire::Payment,
    refund: Option<wire::Refund>,
}

/// `id` is the signed message id, the same in every attempt: it is what the host deduplicates by.
pub(crate) fn read(id: &str, body: &[u8]) -> Result<Event, WebhookError> {
    let message: Message =
        serde_json::from_slice(body).map_err(|error| WebhookError::Malformed(error.to_string()))?;
    let payment = message.data.payment;
    let change = match (message.kind.split_once('.'), message.data.refund) {
        (Some(("payment", _)), _) => Change::Payment(PaymentEvent {
            status: Some(payment.status.contract()),
            totals: payment.totals(),
            decline_code: payment.decline_code.clone(),
            operation_reference: None,
        }),
        (Some(("refund", _)), Some(refund)) => Change::Refund(RefundEvent {
            refund_id: refund.merchant_refund_id.clone(),
            status: refund.status.contract(),
            amount: Some(payment.money(refund.amount)),
            reference: refund.id,
        }),
        (Some(("refund", _)), None) => {
            return Err(WebhookError::Malformed("a refund event without a refund".into()));
        }
        // The bank may learn to tell more than this plugin understands.
        _ => Change::Irrelevant,
    };
    Ok(Event {
        occurred_at_ms: Some(message.created_at_ms),
        reference: Some(payment.id),
        payment_id: Some(payment.merchant_payment_id),
        ..Event::new(id, message.kind, change)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oms_plugin_sdk::{PaymentStatus, RefundStatus};

    fn message(kind: &str, refund: &str) -> String {
        let payment = wire::SAMPLE;
        format!(r#"{{"type":"{kind}","created_at_ms":1700000000000,"data":{{"payment":{payment}{refund}}}}}"#)
    }

    #[test]
    fn payment_events_carry_totals() {
        let event = read("evt_1", message("payment.captured", "").as_bytes()).unwrap();
        assert_eq!(event.id, "evt_1");
        assert_eq!(event.reference.as_deref(), Some("bp_1"));
        assert_eq!(event.payment_id.as_deref(), Some("pay_1"));
        let Change::Payment(change) = event.change else {
            panic!("a payment event expected");
        };
        assert_eq!(change.status, Some(PaymentStatus::PartiallyCaptured));
        assert_eq!(change.totals.refunded, Some(1000));
    }

    #[test]
    fn refund_events_name_our_refund() {
        let refund = r#","refund":{"id":"rf_2","merchant_refund_id":"ref_2","amount":250,"status":"failed"}"#;
        let event = read("evt_2", message("refund.failed", refund).as_bytes()).unwrap();
        let Change::Refund(change) = event.change else {
            panic!("a refund event expected");
        };
        assert_eq!(change.refund_id.as_deref(), Some("ref_2"));
        assert_eq!(change.status, RefundStatus::Failed);
        assert_eq!(change.amount.unwrap().minor, 250);
    }

    #[test]
    fn unknown_kinds_are_irrelevant_and_broken_bodies_malformed() {
        let unknown = read("evt_3", message("account.updated", "").as_bytes()).unwrap();
        assert_eq!(unknown.change, Change::Irrelevant);
        for broken in ["", "[]", "{}", &message("refund.failed", "")] {
            let result = read("evt_4", broken.as_bytes());
            assert!(matches!(result, Err(WebhookError::Malformed(_))), "{broken}");
        }
    }
}
