//! Calls to the gateway, and what its refusals mean.

use crate::settings::{Auth, Operation, Settings};
use crate::template::Variables;
use crate::wire::{Read, View};
use oms_plugin_sdk::{
    Call, Decline, Detail, Money, PaymentError, PaymentResult, RefundResult, Snapshot, basic, config,
    currency,
    http::{self, Request, Response},
};
use serde_json::Value;

pub(crate) struct Api<'a> {
    settings: &'a Settings,
    key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Changes,
    Reads,
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer {
    value: Value,
    status: u16,
    effect: Effect,
}

impl<'a> Api<'a> {
    pub(crate) fn connect(settings: &'a Settings) -> Result<Self, PaymentError> {
        Ok(Self {
            settings,
            key: config::secret("api-key")?,
        })
    }

    /// Sends a change under the operation's key, so that the gateway does it at most once.
    pub(crate) fn change(
        &self,
        operation: Operation,
        variables: &Variables,
        call: &Call,
    ) -> Result<Answer, PaymentError> {
        let body = variables.body(self.settings.body(operation))?;
        let request = http::post(self.url(operation, variables)?)
            .header(&self.settings.idempotency_header, &call.idempotency_key)
            .json(&body)?;
        accept(self.settings, &self.finish(request).send()?, Effect::Changes)
    }

    pub(crate) fn read(&self, operation: Operation, variables: &Variables) -> Result<Answer, PaymentError> {
        let request = self.finish(http::get(self.url(operation, variables)?));
        let response = request.send().map_err(http::Error::of_a_read)?;
        accept(self.settings, &response, Effect::Reads)
    }

    fn url(&self, operation: Operation, variables: &Variables) -> Result<String, PaymentError> {
        let Some(path) = self.settings.path(operation) else {
            let name = format!("{operation:?}").to_lowercase();
            let missing = format!("the account has no setting `{name}-path`");
            return Err(match operation {
                // No gateway is without this one.
                Operation::Start => PaymentError::misconfigured(missing),
                _ => PaymentError::unsupported(missing),
            });
        };
        Ok(format!("{}{}", self.settings.base_url, variables.path(path)?))
    }

    fn finish(&self, request: Request) -> Request {
        let request = match &self.settings.auth {
            Auth::Bearer => request.bearer(&self.key),
            Auth::Basic => request.header("authorization", basic::authorization(&self.key, "")),
            Auth::Header(name) => request.header(name, &self.key),
        };
        request
            .header("accept", "application/json")
            .timeout_ms(self.settings.timeout_ms)
    }
}

fn accept(settings: &Settings, response: &Response, effect: Effect) -> Result<Answer, PaymentError> {
    if !response.is_success() {
        return Err(refusal(settings, response, effect));
    }
    let status = response.status;
    match response.json() {
        Ok(value) => Ok(Answer {
            value,
            status,
            effect,
        }),
        Err(error) => Err(unreadable(effect, status, error.to_string())),
    }
}

/// When the answer to a change cannot be read, the change may have happened.
fn unreadable(effect: Effect, status: u16, why: String) -> PaymentError {
    let detail = Detail::new("unreadable_answer", why).with_http_status(status);
    match effect {
        Effect::Changes => PaymentError::indeterminate(detail),
        Effect::Reads => PaymentError::unavailable(detail),
    }
}

impl Answer {
    fn checked<T>(&self, read: Read<T>) -> Result<T, PaymentError> {
        read.map_err(|why| unreadable(self.effect, self.status, why))
    }

    /// The payment, or the refund, that the answer holds.
    fn part(&self, settings: &Settings, name: &str) -> Result<&Value, PaymentError> {
        let missing = || Err(format!("there is nothing at the pointer `{name}`"));
        self.checked(View::find(settings, &self.value, name).map_or_else(missing, Ok))
    }

    pub(crate) fn payment(&self, settings: &Settings, exponent: u8) -> Result<PaymentResult, PaymentError> {
        let value = self.part(settings, "answer-payment")?;
        self.checked(View::new(settings, value, exponent).payment())
    }

    /// Where the request has no currency.
    pub(crate) fn payment_of_its_currency(&self, settings: &Settings) -> Result<PaymentResult, PaymentError> {
        let value = self.part(settings, "answer-payment")?;
        self.payment(settings, exponent_of(settings, value))
    }

    pub(crate) fn refund(
        &self,
        settings: &Settings,
        amount: &Money,
        refund_id: &str,
    ) -> Result<RefundResult, PaymentError> {
        let value = self.part(settings, "answer-refund")?;
        let refund = View::new(settings, value, amount.exponent).refund(Some(&amount.currency));
        let mut refund = self.checked(refund)?;
        refund.refund_id = Some(refund_id.to_owned());
        Ok(refund)
    }

    pub(crate) fn snapshot(&self, settings: &Settings, payment_id: &str) -> Result<Snapshot, PaymentError> {
        let value = self.part(settings, "answer-payment")?;
        let view = View::new(settings, value, exponent_of(settings, value));
        if let Some(other) = view.text("field-payment-id").filter(|told| told != payment_id) {
            return Err(PaymentError::internal(format!(
                "the gateway answered with payment {other}, asked for {payment_id}"
            )));
        }
        self.checked(view.snapshot())
    }
}

fn exponent_of(settings: &Settings, payment: &Value) -> u8 {
    let code = View::new(settings, payment, 0).currency();
    code.and_then(|code| currency::exponent(&code)).unwrap_or(2)
}

fn refusal(settings: &Settings, response: &Response, effect: Effect) -> PaymentError {
    // A proxy in between answers in its own words.
    let problem: Value = response.json().unwrap_or_default();
    let view = View::new(settings, &problem, 0);
    let code = view.text("error-code").unwrap_or_else(|| "refused".into());
    let message = view
        .text("error-message")
        .unwrap_or_else(|| format!("the gateway answered with status {}", response.status));
    let detail = Detail::new(&code, message)
        .with_http_status(response.status)
        .with_gateway_code(code);
    match response.status {
        status if status == settings.declined_status && effect == Effect::Changes => {
            PaymentError::Declined(Decline {
                code: detail.code,
                message: detail.message,
                gateway_code: detail.gateway_code,
                customer_can_retry: true,
            })
        }
        401 | 403 => PaymentError::not_authenticated(detail),
        404 => PaymentError::not_found(detail.message),
        409 => PaymentError::invalid_state(detail),
        429 => PaymentError::RateLimited(
            response
                .header("retry-after")
                .and_then(|seconds| seconds.trim().parse().ok()),
        ),
        // A request that took too long may still be carried out.
        408 | 500.. if effect == Effect::Changes => PaymentError::indeterminate(detail),
        408 | 500.. => PaymentError::unavailable(detail),
        _ => PaymentError::invalid_request(detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    fn response(status: u16, body: &str) -> Response {
        Response {
            status,
            headers: vec![("Retry-After".into(), b"7".to_vec())],
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn every_refusal_has_its_meaning() {
        use PaymentError as E;
        let settings = settings(&[("error-code", "/problem/0/name")]).unwrap();
        let body = r#"{"problem":[{"name":"NO_FUNDS"}],"error":{"message":"no"}}"#;
        let refused = |status, effect| refusal(&settings, &response(status, body), effect);
        let change = |status| refused(status, Effect::Changes);
        assert!(matches!(change(401), E::NotAuthenticated(_)));
        assert!(matches!(change(402), E::Declined(d) if d.code == "NO_FUNDS" && d.message == "no"));
        assert!(matches!(change(404), E::NotFound(_)));
        assert!(matches!(change(409), E::InvalidState(_)));
        assert!(matches!(change(422), E::InvalidRequest(_)));
        assert!(matches!(change(429), E::RateLimited(Some(7))));
        assert!(matches!(change(408), E::Indeterminate(_)));
        assert!(matches!(change(503), E::Indeterminate(_)));
        assert!(matches!(refused(503, Effect::Reads), E::Unavailable(_)));
        assert!(matches!(refused(402, Effect::Reads), E::InvalidRequest(_)));
        let page = refusal(&settings, &response(502, "<html>"), Effect::Changes);
        assert!(matches!(page, E::Indeterminate(d) if d.message.contains("502")));
    }

    #[test]
    fn an_unreadable_success_is_not_a_failure() {
        let settings = settings(&[("answer-payment", "/payment")]).unwrap();
        for body in ["{", "{}", r#"{"payment":{"id":"x","status":"odd"}}"#] {
            let read = |effect| {
                accept(&settings, &response(200, body), effect)
                    .and_then(|answer| answer.payment(&settings, 2))
            };
            assert!(
                matches!(read(Effect::Changes), Err(PaymentError::Indeterminate(_))),
                "{body}"
            );
            assert!(
                matches!(read(Effect::Reads), Err(PaymentError::Unavailable(_))),
                "{body}"
            );
        }
    }
}
