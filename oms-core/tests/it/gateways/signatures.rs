//! Deliveries that the gateways' own libraries sign and judge: the compiled plugins must say the same of each.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oms_core::payments::Received;
use oms_core::{Clock, SystemClock, Timestamp};
use serde_json::{Value, json};

use super::fakes::{account, delivery, node, python, receive, sandbox};
use crate::support::START;

const ADYEN_PYTHON: &str = r#"
import json, sys
from Adyen.util import generate_notification_sig, is_valid_hmac_notification
out = []
for job in json.load(sys.stdin):
    if job["do"] == "sign":
        out.append(generate_notification_sig(job["item"], job["key"]).decode())
    else:
        try:
            out.append(bool(is_valid_hmac_notification(job["item"], job["key"])))
        except Exception:
            out.append(False)
print(json.dumps(out))
"#;

const ADYEN_NODE: &str = r#"
const Validator = require('@adyen/api-library').hmacValidator;
const jobs = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const validator = new Validator();
console.log(JSON.stringify(jobs.map(job => {
    if (job.do === 'sign') return validator.calculateHmac(job.item, job.key);
    try { return validator.validateHMAC(job.item, job.key); } catch (e) { return false; }
})));
"#;

const KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";

fn item(change: &[(&str, Value)]) -> Value {
    let mut item = json!({
        "pspReference": "7914073381342284", "originalReference": "", "merchantAccountCode": "TestMerchant",
        "merchantReference": "TestPayment-1407325143704", "amount": {"value": 1130, "currency": "EUR"},
        "eventCode": "AUTHORISATION", "success": "true", "eventDate": "2014-08-06T17:15:34.121+02:00",
        "paymentMethod": "visa", "reason": "1234:7777:12/2012",
    });
    for (pointer, value) in change {
        match item.pointer_mut(pointer) {
            Some(place) => *place = value.clone(),
            None => item[pointer.trim_start_matches('/')] = value.clone(),
        }
    }
    item
}

/// Items as Adyen sends them, and with everything that has broken somebody's verification before.
fn adyen_items() -> Vec<Value> {
    let changes: [(&str, Value); 14] = [
        ("/success", json!("false")),
        ("/originalReference", json!("8835511210681324")),
        ("/merchantReference", json!("a:b:c")),
        ("/merchantReference", json!("a\\b\\:c")),
        ("/merchantReference", json!("Bestellung Nr. 7 für Zoë ✓")),
        ("/merchantReference", json!("pay_01h455vb4pex5vsknk084sn02q.al")),
        ("/merchantReference", json!("")),
        ("/merchantReference", json!("a\"b/c\u{7f}")),
        ("/amount/value", json!(0)),
        ("/amount/value", json!(9_007_199_254_740_991_i64)),
        ("/amount/currency", json!("JPY")),
        ("/eventCode", json!("REPORT_AVAILABLE")),
        ("/pspReference", json!("https://example.com/report:1")),
        ("/merchantAccountCode", json!("Test Merchant/EU")),
    ];
    let mut items = vec![item(&[])];
    items.extend(changes.into_iter().map(|change| item(&[change])));
    let mut short = item(&[]);
    short.as_object_mut().unwrap().remove("originalReference");
    items.push(short);
    items
}

fn signed(item: &Value, signature: &str) -> Value {
    let mut item = item.clone();
    item["additionalData"] = json!({ "hmacSignature": signature, "unsigned": "x" });
    item
}

/// Changes after the signature was made; the last two are of fields that nobody signs.
fn forged(item: &Value, signature: &str) -> Vec<Value> {
    let with = |pointer: &str, value: Value| {
        let mut item = signed(item, signature);
        *item.pointer_mut(pointer).unwrap() = value;
        item
    };
    let mut all = vec![
        with("/amount/value", json!(1)),
        with("/amount/currency", json!("USD")),
        with(
            "/success",
            json!(if item["success"] == "true" {
                "false"
            } else {
                "true"
            }),
        ),
        with("/pspReference", json!("7914073381342285")),
        with("/merchantReference", json!("pay_01h455vb4pex5vsknk084sn02r.a")),
        with("/merchantAccountCode", json!("Other")),
        with("/eventCode", json!("CAPTURE")),
        with("/additionalData/hmacSignature", json!("")),
        with("/additionalData/hmacSignature", json!("AAAA")),
        with(
            "/additionalData/hmacSignature",
            json!(signature.replace('=', "A=")),
        ),
        with("/eventDate", json!("2030-01-01T00:00:00Z")),
        with("/reason", json!("changed on its way")),
    ];
    let mut unsigned = item.clone();
    unsigned.as_object_mut().unwrap().remove("additionalData");
    all.push(unsigned);
    all
}

#[tokio::test]
async fn adyen_and_its_libraries_agree() {
    let items = adyen_items();
    let jobs: Vec<_> = items
        .iter()
        .map(|item| json!({"do": "sign", "item": item, "key": KEY}))
        .collect();
    let jobs = Value::Array(jobs);
    let (by_python, by_node) = (python(ADYEN_PYTHON, &jobs), node(ADYEN_NODE, &jobs));
    assert_eq!(by_python, by_node, "the libraries sign alike");
    // Adyen's own test has this one.
    assert_eq!(by_python[0], "coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0=");

    let mut cases = Vec::new();
    for (item, signature) in items.iter().zip(by_python.as_array().unwrap()) {
        let signature = signature.as_str().unwrap();
        cases.push((signed(item, signature), KEY.to_owned()));
        cases.push((signed(item, signature), KEY.to_lowercase()));
        cases.push((signed(item, signature), format!("00{}", &KEY[2..])));
        cases.extend(
            forged(item, signature)
                .into_iter()
                .map(|item| (item, KEY.to_owned())),
        );
    }
    let jobs = cases
        .iter()
        .map(|(item, key)| json!({"do": "verify", "item": item, "key": key}));
    let jobs = Value::Array(jobs.collect());
    let (by_python, by_node) = (python(ADYEN_PYTHON, &jobs), node(ADYEN_NODE, &jobs));
    let t = sandbox("adyen").await;
    let mut accepted = 0;
    for (number, (item, key)) in cases.iter().enumerate() {
        let body =
            json!({"live": "false", "notificationItems": [{"NotificationRequestItem": item}]}).to_string();
        let ours = receive(
            &t,
            &account("adyen", &[], &[("hmac-key", key)]),
            delivery(&[], body.as_bytes(), START),
        )
        .await;
        let good = matches!(ours, Ok(Received::Verified(_)));
        assert_eq!(
            (json!(good), json!(good)),
            (by_python[number].clone(), by_node[number].clone()),
            "{item}: {ours:?}"
        );
        accepted += usize::from(good);
    }
    println!("Adyen: {} deliveries, of which {accepted} are good", cases.len());
    assert!(accepted >= items.len() * 4 && accepted < cases.len());
}

const STANDARD_PYTHON: &str = r#"
import base64, datetime, json, sys
from standardwebhooks.webhooks import Webhook
out = []
for job in json.load(sys.stdin):
    try:
        if job["do"] == "sign":
            at = datetime.datetime.fromtimestamp(job["at"], tz=datetime.timezone.utc)
            out.append(Webhook(job["secret"]).sign(job["id"], at, job["body"]))
        else:
            Webhook(job["secret"]).verify(job["body"], job["headers"])
            out.append(True)
    except Exception as e:
        out.append(False)
print(json.dumps(out))
"#;

const STANDARD_NODE: &str = r#"
const { Webhook } = require('standardwebhooks');
const jobs = JSON.parse(require('fs').readFileSync(0, 'utf8'));
console.log(JSON.stringify(jobs.map(job => {
    try {
        const hook = new Webhook(job.secret);
        if (job.do === 'sign') return hook.sign(job.id, new Date(job.at * 1000), job.body);
        hook.verify(job.body, job.headers);
        return true;
    } catch (e) { return false; }
})));
"#;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn headers(id: &str, at: &str, signature: &str) -> Value {
    json!({"webhook-id": id, "webhook-timestamp": at, "webhook-signature": signature})
}

/// What is said of one message and one signature of it.
fn standard_cases(now: i64, body: &str, signature: &str, other: &str) -> Vec<(Value, String, String)> {
    let at = now.to_string();
    let case = |headers, body: &str, secret: &str| (headers, body.to_owned(), secret.to_owned());
    let good = || headers("msg_1", &at, signature);
    let listed = |list: &str| case(headers("msg_1", &at, list), body, SECRET);
    let without = |name: &str| {
        let mut headers = good();
        headers.as_object_mut().unwrap().remove(name);
        case(headers, body, SECRET)
    };
    vec![
        case(good(), body, SECRET),
        case(good(), body, &SECRET[6..]),
        case(good(), body, "whsec_b3RoZXItc2VjcmV0"),
        case(good(), &format!("{body} "), SECRET),
        case(good(), &body.replace('1', "2"), SECRET),
        case(headers("msg_2", &at, signature), body, SECRET),
        case(headers("msg_1", &(now + 1).to_string(), signature), body, SECRET),
        case(headers("msg_1", "soon", signature), body, SECRET),
        listed(&format!("v1,AAAA {signature}")),
        listed(&format!("{signature} v1,AAAA")),
        listed(&format!("v1a,AAAA v2,BBBB {signature} v9")),
        listed(&signature.replace("v1,", "v2,")),
        listed(&signature.replace("v1,", "v1a,")),
        listed(&signature.replace("v1,", "")),
        listed(other),
        listed("v1,"),
        listed("v1"),
        without("webhook-id"),
        without("webhook-timestamp"),
        without("webhook-signature"),
    ]
}

#[tokio::test]
async fn standard_webhooks_and_its_libraries_agree() {
    let now = SystemClock.now().as_secs();
    let bodies = [
        r#"{"type":"account.1"}"#,
        "{}",
        r#"{"type":"größer 1 ✓","data":{"a":[1,2,3]}}"#,
        "{ \"type\" :\t\"spaced 1\"\r\n}",
    ];
    let sign =
        |body: &str, id: &str, at| json!({"do": "sign", "secret": SECRET, "id": id, "at": at, "body": body});
    let mut jobs = Vec::new();
    for body in bodies {
        jobs.extend([sign(body, "msg_1", now), sign(body, "msg_9", now)]);
    }
    // The libraries look at a clock of their own: not too close to the edge.
    let shifts = [-310, -290, 290, 310, -86_400, 86_400];
    jobs.extend(shifts.map(|shift| sign(bodies[0], "msg_1", now + shift)));
    let jobs = Value::Array(jobs);
    let (by_python, by_node) = (python(STANDARD_PYTHON, &jobs), node(STANDARD_NODE, &jobs));
    assert_eq!(by_python, by_node, "the libraries sign alike");

    let signature = |index: usize| by_python[index].as_str().unwrap();
    let mut cases = Vec::new();
    for (index, body) in bodies.into_iter().enumerate() {
        cases.extend(standard_cases(
            now,
            body,
            signature(2 * index),
            signature(2 * index + 1),
        ));
    }
    for (index, shift) in shifts.into_iter().enumerate() {
        let made = headers(
            "msg_1",
            &(now + shift).to_string(),
            signature(2 * bodies.len() + index),
        );
        cases.push((made, bodies[0].to_owned(), SECRET.to_owned()));
    }
    let verify = |(headers, body, secret): &(Value, String, String)| json!({"do": "verify", "headers": headers, "body": body, "secret": secret});
    let jobs = Value::Array(cases.iter().map(verify).collect());
    let (by_python, by_node) = (python(STANDARD_PYTHON, &jobs), node(STANDARD_NODE, &jobs));
    let t = sandbox("standard-webhooks").await;
    let mut accepted = 0;
    for (number, (headers, body, secret)) in cases.iter().enumerate() {
        let headers: Vec<_> = headers
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str().unwrap()))
            .collect();
        let shop = account(
            "standard-webhooks",
            &[("base-url", "https://bank.test")],
            &[("webhook-secret", secret)],
        );
        let arrived = Timestamp::from_millis(now * 1_000);
        let ours = receive(&t, &shop, delivery(&headers, body.as_bytes(), arrived)).await;
        let good = matches!(ours, Ok(Received::Verified(_)));
        assert_eq!(
            (json!(good), json!(good)),
            (by_python[number].clone(), by_node[number].clone()),
            "{headers:?} {body} {secret}: {ours:?}"
        );
        accepted += usize::from(good);
    }
    println!(
        "Standard Webhooks: {} deliveries, of which {accepted} are good",
        cases.len()
    );
    assert!(accepted >= 4 * bodies.len() && accepted < cases.len());
}

#[tokio::test]
async fn adyens_batches_and_basic_authentication() {
    let t = sandbox("adyen").await;
    let first = item(&[("/merchantReference", json!("pay_01h455vb4pex5vsknk084sn02q.a"))]);
    let second = item(&[("/eventCode", json!("CAPTURE")), ("/success", json!("false"))]);
    let jobs = json!([{"do": "sign", "item": first, "key": KEY}, {"do": "sign", "item": second, "key": KEY}]);
    let made = python(ADYEN_PYTHON, &jobs);
    let (first, second) = (
        signed(&first, made[0].as_str().unwrap()),
        signed(&second, made[1].as_str().unwrap()),
    );
    let batch = |items: &[&Value]| {
        let items: Vec<_> = items
            .iter()
            .map(|item| json!({"NotificationRequestItem": item}))
            .collect();
        json!({"live": "false", "notificationItems": items}).to_string()
    };
    let shop = account("adyen", &[], &[("hmac-key", KEY)]);
    let good = receive(
        &t,
        &shop,
        delivery(&[], batch(&[&first, &second]).as_bytes(), START),
    )
    .await;
    let Ok(Received::Verified(verified)) = good else {
        panic!("{good:?}");
    };
    let (events, reply) = verified.into_parts();
    assert_eq!((events.len(), reply.unwrap().body), (2, b"[accepted]".to_vec()));
    // Adyen's Python library looks at the first item alone.
    let mut forged = second.clone();
    forged["success"] = json!("true");
    let mixed = receive(
        &t,
        &shop,
        delivery(&[], batch(&[&first, &forged]).as_bytes(), START),
    )
    .await;
    assert_eq!(mixed, Err(oms_core::payments::WebhookError::BadSignature));

    // While the key is being replaced, both are good.
    let rotating = account(
        "adyen",
        &[],
        &[("hmac-key", &"00".repeat(32)), ("hmac-key-old", KEY)],
    );
    assert!(
        receive(&t, &rotating, delivery(&[], batch(&[&first]).as_bytes(), START))
            .await
            .is_ok()
    );

    let guarded = account(
        "adyen",
        &[("notification-user", "adyen")],
        &[("hmac-key", KEY), ("notification-password", "pass:word")],
    );
    for (given, good) in [
        (Some("adyen:pass:word"), true),
        (Some("adyen:pass:wor"), false),
        (Some("adyen:pass:word\0"), false),
        (Some("other:pass:word"), false),
        (Some("adyen:"), false),
        (None, false),
    ] {
        let header = given.map(|given| format!("Basic {}", BASE64.encode(given)));
        let headers: Vec<_> = header
            .iter()
            .map(|value| ("authorization", value.as_str()))
            .collect();
        let answer = receive(
            &t,
            &guarded,
            delivery(&headers, batch(&[&first]).as_bytes(), START),
        )
        .await;
        assert_eq!(answer.is_ok(), good, "{given:?}: {answer:?}");
    }
}
