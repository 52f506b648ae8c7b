//! Calls to Stripe's API.

use oms_plugin_sdk::{
    Call, Detail, PaymentError,
    form::Form,
    http::{self, Request, Response, percent_encode},
    log,
};
use serde::de::DeserializeOwned;

use crate::intent::{Intent, Status};
use crate::refusal::{self, Ask};
use crate::settings::{self, Settings};

/// What requests and answers look like. Stripe keeps old versions alive, so it changes only with this plugin. It is the
/// last one with `payment_method_types`: the next one, `2026-09-30.endive`, refuses that parameter
/// (<https://docs.stripe.com/changelog/endive/2026-09-30/removes-the-payment-method-types-parameter-from-payment-intents-and-setup-intents>),
/// and what stands for it there is not known to fakes yet.
pub(crate) const API_VERSION: &str = "2026-07-29.dahlia";

/// Stripe with the account's key.
pub(crate) struct Api<'a> {
    settings: &'a Settings,
    key: String,
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Response,
    changed: bool,
}

/// What came of a cancellation.
pub(crate) enum Canceled {
    Now(Answer),
    Before(Box<Intent>),
}

impl<'a> Api<'a> {
    pub(crate) fn of(settings: &'a Settings, call: &Call) -> Result<Self, PaymentError> {
        Ok(Self {
            settings,
            key: settings::api_key(call.test_mode)?,
        })
    }

    /// Sends a change under the operation's key, so that Stripe makes it at most once.
    pub(crate) fn post(
        &self,
        ask: Ask,
        path: &str,
        call: &Call,
        form: &Form,
    ) -> Result<Answer, PaymentError> {
        accept(self.send_change(path, call, form)?, ask)
    }

    /// As [`Api::post`] for a cancellation: of a payment that is canceled already Stripe says so in an error, and shows
    /// it beside.
    pub(crate) fn cancel(&self, path: &str, call: &Call, form: &Form) -> Result<Canceled, PaymentError> {
        let response = self.send_change(path, call, form)?;
        match refusal::shown_intent(&response) {
            Some(intent) if intent.status == Status::Canceled => Ok(Canceled::Before(Box::new(intent))),
            _ => accept(response, Ask::Change).map(Canceled::Now),
        }
    }

    fn send_change(&self, path: &str, call: &Call, form: &Form) -> Result<Response, PaymentError> {
        let request = http::post(self.url(path))
            .header("idempotency-key", &call.idempotency_key)
            .form_body(form);
        let response = self.finish(request).send()?;
        if response.header("idempotent-replayed") == Some("true") {
            log::info(
                "Stripe had done this before and says what came of it",
                &[("path", path)],
            );
        }
        Ok(response)
    }

    pub(crate) fn get(&self, path: &str, query: &Form) -> Result<Answer, PaymentError> {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.push('?');
            url.push_str(&query.encoded());
        }
        let request = self.finish(http::get(url));
        accept(request.send().map_err(http::Error::of_a_read)?, Ask::Read)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.settings.base_url)
    }

    fn finish(&self, request: Request) -> Request {
        let request = request
            .bearer(&self.key)
            .header("stripe-version", API_VERSION)
            .header("accept", "application/json")
            .timeout_ms(self.settings.timeout_ms);
        match &self.settings.stripe_account {
            Some(account) => request.header("stripe-account", account),
            None => request,
        }
    }
}

fn accept(response: Response, ask: Ask) -> Result<Answer, PaymentError> {
    if response.is_success() {
        return Ok(Answer {
            response,
            changed: ask != Ask::Read,
        });
    }
    Err(refusal::read(&response, ask))
}

impl Answer {
    /// Its JSON. When that cannot be read, a change may have happened all the same.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, PaymentError> {
        self.response.json().map_err(|error| {
            let detail =
                Detail::new("unreadable_answer", error.to_string()).with_http_status(self.response.status);
            if self.changed {
                PaymentError::indeterminate(detail)
            } else {
                PaymentError::unavailable(detail)
            }
        })
    }

    /// Stripe's name of the request, which its support asks for.
    pub(crate) fn request_id(&self) -> Option<&str> {
        self.response.header("request-id")
    }
}

/// `/v1/payment_intents/pi_1/capture`
pub(crate) fn intent_path(reference: &str, operation: &str) -> String {
    format!("/v1/payment_intents/{}{operation}", percent_encode(reference))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_cannot_leave_their_path() {
        assert_eq!(
            intent_path("pi_1", "/capture"),
            "/v1/payment_intents/pi_1/capture"
        );
        assert_eq!(intent_path("../x?y", ""), "/v1/payment_intents/..%2Fx%3Fy");
    }

    #[test]
    fn an_unreadable_success_is_not_a_failure() {
        let response = || Response {
            status: 200,
            headers: Vec::new(),
            body: b"{".to_vec(),
        };
        let read = |ask| {
            let answer = accept(response(), ask).unwrap();
            answer.json::<serde_json::Value>().unwrap_err()
        };
        assert!(matches!(read(Ask::Start), PaymentError::Indeterminate(_)));
        assert!(matches!(read(Ask::Refund), PaymentError::Indeterminate(_)));
        assert!(matches!(read(Ask::Read), PaymentError::Unavailable(_)));
    }
}
