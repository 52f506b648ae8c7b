//! What Stripe's errors mean (<https://docs.stripe.com/error-low-level>, `/error-codes`, `/declines/codes`).

use oms_plugin_sdk::{Decline, Detail, PaymentError, http::Response};
use serde::Deserialize;

use crate::intent::{Failure, Intent};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A new payment.
    Start,
    /// A change of a payment that is there.
    Change,
    /// A new refund of a payment that is there.
    Refund,
    /// Nothing that changes anything.
    Read,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    error: Reason,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reason {
    #[serde(rename = "type")]
    kind: String,
    code: Option<String>,
    decline_code: Option<String>,
    message: Option<String>,
    param: Option<String>,
}

/// The payment is not where the request wants it.
const OTHER_STATE: &[&str] = &[
    "charge_already_captured",
    "charge_already_refunded",
    "charge_disputed",
    "charge_expired_for_capture",
    "payment_intent_unexpected_state",
    "refund_disputed_payment",
];

/// Stripe's advice is not to try such a card again.
const FINAL_DECLINES: &[&str] = &[
    "fraudulent",
    "lost_card",
    "merchant_blacklist",
    "pickup_card",
    "restricted_card",
    "stolen_card",
];

pub(crate) fn read(response: &Response, ask: Ask) -> PaymentError {
    // A proxy in between answers in its own words.
    let Problem { error } = response.json().unwrap_or_default();
    let status = response.status;
    let code = error.code.clone().unwrap_or_default();
    if error.kind == "card_error" || status == 402 {
        return PaymentError::Declined(decline(&error.failure()));
    }
    let detail = error.detail(response);
    match status {
        401 | 403 => PaymentError::not_authenticated(detail),
        // Another request holds the object, or there are too many of them: this one was not begun.
        429 => PaymentError::RateLimited(retry_after(response)),
        409 if code == "lock_timeout" => PaymentError::RateLimited(retry_after(response).or(Some(1))),
        // Our own earlier request under this key, which is still under way.
        409 if ask != Ask::Read => PaymentError::indeterminate(detail),
        // The payment itself. Of a new one only an ingredient can be missing.
        404 if ask != Ask::Start => PaymentError::not_found(detail.message),
        400..500 if OTHER_STATE.contains(&code.as_str()) => PaymentError::invalid_state(detail),
        // Stripe could not reach somebody, or this is no answer of Stripe's.
        424 | 300..400 | 500.. if ask != Ask::Read => PaymentError::indeterminate(detail),
        400..500 if status != 424 => PaymentError::invalid_request(detail),
        _ => PaymentError::unavailable(detail),
    }
}

/// The payment as Stripe shows it beside an error.
pub(crate) fn shown_intent(response: &Response) -> Option<Intent> {
    #[derive(Deserialize)]
    struct Problem {
        error: Beside,
    }
    #[derive(Deserialize)]
    struct Beside {
        payment_intent: Intent,
    }
    Some(response.json::<Problem>().ok()?.error.payment_intent)
}

/// Why the customer's bank said no.
pub(crate) fn decline(failure: &Failure) -> Decline {
    let gateway_code = failure.decline_code.clone();
    let is_final = gateway_code
        .as_deref()
        .is_some_and(|code| FINAL_DECLINES.contains(&code));
    Decline {
        code: failure.code.clone().unwrap_or_else(|| "card_declined".into()),
        message: failure
            .message
            .clone()
            .unwrap_or_else(|| "The payment was declined.".into()),
        gateway_code,
        customer_can_retry: !is_final,
    }
}

impl Reason {
    fn failure(&self) -> Failure {
        Failure {
            code: self.code.clone(),
            decline_code: self.decline_code.clone(),
            message: self.message.clone(),
        }
    }

    fn detail(&self, response: &Response) -> Detail {
        let kind = Some(self.kind.as_str()).filter(|kind| !kind.is_empty());
        let code = self.code.as_deref().or(kind).unwrap_or("refused");
        let mut message = match &self.message {
            Some(message) => message.clone(),
            None => format!("Stripe answered with status {}", response.status),
        };
        if let Some(param) = &self.param {
            message.push_str(&format!(" (parameter {param})"));
        }
        if let Some(id) = response.header("request-id") {
            message.push_str(&format!(" (request {id})"));
        }
        Detail::new(code, message)
            .with_http_status(response.status)
            .with_gateway_code(code)
    }
}

fn retry_after(response: &Response) -> Option<u32> {
    response.header("retry-after")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use PaymentError as E;

    fn response(status: u16, error: &str) -> Response {
        Response {
            status,
            headers: vec![("Request-Id".into(), b"req_1".to_vec())],
            body: format!(r#"{{"error":{{{error}}}}}"#).into_bytes(),
        }
    }

    fn meaning(status: u16, ask: Ask, error: &str) -> PaymentError {
        read(&response(status, error), ask)
    }

    #[test]
    fn a_decline_keeps_both_codes() {
        let error =
            r#""type":"card_error","code":"card_declined","decline_code":"stolen_card","message":"No.""#;
        let E::Declined(decline) = meaning(402, Ask::Start, error) else {
            panic!("a decline expected");
        };
        assert_eq!(decline.code, "card_declined");
        assert_eq!(decline.gateway_code.as_deref(), Some("stolen_card"));
        assert!(!decline.customer_can_retry);
        let plain = meaning(402, Ask::Start, r#""type":"invalid_request_error""#);
        assert!(matches!(plain, E::Declined(d) if d.code == "card_declined" && d.customer_can_retry));
    }

    #[test]
    fn every_refusal_has_its_meaning() {
        let of = |status, ask, code: &str| meaning(status, ask, &format!(r#""type":"x","code":"{code}""#));
        assert!(matches!(of(401, Ask::Read, "x"), E::NotAuthenticated(_)));
        assert!(matches!(of(403, Ask::Start, "x"), E::NotAuthenticated(_)));
        assert!(matches!(of(404, Ask::Read, "resource_missing"), E::NotFound(_)));
        assert!(matches!(of(404, Ask::Change, "resource_missing"), E::NotFound(_)));
        assert!(matches!(
            of(404, Ask::Start, "resource_missing"),
            E::InvalidRequest(_)
        ));
        assert!(matches!(
            of(409, Ask::Start, "idempotency_key_in_use"),
            E::Indeterminate(_)
        ));
        assert!(matches!(
            of(409, Ask::Start, "lock_timeout"),
            E::RateLimited(Some(1))
        ));
        assert!(matches!(
            of(429, Ask::Start, "lock_timeout"),
            E::RateLimited(None)
        ));
        assert!(matches!(
            of(400, Ask::Change, "payment_intent_unexpected_state"),
            E::InvalidState(_)
        ));
        assert!(matches!(
            of(400, Ask::Start, "parameter_missing"),
            E::InvalidRequest(_)
        ));
        assert!(matches!(of(424, Ask::Start, "x"), E::Indeterminate(_)));
        for status in [302, 500, 502, 503, 504] {
            assert!(
                matches!(of(status, Ask::Refund, "x"), E::Indeterminate(_)),
                "{status}"
            );
            assert!(
                matches!(of(status, Ask::Read, "x"), E::Unavailable(_)),
                "{status}"
            );
        }
    }

    #[test]
    fn a_key_with_other_parameters_is_a_defect_of_ours() {
        let error = r#""type":"idempotency_error","message":"Keys for idempotent requests ..""#;
        let E::InvalidRequest(detail) = meaning(400, Ask::Start, error) else {
            panic!("an invalid request expected");
        };
        assert_eq!(detail.code, "idempotency_error");
        assert!(detail.message.ends_with("(request req_1)"), "{}", detail.message);
    }

    #[test]
    fn a_foreign_error_page_still_says_something() {
        let page = Response {
            status: 502,
            headers: vec![],
            body: b"<html>Bad gateway</html>".to_vec(),
        };
        let E::Indeterminate(detail) = read(&page, Ask::Start) else {
            panic!("a lost change must be indeterminate");
        };
        assert_eq!(detail.message, "Stripe answered with status 502");
    }

    #[test]
    fn the_wait_is_passed_on() {
        let mut slow = response(429, r#""type":"invalid_request_error""#);
        slow.headers.push(("Retry-After".into(), b"7".to_vec()));
        assert!(matches!(read(&slow, Ask::Start), E::RateLimited(Some(7))));
    }
}
