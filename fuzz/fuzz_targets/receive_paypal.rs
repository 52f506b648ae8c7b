//! Webhooks of PayPal: a signature by a certificate that the delivery names, over the CRC-32 of the body. The check of
//! the certificate is the host's, so it is played here: one certificate is good, and it signs with a key of the target's.
#![cfg_attr(fuzzing, no_main)]

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oms_fuzz::delivery::{Control, NOW_MS, Signing, only_header};
use oms_fuzz::host::{Account, Cache, exponent, hmac_sha256};
use oms_fuzz::json::{Words, edited};
use oms_fuzz::webhook::{Known, damaged, judge, only_event, receive, verified};
use oms_plugin_paypal::PayPal;
use oms_plugin_sdk::native_host::{Hash, Host, HttpError, Key, Request, Response, Scheme};
use oms_plugin_sdk::{Change, Delivery, Event, WebhookError, crc32};
use serde_json::Value;

oms_fuzz::target!(run);

const WEBHOOK_ID: &str = "1JE4291016473214C";
const KEY: &[u8] = b"the private key of the good certificate";
const GOOD: &[u8] = b"-----BEGIN CERTIFICATE-----\ngood\n-----END CERTIFICATE-----\n";
const OTHER: &[u8] = b"-----BEGIN CERTIFICATE-----\nother\n-----END CERTIFICATE-----\n";
const LIVE: &str = "https://api.paypal.com";
const SANDBOX: &str = "https://api.sandbox.paypal.com";
const PATH: &str = "/v1/notifications/certs/";

const WORDS: Words = Words {
    names: &[
        "id",
        "event_type",
        "create_time",
        "resource",
        "status",
        "amount",
        "currency_code",
        "value",
        "custom_id",
        "supplementary_data",
        "related_ids",
        "order_id",
        "dispute_id",
        "reason",
        "dispute_outcome",
        "outcome_code",
        "disputed_transactions",
        "custom",
    ],
    values: &[
        r#""CHECKOUT.ORDER.APPROVED""#,
        r#""PAYMENT.CAPTURE.COMPLETED""#,
        r#""PAYMENT.CAPTURE.DENIED""#,
        r#""PAYMENT.CAPTURE.REVERSED""#,
        r#""PAYMENT.CAPTURE.REFUNDED""#,
        r#""PAYMENT.REFUND.COMPLETED""#,
        r#""PAYMENT.AUTHORIZATION.CREATED""#,
        r#""PAYMENT.AUTHORIZATION.VOIDED""#,
        r#""CUSTOMER.DISPUTE.CREATED""#,
        r#""CUSTOMER.DISPUTE.RESOLVED""#,
        r#""CUSTOMER.DISPUTE.UPDATED""#,
        r#""BILLING.PLAN.CREATED""#,
        r#""PAYMENT""#,
        r#"".""#,
        r#""COMPLETED""#,
        r#""CREATED""#,
        r#""FAILED""#,
        r#""CANCELLED""#,
        r#""RESOLVED_SELLER_FAVOUR""#,
        r#""RESOLVED_BUYER_FAVOUR""#,
        r#""pay_1""#,
        r#""ref_1""#,
        r#""EUR""#,
        r#""JPY""#,
        r#""KWD""#,
        r#""XXX""#,
        r#""19.99""#,
        r#""-19.99""#,
        r#""1999""#,
        r#""19.999""#,
        r#""2026-01-01T00:00:00.12Z""#,
        r#"{"currency_code":"EUR","value":"19.99"}"#,
        r#"[{"custom":"pay_1"}]"#,
        r#"{"related_ids":{"order_id":"5O1"}}"#,
        r#"{"outcome_code":"DENIED"}"#,
    ],
};

/// What the host does for this plugin alone.
struct Paypal {
    account: Account,
    sandbox: bool,
    /// What PayPal's server answers when it is asked for the certificate.
    answer: Result<Response, HttpError>,
    cache: Cache,
}

impl Host for Paypal {
    fn config(&self, name: &str) -> Option<String> {
        self.account.config(name)
    }

    fn secret(&self, name: &str) -> Option<String> {
        self.account.secret(name)
    }

    fn hmac(&self, _: Hash, _: &Key, _: &[u8]) -> Result<Vec<u8>, String> {
        panic!("PayPal signs with certificates");
    }

    fn exponent(&self, code: &str) -> Option<u8> {
        exponent(code)
    }

    fn send(&self, request: &Request) -> Result<Response, HttpError> {
        assert!(
            is_pinned(&request.url, self.sandbox),
            "a stranger had {} asked",
            request.url
        );
        assert!(request.method == "GET" && request.body.is_empty());
        assert!(
            request.timeout_ms.is_some(),
            "a slow answer would hold the delivery up"
        );
        self.answer.clone()
    }

    fn verify_signature(
        &self,
        scheme: Scheme,
        public_key: &[u8],
        chain_host: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, String> {
        let name = match self.sandbox {
            true => "messageverificationcerts.sandbox.paypal.com",
            false => "messageverificationcerts.paypal.com",
        };
        assert_eq!((scheme, chain_host), (Scheme::RsaPkcs1Sha256, Some(name)));
        if public_key != GOOD {
            return Err("the chain of certificates is not trusted".into());
        }
        Ok(hmac_sha256(KEY, message) == signature)
    }

    fn cached(&self, key: &str) -> Option<Vec<u8>> {
        assert!(
            is_pinned(key, self.sandbox),
            "a stranger had the cache asked for {key}"
        );
        self.cache.get(key)
    }

    fn cache(&self, key: &str, value: &[u8], _: u32) {
        assert_eq!(value, GOOD, "a certificate that is not good was kept");
        self.cache.set(key, value);
    }
}

fn run(input: &[u8]) {
    let (control, text) = Control::read(input);
    let body = edited(text, &control.edits, &WORDS);
    let sandbox = control.account % 2 == 1;
    let base_url = if sandbox {
        "https://api-m.sandbox.paypal.com"
    } else {
        "https://api-m.paypal.com"
    };
    let account = Account::new(
        &[
            ("base-url", base_url),
            ("webhook-id", WEBHOOK_ID),
            ("client-id", "client"),
        ],
        &[("client-secret", "EClientSecret0001")],
    );
    let delivery = sign(&control, sandbox, body);
    let serves = control.account / 16;
    let host = || {
        let host = Paypal {
            account: account.clone(),
            sandbox,
            answer: certificate(serves),
            cache: Cache::default(),
        };
        if serves == 7 {
            // Kept from an earlier delivery: nobody is asked.
            host.cache.set(&certificate_url(sandbox, 0), GOOD);
        }
        Rc::new(host)
    };
    let known = Known {
        authentic: is_authentic(&delivery, sandbox),
        proper: matches!(control.signing(), Signing::Genuine | Signing::AmongOthers)
            && control.leaves_headers()
            && matches!(serves, 0 | 7)
            && is_authentic(&delivery, sandbox),
        in_time: None,
    };
    let ask = |delivery: &Delivery| receive::<PayPal>(&account, host(), delivery);
    let answer = ask(&delivery);
    judge(&answer, known, &delivery);
    let Some(verified) = verified(&answer) else {
        return;
    };

    assert_eq!((verified.signed_at_ms, &verified.reply), (None, &None));
    says_what_was_sent(only_event(verified), &delivery.body);
    // Any one bit makes another CRC-32.
    if let Some(damaged) = damaged(&delivery, control.damage) {
        assert_eq!(ask(&damaged), Err(WebhookError::BadSignature), "{damaged:?}");
    }
    assert_eq!(ask(&delivery), answer, "the same delivery twice");
}

/// What PayPal's server answers.
fn certificate(number: u8) -> Result<Response, HttpError> {
    let answer = |status, body: &[u8]| Response {
        status,
        headers: Vec::new(),
        body: body.to_vec(),
    };
    match number {
        0 => Ok(answer(200, GOOD)),
        1 => Ok(answer(200, OTHER)),
        2 => Ok(answer(200, b"")),
        3 => Ok(answer(404, GOOD)),
        4 => Ok(answer(503, GOOD)),
        5 => Err(HttpError::OutcomeUnknown("no answer in time".into())),
        6 => Err(HttpError::Denied("not granted".into())),
        7 => Err(HttpError::NotSent("no such host".into())),
        _ => Ok(answer(302, GOOD)),
    }
}

/// Addresses of certificates: PayPal's, and what others would like to be taken for it.
fn certificate_url(sandbox: bool, number: u8) -> String {
    let origin = if sandbox { SANDBOX } else { LIVE };
    match number % 8 {
        0 => format!("{origin}{PATH}CERT-360caa42"),
        1 => format!("https://api.paypal.com.evil.test{PATH}CERT-1"),
        2 => format!("https://api.paypal.com@evil.test{PATH}CERT-1"),
        3 => format!("{origin}{PATH}../../../evil"),
        4 => format!("{origin}{PATH}CERT?x=1"),
        5 => format!("http://api.paypal.com{PATH}CERT-1"),
        6 => format!("{}{PATH}CERT-1", if sandbox { LIVE } else { SANDBOX }),
        _ => format!("{origin}:8443{PATH}CERT-1"),
    }
}

fn is_pinned(url: &str, sandbox: bool) -> bool {
    let origin = if sandbox { SANDBOX } else { LIVE };
    let name = url.strip_prefix(&format!("{origin}{PATH}"));
    name.is_some_and(|name| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    })
}

fn sign(control: &Control, sandbox: bool, body: Vec<u8>) -> Delivery {
    let id = "69cd13f0-d67a-11e5-baa3-778b53f4ae55";
    let time = ["2026-01-02T03:04:05Z", "2016-02-18T20:01:35Z"]
        [usize::from(control.signed_seconds() < NOW_MS / 1000)];
    let over = |body: &[u8]| message(id, time, body);
    let signature = match control.signing() {
        Signing::Genuine | Signing::AmongOthers => BASE64.encode(hmac_sha256(KEY, &over(&body))),
        Signing::OldKey | Signing::WrongKey => BASE64.encode(hmac_sha256(b"", &over(&body))),
        Signing::OtherBody => BASE64.encode(hmac_sha256(KEY, &over(&[&body[..], b" "].concat()))),
        Signing::Garbage => String::from_utf8_lossy(&body).into_owned(),
        Signing::Absent => String::new(),
    };
    let url = certificate_url(sandbox, control.account / 2);
    let headers = vec![
        ("paypal-transmission-id", id.as_bytes().to_vec()),
        ("paypal-transmission-time", time.as_bytes().to_vec()),
        ("paypal-transmission-sig", signature.into_bytes()),
        ("paypal-cert-url", url.into_bytes()),
        ("paypal-auth-algo", b"SHA256withRSA".to_vec()),
    ];
    control.delivery(headers, body)
}

fn message(id: &str, time: &str, body: &[u8]) -> Vec<u8> {
    format!("{id}|{time}|{WEBHOOK_ID}|{}", crc32(body)).into_bytes()
}

fn is_authentic(delivery: &Delivery, sandbox: bool) -> bool {
    let names = [
        "paypal-transmission-id",
        "paypal-transmission-time",
        "paypal-transmission-sig",
        "paypal-cert-url",
        "paypal-auth-algo",
    ];
    let [Some(id), Some(time), Some(signature), Some(url), Some(algorithm)] =
        names.map(|name| only_header(delivery, name))
    else {
        return false;
    };
    signature == BASE64.encode(hmac_sha256(KEY, &message(id, time, &delivery.body)))
        && is_pinned(url, sandbox)
        && algorithm.eq_ignore_ascii_case("SHA256withRSA")
        && !id.contains('|')
        && !time.contains('|')
}

/// The event holds nothing but what stands in the body, and only ids that look like ours.
fn says_what_was_sent(event: &Event, body: &[u8]) {
    // A member that nobody asks for may hold bytes that are no text.
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    // A list in the place of an object is read by the order of its items.
    if !body.is_object() {
        return;
    }
    assert_eq!(Some(event.id.as_str()), body["id"].as_str());
    assert_eq!(Some(event.kind.as_str()), body["event_type"].as_str());
    assert!(event.payment_id.as_ref().is_none_or(|id| id.starts_with("pay_")));
    let resource = &body["resource"];
    if !resource.is_object() || !resource["amount"].is_object() {
        return;
    }
    let currency = resource["amount"]["currency_code"].as_str();
    match &event.change {
        Change::Payment(change) => {
            let said = change.totals.currency.as_deref();
            assert!(said.is_none() || said == currency);
        }
        Change::Refund(change) => {
            let amount = change.amount.as_ref().expect("a refund has an amount");
            assert_eq!(Some(amount.currency.as_str()), currency);
            assert_eq!(Some(amount.exponent), exponent(&amount.currency));
            assert!(change.refund_id.as_ref().is_none_or(|id| id.starts_with("ref_")));
        }
        Change::Dispute(change) => assert!(change.won.is_none() || !change.opened),
        Change::NeedsSync | Change::Irrelevant => {}
    }
}
