//! Payments at PayPal: approved on its page, finished by us; webhooks by a certificate of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use oms_core::Error;
use oms_core::orders::OrderState;
use oms_core::payments::{
    Account, CaptureMode, CapturePayment, Delivery, NextAction, OperationStatus, PaymentStatus, Received,
    RefundPayment, WebhookError, WebhookOutcome,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use super::fakes::{
    Answer, Fake, Keys, PRICE, Play, Request, account, delivery, each_shop, eur, python, receive, sandbox,
};
use crate::support::START;

/// Makes a root, a certificate for the server on this machine, and several that sign messages; and signs.
const AUTHORITY: &str = r#"
import base64, datetime, json, sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
job = json.load(sys.stdin)
def pem(key): return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
def name(cn): return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])
def make(cn, issuer=None, until=2040, ca=False):
    key = rsa.generate_private_key(65537, 2048)
    subject = name(cn)
    by, by_key = issuer if issuer else (subject, key)
    builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(by).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(datetime.datetime(2020, 1, 1))
        .not_valid_after(datetime.datetime(until, 1, 1)).add_extension(x509.BasicConstraints(ca, None), True))
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(cn)]), False)
    return builder.sign(by_key, hashes.SHA256()), key, subject
def text(made): return made[0].public_bytes(serialization.Encoding.PEM).decode()
if job["do"] == "make":
    root = make("Test root", ca=True)
    other = make("Other root", ca=True)
    inner = make("Test intermediate", issuer=(root[2], root[1]), ca=True)
    paypal = "messageverificationcerts.paypal.com"
    signers = {
        "good": (make(paypal, issuer=(inner[2], inner[1])), [inner]),
        "no-chain": (make(paypal, issuer=(inner[2], inner[1])), []),
        "wrong-name": (make("messageverificationcerts.paypal.com.evil.test", issuer=(root[2], root[1])), []),
        "other-root": (make(paypal, issuer=(other[2], other[1])), [other]),
        "self-signed": (make(paypal), []),
        "expired": (make(paypal, issuer=(root[2], root[1]), until=2024), []),
        "sandbox": (make("messageverificationcerts.sandbox.paypal.com", issuer=(root[2], root[1])), []),
    }
    server = make("localhost", issuer=(root[2], root[1]))
    print(json.dumps({"root": text(root), "server": text(server), "server_key": pem(server[1]),
        "signers": {n: {"chain": text(m) + "".join(text(c) for c in chain), "key": pem(m[1])} for n, (m, chain) in signers.items()}}))
else:
    out = []
    for one in job["messages"]:
        key = serialization.load_pem_private_key(one["key"].encode(), None)
        out.append(base64.b64encode(key.sign(one["message"].encode(), padding.PKCS1v15(), hashes.SHA256())).decode())
    print(json.dumps(out))
"#;

/// Made once: keys take their time.
static CERTIFICATES: LazyLock<Value> = LazyLock::new(|| python(AUTHORITY, &json!({"do": "make"})));

fn sign(messages: &[(&str, String)]) -> Vec<String> {
    let messages: Vec<_> = messages
        .iter()
        .map(|(signer, message)| json!({"key": CERTIFICATES["signers"][*signer]["key"], "message": message}))
        .collect();
    serde_json::from_value(python(AUTHORITY, &json!({"do": "sign", "messages": messages}))).unwrap()
}

const WEBHOOK_ID: &str = "1JE4291016473214C";
const TRANSMISSION: &str = "69cd13f0-d67a-11e5-baa3-778b53f4ae55";
const TIME: &str = "2026-01-01T00:00:00Z";

/// CRC-32 by another way than the plugin's: bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 {
                (sum >> 1) ^ 0xEDB8_8320
            } else {
                sum >> 1
            }
        })
    })
}

fn message(body: &str) -> String {
    format!("{TRANSMISSION}|{TIME}|{WEBHOOK_ID}|{}", crc32(body.as_bytes()))
}

fn signed_delivery(origin: &str, certificate: &str, signature: &str, body: &str) -> Delivery {
    let url = format!("{origin}/v1/notifications/certs/{certificate}");
    let headers = [
        ("paypal-transmission-id", TRANSMISSION),
        ("paypal-transmission-time", TIME),
        ("paypal-transmission-sig", signature),
        ("paypal-cert-url", &url),
        ("paypal-auth-algo", "SHA256withRSA"),
    ];
    delivery(&headers, body.as_bytes(), START)
}

#[derive(Default)]
struct Books {
    keys: Keys,
    orders: BTreeMap<String, Value>,
    tokens: u32,
    /// The tokens so far are not good any more.
    revoked: u32,
    count: u32,
}

struct PayPal {
    server: Fake,
    books: Arc<Mutex<Books>>,
}

fn paypal() -> (PayPal, Account) {
    let books = Arc::new(Mutex::new(Books::default()));
    let shared = Arc::clone(&books);
    let text = |name: &str| CERTIFICATES[name].as_str().unwrap().as_bytes();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(text("server")).unwrap()],
            PrivateKeyDer::from_pem_slice(text("server_key")).unwrap(),
        )
        .unwrap();
    let server = Fake::start_with(Some(Arc::new(config)), move |request| {
        shared.lock().unwrap().play(request)
    });
    let config = [
        ("base-url", server.origin.as_str()),
        ("certificate-origin", &server.origin),
        ("client-id", "client"),
        ("webhook-id", WEBHOOK_ID),
    ];
    let mut account = account("paypal", &config, &[("client-secret", "s3cret")]);
    account.extra_roots = Some(CERTIFICATES["root"].as_str().unwrap().into());
    (PayPal { server, books }, account)
}

impl Books {
    fn play(&mut self, request: &Request) -> Play {
        if let Some(name) = request.path.strip_prefix("/v1/notifications/certs/") {
            let chain = CERTIFICATES["signers"][name]["chain"].as_str();
            return Ok(chain.map_or_else(
                || Answer::Text(404, "none".into()),
                |pem| Answer::Text(200, pem.into()),
            ));
        }
        if request.path == "/v1/oauth2/token" {
            // client:s3cret
            if request.header("authorization") != "Basic Y2xpZW50OnMzY3JldA=="
                || request.body != b"grant_type=client_credentials"
            {
                return Ok(Answer::Json(401, json!({"error": "invalid_client"})));
            }
            self.tokens += 1;
            return Ok(Answer::Json(
                200,
                json!({"access_token": format!("A{}", self.tokens), "token_type": "Bearer", "expires_in": 32_400}),
            ));
        }
        let token = request
            .header("authorization")
            .strip_prefix("Bearer A")
            .unwrap_or_default();
        if token.parse().unwrap_or(0) <= self.revoked {
            return Ok(Answer::Json(
                401,
                json!({"name": "AUTHENTICATION_FAILURE", "message": "expired"}),
            ));
        }
        if request.method == "GET" {
            let id = request
                .path
                .strip_prefix("/v2/checkout/orders/")
                .ok_or("no such GET")?;
            let order = self.orders.get(id).cloned();
            return Ok(order.map_or_else(
                || Answer::Json(404, json!({"name": "RESOURCE_NOT_FOUND"})),
                |o| Answer::Json(200, o),
            ));
        }
        let (orders, count) = (&mut self.orders, &mut self.count);
        self.keys.once("paypal-request-id", request, || {
            *count += 1;
            act(orders, *count, request)
        })
    }

    fn approve(&mut self, id: &str) {
        self.orders.get_mut(id).unwrap()["status"] = json!("APPROVED");
    }
}

fn act(orders: &mut BTreeMap<String, Value>, count: u32, request: &Request) -> Result<(u16, Value), String> {
    let body = request.json();
    let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    let issue = |issue: &str| {
        Ok((
            422,
            json!({"name": "UNPROCESSABLE_ENTITY", "details": [{"issue": issue}]}),
        ))
    };
    match parts.as_slice() {
        ["v2", "checkout", "orders"] => {
            let unit = &body["purchase_units"][0];
            let context = &body["payment_source"]["paypal"]["experience_context"];
            if unit["amount"] != json!({"currency_code": "EUR", "value": "50.00"})
                || context["return_url"] != "https://shop.example/thanks"
            {
                return Err(body.to_string());
            }
            let id = format!("ORDER{count}");
            let order = json!({"id": id, "status": "PAYER_ACTION_REQUIRED", "intent": body["intent"],
                "purchase_units": [{"custom_id": unit["custom_id"], "amount": unit["amount"], "payments": {}}],
                "links": [{"rel": "payer-action", "href": format!("https://www.paypal.com/checkoutnow?token={id}"), "method": "GET"}]});
            orders.insert(id, order.clone());
            Ok((201, order))
        }
        ["v2", "checkout", "orders", id, verb] => {
            let order = orders.get_mut(*id).ok_or("no such order")?;
            if order["status"] != "APPROVED" {
                return issue(if order["status"] == "COMPLETED" {
                    "ORDER_ALREADY_CAPTURED"
                } else {
                    "ORDER_NOT_APPROVED"
                });
            }
            let (list, part, intent) = match *verb {
                "capture" => (
                    "captures",
                    json!({"id": format!("CAP{count}"), "status": "COMPLETED"}),
                    "CAPTURE",
                ),
                "authorize" => (
                    "authorizations",
                    json!({"id": format!("AUT{count}"), "status": "CREATED"}),
                    "AUTHORIZE",
                ),
                other => return Err(format!("no verb {other}")),
            };
            if order["intent"] != intent {
                return Err(format!("{verb} of an order to {}", order["intent"]));
            }
            let mut part = part;
            part["amount"] = order["purchase_units"][0]["amount"].clone();
            order["status"] = json!("COMPLETED");
            order["purchase_units"][0]["payments"][list] = json!([part]);
            // Its answer leaves the intent out.
            let mut answer = order.clone();
            answer.as_object_mut().unwrap().remove("intent");
            Ok((201, answer))
        }
        ["v2", "payments", "authorizations", id, verb] => {
            let mut all = orders.values_mut();
            let order = all
                .find(|o| o["purchase_units"][0]["payments"]["authorizations"][0]["id"] == **id)
                .ok_or("no such authorization")?;
            let payments = &mut order["purchase_units"][0]["payments"];
            match *verb {
                "void" => {
                    payments["authorizations"][0]["status"] = json!("VOIDED");
                    Ok((200, payments["authorizations"][0].clone()))
                }
                "capture" => {
                    let part =
                        json!({"id": format!("CAP{count}"), "status": "COMPLETED", "amount": body["amount"]});
                    payments["captures"] = json!([part]);
                    payments["authorizations"][0]["status"] = json!("CAPTURED");
                    Ok((201, part))
                }
                other => Err(format!("no verb {other}")),
            }
        }
        ["v2", "payments", "captures", id, "refund"] => {
            let mut all = orders.values_mut();
            let order = all
                .find(|o| o["purchase_units"][0]["payments"]["captures"][0]["id"] == **id)
                .ok_or("no such capture")?;
            let part = json!({"id": format!("REF{count}"), "status": "COMPLETED", "amount": body["amount"], "custom_id": body["custom_id"]});
            let payments = &mut order["purchase_units"][0]["payments"];
            match payments["refunds"].as_array_mut() {
                Some(refunds) => refunds.push(part.clone()),
                None => payments["refunds"] = json!([part]),
            }
            Ok((201, part))
        }
        other => Err(format!("no such path {other:?}")),
    }
}

#[tokio::test]
async fn only_paypals_certificate_is_taken() {
    let (paypal, shop) = paypal();
    let t = sandbox("paypal").await;
    let body = r#"{"id":"WH-1","event_type":"BILLING.PLAN.CREATED","resource":{}}"#;
    let signers = [
        "good",
        "no-chain",
        "wrong-name",
        "other-root",
        "self-signed",
        "expired",
        "sandbox",
    ];
    let mut signatures = sign(&signers.map(|signer| (signer, message(body))));
    for (signer, signature) in signers.iter().zip(&signatures) {
        let answer = receive(
            &t,
            &shop,
            signed_delivery(&paypal.server.origin, signer, signature, body),
        )
        .await;
        match *signer {
            "good" => assert!(matches!(answer, Ok(Received::Verified(_))), "{answer:?}"),
            _ => assert_eq!(answer, Err(WebhookError::BadSignature), "{signer}"),
        }
    }
    let good = signatures.remove(0);
    let deliver = |origin: &str, certificate: &str, signature: &str, body: &str| {
        receive(&t, &shop, signed_delivery(origin, certificate, signature, body))
    };
    let origin = paypal.server.origin.as_str();
    assert_eq!(
        deliver(origin, "good", &good, &body.replace("WH-1", "WH-2")).await,
        Err(WebhookError::BadSignature)
    );
    assert_eq!(
        deliver(origin, "other-root", &good, body).await,
        Err(WebhookError::BadSignature)
    );
    assert_eq!(
        deliver(origin, "nobody", &good, body).await,
        Err(WebhookError::BadSignature)
    );
    for (origin, certificate) in [
        ("https://evil.test", "good"),
        ("https://api.paypal.com.evil.test", "good"),
        ("https://api.paypal.com@evil.test", "good"),
        (&format!("{origin}.evil.test"), "good"),
        (origin, "../../../v2/good"),
        (origin, "good?x=1"),
        (origin, ""),
    ] {
        let refused = deliver(origin, certificate, &good, body).await;
        assert_eq!(refused, Err(WebhookError::BadSignature), "{origin} {certificate}");
    }
    // Fetched once: a genuine certificate is kept.
    assert!(deliver(origin, "good", &good, body).await.is_ok());
    assert_eq!(paypal.server.asked("GET", "/v1/notifications/certs/good"), 1);
    // Another webhook's signature is good for that one alone.
    let mut other = shop.clone();
    other.config.insert("webhook-id".into(), "ANOTHER".into());
    let refused = receive(&t, &other, signed_delivery(origin, "good", &good, body)).await;
    assert_eq!(refused, Err(WebhookError::BadSignature));
    paypal.server.no_faults();
}

fn event(paypal: &PayPal, body: &Value) -> Delivery {
    let body = body.to_string();
    let signature = sign(&[("good", message(&body))]).remove(0);
    signed_delivery(&paypal.server.origin, "good", &signature, &body)
}

#[tokio::test]
async fn a_customer_approves_and_gets_money_back() {
    each_shop("paypal", paypal, async |s, paypal| {
        let payment = s.start("k", CaptureMode::Automatic, None).await;
        assert_eq!(payment.status, PaymentStatus::ActionRequired);
        assert!(matches!(&payment.next_action, Some(NextAction::Redirect { url, .. }) if url.ends_with("token=ORDER1")));
        // Back by the link for those who change their mind.
        let still = s.payments().complete(&s.buyer, payment.id, Vec::new()).await.unwrap();
        assert_eq!(still.status, PaymentStatus::ActionRequired);
        paypal.books.lock().unwrap().approve("ORDER1");
        // PayPal takes the token back before its time.
        paypal.books.lock().unwrap().revoked = 1;
        let paid = s.payments().complete(&s.buyer, payment.id, Vec::new()).await.unwrap();
        assert_eq!((paid.status, paid.captured), (PaymentStatus::Captured, PRICE));
        assert_eq!(s.order_state().await, OrderState::Paid);
        assert_eq!(paypal.books.lock().unwrap().tokens, 2, "kept, and fetched again once");

        let command = RefundPayment {
            idempotency_key: "r".parse().unwrap(),
            amount: Some(eur(2_000)),
            reason: Some("scratched".into()),
        };
        let refund = s.payments().refund(&s.operator, payment.id, command).await.unwrap().value;
        assert_eq!(refund.status, OperationStatus::Succeeded);
        let told = event(paypal, &json!({"id": "WH-9", "event_type": "PAYMENT.CAPTURE.REFUNDED", "resource":
            {"id": refund.reference, "status": "COMPLETED", "custom_id": refund.id.to_string(),
             "amount": {"currency_code": "EUR", "value": "20.00"}}}));
        for _ in 0..2 {
            assert!(matches!(s.deliver(told.clone()).await, WebhookOutcome::Accepted(_)));
        }
        let synced = s.payments().sync(&s.operator, payment.id).await.unwrap();
        assert_eq!((synced.refunded, synced.refunds.len(), synced.attention), (2_000, 1, None));
        paypal.server.no_faults();
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn an_approval_whose_customer_never_comes_back() {
    each_shop("paypal", paypal, async |s, paypal| {
        let payment = s.start("k", CaptureMode::Automatic, None).await;
        paypal.books.lock().unwrap().approve("ORDER1");
        let told = event(paypal, &json!({"id": "WH-1", "event_type": "CHECKOUT.ORDER.APPROVED", "resource": {"id": "ORDER1"}}));
        assert!(matches!(s.deliver(told).await, WebhookOutcome::Accepted(_)));
        s.pass(0).await;
        assert_eq!(s.payment(&payment).await.status, PaymentStatus::Captured);
        assert_eq!(s.order_state().await, OrderState::Paid);
        let told = event(paypal, &json!({"id": "WH-2", "event_type": "PAYMENT.CAPTURE.COMPLETED", "resource":
            {"id": "CAP2", "status": "COMPLETED", "custom_id": payment.id.to_string(),
             "amount": {"currency_code": "EUR", "value": "50.00"}, "supplementary_data": {"related_ids": {"order_id": "ORDER1"}}}}));
        assert!(matches!(s.deliver(told).await, WebhookOutcome::Accepted(_)));
        assert_eq!(s.payment(&payment).await.captured, PRICE);
        paypal.server.no_faults();
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn what_was_given_up_is_not_captured() {
    each_shop("paypal", paypal, async |s, paypal| {
        let payment = s.start("k", CaptureMode::Automatic, None).await;
        let canceled = s
            .payments()
            .cancel(&s.buyer, payment.id, "x".parse().unwrap())
            .await
            .unwrap()
            .value;
        assert_eq!(canceled.status, PaymentStatus::Canceled);
        // The page was still open in another window.
        paypal.books.lock().unwrap().approve("ORDER1");
        let told = event(
            paypal,
            &json!({"id": "WH-1", "event_type": "CHECKOUT.ORDER.APPROVED", "resource": {"id": "ORDER1"}}),
        );
        assert!(matches!(s.deliver(told).await, WebhookOutcome::Accepted(_)));
        s.pass(0).await;
        assert_eq!(s.payment(&payment).await.status, PaymentStatus::Canceled);
        assert_eq!(
            paypal.server.asked("POST", "/v2/checkout/orders/ORDER1/capture"),
            0
        );
        paypal.server.no_faults();
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn authorized_first_and_captured_later() {
    each_shop("paypal", paypal, async |s, paypal| {
        let payment = s.start("k", CaptureMode::Manual, None).await;
        paypal.books.lock().unwrap().approve("ORDER1");
        let held = s
            .payments()
            .complete(&s.buyer, payment.id, Vec::new())
            .await
            .unwrap();
        assert_eq!((held.status, held.authorized), (PaymentStatus::Authorized, PRICE));
        let capture = |key: &str| CapturePayment {
            idempotency_key: key.parse().unwrap(),
            amount: None,
            final_capture: None,
        };
        let taken = s
            .payments()
            .capture(&s.operator, payment.id, capture("c"))
            .await
            .unwrap()
            .value;
        assert_eq!(
            (taken.status, taken.captures[0].status),
            (PaymentStatus::Captured, OperationStatus::Succeeded)
        );
        assert_eq!(s.order_state().await, OrderState::Paid);
        let again = s
            .payments()
            .cancel(&s.operator, payment.id, "x".parse().unwrap())
            .await;
        assert!(matches!(again, Err(Error::InvalidState { .. })));
        paypal.server.no_faults();
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn an_authorization_is_voided() {
    each_shop("paypal", paypal, async |s, paypal| {
        let payment = s.start("k", CaptureMode::Manual, None).await;
        paypal.books.lock().unwrap().approve("ORDER1");
        s.payments()
            .complete(&s.buyer, payment.id, Vec::new())
            .await
            .unwrap();
        let voided = s
            .payments()
            .cancel(&s.operator, payment.id, "x".parse().unwrap())
            .await
            .unwrap()
            .value;
        assert_eq!(voided.status, PaymentStatus::Canceled);
        let synced = s.payments().sync(&s.operator, payment.id).await.unwrap();
        assert_eq!((synced.status, synced.attention), (PaymentStatus::Canceled, None));
        paypal.server.no_faults();
        s.t.verify().await;
    })
    .await;
}
