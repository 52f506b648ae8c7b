//! __ID__: a payment plugin for oms.
//!
//! Every call runs in a fresh instance, so nothing is kept here. A request that changes something goes out with the
//! operation's idempotency key; without an answer it is `indeterminate`, never a failure.

use oms_plugin_sdk::{
    Call, Change, Decline, Delivery, Detail, Event, Features, Gateway, Info, Outcome, PaymentError, PaymentEvent,
    PaymentResult, PaymentStatus, RefundRequest, RefundResult, RefundStatus, Snapshot, StartRequest, SyncRequest,
    Totals, WebhookError, Webhooks, config, crypto::Key, export_plugin,
    http::{self, Response, percent_encode},
    standard_webhooks,
};
use serde::Deserialize;
use serde_json::{Value, json};

struct Plugin;

export_plugin!(Plugin);

/// A payment, as the gateway writes it.
#[derive(Deserialize)]
struct Payment {
    id: String,
    status: String,
    currency: String,
    captured: i64,
    refunded: i64,
}

impl Gateway for Plugin {
    fn describe() -> Info {
        Info {
            id: "__ID__".into(),
            name: "__ID__".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            // Whatever is not named here answers `unsupported` by itself.
            features: Features::REFUND | Features::PARTIAL_REFUND | Features::SYNC | Features::WEBHOOKS,
            config_schema: include_str!("../config-schema.json").into(),
            hosts: vec!["config:base-url".into()],
            currencies: Vec::new(),
        }
    }

    fn start(request: StartRequest) -> Result<PaymentResult, PaymentError> {
        let body = json!({
            // Comes back in webhooks, and finds the payment when the answer to this is lost.
            "payment": request.payment_id,
            "amount": request.amount.minor,
            "currency": request.amount.currency,
            "capture": "automatic",
        });
        let answer = change("/payments", &request.call, &body)?;
        let payment: Payment = read(&answer).map_err(PaymentError::indeterminate)?;
        Ok(payment.result())
    }

    fn refund(request: RefundRequest) -> Result<RefundResult, PaymentError> {
        let path = format!("/payments/{}/refunds", percent_encode(&request.reference));
        let body = json!({"refund": request.refund_id, "amount": request.amount.minor});
        let answer = change(&path, &request.call, &body)?;
        let refund: Value = read(&answer).map_err(PaymentError::indeterminate)?;
        Ok(RefundResult {
            refund_id: Some(request.refund_id),
            status: match refund["status"].as_str() {
                Some("succeeded") => RefundStatus::Succeeded,
                Some("failed") => RefundStatus::Failed,
                _ => RefundStatus::Pending,
            },
            reference: refund["id"].as_str().map(Into::into),
            amount: Some(request.amount),
            raw: None,
        })
    }

    fn sync(request: SyncRequest) -> Result<Snapshot, PaymentError> {
        let path = match &request.reference {
            Some(reference) => format!("/payments/{}", percent_encode(reference)),
            None => format!("/payments?payment={}", percent_encode(&request.payment_id)),
        };
        let sent = http::get(url(&path)?).bearer(&config::secret("api-key")?).send();
        let answer = sent.map_err(http::Error::of_a_read)?;
        if !answer.is_success() {
            return Err(refusal(&answer, PaymentError::unavailable));
        }
        let payment: Payment = read(&answer).map_err(PaymentError::unavailable)?;
        Ok(Snapshot { payment: payment.result(), refunds: Vec::new() })
    }
}

impl Webhooks for Plugin {
    fn receive(delivery: Delivery) -> Result<Outcome, WebhookError> {
        // The secret stays in the host. Nothing is read before this has succeeded.
        let key = Key::SecretBase64("webhook-secret".into());
        let signed = standard_webhooks::verify(&delivery, &key)?;
        let malformed = |error: serde_json::Error| WebhookError::Malformed(error.to_string());
        let message: Value = serde_json::from_slice(&delivery.body).map_err(malformed)?;
        let payment: Payment = serde_json::from_slice(&delivery.body).map_err(malformed)?;
        let change = Change::Payment(PaymentEvent {
            status: payment.status(),
            totals: payment.totals(),
            decline_code: None,
            operation_reference: None,
        });
        let event = Event {
            reference: Some(payment.id),
            payment_id: message["payment"].as_str().map(Into::into),
            ..Event::new(signed.id, message["type"].as_str().unwrap_or("unknown"), change)
        };
        Ok(Outcome::event(event, Some(signed.at_ms)))
    }
}

impl Payment {
    fn status(&self) -> Option<PaymentStatus> {
        match self.status.as_str() {
            "pending" => Some(PaymentStatus::Pending),
            "captured" => Some(PaymentStatus::Captured),
            "failed" => Some(PaymentStatus::Failed),
            _ => None,
        }
    }

    fn totals(&self) -> Totals {
        Totals {
            currency: Some(self.currency.clone()),
            captured: Some(self.captured),
            refunded: Some(self.refunded),
            ..Totals::default()
        }
    }

    fn result(&self) -> PaymentResult {
        PaymentResult {
            reference: Some(self.id.clone()),
            totals: self.totals(),
            // A status that this version does not know is no failure.
            ..PaymentResult::new(self.status().unwrap_or(PaymentStatus::Pending))
        }
    }
}

/// Sends a change under the operation's key, so that the gateway does it at most once.
fn change(path: &str, call: &Call, body: &Value) -> Result<Response, PaymentError> {
    let request = http::post(url(path)?)
        .bearer(&config::secret("api-key")?)
        .header("idempotency-key", &call.idempotency_key)
        .json(body)?;
    let answer = request.send()?;
    match answer.is_success() {
        true => Ok(answer),
        false => Err(refusal(&answer, PaymentError::indeterminate)),
    }
}

fn url(path: &str) -> Result<String, PaymentError> {
    Ok(format!("{}{path}", config::require("base-url")?.trim_end_matches('/')))
}

fn read<T: serde::de::DeserializeOwned>(answer: &Response) -> Result<T, Detail> {
    answer.json().map_err(|e| Detail::new("unreadable_answer", e.to_string()).with_http_status(answer.status))
}

/// What a status other than 2xx means. `lost`: what an error of the gateway itself leaves open.
fn refusal(answer: &Response, lost: fn(Detail) -> PaymentError) -> PaymentError {
    // A proxy in between answers in its own words.
    let body: Value = answer.json().unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or("refused").to_owned();
    let detail = Detail::new(text("code"), text("message")).with_http_status(answer.status);
    match answer.status {
        401 | 403 => PaymentError::not_authenticated(detail),
        402 => PaymentError::Declined(Decline {
            gateway_code: Some(detail.code.clone()),
            code: detail.code,
            message: detail.message,
            customer_can_retry: true,
        }),
        404 => PaymentError::not_found(detail.message),
        409 => PaymentError::invalid_state(detail),
        429 => PaymentError::RateLimited(None),
        500.. => lost(detail),
        _ => PaymentError::invalid_request(detail),
    }
}

/// What asks nothing of the host is tested here; `oms-server plugin test` runs the component.
#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Response {
        Response { status, headers: Vec::new(), body: body.into() }
    }

    #[test]
    fn a_status_that_is_new_is_no_failure() {
        let body = r#"{"id": "p_1", "status": "on_hold", "currency": "EUR", "captured": 0, "refunded": 0}"#;
        let payment: Payment = read(&answer(200, body)).unwrap();
        assert_eq!(payment.result().status, PaymentStatus::Pending);
    }

    #[test]
    fn the_page_of_a_proxy_is_no_decline() {
        let declined = refusal(&answer(402, r#"{"code": "card_declined"}"#), PaymentError::indeterminate);
        assert!(matches!(declined, PaymentError::Declined(decline) if decline.code == "card_declined"));
        let lost = refusal(&answer(502, "<html>"), PaymentError::indeterminate);
        assert!(matches!(lost, PaymentError::Indeterminate(_)));
    }
}
