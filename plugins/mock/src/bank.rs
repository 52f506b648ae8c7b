//! Calls to the bank's API, and what its refusals mean.

use oms_plugin_sdk::{
    Call, Decline, Detail, PaymentError, config,
    http::{self, Request, Response, percent_encode},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

const DEFAULT_TIMEOUT_MS: u32 = 10_000;

/// The bank of this account.
pub(crate) struct Bank {
    base_url: String,
    api_key: String,
    timeout_ms: u32,
}

impl Bank {
    pub(crate) fn connect() -> Result<Self, PaymentError> {
        Ok(Self {
            base_url: config::require("base-url")?.trim_end_matches('/').to_owned(),
            api_key: config::secret("api-key")?,
            timeout_ms: timeout(config::get("timeout-ms").as_deref())?,
        })
    }

    /// Sends a change under the operation's key, so that the bank does it at most once.
    pub(crate) fn change(
        &self,
        path: &str,
        call: &Call,
        body: &impl Serialize,
    ) -> Result<Answer, PaymentError> {
        let request = http::post(format!("{}{path}", self.base_url))
            .header("idempotency-key", &call.idempotency_key)
            .json(body)?;
        let response = self.finish(request).send()?;
        accept(response, Effect::Changes)
    }

    pub(crate) fn payment(&self, reference: &str) -> Result<Answer, PaymentError> {
        self.read(http::get(format!(
            "{}{}",
            self.base_url,
            payment_path(reference, "")
        )))
    }

    pub(crate) fn payment_of_merchant(&self, payment_id: &str) -> Result<Answer, PaymentError> {
        let request = http::get(format!("{}/v1/payments", self.base_url));
        self.read(request.query(&[("merchant_payment_id", payment_id)]))
    }

    fn read(&self, request: Request) -> Result<Answer, PaymentError> {
        let response = self.finish(request).send().map_err(http::Error::of_a_read)?;
        accept(response, Effect::Reads)
    }

    fn finish(&self, request: Request) -> Request {
        request
            .bearer(&self.api_key)
            .header("accept", "application/json")
            .timeout_ms(self.timeout_ms)
    }
}

pub(crate) fn payment_path(reference: &str, operation: &str) -> String {
    format!("/v1/payments/{}{operation}", percent_encode(reference))
}

fn timeout(setting: Option<&str>) -> Result<u32, PaymentError> {
    match setting.map(str::trim) {
        None | Some("") => Ok(DEFAULT_TIMEOUT_MS),
        Some(text) => text
            .parse()
            .ok()
            .filter(|ms| *ms > 0)
            .ok_or_else(|| PaymentError::misconfigured("`timeout-ms` is not a number of milliseconds")),
    }
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer(Response);

impl Answer {
    /// The JSON of an answer to a question.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, PaymentError> {
        self.parse().map_err(PaymentError::unavailable)
    }

    /// The JSON of an answer to a change: when it cannot be read, the change may have happened.
    pub(crate) fn read_change<T: DeserializeOwned>(&self) -> Result<T, PaymentError> {
        self.parse().map_err(PaymentError::indeterminate)
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, Detail> {
        self.0.json().map_err(|error| {
            Detail::new("unreadable_answer", error.to_string()).with_http_status(self.0.status)
        })
    }

    pub(crate) fn raw(&self) -> String {
        self.0.text()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Effect {
    Changes,
    Reads,
}

fn accept(response: Response, effect: Effect) -> Result<Answer, PaymentError> {
    if response.is_success() {
        return Ok(Answer(response));
    }
    Err(refusal(&response, effect))
}

#[derive(Default, Deserialize)]
struct Problem {
    error: Reason,
}

#[derive(Default, Deserialize)]
struct Reason {
    code: String,
    message: String,
}

fn refusal(response: &Response, effect: Effect) -> PaymentError {
    // A proxy in between answers in its own words.
    let Problem { error } = response.json().unwrap_or_default();
    let code = if error.code.is_empty() {
        "refused"
    } else {
        &error.code
    };
    let message = if error.message.is_empty() {
        format!("the bank answered with status {}", response.status)
    } else {
        error.message
    };
    let detail = Detail::new(code, message)
        .with_http_status(response.status)
        .with_gateway_code(code);
    match response.status {
        401 | 403 => PaymentError::not_authenticated(detail),
        402 => PaymentError::Declined(Decline {
            code: detail.code,
            message: detail.message,
            gateway_code: detail.gateway_code,
            customer_can_retry: true,
        }),
        404 => PaymentError::not_found(detail.message),
        // Not about the payment: the host used one key for two different requests.
        409 if code == "idempotency_key_reused" => PaymentError::invalid_request(detail),
        409 => PaymentError::invalid_state(detail),
        429 => PaymentError::RateLimited(
            response
                .header("retry-after")
                .and_then(|seconds| seconds.trim().parse().ok()),
        ),
        status if status >= 500 && effect == Effect::Changes => PaymentError::indeterminate(detail),
        status if status >= 500 => PaymentError::unavailable(detail),
        _ => PaymentError::invalid_request(detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, code: &str) -> Response {
        Response {
            status,
            headers: vec![("Retry-After".into(), b"7".to_vec())],
            body: format!(r#"{{"error":{{"code":"{code}","message":"no"}}}}"#).into_bytes(),
        }
    }

    #[test]
    fn every_refusal_has_its_meaning() {
        use PaymentError as E;
        let change = |status, code| refusal(&response(status, code), Effect::Changes);
        assert!(matches!(change(401, "x"), E::NotAuthenticated(_)));
        assert!(matches!(change(402, "card_declined"), E::Declined(d) if d.code == "card_declined"));
        assert!(matches!(change(404, "x"), E::NotFound(_)));
        assert!(matches!(change(409, "invalid_state"), E::InvalidState(_)));
        assert!(matches!(
            change(409, "idempotency_key_reused"),
            E::InvalidRequest(_)
        ));
        assert!(matches!(change(422, "x"), E::InvalidRequest(_)));
        assert!(matches!(change(429, "x"), E::RateLimited(Some(7))));
        assert!(matches!(change(500, "x"), E::Indeterminate(_)));
        assert!(matches!(change(504, "x"), E::Indeterminate(_)));
        assert!(matches!(
            refusal(&response(503, "x"), Effect::Reads),
            E::Unavailable(_)
        ));
    }

    #[test]
    fn a_foreign_error_page_still_says_something() {
        let mut page = response(502, "");
        page.body = b"<html>Bad gateway</html>".to_vec();
        let E::Indeterminate(detail) = refusal(&page, Effect::Changes) else {
            panic!("a lost change must be indeterminate");
        };
        assert_eq!(detail.http_status, Some(502));
        assert_eq!(detail.message, "the bank answered with status 502");
    }

    use PaymentError as E;

    #[test]
    fn an_unreadable_success_is_not_a_failure() {
        let answer = || {
            accept(
                Response {
                    body: b"{".to_vec(),
                    ..response(201, "")
                },
                Effect::Changes,
            )
        };
        let unreadable = answer().unwrap().read_change::<Problem>();
        assert!(matches!(unreadable, Err(E::Indeterminate(_))));
        let unreadable = answer().unwrap().read::<Problem>();
        assert!(matches!(unreadable, Err(E::Unavailable(_))));
    }

    #[test]
    fn the_timeout_is_checked() {
        assert_eq!(timeout(None), Ok(DEFAULT_TIMEOUT_MS));
        assert_eq!(timeout(Some(" 2500 ")), Ok(2500));
        for bad in ["0", "-1", "10s", "99999999999"] {
            assert!(matches!(timeout(Some(bad)), Err(E::Misconfigured(_))), "{bad}");
        }
    }

    #[test]
    fn references_cannot_leave_their_path() {
        assert_eq!(payment_path("bp_1", "/capture"), "/v1/payments/bp_1/capture");
        assert_eq!(payment_path("../x?y", ""), "/v1/payments/..%2Fx%3Fy");
    }
}
