//! Notifications: batches of items, and what each says in the words of the contract. An item is believed as far as it is
//! signed: `eventDate` and `reason` are for display, and of `additionalData` nothing but the signature is read.

use crate::amounts::Amount;
use crate::merchant_reference::{Flow, MerchantReference};
use oms_plugin_sdk::{
    CaptureMode, Change, DisputeEvent, Event, Money, Outcome, PaymentEvent, PaymentStatus, RefundEvent,
    RefundStatus, Reply, Totals, Verified, WebhookError, rfc3339,
};
use serde::Deserialize;

/// Adyen sends up to six; the host reads no more than this from one delivery.
const MAX_ITEMS: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch {
    notification_items: Vec<Wrapped>,
}

#[derive(Deserialize)]
struct Wrapped {
    #[serde(rename = "NotificationRequestItem")]
    item: Item,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Item {
    pub(crate) psp_reference: String,
    pub(crate) original_reference: Option<String>,
    pub(crate) merchant_account_code: String,
    #[serde(default)]
    pub(crate) merchant_reference: String,
    pub(crate) amount: Amount,
    pub(crate) event_code: String,
    /// The text "true" or "false".
    pub(crate) success: String,
    event_date: Option<String>,
    reason: Option<String>,
    additional_data: Option<Additional>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Additional {
    hmac_signature: Option<String>,
}

impl Item {
    pub(crate) fn signature(&self) -> Option<&str> {
        self.additional_data.as_ref()?.hmac_signature.as_deref()
    }
}

pub(crate) fn items(body: &[u8]) -> Result<Vec<Item>, WebhookError> {
    let batch: Batch =
        serde_json::from_slice(body).map_err(|error| WebhookError::Malformed(error.to_string()))?;
    if !(1..=MAX_ITEMS).contains(&batch.notification_items.len()) {
        let many = batch.notification_items.len();
        return Err(WebhookError::Malformed(format!(
            "{many} items, 1 to {MAX_ITEMS} are read"
        )));
    }
    Ok(batch
        .notification_items
        .into_iter()
        .map(|wrapped| wrapped.item)
        .collect())
}

/// Adyen takes a delivery as accepted when it reads this.
pub(crate) fn outcome(items: &[Item]) -> Result<Outcome, WebhookError> {
    Ok(Outcome::Verified(Verified {
        events: items.iter().map(event).collect::<Result<_, _>>()?,
        signed_at_ms: None,
        replay_key: None,
        reply: Some(Reply {
            status: 200,
            content_type: Some("text/plain".into()),
            body: b"[accepted]".to_vec(),
        }),
    }))
}

fn event(item: &Item) -> Result<Event, WebhookError> {
    let success = match item.success.as_str() {
        "true" => true,
        "false" => false,
        other => return Err(WebhookError::Malformed(format!("success is {other:?}"))),
    };
    let ours = MerchantReference::parse(&item.merchant_reference);
    let refund = item
        .merchant_reference
        .starts_with("ref_")
        .then_some(&item.merchant_reference);
    let change = match (&ours, refund) {
        // The merchant account is shared with another system.
        (None, None) => Change::Irrelevant,
        _ => change(item, success, ours.as_ref(), refund)?,
    };
    // A modification has a reference of its own and names that of the payment.
    let original = item.original_reference.as_ref().filter(|text| !text.is_empty());
    Ok(Event {
        occurred_at_ms: item.event_date.as_deref().and_then(rfc3339::parse_ms),
        reference: Some(original.unwrap_or(&item.psp_reference).clone()),
        payment_id: ours.map(|reference| reference.payment_id),
        // Adyen repeats an item with the same reference and code, and may tell a failure and then a success.
        ..Event::new(
            format!("{}:{}:{success}", item.event_code, item.psp_reference),
            &item.event_code,
            change,
        )
    })
}

fn change(
    item: &Item,
    success: bool,
    ours: Option<&MerchantReference>,
    refund: Option<&String>,
) -> Result<Change, WebhookError> {
    Ok(match (item.event_code.as_str(), success) {
        ("AUTHORISATION", true) => authorised(item, ours)?,
        // On its page the customer may try again.
        ("AUTHORISATION", false) if ours.is_some_and(|reference| reference.flow == Flow::Link) => {
            Change::Irrelevant
        }
        ("AUTHORISATION", false) => payment(
            Some(PaymentStatus::Failed),
            Totals::default(),
            Some("refused"),
            None,
        ),
        ("CAPTURE", true) => payment(
            Some(PaymentStatus::Captured),
            Totals {
                captured: Some(minor(item)?),
                ..totals(item)
            },
            None,
            Some(&item.psp_reference),
        ),
        ("CAPTURE" | "CAPTURE_FAILED", _) => payment(
            None,
            Totals::default(),
            Some("capture_failed"),
            Some(&item.psp_reference),
        ),
        ("CANCELLATION" | "TECHNICAL_CANCEL" | "EXPIRE", true) => payment(
            Some(PaymentStatus::Canceled),
            Totals::default(),
            None,
            Some(&item.psp_reference),
        ),
        ("REFUND" | "REFUND_FAILED" | "REFUNDED_REVERSED", _) => match refund {
            Some(id) => refunded(item, success, id)?,
            None => needs_person(item, "a refund that was made at Adyen"),
        },
        ("CANCEL_OR_REFUND", true) => needs_person(item, "made at Adyen"),
        ("CHARGEBACK" | "NOTIFICATION_OF_CHARGEBACK" | "REQUEST_FOR_INFORMATION", true) => {
            dispute(item, true, None)
        }
        ("SECOND_CHARGEBACK" | "PREARBITRATION_LOST", true) => dispute(item, false, Some(false)),
        ("CHARGEBACK_REVERSED" | "PREARBITRATION_WON", true) => dispute(item, false, Some(true)),
        _ => Change::Irrelevant,
    })
}

fn authorised(item: &Item, ours: Option<&MerchantReference>) -> Result<Change, WebhookError> {
    let minor = minor(item)?;
    let automatic = ours.is_some_and(|reference| reference.capture == CaptureMode::Automatic);
    let status = match automatic {
        true => PaymentStatus::Captured,
        false => PaymentStatus::Authorized,
    };
    let totals = Totals {
        authorized: Some(minor),
        captured: automatic.then_some(minor),
        ..totals(item)
    };
    Ok(payment(Some(status), totals, None, None))
}

fn payment(
    status: Option<PaymentStatus>,
    totals: Totals,
    decline_code: Option<&str>,
    operation: Option<&String>,
) -> Change {
    Change::Payment(PaymentEvent {
        status,
        totals,
        decline_code: decline_code.map(str::to_owned),
        operation_reference: operation.cloned(),
    })
}

/// That a refund failed may be told after it was said to have succeeded: then it has come back.
fn refunded(item: &Item, success: bool, refund_id: &str) -> Result<Change, WebhookError> {
    let status = match (item.event_code.as_str(), success) {
        ("REFUND", true) => RefundStatus::Succeeded,
        ("REFUND", false) => RefundStatus::Failed,
        _ => RefundStatus::Reversed,
    };
    Ok(Change::Refund(RefundEvent {
        refund_id: Some(refund_id.to_owned()),
        // `REFUND_FAILED` comes with the reference of the refund itself.
        reference: item.psp_reference.clone(),
        status,
        amount: Some(Money {
            minor: minor(item)?,
            currency: item.amount.currency.clone(),
            // The host looks at the number and the currency.
            exponent: 0,
        }),
    }))
}

fn dispute(item: &Item, opened: bool, won: Option<bool>) -> Change {
    Change::Dispute(DisputeEvent {
        // The one name that all notifications of a dispute have in common.
        reference: item
            .original_reference
            .clone()
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| item.psp_reference.clone()),
        opened,
        won,
        amount: None,
        reason: Some(match &item.reason {
            Some(reason) if !reason.is_empty() => format!("{}: {reason}", item.event_code),
            _ => item.event_code.clone(),
        }),
    })
}

/// Money moved without us and cannot be asked about: the contract's way to call a person is a dispute.
fn needs_person(item: &Item, what: &str) -> Change {
    Change::Dispute(DisputeEvent {
        reference: item.psp_reference.clone(),
        opened: true,
        won: None,
        amount: None,
        reason: Some(format!(
            "{}, {what}: {} {} in Adyen's minor units",
            item.event_code, item.amount.value, item.amount.currency
        )),
    })
}

fn totals(item: &Item) -> Totals {
    Totals {
        currency: Some(item.amount.currency.clone()),
        ..Totals::default()
    }
}

fn minor(item: &Item) -> Result<i64, WebhookError> {
    item.amount.minor().ok_or_else(|| {
        let Amount { value, currency } = &item.amount;
        WebhookError::Malformed(format!("{value} is no amount of {currency}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(code: &str, success: &str, merchant_reference: &str) -> Item {
        Item {
            psp_reference: "PSP2".into(),
            original_reference: Some("PSP1".into()),
            merchant_account_code: "Shop".into(),
            merchant_reference: merchant_reference.into(),
            amount: Amount {
                value: 1_999,
                currency: "EUR".into(),
            },
            event_code: code.into(),
            success: success.into(),
            event_date: Some("2026-01-01T00:00:00+00:00".into()),
            reason: Some("Fraud".into()),
            additional_data: None,
        }
    }

    fn read(code: &str, success: &str, reference: &str) -> Event {
        event(&item(code, success, reference)).unwrap()
    }

    fn status(event: &Event) -> Option<PaymentStatus> {
        match &event.change {
            Change::Payment(change) => change.status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_authorisation_by_capture_and_flow() {
        let first = Item {
            original_reference: None,
            ..item("AUTHORISATION", "true", "pay_1.a")
        };
        let captured = event(&first).unwrap();
        assert_eq!(status(&captured), Some(PaymentStatus::Captured));
        assert_eq!(
            (captured.reference.as_deref(), captured.payment_id.as_deref()),
            (Some("PSP2"), Some("pay_1"))
        );
        assert_eq!(captured.id, "AUTHORISATION:PSP2:true");
        assert_eq!(
            status(&read("AUTHORISATION", "true", "pay_1.ml")),
            Some(PaymentStatus::Authorized)
        );
        assert_eq!(
            status(&read("AUTHORISATION", "false", "pay_1.a")),
            Some(PaymentStatus::Failed)
        );
        assert_eq!(
            read("AUTHORISATION", "false", "pay_1.al").change,
            Change::Irrelevant
        );
    }

    #[test]
    fn modifications_name_their_payment() {
        let capture = read("CAPTURE", "true", "pay_1.m");
        assert_eq!(capture.reference.as_deref(), Some("PSP1"));
        let Change::Payment(change) = &capture.change else {
            panic!("{capture:?}");
        };
        assert_eq!(
            (change.totals.captured, change.operation_reference.as_deref()),
            (Some(1_999), Some("PSP2"))
        );
        for code in ["CAPTURE", "CAPTURE_FAILED"] {
            let Change::Payment(change) = read(code, "false", "pay_1.m").change else {
                panic!("{code}");
            };
            assert_eq!(
                (change.status, change.decline_code.as_deref()),
                (None, Some("capture_failed"))
            );
        }
        assert_eq!(
            status(&read("CANCELLATION", "true", "pay_1.m")),
            Some(PaymentStatus::Canceled)
        );
        assert_eq!(
            read("CANCELLATION", "false", "pay_1.m").change,
            Change::Irrelevant
        );
    }

    #[test]
    fn refunds_end_well_or_not() {
        for (code, success, status) in [
            ("REFUND", "true", RefundStatus::Succeeded),
            ("REFUND", "false", RefundStatus::Failed),
            ("REFUND_FAILED", "true", RefundStatus::Reversed),
            ("REFUNDED_REVERSED", "true", RefundStatus::Reversed),
        ] {
            let Change::Refund(change) = read(code, success, "ref_1").change else {
                panic!("{code}");
            };
            assert_eq!(
                (change.status, change.refund_id.as_deref()),
                (status, Some("ref_1")),
                "{code} {success}"
            );
        }
        // Somebody made it at Adyen: a person must look.
        assert!(matches!(read("REFUND", "true", "pay_1.a").change, Change::Dispute(d) if d.opened));
    }

    #[test]
    fn disputes_open_and_close() {
        let dispute = |code| match read(code, "true", "pay_1.a").change {
            Change::Dispute(dispute) => (dispute.opened, dispute.won, dispute.reference),
            other => panic!("{other:?}"),
        };
        assert_eq!(dispute("CHARGEBACK"), (true, None, "PSP1".into()));
        assert_eq!(dispute("CHARGEBACK_REVERSED"), (false, Some(true), "PSP1".into()));
        assert_eq!(dispute("SECOND_CHARGEBACK"), (false, Some(false), "PSP1".into()));
    }

    #[test]
    fn other_systems_and_other_codes_are_none_of_ours() {
        assert_eq!(
            read("AUTHORISATION", "true", "order-7").change,
            Change::Irrelevant
        );
        assert_eq!(
            read("REPORT_AVAILABLE", "true", "pay_1.a").change,
            Change::Irrelevant
        );
    }

    #[test]
    fn what_cannot_be_read_is_malformed() {
        let broken = |body: &str| items(body.as_bytes());
        for body in [
            "",
            "[]",
            r#"{"notificationItems":[]}"#,
            r#"{"notificationItems":[{}]}"#,
            // The text is signed, not the boolean.
            r#"{"notificationItems":[{"NotificationRequestItem":{"pspReference":"p","merchantAccountCode":"m",
                "amount":{"value":1,"currency":"EUR"},"eventCode":"CAPTURE","success":true}}]}"#,
        ] {
            assert!(matches!(broken(body), Err(WebhookError::Malformed(_))), "{body}");
        }
        assert!(matches!(
            event(&item("CAPTURE", "TRUE", "pay_1.m")),
            Err(WebhookError::Malformed(_))
        ));
        let mut odd = item("CAPTURE", "true", "pay_1.m");
        odd.amount = Amount {
            value: 150,
            currency: "ISK".into(),
        };
        assert!(matches!(event(&odd), Err(WebhookError::Malformed(_))));
    }
}
