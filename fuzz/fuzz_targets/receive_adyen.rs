//! Notifications of Adyen: batches of items of which each is signed by itself, over eight of its members.
#![cfg_attr(fuzzing, no_main)]

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oms_fuzz::delivery::{Control, Signing, headers};
use oms_fuzz::host::{Account, from_hex, hmac_sha256};
use oms_fuzz::json::{Words, edited};
use oms_fuzz::webhook::{Known, judge, receive, verified};
use oms_plugin_adyen::Adyen;
use oms_plugin_sdk::{Change, Delivery, Event, WebhookError};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

oms_fuzz::target!(run);

const KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
const OLD_KEY: &str = "AF3D9E2B6C01F4D2581B7A6099C3E5D7A1B2C3D4E5F60718293A4B5C6D7E8F90";
const USER: &str = "oms";
const PASSWORD: &str = "a pass:word";
/// The members that are signed, in their order.
const SIGNED: [&str; 8] = [
    "pspReference",
    "originalReference",
    "merchantAccountCode",
    "merchantReference",
    "value",
    "currency",
    "eventCode",
    "success",
];
const WORDS: Words = Words {
    names: &[
        "notificationItems",
        "NotificationRequestItem",
        "pspReference",
        "originalReference",
        "merchantAccountCode",
        "merchantReference",
        "amount",
        "value",
        "currency",
        "eventCode",
        "success",
        "eventDate",
        "reason",
        "additionalData",
        "hmacSignature",
        "live",
    ],
    values: &[
        r#""AUTHORISATION""#,
        r#""CAPTURE""#,
        r#""CAPTURE_FAILED""#,
        r#""CANCELLATION""#,
        r#""TECHNICAL_CANCEL""#,
        r#""EXPIRE""#,
        r#""REFUND""#,
        r#""REFUND_FAILED""#,
        r#""REFUNDED_REVERSED""#,
        r#""CANCEL_OR_REFUND""#,
        r#""CHARGEBACK""#,
        r#""NOTIFICATION_OF_CHARGEBACK""#,
        r#""REQUEST_FOR_INFORMATION""#,
        r#""SECOND_CHARGEBACK""#,
        r#""PREARBITRATION_LOST""#,
        r#""CHARGEBACK_REVERSED""#,
        r#""PREARBITRATION_WON""#,
        r#""REPORT_AVAILABLE""#,
        r#""true""#,
        r#""false""#,
        r#""pay_1.a""#,
        r#""pay_1.al""#,
        r#""pay_1.m""#,
        r#""pay_1.ml""#,
        r#""ref_1""#,
        r#""order-7""#,
        r#""EUR""#,
        r#""CLP""#,
        r#""ISK""#,
        r#""IDR""#,
        r#""CVE""#,
        r#""PSP1""#,
        r#""a:b""#,
        "100",
        r#""2026-01-01T00:00:00+01:00""#,
        r#"{"value":1999,"currency":"EUR"}"#,
        r#"{"hmacSignature":"coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0="}"#,
    ],
};

fn run(input: &[u8]) {
    let (control, text) = Control::read(input);
    let body = signed(&control, edited(text, &control.edits, &WORDS));
    let asks_for_password = control.account % 2 == 1;
    let mut account = Account::new(
        &[
            ("base-url", "https://checkout-test.adyen.com/v71"),
            ("merchant-account", "ShopEU"),
        ],
        &[
            ("api-key", "AQEtest0001"),
            ("hmac-key", KEY),
            ("hmac-key-old", OLD_KEY),
            ("notification-password", PASSWORD),
        ],
    );
    if asks_for_password {
        account = account.with("notification-user", USER);
    }
    let credentials = match control.account / 2 % 4 {
        0 => format!("Basic {}", BASE64.encode(format!("{USER}:{PASSWORD}"))),
        1 => format!("Basic {}", BASE64.encode(format!("{USER}:wrong"))),
        2 => format!("Basic {}", BASE64.encode(format!("other:{PASSWORD}"))),
        _ => String::from_utf8_lossy(&body).into_owned(),
    };
    let delivery = control.delivery(vec![("authorization", credentials.into_bytes())], body);
    let let_in = !asks_for_password || has_password(&delivery);
    let genuine = matches!(
        control.signing(),
        Signing::Genuine | Signing::AmongOthers | Signing::OldKey
    );
    let known = Known {
        authentic: let_in && is_authentic(&delivery.body),
        // What cannot be signed, such as a batch without items, is malformed.
        proper: let_in && genuine && is_authentic(&delivery.body),
        in_time: None,
    };
    let ask = |delivery: &Delivery| receive::<Adyen>(&account, Rc::new(account.clone()), delivery);
    let answer = ask(&delivery);
    judge(&answer, known, &delivery);
    let Some(verified) = verified(&answer) else {
        return;
    };

    assert_eq!(
        (verified.signed_at_ms, verified.replay_key.as_deref()),
        (None, None)
    );
    let reply = verified.reply.as_ref().expect("Adyen waits for its words");
    assert_eq!(
        (reply.status, reply.body.as_slice()),
        (200, b"[accepted]".as_slice())
    );
    let items = items(&delivery.body).expect("what was believed can be read");
    assert_eq!(items.len(), verified.events.len(), "an event for each item");
    for (event, item) in verified.events.iter().zip(&items) {
        says_what_was_sent(event, item);
    }
    forged_among_genuine(&control, &delivery, &ask);
    assert_eq!(ask(&delivery), answer, "the same delivery twice");
}

/// One item that is not genuine spoils the delivery.
fn forged_among_genuine(
    control: &Control,
    delivery: &Delivery,
    ask: &dyn Fn(&Delivery) -> oms_fuzz::webhook::Answer,
) {
    let Ok(mut body) = serde_json::from_slice::<Value>(&delivery.body) else {
        return;
    };
    let count = items(&delivery.body).map_or(1, |items| items.len());
    let item = format!(
        "/notificationItems/{}/NotificationRequestItem",
        usize::from(control.damage) % count
    );
    let name = SIGNED[usize::from(control.damage >> 8) % SIGNED.len()];
    let place = match name {
        "value" | "currency" => format!("{item}/amount/{name}"),
        _ => format!("{item}/{name}"),
    };
    let Some(member) = body.pointer_mut(&place) else {
        return;
    };
    match member {
        Value::String(text) => text.push('1'),
        Value::Number(number) => *member = number.as_i64().map_or(0, |n| n ^ 1).into(),
        _ => return,
    }
    let mut forged = delivery.clone();
    forged.body = body.to_string().into_bytes();
    assert_eq!(ask(&forged), Err(WebhookError::BadSignature), "{forged:?}");
}

/// Signs the items that are there, as the control says.
fn signed(control: &Control, body: Vec<u8>) -> Vec<u8> {
    let key = match control.signing() {
        Signing::Genuine | Signing::AmongOthers | Signing::OtherBody => KEY,
        Signing::OldKey => OLD_KEY,
        Signing::WrongKey => "00",
        Signing::Garbage => return body,
        Signing::Absent => "",
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(&body) else {
        return body;
    };
    let Some(items) = value.get_mut("notificationItems").and_then(Value::as_array_mut) else {
        return body;
    };
    for item in items {
        let Some(item) = item
            .get_mut("NotificationRequestItem")
            .filter(|item| item.is_object())
        else {
            continue;
        };
        let signature = match (message(item), key) {
            (Some(message), key) if !key.is_empty() => signature(key, &message),
            _ => continue,
        };
        if control.signing() == Signing::OtherBody {
            item["success"] = Value::from("false");
            item["eventCode"] = Value::from("CAPTURE");
        }
        item["additionalData"] = serde_json::json!({ "hmacSignature": signature });
    }
    value.to_string().into_bytes()
}

fn signature(key: &str, message: &str) -> String {
    BASE64.encode(hmac_sha256(&from_hex(key), message.as_bytes()))
}

/// What Adyen signs of an item; none when a member is missing.
fn message(item: &Value) -> Option<String> {
    let item: Item = serde_json::from_value(item.clone()).ok()?;
    Some(item.message())
}

fn is_authentic(body: &[u8]) -> bool {
    let is_signed = |item: &Item| {
        let given = item
            .additional_data
            .as_ref()
            .and_then(|more| more.hmac_signature.as_deref());
        let fits = |key| given == Some(signature(key, &item.message()).as_str());
        fits(KEY) || fits(OLD_KEY)
    };
    items(body).is_some_and(|items| !items.is_empty() && items.iter().all(is_signed))
}

fn items(body: &[u8]) -> Option<Vec<Item>> {
    let batch: Batch = serde_json::from_slice(body).ok()?;
    Some(
        batch
            .notification_items
            .into_iter()
            .map(|wrapped| wrapped.item)
            .collect(),
    )
}

/// What is read of a batch apart from the plugin. Other members may hold anything, even bytes that are no text.
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    psp_reference: String,
    original_reference: Option<String>,
    merchant_account_code: String,
    #[serde(default)]
    merchant_reference: String,
    amount: Amount,
    event_code: String,
    success: String,
    // A list in the place of an object is read by the order of its items, so that these have their places.
    #[serde(rename = "eventDate")]
    _event_date: Option<IgnoredAny>,
    #[serde(rename = "reason")]
    _reason: Option<IgnoredAny>,
    additional_data: Option<Additional>,
}

#[derive(Deserialize)]
struct Amount {
    value: i64,
    currency: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Additional {
    hmac_signature: Option<String>,
}

impl Item {
    fn message(&self) -> String {
        let Amount { value, currency } = &self.amount;
        format!(
            "{}:{}:{}:{}:{value}:{currency}:{}:{}",
            self.psp_reference,
            self.original_reference.as_deref().unwrap_or_default(),
            self.merchant_account_code,
            self.merchant_reference,
            self.event_code,
            self.success
        )
    }
}

fn has_password(delivery: &Delivery) -> bool {
    let first = headers(delivery, "authorization").first().copied();
    let text = first.and_then(|value| std::str::from_utf8(value).ok());
    let Some((scheme, encoded)) = text.and_then(|text| text.split_once(' ')) else {
        return false;
    };
    let expected = format!("{USER}:{PASSWORD}").into_bytes();
    scheme.eq_ignore_ascii_case("basic") && BASE64.decode(encoded.trim()) == Ok(expected)
}

/// What an event says is what was signed.
fn says_what_was_sent(event: &Event, item: &Item) {
    let (code, own) = (&item.event_code, &item.psp_reference);
    assert_eq!(event.id, format!("{code}:{own}:{}", item.success));
    assert_eq!(&event.kind, code);
    let original = item.original_reference.as_ref().filter(|text| !text.is_empty());
    assert_eq!(event.reference.as_ref(), original.or(Some(own)));
    let ours = &item.merchant_reference;
    let is_ours = |id: &String| id.starts_with("pay_") && ours.starts_with(id);
    assert!(
        event.payment_id.as_ref().is_none_or(is_ours),
        "{event:?} of {ours}"
    );
    match &event.change {
        Change::Payment(change) => {
            assert!(
                change
                    .totals
                    .currency
                    .as_ref()
                    .is_none_or(|code| *code == item.amount.currency)
            );
            assert!(event.payment_id.is_some() || ours.starts_with("ref_"));
        }
        Change::Refund(change) => assert_eq!(change.refund_id.as_ref(), Some(ours)),
        Change::Dispute(change) => assert!(change.won.is_none() || !change.opened),
        Change::NeedsSync => panic!("Adyen cannot be asked"),
        Change::Irrelevant => {}
    }
}
