//! A small gateway that keeps every rule, but for the one mistake that its account's setting `mistake` names: the
//! conformance kit must find it, and find nothing when there is none.

use oms_plugin_sdk::{
    Call, CaptureRequest, Change, Delivery, Detail, Event, Features, Gateway, Info, Outcome, PaymentError,
    PaymentEvent, PaymentResult, PaymentStatus, RefundRequest, RefundResult, RefundStatus, Snapshot,
    StartRequest, SyncRequest, Totals, WebhookError, Webhooks, cache, config, crypto::Key, export_plugin,
    http, log, standard_webhooks,
};
use serde_json::{Value, json};

struct Careless;

export_plugin!(Careless);

const API: &str = "https://api.careless.test";

fn mistake(name: &str) -> bool {
    config::get("mistake").as_deref() == Some(name)
}

impl Gateway for Careless {
    fn describe() -> Info {
        Info {
            id: "careless".into(),
            name: "Careless".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            features: Features::MANUAL_CAPTURE
                | Features::PARTIAL_CAPTURE
                | Features::REFUND
                | Features::PARTIAL_REFUND
                | Features::SYNC
                | Features::WEBHOOKS,
            config_schema: r#"{"type": "object", "required": ["api-key"], "properties": {
                "mistake": {"type": "string"},
                "api-key": {"type": "string", "writeOnly": true},
                "webhook-secret": {"type": "string", "writeOnly": true}}}"#
                .into(),
            hosts: vec![API.into()],
            currencies: Vec::new(),
        }
    }

    fn start(request: StartRequest) -> Result<PaymentResult, PaymentError> {
        let body = json!({"payment": request.payment_id, "amount": request.amount.minor});
        report(&change("/payments", &request.call, &body)?, request.amount.minor)
    }

    fn capture(request: CaptureRequest) -> Result<PaymentResult, PaymentError> {
        let body = match mistake("capture-everything") {
            true => json!({}),
            false => json!({"amount": request.amount.minor}),
        };
        let path = format!("/payments/{}/capture", request.reference);
        report(&change(&path, &request.call, &body)?, request.amount.minor)
    }

    fn cancel(request: oms_plugin_sdk::CancelRequest) -> Result<PaymentResult, PaymentError> {
        match mistake("cancel-anyway") {
            true => Ok(PaymentResult {
                reference: Some(request.reference),
                ..PaymentResult::new(PaymentStatus::Canceled)
            }),
            false => Err(PaymentError::unsupported("cancel")),
        }
    }

    fn refund(request: RefundRequest) -> Result<RefundResult, PaymentError> {
        let path = format!("/payments/{}/refunds", request.reference);
        let body = json!({"refund": request.refund_id, "amount": request.amount.minor});
        let answer = change(&path, &request.call, &body)?;
        Ok(RefundResult {
            refund_id: Some(request.refund_id),
            status: RefundStatus::Succeeded,
            reference: answer["id"].as_str().map(Into::into),
            amount: Some(request.amount),
            raw: None,
        })
    }

    fn sync(request: SyncRequest) -> Result<Snapshot, PaymentError> {
        let reference = request.reference.unwrap_or(request.payment_id);
        let asked = http::get(format!("{API}/payments/{reference}"))
            .bearer(&config::secret("api-key")?)
            .send();
        let response = match asked {
            Ok(response) => response,
            Err(_) if mistake("not-found-without-a-word") => {
                return Err(PaymentError::not_found("no answer"));
            }
            Err(error) => return Err(http::Error::of_a_read(error)),
        };
        match response.status {
            404 => Err(PaymentError::not_found("the gateway does not know it")),
            200 => {
                let body = response.json::<Value>();
                let body =
                    body.map_err(|e| PaymentError::unavailable(Detail::new("unreadable", e.to_string())))?;
                let total = body["captured"].as_i64().unwrap_or(0);
                Ok(Snapshot {
                    payment: report(&body, total)?,
                    refunds: Vec::new(),
                })
            }
            429 => Err(PaymentError::RateLimited(None)),
            status => Err(PaymentError::unavailable(
                Detail::new("refused", "no").with_http_status(status),
            )),
        }
    }
}

fn change(path: &str, call: &Call, body: &Value) -> Result<Value, PaymentError> {
    let key = match config::secret("api-key") {
        Ok(key) => key,
        Err(_) if mistake("guess-settings") => "default".into(),
        Err(error) => return Err(error.into()),
    };
    if mistake("log-secret-address") {
        log::info("asking", &[("url", &format!("{API}{path}"))]);
    }
    let query = if mistake("log-secret-address") {
        format!("?key={key}")
    } else {
        String::new()
    };
    let request = http::post(format!("{API}{path}{query}")).bearer(&key);
    let request = match mistake("forget-key") {
        true => request,
        false => request.header("idempotency-key", &call.idempotency_key),
    };
    let response = match request.json(body)?.send() {
        Ok(response) => response,
        Err(_) if mistake("fail-on-silence") => {
            return Err(PaymentError::Declined(oms_plugin_sdk::Decline {
                code: "no_answer".into(),
                message: "no answer".into(),
                gateway_code: None,
                customer_can_retry: true,
            }));
        }
        Err(error) => return Err(error.into()),
    };
    let detail = |code: &str| Detail::new(code, "no").with_http_status(response.status);
    match response.status {
        200 | 201 if mistake("trap-on-garbage") => Ok(response.json().expect("the gateway sends JSON")),
        200..300 => response.json().map_err(|_| match mistake("lose-success") {
            true => PaymentError::unavailable(detail("unreadable")),
            false => PaymentError::indeterminate(detail("unreadable")),
        }),
        402 => Err(PaymentError::Declined(oms_plugin_sdk::Decline {
            code: "declined".into(),
            message: "no".into(),
            gateway_code: None,
            customer_can_retry: true,
        })),
        429 => Err(PaymentError::RateLimited(None)),
        500.. if mistake("trust-errors") => Err(PaymentError::invalid_request(detail("failed"))),
        500.. => Err(PaymentError::indeterminate(detail("failed"))),
        _ => Err(PaymentError::invalid_request(detail("refused"))),
    }
}

fn report(answer: &Value, asked: i64) -> Result<PaymentResult, PaymentError> {
    let number = |name: &str| match mistake("hide-amount") {
        true => Some(asked),
        false => answer[name].as_i64(),
    };
    let status = match answer["status"].as_str() {
        Some("captured") => PaymentStatus::Captured,
        Some("authorized") => PaymentStatus::Authorized,
        // It may have happened all the same.
        _ => {
            return Err(PaymentError::indeterminate(Detail::new(
                "unknown_status",
                "no status",
            )));
        }
    };
    Ok(PaymentResult {
        reference: answer["id"].as_str().map(Into::into),
        totals: Totals {
            captured: number("captured"),
            authorized: number("authorized"),
            ..Totals::default()
        },
        ..PaymentResult::new(status)
    })
}

impl Webhooks for Careless {
    fn receive(delivery: Delivery) -> Result<Outcome, WebhookError> {
        let key = Key::SecretBase64("webhook-secret".into());
        let signed = match standard_webhooks::verify(&delivery, &key) {
            Err(WebhookError::BadSignature) if mistake("believe-anybody") => None,
            Err(WebhookError::Stale(_)) if mistake("call-it-malformed") => {
                return Err(WebhookError::Malformed("old".into()));
            }
            other => Some(other?),
        };
        let text = String::from_utf8_lossy(&delivery.body);
        if mistake("trap-on-garbage") {
            assert!(text.contains("captured"), "the gateway always says it");
        }
        let body: Value =
            serde_json::from_slice(&delivery.body).map_err(|e| WebhookError::Malformed(e.to_string()))?;
        let (mut id, at_ms) = match signed {
            Some(signed) => (signed.id, Some(signed.at_ms)),
            None => ("evt".into(), None),
        };
        if mistake("name-the-delivery") {
            id = format!("{id}-{}", delivery.received_at_ms);
        }
        let mut captured = body["captured"].as_i64();
        if mistake("remember") {
            // What came before changes what comes after.
            let before = cache::get("seen").is_some();
            cache::set("seen", b"1", 60);
            captured = captured.filter(|_| !before);
        }
        let change = Change::Payment(PaymentEvent {
            status: Some(PaymentStatus::Captured),
            totals: Totals {
                captured,
                ..Totals::default()
            },
            decline_code: None,
            operation_reference: None,
        });
        let event = Event {
            payment_id: body["payment"].as_str().map(Into::into),
            ..Event::new(id, "payment.captured", change)
        };
        Ok(Outcome::event(event, at_ms))
    }
}
