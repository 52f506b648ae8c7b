//! Deliveries that Stripe's own libraries for Python and Node sign and judge: our component must agree with them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oms_core::payments::{Change, GatewayStatus, Received, Secret, WebhookError};
use oms_core::{Actor, PaymentId, Timestamp};
use serde_json::{Value, json};

use super::{WEBHOOK_SECRET, account};
use crate::gateways::support::{delivery, run};
use crate::plugins::guests::{Sandbox, plugin_dir};

const AT: i64 = 1_700_000_000;

/// What we do beside Stripe's library for Python.
#[derive(Debug, Clone, Copy, PartialEq)]
enum We {
    Agree,
    /// It accepts and we refuse, for the reason that the vector's name tells.
    AreStricter,
}

struct Vector {
    name: &'static str,
    header: Option<String>,
    body: Vec<u8>,
    secret: &'static str,
    now: i64,
    we: We,
}

fn event(payment: PaymentId, filler: &str) -> String {
    json!({
        "id": "evt_1", "object": "event", "type": "payment_intent.succeeded", "created": AT, "livemode": false,
        "data": {"object": {
            "id": "pi_1", "object": "payment_intent", "amount": 1999, "amount_received": 1999, "currency": "eur",
            "status": "succeeded", "latest_charge": "ch_1", "description": filler,
            "metadata": {"oms_payment": payment.to_string()},
        }},
    })
    .to_string()
}

fn sign(body: &str, secret: &str, at: i64) -> Value {
    json!({"sign": body, "secret": secret, "at": at})
}

async fn receive(t: &Sandbox, vector: &Vector) -> Result<Received, WebhookError> {
    let mut account = account("http://127.0.0.1:1");
    account
        .secrets
        .insert("webhook-secret".into(), Secret::new(vector.secret));
    let header = vector
        .header
        .as_ref()
        .map(|text| ("stripe-signature".to_owned(), text.as_bytes().to_vec()));
    let mut delivery = delivery("POST", header.into_iter().collect(), vector.body.clone());
    delivery.received_at = Timestamp::from_millis(vector.now * 1_000 + 500);
    t.oms
        .plugins()
        .try_webhook(&Actor::System, &account, delivery)
        .await
        .unwrap()
}

#[tokio::test]
async fn what_both_libraries_sign_is_accepted_and_read() {
    let t = Sandbox::with(&plugin_dir(), "stripe").await;
    let payment = PaymentId::new(t.oms.now());
    let bodies = [
        event(payment, ""),
        event(payment, "Größe 42 \u{1f600}"),
        event(payment, "a\\\"b\nc"),
    ];
    let jobs: Vec<_> = bodies.iter().map(|body| sign(body, WEBHOOK_SECRET, AT)).collect();
    let (python, node) = (run("stripe_webhooks.py", &jobs), run("stripe_webhooks.js", &jobs));
    assert_eq!(python, node, "two libraries of one maker");
    for (body, header) in bodies.iter().zip(python.iter().chain(&node)) {
        let vector = Vector {
            name: "good",
            header: Some(header.as_str().unwrap().to_owned()),
            body: body.clone().into_bytes(),
            secret: WEBHOOK_SECRET,
            now: AT,
            we: We::Agree,
        };
        let Ok(Received::Verified(verified)) = receive(&t, &vector).await else {
            panic!("{body} was refused");
        };
        let (events, reply) = verified.into_parts();
        assert_eq!((events.len(), reply), (1, None));
        assert_eq!(
            (events[0].id.as_str(), events[0].payment),
            ("evt_1", Some(payment))
        );
        assert_eq!(events[0].reference.as_deref(), Some("pi_1"));
        let Change::Payment { status, totals, .. } = &events[0].change else {
            panic!("{:?}", events[0]);
        };
        assert_eq!(
            (*status, totals.captured),
            (Some(GatewayStatus::Captured), Some(1_999))
        );
    }
}

/// The edge cases, around one good signature.
fn vectors(body: &str, good: &str, other: &[(&'static str, Vec<u8>, String)]) -> Vec<Vector> {
    use We::{Agree, AreStricter};
    let v1 = good.split_once(",v1=").unwrap().1;
    let wrong = "0".repeat(64);
    let junk = "v0=junk,".repeat(12_000);
    let many = format!("v1={wrong},").repeat(17);
    let t = format!("t={AT}");
    let of_header = [
        ("good", good.to_owned(), Agree),
        ("the signature before the time", format!("v1={v1},{t}"), Agree),
        (
            "several v1, the last is good",
            format!("{t},v1={wrong},v1={v1}"),
            Agree,
        ),
        (
            "several v1, the first is good",
            format!("{t},v1={v1},v1={wrong}"),
            Agree,
        ),
        (
            "several v1, none is good",
            format!("{t},v1={wrong},v1={wrong}"),
            Agree,
        ),
        (
            "v0 and unknown parts beside",
            format!("{t},v0={wrong},what,v2=x,v1={v1}"),
            Agree,
        ),
        ("v0 alone", format!("{t},v0={v1}"), Agree),
        ("no time", format!("v1={v1}"), Agree),
        ("an empty time", format!("t=,v1={v1}"), Agree),
        ("a time in words", format!("t=now,v1={v1}"), Agree),
        ("a time without a value", format!("t,v1={v1}"), Agree),
        ("another time", format!("t={},v1={v1}", AT + 1), Agree),
        ("a time before 1970", format!("t=-{AT},v1={v1}"), Agree),
        ("zeros before the time", format!("t=00{AT},v1={v1}"), Agree),
        ("a blank after the comma", format!("{t}, v1={v1}"), Agree),
        ("a blank before the signature", format!("{t},v1= {v1}"), Agree),
        ("a blank after the signature", format!("{t},v1={v1} "), Agree),
        ("a comma at the end", format!("{t},v1={v1},"), Agree),
        ("semicolons", format!("{t};v1={v1}"), Agree),
        ("capital names", format!("T={AT},V1={v1}"), Agree),
        ("capital digits", format!("{t},v1={}", v1.to_uppercase()), Agree),
        ("a cut signature", format!("{t},v1={}", &v1[..63]), Agree),
        ("a longer signature", format!("{t},v1={v1}00"), Agree),
        ("more after the signature", format!("{t},v1={v1}=x"), Agree),
        ("an empty signature", format!("{t},v1="), Agree),
        ("a signature without a value", format!("{t},v1={v1},v1"), Agree),
        ("not hexadecimal", format!("{t},v1={}", "g".repeat(64)), Agree),
        ("an empty header", String::new(), Agree),
        ("commas only", ",,,".into(), Agree),
        ("a huge header", format!("{t},{junk}v1={v1}"), Agree),
        ("two times", format!("{t},{t},v1={v1}"), AreStricter),
        ("a plus before the time", format!("t=+{AT},v1={v1}"), AreStricter),
        ("a blank before the time", format!("t= {AT},v1={v1}"), AreStricter),
        (
            "an underscore in the time",
            format!("t=1_{},v1={v1}", AT - 1_000_000_000),
            AreStricter,
        ),
        (
            "more than 16 signatures",
            format!("{t},{many}v1={v1}"),
            AreStricter,
        ),
    ];
    let plain = |name, header: Option<String>, we| Vector {
        name,
        header,
        body: body.as_bytes().to_vec(),
        secret: WEBHOOK_SECRET,
        now: AT,
        we,
    };
    let mut all: Vec<_> = of_header
        .into_iter()
        .map(|(name, header, we)| plain(name, Some(header), we))
        .collect();
    all.push(plain("no header", None, Agree));
    let good = || Some(good.to_owned());
    for (name, off, we) in [
        ("300 s old", 300, Agree),
        ("301 s old", 301, Agree),
        ("a day old", 86_400, Agree),
        ("300 s ahead", -300, Agree),
        ("301 s ahead", -301, AreStricter),
        ("a day ahead", -86_400, AreStricter),
    ] {
        all.push(Vector {
            now: AT + off,
            ..plain(name, good(), we)
        });
    }
    for (name, secret) in [
        ("another secret", "whsec_another"),
        ("a blank secret", ""),
        ("a secret of blanks", " \t\n"),
        ("a secret with a line break", "whsec_u8Qd0KeyOfTheEndpoint\n"),
        ("half of the secret", "u8Qd0KeyOfTheEndpoint"),
    ] {
        all.push(Vector {
            secret,
            ..plain(name, good(), Agree)
        });
    }
    for (name, tampered) in [
        ("another amount", body.replace("1999", "1")),
        ("a blank at the end", format!("{body} ")),
        ("written anew", body.replace("\":", "\": ")),
        ("no body", String::new()),
    ] {
        all.push(Vector {
            body: tampered.into_bytes(),
            ..plain(name, good(), Agree)
        });
    }
    for (name, body, header) in other {
        let we = if *name == "no event" { AreStricter } else { Agree };
        all.push(Vector {
            body: body.clone(),
            ..plain(name, Some(header.clone()), we)
        });
    }
    all
}

/// Other bodies with good signatures.
fn other_bodies(payment: PaymentId) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a huge body", event(payment, &"x".repeat(900_000)).into_bytes()),
        ("no JSON", b"payment=pi_1".to_vec()),
        ("half of a JSON", b"{\"id\":\"evt_1\"".to_vec()),
        ("no text", b"{\"id\":\"\xff\xfe\"}".to_vec()),
        (
            "a thin event",
            br#"{"id":"evt_1","object":"v2.core.event","type":"x"}"#.to_vec(),
        ),
        ("no event", b"{}".to_vec()),
    ]
}

#[tokio::test]
async fn we_accept_and_refuse_as_the_library_for_python_does() {
    let t = Sandbox::with(&plugin_dir(), "stripe").await;
    let payment = PaymentId::new(t.oms.now());
    let body = event(payment, "");
    let others = other_bodies(payment);
    let mut jobs = vec![sign(&body, WEBHOOK_SECRET, AT)];
    jobs.extend(
        others
            .iter()
            .map(|(_, bytes)| json!({"hmac": BASE64.encode(bytes), "secret": WEBHOOK_SECRET, "at": AT})),
    );
    let headers: Vec<_> = run("stripe_webhooks.py", &jobs)
        .into_iter()
        .map(|header| header.as_str().unwrap().to_owned())
        .collect();
    let others: Vec<_> = others
        .into_iter()
        .zip(&headers[1..])
        .map(|((name, bytes), header)| (name, bytes, header.clone()))
        .collect();
    let vectors = vectors(&body, &headers[0], &others);

    let jobs: Vec<_> = vectors
        .iter()
        .map(|v| json!({"verify": BASE64.encode(&v.body), "header": v.header, "secret": v.secret, "now": v.now}))
        .collect();
    let (python, node) = (run("stripe_webhooks.py", &jobs), run("stripe_webhooks.js", &jobs));
    let (mut equal, mut stricter, mut node_equal, mut failures) = (0, 0, 0, Vec::new());
    for (vector, (python, node)) in vectors.iter().zip(python.iter().zip(&node)) {
        let ours = receive(&t, vector).await;
        let (accepts, they) = (matches!(ours, Ok(Received::Verified(_))), python.is_null());
        match (vector.we, accepts == they) {
            (We::Agree, true) => equal += 1,
            (We::AreStricter, false) if !accepts => stricter += 1,
            _ => failures.push(format!("{}: {ours:?}, the library: {python}", vector.name)),
        }
        if accepts == node.is_null() {
            node_equal += 1;
        } else {
            println!("not as Node's: {}: {ours:?}", vector.name);
            assert!(
                !accepts,
                "{}: we accept what Node's library refuses: {node}",
                vector.name
            );
        }
    }
    println!(
        "{} vectors: {equal} as Stripe's library for Python, {stricter} stricter on purpose; {node_equal} as that for Node",
        vectors.len()
    );
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(equal + stricter, vectors.len());
}

#[tokio::test]
async fn refusals_have_their_reasons() {
    let t = Sandbox::with(&plugin_dir(), "stripe").await;
    let body = event(PaymentId::new(t.oms.now()), "");
    let header = run("stripe_webhooks.py", &[sign(&body, WEBHOOK_SECRET, AT)]);
    let good = |now, secret| Vector {
        name: "",
        header: Some(header[0].as_str().unwrap().to_owned()),
        body: body.clone().into_bytes(),
        secret,
        now,
        we: We::Agree,
    };
    for now in [AT - 301, AT + 301] {
        assert_eq!(
            receive(&t, &good(now, WEBHOOK_SECRET)).await,
            Err(WebhookError::Stale)
        );
    }
    for blank in ["", "  "] {
        let refused = receive(&t, &good(AT, blank)).await;
        assert!(
            matches!(refused, Err(WebhookError::Misconfigured(_))),
            "{refused:?}"
        );
    }
    let mut unsigned = good(AT, WEBHOOK_SECRET);
    unsigned.header = None;
    let refused = receive(&t, &unsigned).await;
    assert!(
        matches!(refused, Err(WebhookError::MissingSignature(_))),
        "{refused:?}"
    );
    // A stale forgery is a forgery.
    let mut forged = good(AT + 301, "whsec_another");
    forged.body.push(b' ');
    assert_eq!(receive(&t, &forged).await, Err(WebhookError::BadSignature));
}
