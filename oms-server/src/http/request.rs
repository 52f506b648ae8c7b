//! What surrounds every request: its id, its place in the log, headers of every answer, limits of time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use oms_core::Cause;
use poem::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use poem::{Endpoint, IntoResponse, Request, Response};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::State;
use super::body::refuse_unread;
use super::error::ApiError;
use super::{routes, webhooks};
use crate::secrets;
use crate::sight::traces::{self, Incoming};
use crate::sight::{self, InFlight};

const TIME_LIMIT: Duration = Duration::from_secs(30);

tokio::task_local! {
    static REQUEST_ID: Arc<str>;
}

/// The id of the request that this task serves.
pub(super) fn id() -> String {
    REQUEST_ID
        .try_with(ToString::to_string)
        .unwrap_or_else(|_| "none".into())
}

/// Gives the request an id and a line in the log, and the answer its headers. The outermost of all.
pub(super) async fn context<E: Endpoint>(next: Arc<E>, request: Request) -> poem::Result<Response> {
    let id: Arc<str> = accepted_id(request.headers()).unwrap_or_else(new_id).into();
    let incoming = traceparent(request.headers());
    let (route, method) = (
        routes::template(request.uri().path()),
        routes::method(request.method()),
    );
    let span = traces::request_span(&Incoming {
        id: &id,
        method,
        route,
        path: request.uri().path(),
        traceparent: incoming.as_ref().and_then(|value| value.to_str().ok()),
    });
    // Of the trace that goes on here, or as it came when this program keeps none.
    let ours = traces::traceparent(&span);
    let trace = match &ours {
        Some(text) => HeaderValue::from_str(text).ok(),
        None => incoming,
    };
    let cause = Cause {
        request_id: Some(id.to_string()),
        traceparent: trace
            .as_ref()
            .and_then(|value| Some(value.to_str().ok()?.to_owned())),
    };
    let around = span.clone();
    let work = async move {
        let _in_flight = InFlight::begin();
        let started = Instant::now();
        let mut response = next.get_response(request).await;
        let (status, took) = (response.status().as_u16(), started.elapsed());
        tracing::info!(status, ms = took.as_secs_f64() * 1e3, "answered");
        sight::answered(route, method, status, took);
        traces::answered(&around, status);
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&self::id()) {
            headers.insert("x-request-id", value);
        }
        if let Some(trace) = trace {
            headers.insert("traceparent", trace);
        }
        secure(headers);
        Ok(response)
    };
    REQUEST_ID.scope(id, cause.scope(work.instrument(span))).await
}

/// Refuses what can be told from the head of a request, before anything of its body is read.
pub(super) async fn refuse<E: Endpoint>(next: Arc<E>, request: Request) -> poem::Result<Response> {
    let fault = unreadable_header(&request)
        .or_else(|| zero_byte(&request))
        .or_else(|| webhooks::unknown_account(&request));
    match fault {
        Some(fault) => Ok(refuse_unread(fault, request)),
        None => next.call(request).await.map(IntoResponse::into_response),
    }
}

/// The extractors would take these headers for missing ones.
fn unreadable_header(request: &Request) -> Option<ApiError> {
    let unreadable = |name: &&str| {
        let mut values = request.headers().get_all(*name).iter();
        values.any(|value| value.to_str().is_err())
    };
    let name = ["Idempotency-Key", "If-Match", "If-None-Match"]
        .into_iter()
        .find(unreadable)?;
    let detail = format!("the header {name} must hold visible ASCII characters only");
    Some(ApiError::invalid_request(detail))
}

/// Not every database can look for zero bytes. Bodies are judged when they are read.
fn zero_byte(request: &Request) -> Option<ApiError> {
    let target = request.uri().path_and_query()?;
    target
        .as_str()
        .contains("%00")
        .then(|| ApiError::invalid_request("a zero byte stands in the path or the query"))
}

/// Adds what a refusal of a method must say: which methods the route has. `methods` answers for a path.
pub(super) async fn name_methods<E: Endpoint>(
    next: Arc<E>,
    request: Request,
    methods: Arc<Methods>,
) -> poem::Result<Response> {
    let path = request.uri().path().to_owned();
    let mut response = next.get_response(request).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED
        && let Ok(value) = HeaderValue::from_str(&methods.of(&path))
    {
        response.headers_mut().insert(header::ALLOW, value);
    }
    Ok(response)
}

/// Which methods the routes of the API have, as its own description lists them.
pub(super) struct Methods(Vec<(String, String)>);

impl Methods {
    /// From an OpenAPI document.
    pub(super) fn new(spec: &str) -> Self {
        let spec: serde_json::Value = serde_json::from_str(spec).unwrap_or_default();
        let paths = spec["paths"].as_object().into_iter().flatten();
        let listed = paths.map(|(path, operations)| {
            let names = operations.as_object().into_iter().flat_map(|map| map.keys());
            (path.clone(), with_head(names.map(|name| name.to_uppercase())))
        });
        // What the description leaves out: the rest of that answers GET.
        let others = [
            ("/v1/webhooks/{account}", "GET, HEAD, POST"),
            ("/verify", "GET, HEAD, POST"),
        ];
        let others = others.map(|(path, names)| (path.to_owned(), names.to_owned()));
        Self(listed.chain(others).collect())
    }

    fn of(&self, path: &str) -> String {
        let fits = |template: &str| {
            let (mut parts, mut names) = (path.split('/'), template.split('/'));
            loop {
                match (parts.next(), names.next()) {
                    (None, None) => break true,
                    (Some(part), Some(name)) if name.starts_with('{') || name == part => {}
                    _ => break false,
                }
            }
        };
        // A fixed path stands before one with a parameter, as in the router.
        let fitting = self.0.iter().filter(|(template, _)| fits(template));
        let best = fitting.min_by_key(|(template, _)| template.matches('{').count());
        best.map_or("GET, HEAD", |(_, names)| names).to_owned()
    }
}

/// Whoever answers GET answers HEAD.
fn with_head(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names
        .flat_map(|name| match name.as_str() {
            "GET" => vec![name, "HEAD".to_owned()],
            _ => vec![name],
        })
        .collect();
    names.join(", ")
}

/// Turns orders away while no more can be taken, before anybody is asked who they are: under more load than the server
/// can bear, what is spent on those who must come back is taken from those who are served.
pub(super) async fn turn_away<E: Endpoint>(next: Arc<E>, request: Request) -> poem::Result<Response> {
    let placing = request.method() == Method::POST && request.uri().path() == "/v1/orders";
    if placing
        && request
            .data::<State>()
            .is_some_and(|state| !state.oms.orders().has_room())
    {
        return Err(ApiError::from(oms_core::Error::overloaded()).into());
    }
    next.call(request).await.map(IntoResponse::into_response)
}

/// Ends what takes too long. An order that is being placed is placed all the same: the retry finds it by its key.
pub(super) async fn limit_time<E: Endpoint>(next: Arc<E>, request: Request) -> poem::Result<Response> {
    match tokio::time::timeout(TIME_LIMIT, next.call(request)).await {
        Ok(answer) => answer.map(IntoResponse::into_response),
        Err(_) => Err(ApiError::overloaded("this took too long: retry with the same key", 1).into()),
    }
}

/// Before the server stops, each answer ends its connection, so that its client opens the next one elsewhere.
pub(super) async fn take_leave<E: Endpoint>(
    next: Arc<E>,
    request: Request,
    leaving: CancellationToken,
) -> poem::Result<Response> {
    // HTTP/2 has no such header; its connections are told when the server stops.
    let one_by_one = request.version() <= Version::HTTP_11;
    let mut response = next.get_response(request).await;
    if one_by_one && leaving.is_cancelled() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    Ok(response)
}

fn accepted_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    let sane = (1..=128).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b));
    sane.then(|| id.to_owned())
}

fn new_id() -> String {
    // The system's random numbers have never failed by now: the server made secrets of them when it started.
    secrets::random_text(15).unwrap_or_default()
}

/// W3C trace context, version 00: `00-<32 hex>-<16 hex>-<2 hex>`.
fn traceparent(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get("traceparent")?;
    let parts: Vec<&str> = value.to_str().ok()?.split('-').collect();
    let hex = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let well_formed = parts.iter().map(|part| part.len()).eq([2, 32, 16, 2])
        && parts.iter().all(|part| hex(part))
        && parts[0] != "ff";
    well_formed.then(|| value.clone())
}

/// Headers that make browsers careful. A page that needs more says so itself.
fn secure(headers: &mut HeaderMap) {
    let defaults = [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("cross-origin-resource-policy", "cross-origin"),
        (
            "content-security-policy",
            "default-src 'none'; frame-ancestors 'none'",
        ),
        ("cache-control", "no-store"),
    ];
    for (name, value) in defaults {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_of_a_route() {
        let spec = r#"{"paths": {"/v1/orders": {"get": {}, "post": {}}, "/v1/orders/{id}": {"delete": {}},
            "/v1/orders/mine": {"post": {}}}}"#;
        let methods = Methods::new(spec);
        assert_eq!(methods.of("/v1/orders"), "GET, HEAD, POST");
        assert_eq!(methods.of("/v1/orders/1"), "DELETE");
        assert_eq!(methods.of("/v1/orders/mine"), "POST");
        assert_eq!(methods.of("/livez"), "GET, HEAD");
    }

    #[test]
    fn only_sane_ids_are_taken_over() {
        let with = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_str(id).unwrap());
            accepted_id(&headers)
        };
        assert_eq!(with("req-1_a.b:c").as_deref(), Some("req-1_a.b:c"));
        for odd in ["", "a b", "a\"b", &"x".repeat(129)] {
            assert_eq!(with(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn only_well_formed_traces_are_passed_on() {
        let with = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_static(text));
            traceparent(&headers).is_some()
        };
        assert!(with("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        for odd in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "x",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(!with(odd), "{odd}");
        }
    }
}
