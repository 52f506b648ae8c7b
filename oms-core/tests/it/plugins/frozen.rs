//! Version 1.0 of the contract is frozen: a plugin that was built against it runs for as long as the host speaks
//! `oms:payment@1`. A copy of the text and a component of the day it was frozen stand in the fixtures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oms_core::payments::{Change, Delivery, GatewayStatus, Received, Secret};
use oms_core::{Actor, PaymentId, Timestamp};

use super::guests::{Sandbox, asking, start_request};
use super::network::{Server, answer};

const FROZEN: &str = include_str!("../../fixtures/contract/payment-1.0.0.wit");
const PRESENT: &str = include_str!("../../../wit/payment.wit");

/// What plugins export. The component model compares these as a whole: one function more in `gateway`, and no old plugin
/// has it.
const OFFERED_BY_PLUGINS: [&str; 4] = ["types", "descriptor", "gateway", "webhooks"];

/// The items of each interface and world, without comments and blanks.
fn items(wit: &str) -> BTreeMap<String, Vec<String>> {
    let bare: String = wit
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ");
    let mut blocks = BTreeMap::new();
    let mut rest = bare.as_str();
    while let Some((head, body)) = rest.split_once('{') {
        let name = head.rsplit(';').next().unwrap().trim().to_owned();
        let mut depth = 1;
        let end = body
            .find(|c| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                depth == 0
            })
            .unwrap();
        blocks.insert(name, split(&body[..end]));
        rest = &body[end + 1..];
    }
    blocks
}

/// Items end with `;` or with the brace of a type.
fn split(body: &str) -> Vec<String> {
    let (mut items, mut item, mut depth) = (Vec::new(), String::new(), 0);
    for c in body.chars() {
        item.push(c);
        depth += i32::from(c == '{') - i32::from(c == '}');
        let uses = item.trim_start().starts_with("use ");
        if depth == 0 && (c == ';' || c == '}' && !uses) {
            let words: String = item.split_whitespace().collect();
            // A comma after the last member changes nothing.
            items.push(words.replace(",}", "}"));
            item.clear();
        }
    }
    assert!(item.trim().is_empty(), "{item:?} has no end");
    items
}

/// What an old plugin would miss or find changed.
fn broken(frozen: &str, present: &str) -> Vec<String> {
    let (frozen, present) = (items(frozen), items(present));
    let mut broken = Vec::new();
    for (block, old) in &frozen {
        let Some(new) = present.get(block) else {
            broken.push(format!("{block} is gone"));
            continue;
        };
        let gone = old.iter().filter(|item| !new.contains(item));
        broken.extend(gone.map(|item| format!("{block}: {item} is gone or changed")));
        let name = block.split_whitespace().last().unwrap();
        if OFFERED_BY_PLUGINS.contains(&name) {
            let added = new.iter().filter(|item| !old.contains(item));
            broken.extend(added.map(|item| format!("{block}: {item} is new, and old plugins have it not")));
        }
    }
    broken
}

#[test]
fn the_contract_grows_only_where_old_plugins_do_not_notice() {
    assert!(
        PRESENT.starts_with("package oms:payment@1."),
        "another major version is another package"
    );
    assert_eq!(broken(FROZEN, PRESENT), Vec::<String>::new());
}

/// The test above can fail.
#[test]
fn changes_that_break_are_found() {
    let blocks = items(FROZEN);
    assert!(blocks.len() >= 10, "{:?}", blocks.keys());
    assert!(
        blocks["interface gateway"].len() >= 12,
        "{:?}",
        blocks["interface gateway"]
    );
    for (from, to) in [
        ("retry", "rety"),
        ("u16", "u32"),
        (
            "enum refund-status { pending, succeeded,",
            "enum refund-status { succeeded, pending,",
        ),
        ("internal(string),", "internal(string), timed-out(string),"),
        ("random-bytes: func(n: u32) -> list<u8>;", ""),
        ("record redirect { url: string,", "record redirect {"),
        (
            "describe: func() -> info;",
            "describe: func() -> info; health: func() -> bool;",
        ),
        ("interface cache {", "interface store {"),
    ] {
        assert!(FROZEN.contains(from), "{from}");
        assert!(
            !broken(FROZEN, &FROZEN.replace(from, to)).is_empty(),
            "{from} -> {to}"
        );
    }
    for (from, to) in [
        (
            "random-bytes:",
            "seal: func(text: string) -> string;\n  random-bytes:",
        ),
        (
            "interface cache {",
            "interface clock { now: func() -> u64; }\ninterface cache {",
        ),
        (
            "/// Constant time.",
            "/// Takes the same time whatever is compared.",
        ),
        ("    internal(string),", "\n    internal(string)"),
    ] {
        assert!(FROZEN.contains(from), "{from}");
        assert_eq!(
            broken(FROZEN, &FROZEN.replace(from, to)),
            Vec::<String>::new(),
            "{from} -> {to}"
        );
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/plugins-1.0.0")
}

/// The mock plugin as it was built when the contract was frozen.
#[tokio::test]
async fn an_old_component_still_runs() {
    let t = Sandbox::with(&folder(), "mock").await;
    let body = r#"{"id":"bp_1","merchant_payment_id":"pay_1","status":"captured","currency":"EUR","exponent":2,
        "authorized":1999,"captured":1999,"refunded":0,"canceled":0,"redirect_url":null,"decline_code":null}"#;
    let bank = Server::answering(answer("201 Created", "content-type: application/json\r\n", body));
    let mut account = asking("", &bank.origin, &[(&bank.origin, true)]);
    account.plugin = "mock".into();
    account.secrets.insert("api-key".into(), Secret::new("sk_1"));
    let key = b"a key of thirty-two bytes, 2026!";
    let secret = format!("whsec_{}", BASE64.encode(key));
    account
        .secrets
        .insert("webhook-secret".into(), Secret::new(secret));
    let report = t.gateway.start(&account, start_request(&t.oms)).await.unwrap();
    assert_eq!(
        (report.status, report.totals.captured),
        (GatewayStatus::Captured, Some(1_999))
    );

    let payment = PaymentId::new(t.oms.now());
    let body = body.replace("pay_1", &payment.to_string());
    let body = format!(r#"{{"type":"payment.captured","created_at_ms":1,"data":{{"payment":{body}}}}}"#);
    let at = 1_700_000_000;
    let mac = ring::hmac::sign(
        &ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key),
        format!("evt_1.{at}.{body}").as_bytes(),
    );
    let header = |name: &str, value: String| (name.to_owned(), value.into_bytes());
    let delivery = Delivery {
        method: "POST".into(),
        url: "https://shop.test/v1/webhooks/shop".into(),
        query: String::new(),
        headers: vec![
            header("webhook-id", "evt_1".into()),
            header("webhook-timestamp", at.to_string()),
            header("webhook-signature", format!("v1,{}", BASE64.encode(mac))),
        ],
        body: body.into_bytes(),
        received_at: Timestamp::from_millis(at * 1_000),
        remote_ip: None,
        tolerance_seconds: 300,
    };
    let received = t
        .oms
        .plugins()
        .try_webhook(&Actor::System, &account, delivery)
        .await;
    let Ok(Ok(Received::Verified(verified))) = received else {
        panic!("{received:?}");
    };
    let (events, _) = verified.into_parts();
    assert_eq!(events[0].payment, Some(payment));
    assert!(matches!(
        events[0].change,
        Change::Payment {
            status: Some(GatewayStatus::Captured),
            ..
        }
    ));
}
