//! Calls to the Checkout API, and what its refusals mean.

use oms_plugin_sdk::{
    Call, Detail, PaymentError, config,
    http::{self, Request, Response},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(crate) use oms_plugin_sdk::http::percent_encode as segment;

const DEFAULT_TIMEOUT_MS: u32 = 20_000;

/// The merchant account at Adyen.
pub(crate) struct Api {
    pub(crate) merchant_account: String,
    base_url: String,
    key: String,
    timeout_ms: u32,
}

/// What a request is about, on which the meaning of a refusal depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// It makes a payment, or goes on with one.
    Pays,
    /// It changes a payment that exists.
    Modifies,
    Reads,
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer(Response, Doing);

impl Api {
    pub(crate) fn connect() -> Result<Self, PaymentError> {
        Ok(Self {
            merchant_account: config::require("merchant-account")?,
            base_url: config::require("base-url")?.trim_end_matches('/').to_owned(),
            key: config::secret("api-key")?,
            timeout_ms: timeout(config::get("timeout-ms").as_deref())?,
        })
    }

    /// Sends a change under the operation's key, so that Adyen does it at most once.
    pub(crate) fn post(
        &self,
        path: &str,
        call: &Call,
        doing: Doing,
        body: &impl Serialize,
    ) -> Result<Answer, PaymentError> {
        self.change("POST", path, call, doing, body)
    }

    pub(crate) fn change(
        &self,
        method: &str,
        path: &str,
        call: &Call,
        doing: Doing,
        body: &impl Serialize,
    ) -> Result<Answer, PaymentError> {
        let request = Request::new(method, format!("{}{path}", self.base_url))
            .header("idempotency-key", &call.idempotency_key)
            .json(body)?;
        accept(self.finish(request).send()?, doing)
    }

    pub(crate) fn get(&self, path: &str) -> Result<Answer, PaymentError> {
        let request = self.finish(http::get(format!("{}{path}", self.base_url)));
        accept(request.send().map_err(http::Error::of_a_read)?, Doing::Reads)
    }

    fn finish(&self, request: Request) -> Request {
        request
            .header("x-api-key", &self.key)
            .header("accept", "application/json")
            .timeout_ms(self.timeout_ms)
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
    /// The JSON. When the answer to a change cannot be read, the change may have happened.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, PaymentError> {
        self.0.json().map_err(|error| {
            let detail = Detail::new("unreadable_answer", error.to_string()).with_http_status(self.0.status);
            match self.1 {
                Doing::Reads => PaymentError::unavailable(detail),
                Doing::Pays | Doing::Modifies => PaymentError::indeterminate(detail),
            }
        })
    }
}

fn accept(response: Response, doing: Doing) -> Result<Answer, PaymentError> {
    if response.is_success() {
        return Ok(Answer(response, doing));
    }
    Err(refusal(&response, doing))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Problem {
    error_code: String,
    message: String,
    // The newer shape of errors (RFC 7807).
    title: String,
    detail: String,
}

/// The errors of Adyen that say that it knows no such payment: "Original pspReference required for this operation".
const UNKNOWN_PAYMENT: &str = "167";

fn refusal(response: &Response, doing: Doing) -> PaymentError {
    // A proxy in between answers in its own words.
    let problem: Problem = response.json().unwrap_or_default();
    let said = [problem.message, problem.detail, problem.title];
    let message = said
        .into_iter()
        .find(|text| !text.is_empty())
        .unwrap_or_else(|| format!("Adyen answered with status {}", response.status));
    let code = Some(problem.error_code).filter(|code| !code.is_empty());
    let mut detail =
        Detail::new(code.as_deref().unwrap_or("refused"), message).with_http_status(response.status);
    detail.gateway_code = code;
    // Another request with this key is under way, or the error is a passing one: the same key may be used again.
    let transient = response
        .header("transient-error")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    match response.status {
        401 | 403 => PaymentError::not_authenticated(detail),
        429 => PaymentError::RateLimited(
            response
                .header("retry-after")
                .and_then(|seconds| seconds.trim().parse().ok()),
        ),
        _ if doing == Doing::Reads && (transient || response.status >= 500) => {
            PaymentError::unavailable(detail)
        }
        _ if transient || response.status >= 500 => PaymentError::indeterminate(detail),
        404 if doing != Doing::Pays => PaymentError::not_found(detail.message),
        _ if doing == Doing::Modifies && detail.gateway_code.as_deref() == Some(UNKNOWN_PAYMENT) => {
            PaymentError::not_found(detail.message)
        }
        // Its fields are ours and always the same, so that what Adyen dislikes is the state of the payment.
        422 if doing == Doing::Modifies => PaymentError::invalid_state(detail),
        _ => PaymentError::invalid_request(detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, code: &str, headers: &[(&str, &str)]) -> Response {
        let headers = headers.iter();
        Response {
            status,
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect(),
            body: format!(
                r#"{{"status":{status},"errorCode":"{code}","message":"no","errorType":"validation"}}"#
            )
            .into_bytes(),
        }
    }

    #[test]
    fn every_refusal_has_its_meaning() {
        use Doing::{Modifies, Pays, Reads};
        use PaymentError as E;
        let refused = |status, code, doing| refusal(&response(status, code, &[]), doing);
        assert!(matches!(refused(401, "000", Pays), E::NotAuthenticated(_)));
        assert!(matches!(refused(403, "010", Modifies), E::NotAuthenticated(_)));
        assert!(
            matches!(refused(422, "137", Pays), E::InvalidRequest(d) if d.gateway_code.as_deref() == Some("137"))
        );
        assert!(matches!(refused(422, "137", Modifies), E::InvalidState(_)));
        assert!(matches!(refused(422, "167", Modifies), E::NotFound(_)));
        assert!(matches!(refused(404, "", Reads), E::NotFound(_)));
        assert!(matches!(refused(400, "702", Modifies), E::InvalidRequest(_)));
        assert!(matches!(refused(500, "905", Pays), E::Indeterminate(_)));
        assert!(matches!(refused(503, "", Reads), E::Unavailable(_)));
        let limited = refusal(&response(429, "", &[("Retry-After", "7")]), Pays);
        assert!(matches!(limited, E::RateLimited(Some(7))));
        let busy = refusal(&response(422, "704", &[("Transient-Error", "true")]), Modifies);
        assert!(matches!(busy, E::Indeterminate(_)));
    }

    #[test]
    fn a_foreign_error_page_still_says_something() {
        let page = Response {
            status: 502,
            headers: Vec::new(),
            body: b"<html>Bad gateway</html>".to_vec(),
        };
        let PaymentError::Indeterminate(detail) = refusal(&page, Doing::Pays) else {
            panic!("a lost change must be indeterminate");
        };
        assert_eq!(detail.message, "Adyen answered with status 502");
    }

    #[test]
    fn an_unreadable_success_is_not_a_failure() {
        let broken = |doing| {
            let response = Response {
                body: b"{".to_vec(),
                ..response(200, "", &[])
            };
            accept(response, doing).unwrap().read::<Problem>()
        };
        assert!(matches!(broken(Doing::Pays), Err(PaymentError::Indeterminate(_))));
        assert!(matches!(broken(Doing::Reads), Err(PaymentError::Unavailable(_))));
    }
}
