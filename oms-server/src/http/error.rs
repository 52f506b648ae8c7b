//! Problem documents (RFC 9457): the one form of every error that leaves the server.

use oms_core::{Error, ErrorKind, IdempotencyKey, Violation};
use poem::http::{HeaderMap, HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::payload::Payload;
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchemaRef, Registry};
use poem_openapi::types::{ToJSON, Type};
use poem_openapi::{ApiResponse, Object};

use super::request;

/// The result of every handler.
pub(super) type Result<T> = std::result::Result<T, ApiError>;

/// What went wrong, as RFC 9457 writes it.
#[derive(Debug, Clone, Object)]
#[oai(skip_serializing_if_is_none)]
pub(super) struct Problem {
    /// Names the kind of problem.
    #[oai(rename = "type")]
    pub(super) kind: String,
    /// The kind of problem in words.
    pub(super) title: String,
    /// The HTTP status.
    pub(super) status: u16,
    /// What happened this time.
    pub(super) detail: String,
    /// Stable, for programs: such as `out_of_stock`.
    pub(super) code: String,
    /// Names this request in the server's log; also in the header `X-Request-Id`.
    pub(super) request_id: String,
    /// The parts of the request that are at fault.
    pub(super) errors: Option<Vec<Fault>>,
}

/// One part of a request that is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Object)]
pub(super) struct Fault {
    /// JSON pointer (RFC 6901) into the body, such as `/lines/0/quantity`, or the name of a parameter.
    pub(super) pointer: String,
    /// Stable, for programs.
    pub(super) code: String,
    /// What is wrong and what would be right.
    pub(super) detail: String,
}

/// An error on its way to the client.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<Fault>,
    retry_after: Option<u64>,
    /// Boxed: few errors have any, and every result would be as large.
    headers: Option<Box<HeaderMap>>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            headers: None,
        }
    }

    /// 400: what cannot be parsed.
    pub(super) fn invalid_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    /// 404: no such object, or another user's.
    pub(super) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("no such {what}"))
    }

    /// 401: no token, or one that is not good any more.
    pub(super) fn unauthorized() -> Self {
        Self::from(Error::Unauthorized)
    }

    /// 503: come back later.
    pub(super) fn overloaded(detail: &str, retry_after: u64) -> Self {
        Self::unavailable("overloaded", detail, retry_after)
    }

    /// 503 with a reason of its own.
    pub(super) fn unavailable(code: &'static str, detail: &str, retry_after: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(retry_after)
    }

    /// 500: says nothing but the request's id; `cause` goes to the log.
    pub(super) fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "a request failed by a fault of the server");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "something went wrong here; the log has the details under the request id",
        )
    }

    /// Says when to come back, in seconds.
    #[must_use]
    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Headers that go out with it.
    pub(super) fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers.get_or_insert_default()
    }

    #[must_use]
    pub(super) fn with_errors(mut self, errors: Vec<Fault>) -> Self {
        self.errors = errors;
        self
    }

    #[cfg(test)]
    pub(super) fn errors(&self) -> &[Fault] {
        &self.errors
    }

    fn problem(self) -> Problem {
        Problem {
            kind: format!("urn:oms:problem:{}", self.code),
            title: self.code.replace('_', " "),
            status: self.status.as_u16(),
            detail: self.detail,
            code: self.code.into(),
            request_id: request::id(),
            errors: (!self.errors.is_empty()).then_some(self.errors),
        }
    }
}

impl Fault {
    pub(super) fn new(pointer: impl Into<String>, code: &str, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            code: code.into(),
            detail: detail.into(),
        }
    }

    fn invalid(violation: Violation) -> Self {
        Self::new(violation.pointer, "invalid_value", violation.detail)
    }
}

/// The only place that knows which status an error of the library has.
impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let (status, code) = match error.kind() {
            ErrorKind::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            ErrorKind::EmailNotVerified => (StatusCode::FORBIDDEN, "email_not_verified"),
            ErrorKind::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            ErrorKind::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_value"),
            ErrorKind::UnknownSku => (StatusCode::UNPROCESSABLE_ENTITY, "unknown_sku"),
            ErrorKind::MixedCurrencies => (StatusCode::UNPROCESSABLE_ENTITY, "mixed_currencies"),
            ErrorKind::OutOfStock => (StatusCode::CONFLICT, "out_of_stock"),
            ErrorKind::InvalidState => (StatusCode::CONFLICT, "invalid_state"),
            ErrorKind::PaymentInProgress => (StatusCode::CONFLICT, "payment_in_progress"),
            ErrorKind::Duplicate => (StatusCode::CONFLICT, "duplicate"),
            ErrorKind::VersionConflict => (StatusCode::PRECONDITION_FAILED, "version_conflict"),
            ErrorKind::IdempotencyKeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
            ErrorKind::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            ErrorKind::Gateway => (StatusCode::SERVICE_UNAVAILABLE, "gateway_unavailable"),
            _ => return Self::internal(&error),
        };
        let mut api = Self::new(status, code, error.to_string());
        match error {
            Error::Invalid(violations) => api.errors = violations.into_iter().map(Fault::invalid).collect(),
            Error::UnknownSku(lines) => {
                let fault = |(line, sku)| {
                    let detail = format!("there is no product {sku:?} on sale");
                    Fault::new(format!("/lines/{line}/sku"), "unknown_sku", detail)
                };
                api.errors = lines.into_iter().map(fault).collect();
            }
            Error::OutOfStock(shortages) => {
                let fault = |short: oms_core::Shortage| {
                    let pointer = format!("/lines/{}/quantity", short.line);
                    Fault::new(pointer, "out_of_stock", short.to_string())
                };
                api.errors = shortages.into_iter().map(fault).collect();
            }
            Error::Overloaded { retry_after } => api.retry_after = Some(retry_after.as_secs().max(1)),
            Error::Gateway {
                account,
                source,
                retry_after,
            } => {
                tracing::warn!(account, error = %source, "a payment gateway cannot be used");
                api.detail = format!("payment account {account} cannot be used now: retry with the same key");
                api.retry_after = Some(retry_after.as_secs().max(1));
            }
            _ => {}
        }
        api
    }
}

impl IntoResponse for ApiError {
    fn into_response(mut self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let own = self.headers.take();
        let mut response = Response::builder()
            .status(status)
            .content_type(ProblemJson::CONTENT_TYPE)
            .body(self.problem().to_json_string());
        let headers = response.headers_mut();
        headers.extend(own.into_iter().flat_map(|own| *own));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"oms\""),
            );
        }
        response
    }
}

impl From<ApiError> for poem::Error {
    fn from(error: ApiError) -> Self {
        Self::from_response(error.into_response())
    }
}

/// Documented once for each operation, as the answer to whatever is not listed by itself.
impl ApiResponse for ApiError {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "Whatever went wrong, in the form of RFC 9457. `code` says what.",
                status: None,
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: ProblemJson::CONTENT_TYPE,
                    schema: ProblemJson::schema_ref(),
                }],
                headers: vec![],
            }],
        }
    }

    fn register(registry: &mut Registry) {
        Problem::register(registry);
    }
}

struct ProblemJson;

impl Payload for ProblemJson {
    const CONTENT_TYPE: &'static str = "application/problem+json";

    fn schema_ref() -> MetaSchemaRef {
        Problem::schema_ref()
    }
}

/// What the framework says itself: unknown routes, wrong methods, content types, parameters.
pub(super) async fn from_framework(error: poem::Error) -> Response {
    if error.is_from_response() {
        return error.into_response();
    }
    let (status, detail) = (error.status(), error.to_string());
    let error = match status {
        StatusCode::UNAUTHORIZED => ApiError::unauthorized(),
        StatusCode::NOT_FOUND => ApiError::not_found("route"),
        StatusCode::METHOD_NOT_ALLOWED => {
            ApiError::new(status, "method_not_allowed", "this route has other methods")
        }
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(status, "payload_too_large", detail),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ApiError::new(status, "unsupported_media_type", detail),
        _ if status.is_client_error() => ApiError::invalid_request(detail),
        _ => ApiError::internal(&detail),
    };
    error.into_response()
}

/// The header `Idempotency-Key`, quoted or bare.
pub(super) fn idempotency_key(header: Option<&str>) -> Result<IdempotencyKey> {
    let Some(text) = header else {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "idempotency_key_required",
            "send the header Idempotency-Key: 1 to 255 visible ASCII characters, the same for every retry",
        ));
    };
    let bare = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(text);
    bare.parse().map_err(|_| {
        let detail = "the header Idempotency-Key must have 1 to 255 visible ASCII characters";
        ApiError::invalid_request(detail)
    })
}

/// The version that `If-Match` names; 428 without one.
pub(super) fn required_version(header: Option<&str>) -> Result<i64> {
    version(header)?.ok_or_else(|| {
        ApiError::new(
            StatusCode::PRECONDITION_REQUIRED,
            "precondition_required",
            "send the header If-Match with the ETag of what you read, such as \"v7\"",
        )
    })
}

/// The version that `If-Match` names, if it is there. A tag that was never ours cannot be current.
pub(super) fn version(header: Option<&str>) -> Result<Option<i64>> {
    let Some(text) = header.map(str::trim) else {
        return Ok(None);
    };
    let number = text
        .strip_prefix("\"v")
        .and_then(|rest| rest.strip_suffix('"'))
        .and_then(|digits| digits.parse().ok());
    number.map(Some).ok_or_else(|| {
        ApiError::new(
            StatusCode::PRECONDITION_FAILED,
            "version_conflict",
            "If-Match must hold one ETag of this object, such as \"v7\"",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_quoted_and_bare() {
        assert_eq!(idempotency_key(Some("\"a-1\"")).unwrap().as_str(), "a-1");
        assert_eq!(idempotency_key(Some("a-1")).unwrap().as_str(), "a-1");
        assert_eq!(
            idempotency_key(None).unwrap_err().code,
            "idempotency_key_required"
        );
        assert_eq!(idempotency_key(Some("a b")).unwrap_err().code, "invalid_request");
    }

    #[test]
    fn versions_come_as_etags() {
        assert_eq!(required_version(Some("\"v7\"")).unwrap(), 7);
        assert_eq!(required_version(None).unwrap_err().status, 428);
        for other in ["*", "v7", "\"7\"", "W/\"v7\"", "\"v\""] {
            assert_eq!(required_version(Some(other)).unwrap_err().status, 412, "{other}");
        }
    }
}
