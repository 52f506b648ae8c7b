//! Webhooks of gateways that only the settings of an account describe.
#![cfg_attr(fuzzing, no_main)]

use oms_fuzz::delivery::Control;
use oms_fuzz::host::{Account, exponent};
use oms_fuzz::json::{Words, edited};
use oms_fuzz::standard_webhooks::{SECRET, deliver};
use oms_plugin_sdk::{Change, Event};
use oms_plugin_standard_webhooks::StandardWebhooks;

oms_fuzz::target!(run);

const WORDS: Words = Words {
    names: &[
        "type",
        "created_at_ms",
        "data",
        "payment",
        "refund",
        "id",
        "order",
        "merchant_payment_id",
        "status",
        "state",
        "currency",
        "authorized",
        "captured",
        "refunded",
        "canceled",
        "amount",
        "sum",
        "cur",
        "no",
        "name",
        "decline",
        "0",
        "a/b",
        "~",
    ],
    values: &[
        r#""payment.captured""#,
        r#""refund.succeeded""#,
        r#""pending""#,
        r#""authorized""#,
        r#""captured""#,
        r#""partially_captured""#,
        r#""paid""#,
        r#""failed""#,
        r#""voided""#,
        r#""reversed""#,
        r#""SETTLED""#,
        r#""EUR""#,
        r#""jpy""#,
        r#""kwd""#,
        r#""XXX""#,
        r#""pay_1""#,
        r#""ref_1""#,
        r#""19.99""#,
        r#""-0.05""#,
        "1999",
        "19.990",
        "1767323045000",
        r#""2026-01-01T00:00:00.12Z""#,
        r#"{"id":"r_1","order":"ref_1","amount":250,"status":"succeeded"}"#,
        r#"{"no":77,"state":"SETTLED","sum":{"cur":"eur","paid":"19.90"}}"#,
    ],
};

/// Gateways by their settings; the first is that of the plugin's own tests.
const ACCOUNTS: [&[(&str, &str)]; 4] = [
    &[
        ("event-payment", "/data"),
        ("event-refund", "/refund"),
        ("field-payment-id", "/order"),
        ("field-authorized", "/authorized"),
        ("field-captured", "/captured"),
        ("field-refunded", "/refunded"),
        ("refund-id", "/order"),
    ],
    &[
        ("event-payment", "/data/payment"),
        ("event-refund", "/data/refund"),
        ("event-time", "/created_at_ms"),
        ("field-payment-id", "/merchant_payment_id"),
        ("field-authorized", "/authorized"),
        ("field-captured", "/captured"),
        ("field-refunded", "/refunded"),
        ("field-canceled", "/canceled"),
        ("field-decline-code", "/decline"),
        ("refund-id", "/merchant_refund_id"),
    ],
    &[
        ("amounts", "decimal"),
        ("currency-case", "lower"),
        ("event-kind", ""),
        ("event-time", "/at"),
        ("event-payment", ""),
        ("event-refund", "/refund/0"),
        ("field-reference", "/payment/no"),
        ("field-status", "/payment/state"),
        ("field-currency", "/payment/sum/cur"),
        ("field-captured", "/payment/sum/paid"),
        ("word-captured", "SETTLED"),
        ("refund-status", "/a~1b"),
    ],
    // What is missing or wrong is said, whatever comes.
    &[("event-payment", "data")],
];

fn run(input: &[u8]) {
    let (control, text) = Control::read(input);
    let number = usize::from(control.account) % ACCOUNTS.len();
    let body = edited(text, &control.edits, &WORDS);
    let mut account = Account::new(
        &[("base-url", "https://bank.test")],
        &[("webhook-secret", SECRET), ("api-key", "test-api-key-0001")],
    );
    for (name, value) in ACCOUNTS[number] {
        account = account.with(name, *value);
    }
    if number == 3 {
        assert_misconfigured(&control, &account, body);
    } else if let Some(event) = deliver::<StandardWebhooks>(&control, &account, body) {
        is_an_event(&event);
    }
}

fn assert_misconfigured(control: &Control, account: &Account, body: Vec<u8>) {
    use oms_plugin_sdk::WebhookError;

    let delivery = control.delivery(Vec::new(), body);
    let host = std::rc::Rc::new(account.clone());
    let answer = oms_fuzz::webhook::receive::<StandardWebhooks>(account, host, &delivery);
    assert!(
        matches!(answer, Err(WebhookError::Misconfigured(_))),
        "{answer:?}"
    );
}

fn is_an_event(event: &Event) {
    // An empty text is none.
    assert!(event.reference.as_ref().is_none_or(|text| !text.is_empty()));
    assert!(event.payment_id.as_ref().is_none_or(|text| !text.is_empty()));
    match &event.change {
        Change::Payment(change) => {
            let currency = change.totals.currency.as_ref();
            assert!(currency.is_none_or(|code| code.bytes().all(|b| !b.is_ascii_lowercase())));
        }
        Change::Refund(change) => {
            if let Some(amount) = &change.amount {
                assert_eq!(amount.exponent, exponent(&amount.currency).unwrap_or(2));
            }
        }
        Change::Dispute(_) => panic!("no setting tells of disputes: {event:?}"),
        Change::NeedsSync | Change::Irrelevant => {}
    }
}
