//! Calls to the API, and what its refusals mean.

use crate::token;
use oms_plugin_sdk::{
    Decline, Detail, PaymentError, config,
    http::{self, Request, Response},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(crate) use oms_plugin_sdk::http::percent_encode as segment;

const DEFAULT_TIMEOUT_MS: u32 = 20_000;

pub(crate) struct Api {
    base_url: String,
    client_id: String,
    timeout_ms: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Changes,
    Reads,
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer(Response, Effect);

impl Api {
    pub(crate) fn connect() -> Result<Self, PaymentError> {
        Ok(Self {
            base_url: config::require("base-url")?.trim_end_matches('/').to_owned(),
            client_id: config::require("client-id")?,
            timeout_ms: timeout(config::get("timeout-ms").as_deref())?,
        })
    }

    /// Sends a change under a key, so that PayPal does it at most once.
    pub(crate) fn post(&self, path: &str, key: &str, body: &impl Serialize) -> Result<Answer, PaymentError> {
        let request = http::post(format!("{}{path}", self.base_url))
            .header("paypal-request-id", key)
            .header("prefer", "return=representation")
            .json(body)?;
        self.send(&request, Effect::Changes)
    }

    pub(crate) fn get(&self, path: &str) -> Result<Answer, PaymentError> {
        self.send(&http::get(format!("{}{path}", self.base_url)), Effect::Reads)
    }

    fn send(&self, request: &Request, effect: Effect) -> Result<Answer, PaymentError> {
        let kept = token::kept(&self.client_id);
        let fresh = || token::fetch(&self.base_url, &self.client_id, self.timeout_ms);
        let was_kept = kept.is_some();
        let mut response = self.try_send(request, &kept.map_or_else(fresh, Ok)?, effect)?;
        // PayPal may take a token back before its time. With a new one the request was certainly not carried out twice.
        if response.status == 401 && was_kept {
            response = self.try_send(request, &fresh()?, effect)?;
        }
        accept(response, effect)
    }

    fn try_send(&self, request: &Request, token: &str, effect: Effect) -> Result<Response, PaymentError> {
        let request = request
            .clone()
            .bearer(token)
            .header("accept", "application/json")
            .timeout_ms(self.timeout_ms);
        request.send().map_err(|error| match effect {
            Effect::Changes => error.into(),
            Effect::Reads => error.of_a_read(),
        })
    }
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

impl Answer {
    /// Status 204: there is nothing to read.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.status == 204
    }

    /// The JSON. When the answer to a change cannot be read, the change may have happened.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, PaymentError> {
        self.0.json().map_err(|error| {
            let detail = Detail::new("unreadable_answer", error.to_string()).with_http_status(self.0.status);
            match self.1 {
                Effect::Changes => PaymentError::indeterminate(detail),
                Effect::Reads => PaymentError::unavailable(detail),
            }
        })
    }
}

fn accept(response: Response, effect: Effect) -> Result<Answer, PaymentError> {
    if response.is_success() {
        return Ok(Answer(response, effect));
    }
    Err(refusal(&response, effect))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    name: String,
    message: String,
    details: Vec<Issue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Issue {
    issue: String,
    description: String,
}

/// Issues by which the customer's bank, or PayPal on its behalf, says no.
const DECLINES: [&str; 9] = [
    "INSTRUMENT_DECLINED",
    "PAYER_ACCOUNT_LOCKED_OR_CLOSED",
    "PAYER_ACCOUNT_RESTRICTED",
    "PAYER_CANNOT_PAY",
    "PAYEE_BLOCKED_TRANSACTION",
    "TRANSACTION_BLOCKED_BY_PAYEE",
    "TRANSACTION_LIMIT_EXCEEDED",
    "TRANSACTION_REFUSED",
    "COMPLIANCE_VIOLATION",
];

fn refusal(response: &Response, effect: Effect) -> PaymentError {
    // A proxy in between answers in its own words.
    let problem: Problem = response.json().unwrap_or_default();
    let issue = problem.details.into_iter().next().unwrap_or_default();
    let first = |texts: [String; 2]| texts.into_iter().find(|text| !text.is_empty());
    let code = first([issue.issue, problem.name]).unwrap_or_else(|| "refused".into());
    let message = first([issue.description, problem.message])
        .unwrap_or_else(|| format!("PayPal answered with status {}", response.status));
    let detail = Detail::new(&code, message)
        .with_http_status(response.status)
        .with_gateway_code(&code);
    match response.status {
        401 | 403 => PaymentError::not_authenticated(detail),
        404 => PaymentError::not_found(detail.message),
        // Another request with this key is still under way.
        409 if effect == Effect::Changes => PaymentError::indeterminate(detail),
        422 if DECLINES.contains(&code.as_str()) => PaymentError::Declined(Decline {
            code: code.to_ascii_lowercase(),
            message: detail.message,
            gateway_code: detail.gateway_code,
            customer_can_retry: true,
        }),
        422 => PaymentError::invalid_state(detail),
        429 => PaymentError::RateLimited(
            response
                .header("retry-after")
                .and_then(|seconds| seconds.trim().parse().ok()),
        ),
        500.. if effect == Effect::Changes => PaymentError::indeterminate(detail),
        409 | 500.. => PaymentError::unavailable(detail),
        _ => PaymentError::invalid_request(detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, issue: &str) -> Response {
        Response {
            status,
            headers: vec![("Retry-After".into(), b"7".to_vec())],
            body: format!(
                r#"{{"name":"UNPROCESSABLE_ENTITY","message":"no","details":[{{"issue":"{issue}","description":"why"}}]}}"#
            )
            .into_bytes(),
        }
    }

    #[test]
    fn every_refusal_has_its_meaning() {
        use PaymentError as E;
        let change = |status, issue| refusal(&response(status, issue), Effect::Changes);
        assert!(matches!(change(401, ""), E::NotAuthenticated(_)));
        assert!(matches!(change(404, ""), E::NotFound(_)));
        assert!(
            matches!(change(400, "INVALID_CURRENCY"), E::InvalidRequest(d) if d.code == "INVALID_CURRENCY")
        );
        assert!(
            matches!(change(422, "INSTRUMENT_DECLINED"), E::Declined(d) if d.code == "instrument_declined")
        );
        assert!(matches!(
            change(422, "ORDER_ALREADY_CAPTURED"),
            E::InvalidState(_)
        ));
        assert!(matches!(
            change(409, "PREVIOUS_REQUEST_IN_PROGRESS"),
            E::Indeterminate(_)
        ));
        assert!(matches!(change(429, ""), E::RateLimited(Some(7))));
        assert!(matches!(change(500, ""), E::Indeterminate(_)));
        assert!(matches!(
            refusal(&response(503, ""), Effect::Reads),
            E::Unavailable(_)
        ));
        let page = Response {
            body: b"<html>".to_vec(),
            ..response(502, "")
        };
        assert!(matches!(refusal(&page, Effect::Changes), E::Indeterminate(d) if d.message.contains("502")));
    }

    #[test]
    fn an_unreadable_success_is_not_a_failure() {
        let broken = |effect| {
            let response = Response {
                body: b"{".to_vec(),
                ..response(201, "")
            };
            accept(response, effect).unwrap().read::<Problem>()
        };
        assert!(matches!(
            broken(Effect::Changes),
            Err(PaymentError::Indeterminate(_))
        ));
        assert!(matches!(broken(Effect::Reads), Err(PaymentError::Unavailable(_))));
    }
}
