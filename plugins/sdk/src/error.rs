//! Constructors for the contract's error types, and conversions so that `?` does the usual thing.
//!
//! The case decides what the host does next, so choose by what is *known*: `unavailable` only when
//! the gateway certainly did nothing, `indeterminate` whenever it may have.

use crate::{Decline, Detail, PaymentError, WebhookError, crypto::CryptoError, http};
use std::fmt;

impl PaymentError {
    /// The final "no" of the customer's bank.
    pub fn declined(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Declined(Decline {
            code: code.into(),
            message: message.into(),
            gateway_code: None,
            customer_can_retry: true,
        })
    }

    /// What was sent can never work.
    pub fn invalid_request(detail: impl Into<Detail>) -> Self {
        Self::InvalidRequest(detail.into())
    }

    /// The payment is in another state at the gateway; the host syncs and decides.
    pub fn invalid_state(detail: impl Into<Detail>) -> Self {
        Self::InvalidState(detail.into())
    }

    /// The gateway itself says that it has never seen this.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound(what.into())
    }

    /// This gateway has no such operation.
    pub fn unsupported(operation: impl Into<String>) -> Self {
        Self::Unsupported(operation.into())
    }

    /// The gateway refuses our credentials.
    pub fn not_authenticated(detail: impl Into<Detail>) -> Self {
        Self::NotAuthenticated(detail.into())
    }

    /// It certainly did not happen; the host tries again with the same key.
    pub fn unavailable(detail: impl Into<Detail>) -> Self {
        Self::Unavailable(detail.into())
    }

    /// It may have happened; the host finds out before it does anything else.
    pub fn indeterminate(detail: impl Into<Detail>) -> Self {
        Self::Indeterminate(detail.into())
    }

    /// A setting is missing or malformed.
    pub fn misconfigured(message: impl Into<String>) -> Self {
        Self::Misconfigured(message.into())
    }

    /// A defect of the plugin.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::Internal(message.into())
    }
}

impl Detail {
    /// A stable code for programs and a sentence for the operator.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            http_status: None,
            gateway_code: None,
        }
    }

    /// The status of the gateway's answer.
    #[must_use]
    pub fn with_http_status(mut self, status: u16) -> Self {
        self.http_status = Some(status);
        self
    }

    /// The gateway's own code, word for word.
    #[must_use]
    pub fn with_gateway_code(mut self, code: impl Into<String>) -> Self {
        self.gateway_code = Some(code.into());
        self
    }
}

impl<C: Into<String>, M: Into<String>> From<(C, M)> for Detail {
    fn from((code, message): (C, M)) -> Self {
        Self::new(code, message)
    }
}

/// A setting or secret that the account does not have, or an empty one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingSetting(pub String);

impl fmt::Display for MissingSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the account has no setting `{}`", self.0)
    }
}

impl std::error::Error for MissingSetting {}

impl From<MissingSetting> for PaymentError {
    fn from(missing: MissingSetting) -> Self {
        Self::misconfigured(missing.to_string())
    }
}

impl From<MissingSetting> for WebhookError {
    fn from(missing: MissingSetting) -> Self {
        Self::Misconfigured(missing.to_string())
    }
}

/// Right for a request that changes something. For a request that only reads, `outcome-unknown`
/// is harmless: see [`http::Error::of_a_read`].
impl From<http::Error> for PaymentError {
    fn from(error: http::Error) -> Self {
        match error {
            http::Error::Denied(why) => {
                Self::misconfigured(format!("the host does not allow this request: {why}"))
            }
            http::Error::NotSent(why) => Self::unavailable(("not_sent", why)),
            http::Error::OutcomeUnknown(why) => Self::indeterminate(("outcome_unknown", why)),
            http::Error::TooLarge(bytes) => Self::indeterminate((
                "too_large",
                format!("{bytes} bytes are more than the host lets through"),
            )),
        }
    }
}

impl From<http::Error> for WebhookError {
    fn from(error: http::Error) -> Self {
        match error {
            http::Error::Denied(why) => Self::Misconfigured(why),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// The host refuses to compute only when the named secret is absent or not in the stated encoding.
impl From<CryptoError> for PaymentError {
    fn from(error: CryptoError) -> Self {
        Self::misconfigured(error.to_string())
    }
}

impl From<CryptoError> for WebhookError {
    fn from(error: CryptoError) -> Self {
        Self::Misconfigured(error.to_string())
    }
}
