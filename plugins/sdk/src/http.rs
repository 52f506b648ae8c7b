//! Requests to the gateway, carried out by the host.
//!
//! The host lets through only what the plugin asked for in its manifest and the operator granted
//! to the account. It follows no redirects. An answer with any status is `Ok`: reading 4xx and 5xx
//! is the plugin's business.

use crate::PaymentError;
use crate::imports::http as host;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;

/// Begins a GET.
pub fn get(url: impl Into<String>) -> Request {
    Request::new("GET", url)
}

/// Begins a POST.
pub fn post(url: impl Into<String>) -> Request {
    Request::new("POST", url)
}

/// A request being put together; [`send`](Request::send) carries it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    timeout_ms: Option<u32>,
}

impl Request {
    /// Any method.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: None,
        }
    }

    /// Adds a header; the same name may be added more than once.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// `Authorization: Bearer ..`
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Adds query parameters, encoded as a form.
    #[must_use]
    pub fn query(mut self, pairs: &[(&str, &str)]) -> Self {
        let separator = if self.url.contains('?') { '&' } else { '?' };
        self.url.push(separator);
        self.url.push_str(&form_encode(pairs));
        self
    }

    /// A JSON body. Fails only for values that JSON cannot express, such as maps with odd keys.
    pub fn json(self, value: &impl Serialize) -> Result<Self, PaymentError> {
        let body = serde_json::to_vec(value)
            .map_err(|error| PaymentError::internal(format!("cannot write JSON: {error}")))?;
        Ok(self.body("application/json", body))
    }

    /// A form body (`application/x-www-form-urlencoded`).
    #[must_use]
    pub fn form(self, pairs: &[(&str, &str)]) -> Self {
        let body = form_encode(pairs);
        self.body("application/x-www-form-urlencoded", body)
    }

    /// Any bytes.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("content-type", content_type)
    }

    /// The longest time to wait for the whole answer. The host has a limit of its own.
    #[must_use]
    pub fn timeout_ms(mut self, milliseconds: u32) -> Self {
        self.timeout_ms = Some(milliseconds);
        self
    }

    /// Sends it and waits for the whole answer.
    pub fn send(self) -> Result<Response, Error> {
        let response = host::send(&host::Request {
            method: self.method,
            url: self.url,
            headers: self.headers,
            body: self.body,
            timeout_ms: self.timeout_ms,
        })?;
        Ok(Response {
            status: response.status,
            headers: response.headers,
            body: response.body,
        })
    }
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Response {
    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header of this name, in any case, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        crate::header(&self.headers, name)
    }

    /// Reads the body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }

    /// The body as text, with broken UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Host, scheme, port or address is not granted.
    Denied(String),
    /// The gateway saw nothing.
    NotSent(String),
    /// The gateway may have seen it.
    OutcomeUnknown(String),
    /// Request or answer is larger than the host allows.
    TooLarge(u64),
}

impl Error {
    /// The error of a request that changes nothing at the gateway: whatever went wrong, nothing
    /// has happened.
    pub fn of_a_read(self) -> PaymentError {
        match self {
            Self::OutcomeUnknown(why) => PaymentError::unavailable(("no_answer", why)),
            Self::TooLarge(_) => PaymentError::unavailable(("too_large", self.to_string())),
            other => other.into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(why) => write!(f, "not allowed: {why}"),
            Self::NotSent(why) => write!(f, "not sent: {why}"),
            Self::OutcomeUnknown(why) => write!(f, "sent, but no complete answer: {why}"),
            Self::TooLarge(bytes) => write!(f, "too large: {bytes} bytes"),
        }
    }
}

impl std::error::Error for Error {}

impl From<host::HttpError> for Error {
    fn from(error: host::HttpError) -> Self {
        match error {
            host::HttpError::Denied(why) => Self::Denied(why),
            host::HttpError::NotSent(why) => Self::NotSent(why),
            host::HttpError::OutcomeUnknown(why) => Self::OutcomeUnknown(why),
            host::HttpError::TooLarge(bytes) => Self::TooLarge(bytes),
        }
    }
}

/// Form encoding as HTML defines it, for queries and bodies.
pub fn form_encode(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        encode_into(&mut out, name);
        out.push('=');
        encode_into(&mut out, value);
    }
    out
}

/// Percent-encodes one path segment or value.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::new();
    encode_into(&mut out, text);
    out.replace('+', "%20")
}

pub(crate) fn encode_into(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            _ => {
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_queries_are_encoded() {
        let request = get("https://bank.test/v1/x").query(&[("a b", "ü&=+"), ("c", "-._*")]);
        assert_eq!(request.url, "https://bank.test/v1/x?a+b=%C3%BC%26%3D%2B&c=-._*");
        assert_eq!(percent_encode("a b/c"), "a%20b%2Fc");
        assert_eq!(
            get("https://x/?a=1").query(&[("b", "2")]).url,
            "https://x/?a=1&b=2"
        );
    }

    #[test]
    fn an_error_says_what_the_host_may_do_next() {
        let lost = || Error::OutcomeUnknown("reset".into());
        assert!(matches!(lost().into(), PaymentError::Indeterminate(_)));
        assert!(matches!(lost().of_a_read(), PaymentError::Unavailable(_)));
        assert!(matches!(
            Error::NotSent("refused".into()).into(),
            PaymentError::Unavailable(_)
        ));
        assert!(matches!(
            Error::Denied("not granted".into()).of_a_read(),
            PaymentError::Misconfigured(_)
        ));
    }
}
