//! Webhooks of Stripe: a header with a time and signatures in hexadecimal.
#![cfg_attr(fuzzing, no_main)]

use std::rc::Rc;

use oms_fuzz::delivery::{Control, NOW_MS, Signing, only_header};
use oms_fuzz::host::{Account, exponent, hex, hmac_sha256};
use oms_fuzz::json::{Words, edited};
use oms_fuzz::webhook::{Known, damaged, judge, only_event, receive, verified};
use oms_plugin_sdk::{Change, Delivery, Event, WebhookError};
use oms_plugin_stripe::Stripe;
use serde_json::Value;

oms_fuzz::target!(run);

const SECRET: &str = "whsec_test_secret";
const WORDS: Words = Words {
    names: &[
        "id",
        "object",
        "type",
        "created",
        "data",
        "status",
        "amount",
        "amount_received",
        "currency",
        "capture_method",
        "latest_charge",
        "last_payment_error",
        "metadata",
        "oms_payment",
        "oms_refund",
        "oms_flow",
        "payment_intent",
        "balance_transaction",
        "failure_balance_transaction",
        "reason",
        "code",
        "decline_code",
        "message",
        "next_action",
        "amount_capturable",
        "payment_method_details",
    ],
    values: &[
        r#""event""#,
        r#""v2.core.event""#,
        r#""payment_intent.created""#,
        r#""payment_intent.succeeded""#,
        r#""payment_intent.payment_failed""#,
        r#""payment_intent.canceled""#,
        r#""refund.created""#,
        r#""refund.updated""#,
        r#""refund.failed""#,
        r#""charge.refund.updated""#,
        r#""charge.refunded""#,
        r#""charge.dispute.created""#,
        r#""charge.dispute.closed""#,
        r#""requires_payment_method""#,
        r#""requires_capture""#,
        r#""requires_action""#,
        r#""processing""#,
        r#""succeeded""#,
        r#""canceled""#,
        r#""failed""#,
        r#""pending""#,
        r#""won""#,
        r#""lost""#,
        r#""warning_closed""#,
        r#""eur""#,
        r#""jpy""#,
        r#""mga""#,
        r#""isk""#,
        r#""ugx""#,
        r#""kwd""#,
        r#""clf""#,
        r#""xxx""#,
        r#""manual""#,
        r#""client""#,
        r#""pi_1""#,
        r#""pay_1""#,
        r#""ref_1""#,
        "100",
        "5120",
        r#"{"id":"ch_1"}"#,
        r#"{"code":"card_declined","message":"no"}"#,
        r#"{"oms_payment":"pay_1","oms_refund":"ref_1"}"#,
    ],
};

fn run(input: &[u8]) {
    let (control, text) = Control::read(input);
    let body = edited(text, &control.edits, &WORDS);
    let account = Account::new(&[], &[("webhook-secret", SECRET), ("api-key", "sk_test_kit0001")]);
    let delivery = sign(&control, body);
    let known = Known {
        authentic: signed_at(&delivery).is_some(),
        proper: matches!(control.signing(), Signing::Genuine | Signing::AmongOthers)
            && control.leaves_headers(),
        in_time: control.leaves_headers().then(|| control.is_in_time()),
    };
    let ask = |delivery: &Delivery| receive::<Stripe>(&account, Rc::new(account.clone()), delivery);
    let answer = ask(&delivery);
    judge(&answer, known, &delivery);
    let Some(verified) = verified(&answer) else {
        return;
    };

    let at_ms = verified.signed_at_ms.expect("Stripe signs the time");
    assert_eq!(Some(at_ms), signed_at(&delivery).map(|seconds| seconds * 1000));
    assert!(at_ms.abs_diff(NOW_MS / 1000 * 1000) <= u64::from(delivery.tolerance_seconds) * 1000);
    assert_eq!(verified.reply, None);
    says_what_was_sent(only_event(verified), &delivery.body);
    if let Some(damaged) = damaged(&delivery, control.damage) {
        assert_eq!(ask(&damaged), Err(WebhookError::BadSignature), "{damaged:?}");
    }
    assert_eq!(ask(&delivery), answer, "the same delivery twice");
}

fn sign(control: &Control, body: Vec<u8>) -> Delivery {
    let at = control.signed_seconds();
    let genuine = signature(SECRET, at, &body);
    let header = match control.signing() {
        Signing::Genuine => format!("t={at},v1={genuine}"),
        Signing::AmongOthers => format!("v0={genuine},v1=00,t=0{at},v1=zz,unknown,v1={genuine},v2="),
        Signing::OldKey => format!("t={at},v1={}", signature("whsec_old", at, &body)),
        Signing::WrongKey => format!("t={at},v1={}", signature("", at, &body)),
        Signing::OtherBody => format!("t={at},v1={}", signature(SECRET, at, &[&body[..], b" "].concat())),
        Signing::Garbage => String::from_utf8_lossy(&body).into_owned(),
        Signing::Absent => format!("t={at},v0={genuine}"),
    };
    let headers = vec![
        ("stripe-signature", header.into_bytes()),
        ("content-type", b"application/json".to_vec()),
    ];
    control.delivery(headers, body)
}

fn signature(secret: &str, seconds: u64, body: &[u8]) -> String {
    let message = [seconds.to_string().as_bytes(), b".", body].concat();
    hex(&hmac_sha256(secret.as_bytes(), &message))
}

/// The one time in the one header, if a signature beside it fits it and the body.
fn signed_at(delivery: &Delivery) -> Option<u64> {
    let header = only_header(delivery, "stripe-signature")?;
    let values = |name: &str| {
        let parts = header.split(',').filter_map(|part| part.split_once('='));
        let name = name.to_owned();
        // What follows a second sign belongs to nothing.
        parts
            .filter(move |(given, _)| *given == name)
            .map(|(_, value)| value.split('=').next().unwrap_or_default())
    };
    let mut times = values("t");
    let time = times.next().filter(|_| times.next().is_none())?;
    let seconds = time.parse().ok()?;
    let fits = signature(SECRET, seconds, &delivery.body);
    values("v1").any(|given| given == fits).then_some(seconds)
}

/// The event holds nothing but what stands in the body, and amounts are those of ISO 4217.
fn says_what_was_sent(event: &Event, body: &[u8]) {
    // A member that nobody asks for may hold bytes that are no text.
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    let object = &body["data"]["object"];
    // A list in the place of an object is read by the order of its items.
    if !body.is_object() || !object.is_object() {
        return;
    }
    assert_eq!(Some(event.id.as_str()), body["id"].as_str());
    assert_eq!(Some(event.kind.as_str()), body["type"].as_str());
    let currency = object["currency"].as_str().map(str::to_ascii_uppercase);
    match &event.change {
        Change::Payment(change) => {
            assert_eq!(event.reference.as_deref(), object["id"].as_str());
            assert_eq!(change.totals.currency, currency);
        }
        Change::Refund(change) => {
            assert_eq!(event.reference.as_deref(), object["payment_intent"].as_str());
            assert_eq!(Some(change.reference.as_str()), object["id"].as_str());
            let amount = change.amount.as_ref().expect("without an amount Stripe is asked");
            assert_eq!(Some(&amount.currency), currency.as_ref());
            assert_eq!(Some(amount.exponent), exponent(&amount.currency));
        }
        Change::Dispute(change) => {
            assert_eq!(event.reference.as_deref(), object["payment_intent"].as_str());
            assert!(
                change.won.is_none() || !change.opened,
                "an open dispute is not decided"
            );
        }
        Change::NeedsSync => assert!(event.reference.is_some(), "nobody could be asked: {event:?}"),
        Change::Irrelevant => {}
    }
}
