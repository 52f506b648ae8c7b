//! Payments at Adyen: the answer is "received", and a signed notification tells the rest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oms_core::Error;
use oms_core::orders::OrderState;
use oms_core::payments::{
    Account, CaptureMode, CapturePayment, Decision, Delivery, GatewayError, InboxStatus, MoneyReceived,
    NextAction, OperationStatus, Payment, PaymentStatus, RefundPayment, WebhookOutcome,
};
use serde_json::{Value, json};

use super::fakes::{Answer, Fake, Keys, PRICE, Play, Request, Shop, account, delivery, each_shop, eur};

const KEY: [u8; 4] = [0x44, 0x78, 0x2D, 0xEF];

/// What Adyen has been told.
#[derive(Default)]
struct Books {
    keys: Keys,
    links: HashMap<String, String>,
    /// The next answer is lost on its way.
    lose: bool,
    count: u32,
}

struct Adyen {
    server: Fake,
    books: Arc<Mutex<Books>>,
}

fn adyen() -> (Adyen, Account) {
    let books = Arc::new(Mutex::new(Books::default()));
    let shared = Arc::clone(&books);
    let server = Fake::start(move |request| shared.lock().unwrap().play(request));
    let base = format!("{}/v71", server.origin);
    let config = [("base-url", base.as_str()), ("merchant-account", "ShopEU")];
    let account = account("adyen", &config, &[("api-key", "AQE1"), ("hmac-key", "44782DEF")]);
    (Adyen { server, books }, account)
}

impl Books {
    fn play(&mut self, request: &Request) -> Play {
        if request.header("x-api-key") != "AQE1" {
            return Ok(Answer::Json(
                401,
                json!({"status": 401, "errorCode": "000", "message": "HTTP Status Response - Unauthorized"}),
            ));
        }
        let path = request
            .path
            .strip_prefix("/v71")
            .ok_or("another version")?
            .to_owned();
        if request.method == "GET" {
            let id = path.strip_prefix("/paymentLinks/").ok_or("no such GET")?;
            return Ok(Answer::Json(200, self.link(id)));
        }
        let (links, count) = (&mut self.links, &mut self.count);
        let answer = self.keys.once("idempotency-key", request, || {
            *count += 1;
            act(links, *count, &request.method, &path, &request.json())
        });
        if std::mem::take(&mut self.lose) {
            Ok(Answer::Lost)
        } else {
            answer
        }
    }

    fn link(&self, id: &str) -> Value {
        json!({"id": id, "status": self.links.get(id), "url": format!("https://test.adyen.link/{id}"),
            "expiresAt": "2026-01-02T00:00:00+00:00"})
    }
}

fn act(
    links: &mut HashMap<String, String>,
    count: u32,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<(u16, Value), String> {
    let known = |allowed: &[&str]| {
        let fields = body.as_object().ok_or("no object")?;
        match fields.keys().find(|name| !allowed.contains(&name.as_str())) {
            Some(name) => Err(format!("unexpected field {name}")),
            None => Ok(()),
        }
    };
    if let Some(id) = path.strip_prefix("/paymentLinks/") {
        known(&["status"])?;
        let state = links.get_mut(id).ok_or("no such link")?;
        if method != "PATCH" || body["status"] != "expired" {
            return Err("only PATCH to expired".into());
        }
        *state = "expired".into();
        return Ok((200, json!({"id": id, "status": "expired"})));
    }
    if body["merchantAccount"] != "ShopEU" || method != "POST" {
        return Err(format!("{method} for {}", body["merchantAccount"]));
    }
    let amount = &body["amount"];
    if path != "/payments/details"
        && !path.ends_with("cancels")
        && (!amount["value"].is_i64() || amount["currency"] != "EUR")
    {
        return Err(format!("amount {amount}"));
    }
    let received = |name: &str| {
        Ok((
            201,
            json!({name: "x", "status": "received", "pspReference": format!("MOD{count}")}),
        ))
    };
    match path {
        "/paymentLinks" => {
            known(&[
                "merchantAccount",
                "reference",
                "amount",
                "merchantOrderReference",
                "reusable",
                "captureDelayHours",
                "manualCapture",
                "description",
                "returnUrl",
                "shopperEmail",
                "shopperReference",
                "countryCode",
            ])?;
            let id = format!("PL{count}");
            links.insert(id.clone(), "active".into());
            Ok((
                201,
                json!({"id": id, "status": "active", "url": format!("https://test.adyen.link/{id}"),
                "expiresAt": "2026-01-02T00:00:00+00:00", "amount": amount, "reference": body["reference"]}),
            ))
        }
        "/payments" => pay(count, body),
        _ if path.ends_with("/captures") || path.ends_with("/refunds") || path.ends_with("/cancels") => {
            known(&["merchantAccount", "amount", "reference"])?;
            if !path.starts_with("/payments/PSP") {
                return Ok((
                    422,
                    json!({"status": 422, "errorCode": "167", "message": "Original pspReference required for this operation"}),
                ));
            }
            received("paymentPspReference")
        }
        other => Err(format!("no such path {other}")),
    }
}

fn pay(count: u32, body: &Value) -> Result<(u16, Value), String> {
    let psp = format!("PSP{count}");
    match body["paymentMethod"]["type"].as_str() {
        Some("scheme") => {}
        Some("refused") => {
            return Ok((
                200,
                json!({"resultCode": "Refused", "pspReference": psp, "refusalReason": "Not enough balance",
                "refusalReasonCode": "12"}),
            ));
        }
        other => return Err(format!("payment method {other:?}")),
    }
    if body["shopperIP"] != "203.0.113.7" || body["returnUrl"] != "https://shop.example/thanks" {
        return Err(format!("{body}"));
    }
    Ok((
        200,
        json!({"resultCode": "Authorised", "pspReference": psp, "amount": body["amount"],
        "merchantReference": body["reference"], "paymentMethod": {"type": "scheme", "brand": "visa"}}),
    ))
}

impl Adyen {
    /// A notification of one item, signed.
    fn tells(
        &self,
        code: &str,
        success: bool,
        psp: &str,
        original: &str,
        reference: &str,
        minor: i64,
    ) -> Delivery {
        let success = success.to_string();
        let text = format!("{psp}:{original}:ShopEU:{reference}:{minor}:EUR:{code}:{success}");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &KEY);
        let signature = BASE64.encode(ring::hmac::sign(&key, text.as_bytes()));
        let body = json!({"live": "false", "notificationItems": [{"NotificationRequestItem": {
            "pspReference": psp, "originalReference": original, "merchantAccountCode": "ShopEU",
            "merchantReference": reference, "amount": {"value": minor, "currency": "EUR"}, "eventCode": code,
            "success": success, "eventDate": "2026-01-01T00:00:00+00:00",
            "additionalData": {"hmacSignature": signature}}}]});
        delivery(&[], body.to_string().as_bytes(), crate::support::START)
    }
}

#[track_caller]
fn accepted(outcome: &WebhookOutcome) {
    let WebhookOutcome::Accepted(Some(reply)) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"[accepted]"[..]));
}

impl Shop {
    async fn held(&self, key: &str) -> Payment {
        let payment = self
            .start(key, CaptureMode::Manual, Some(r#"{"type":"scheme"}"#))
            .await;
        assert_eq!(payment.status, PaymentStatus::Authorized);
        payment
    }

    async fn captures(&self, payment: &Payment, key: &str, minor: i64) -> Payment {
        let command = CapturePayment {
            idempotency_key: key.parse().unwrap(),
            amount: Some(eur(minor)),
            final_capture: None,
        };
        let captured = self.payments().capture(&self.operator, payment.id, command).await;
        captured.unwrap().value
    }
}

#[tokio::test]
async fn a_page_of_adyens_and_a_refund() {
    each_shop("adyen", adyen, async |s, adyen| {
        let payment = s.start("k", CaptureMode::Automatic, None).await;
        assert_eq!(
            (payment.status, payment.reference.as_deref()),
            (PaymentStatus::ActionRequired, Some("PL1"))
        );
        assert!(
            matches!(&payment.next_action, Some(NextAction::Redirect { url, .. }) if url.ends_with("/PL1"))
        );
        let reference = format!("{}.al", payment.id);
        let by_hand = MoneyReceived {
            idempotency_key: "h".parse().unwrap(),
            amount: None,
            note: None,
        };
        let said = s.payments().received(&s.operator, payment.id, by_hand).await;
        assert!(
            matches!(said, Err(Error::InvalidState { .. })),
            "its gateway tells: {said:?}"
        );
        // A card that is refused on the page: the customer tries another one.
        accepted(
            &s.deliver(adyen.tells("AUTHORISATION", false, "PSPX", "", &reference, PRICE))
                .await,
        );
        assert_eq!(s.payment(&payment).await.status, PaymentStatus::ActionRequired);
        let paid = adyen.tells("AUTHORISATION", true, "PSPY", "", &reference, PRICE);
        let mut forged = paid.clone();
        forged.body = String::from_utf8(forged.body)
            .unwrap()
            .replace("5000", "5001")
            .into_bytes();
        assert!(matches!(s.deliver(forged).await, WebhookOutcome::Refused(_)));
        accepted(&s.deliver(paid.clone()).await);
        accepted(&s.deliver(paid).await);
        let paid = s.payment(&payment).await;
        assert_eq!((paid.status, paid.captured), (PaymentStatus::Captured, PRICE));
        assert_eq!(
            paid.reference.as_deref(),
            Some("PSPY"),
            "the page has made this payment"
        );
        assert_eq!(
            (s.order_state().await, s.inbox(InboxStatus::Applied).await),
            (OrderState::Paid, 1)
        );

        let command = RefundPayment {
            idempotency_key: "r".parse().unwrap(),
            amount: Some(eur(2_000)),
            reason: None,
        };
        let refund = s
            .payments()
            .refund(&s.operator, payment.id, command)
            .await
            .unwrap()
            .value;
        assert_eq!(refund.status, OperationStatus::Pending);
        let id = refund.id.to_string();
        accepted(
            &s.deliver(adyen.tells("REFUND", true, "MOD2", "PSPY", &id, 2_000))
                .await,
        );
        assert_eq!(s.payment(&payment).await.refunded, 2_000);
        accepted(
            &s.deliver(adyen.tells("REFUND_FAILED", true, "MOD2", "PSPY", &id, 2_000))
                .await,
        );
        let back = s.payment(&payment).await;
        assert_eq!(
            (back.refunds[0].status, back.shown_status()),
            (OperationStatus::Reversed, "needs_review")
        );
        let asked = s.payments().sync(&s.operator, payment.id).await;
        assert!(
            matches!(
                asked,
                Err(Error::Gateway {
                    source: GatewayError::Unsupported(_),
                    ..
                })
            ),
            "{asked:?}"
        );
        adyen.server.no_faults();
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_capture_fails_later_and_another_one_succeeds() {
    each_shop("adyen", adyen, async |s, adyen| {
        let payment = s.held("k").await;
        let reference = format!("{}.m", payment.id);
        let first = s.captures(&payment, "c1", PRICE).await;
        assert_eq!(
            (first.status, first.captures[0].status),
            (PaymentStatus::Authorized, OperationStatus::Pending)
        );
        accepted(
            &s.deliver(adyen.tells("CAPTURE", false, "MOD2", "PSP1", &reference, PRICE))
                .await,
        );
        assert_eq!(
            s.payment(&payment).await.captures[0].status,
            OperationStatus::Failed
        );
        s.captures(&payment, "c2", PRICE).await;
        accepted(
            &s.deliver(adyen.tells("CAPTURE", true, "MOD3", "PSP1", &reference, PRICE))
                .await,
        );
        let paid = s.payment(&payment).await;
        assert_eq!((paid.status, paid.captured), (PaymentStatus::Captured, PRICE));
        let with = |status| paid.captures.iter().filter(|c| c.status == status).count();
        assert_eq!(
            (with(OperationStatus::Succeeded), with(OperationStatus::Failed)),
            (1, 1)
        );
        assert_eq!(s.order_state().await, OrderState::Paid);
        // The scheme takes it back after all.
        accepted(
            &s.deliver(adyen.tells("CAPTURE_FAILED", true, "MOD3", "PSP1", &reference, PRICE))
                .await,
        );
        assert_eq!(s.payment(&payment).await.shown_status(), "needs_review");
        adyen.server.no_faults();
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn payments_are_given_up() {
    each_shop("adyen", adyen, async |s, adyen| {
        let held = s.held("k").await;
        let cancel = |key: &str| key.parse().unwrap();
        let canceling = s
            .payments()
            .cancel(&s.operator, held.id, cancel("x"))
            .await
            .unwrap()
            .value;
        assert_eq!(
            canceling.status,
            PaymentStatus::Authorized,
            "Adyen has only received it"
        );
        let reference = format!("{}.m", held.id);
        accepted(
            &s.deliver(adyen.tells("CANCELLATION", true, "MOD2", "PSP1", &reference, PRICE))
                .await,
        );
        assert_eq!(s.payment(&held).await.status, PaymentStatus::Canceled);
        let link = s.start("k2", CaptureMode::Automatic, None).await;
        let canceled = s
            .payments()
            .cancel(&s.buyer, link.id, cancel("y"))
            .await
            .unwrap()
            .value;
        assert_eq!(canceled.status, PaymentStatus::Canceled);
        let refused = s
            .start("k3", CaptureMode::Automatic, Some(r#"{"type":"refused"}"#))
            .await;
        assert_eq!(
            (refused.status, refused.decline_code.as_deref()),
            (PaymentStatus::Failed, Some("refused"))
        );
        adyen.server.no_faults();
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_under_the_same_key() {
    each_shop("adyen", adyen, async |s, adyen| {
        adyen.books.lock().unwrap().lose = true;
        let payment = s
            .start("k", CaptureMode::Automatic, Some(r#"{"type":"scheme"}"#))
            .await;
        assert_eq!(payment.shown_status(), "unknown");
        s.pass(31).await;
        let known = s.payment(&payment).await;
        assert_eq!((known.shown_status(), known.captured), ("captured", PRICE));
        assert_eq!(adyen.server.asked("POST", "/v71/payments"), 2);
        assert_eq!(adyen.books.lock().unwrap().count, 1, "and paid once");
        adyen.server.no_faults();
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn another_amount_waits_for_a_person() {
    each_shop("adyen", adyen, async |s, adyen| {
        let payment = s.start("k", CaptureMode::Automatic, None).await;
        let reference = format!("{}.al", payment.id);
        accepted(
            &s.deliver(adyen.tells("AUTHORISATION", true, "PSPY", "", &reference, 4_000))
                .await,
        );
        let told = s.payment(&payment).await;
        assert_eq!((told.shown_status(), told.captured), ("needs_review", 0));
        // Adyen cannot be asked: what it told is what is taken.
        let taken = s
            .payments()
            .review(&s.operator, payment.id, Decision::Accept)
            .await
            .unwrap();
        assert_eq!(
            (taken.attention, taken.captured, taken.status),
            (None, 4_000, PaymentStatus::Captured)
        );
        assert_eq!(s.order_state().await, OrderState::Paid);
        adyen.server.no_faults();
        s.t.verify().await;
    })
    .await;
}
