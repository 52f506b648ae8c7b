//! Webhooks of the fake bank.
#![cfg_attr(fuzzing, no_main)]

use oms_fuzz::delivery::Control;
use oms_fuzz::host::Account;
use oms_fuzz::json::{Words, edited};
use oms_fuzz::standard_webhooks::{SECRET, deliver};
use oms_plugin_mock::Mock;
use oms_plugin_sdk::{Change, Event};
use serde_json::Value;

oms_fuzz::target!(run);

const WORDS: Words = Words {
    names: &[
        "type",
        "created_at_ms",
        "data",
        "payment",
        "refund",
        "id",
        "merchant_payment_id",
        "merchant_refund_id",
        "status",
        "currency",
        "exponent",
        "authorized",
        "captured",
        "refunded",
        "canceled",
        "redirect_url",
        "decline_code",
        "captures",
        "refunds",
        "amount",
    ],
    values: &[
        r#""payment.captured""#,
        r#""payment.failed""#,
        r#""refund.succeeded""#,
        r#""refund.failed""#,
        r#""refund""#,
        r#""account.updated""#,
        r#""action_required""#,
        r#""authorized""#,
        r#""partially_captured""#,
        r#""captured""#,
        r#""canceled""#,
        r#""failed""#,
        r#""succeeded""#,
        r#""EUR""#,
        r#""JPY""#,
        r#""pay_1""#,
        r#""ref_1""#,
        "255",
        "1700000000000",
        r#"{"id":"rf_1","merchant_refund_id":"ref_1","amount":250,"status":"succeeded"}"#,
        r#"[{"id":"cp_1"}]"#,
    ],
};

fn run(input: &[u8]) {
    let (control, text) = Control::read(input);
    let body = edited(text, &control.edits, &WORDS);
    let account = Account::new(
        &[("base-url", "https://bank.test/mock-gateway")],
        &[("webhook-secret", SECRET), ("api-key", "kit-api-key-0001")],
    );
    if let Some(event) = deliver::<Mock>(&control, &account, body.clone()) {
        says_what_was_sent(&event, &body);
    }
}

/// The event holds nothing but what stands in the body.
fn says_what_was_sent(event: &Event, body: &[u8]) {
    // A member that nobody asks for may hold bytes that are no text.
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    // A list in the place of an object is read by the order of its items.
    let Some(payment) = body
        .pointer("/data/payment")
        .filter(|payment| payment.is_object())
    else {
        return;
    };
    let text = |name: &str| payment[name].as_str();
    assert_eq!(event.reference.as_deref(), text("id"));
    assert_eq!(event.payment_id.as_deref(), text("merchant_payment_id"));
    match &event.change {
        Change::Payment(change) => {
            assert_eq!(change.totals.currency.as_deref(), text("currency"));
            assert_eq!(change.totals.captured, payment["captured"].as_i64());
            assert_eq!(change.totals.refunded, payment["refunded"].as_i64());
        }
        Change::Refund(change) => {
            let amount = change.amount.as_ref().expect("the bank says how much");
            assert_eq!(Some(amount.currency.as_str()), text("currency"));
        }
        Change::Dispute(_) | Change::NeedsSync => panic!("the bank knows no such thing: {event:?}"),
        Change::Irrelevant => {}
    }
}
