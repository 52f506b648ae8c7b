//! `http.send`: what may be asked of whom, and how it is sent.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, redirect, retry};
use url::{Host, Url};

use super::address::{NotPublic, PublicOnly, is_public};
use super::bindings::http::{HttpError, Request, Response};
use super::state::State;
use super::tape::{self, HttpRequest, Peer};
use super::tls;
use crate::payments::Account;

const MAX_URL: usize = 8 << 10;
const MAX_HEADERS: usize = 16 << 10;
const MAX_REQUEST: usize = 256 << 10;
const MAX_RESPONSE: usize = 1 << 20;
const CONNECT: Duration = Duration::from_secs(5);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);
/// What is left to the guest after its last request, so that it can say what became of it.
const RESERVE: Duration = Duration::from_millis(500);

/// What the host alone decides.
const RESERVED_HEADERS: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "http2-settings",
];

/// HTTP clients, one for each set of trusted roots. Connections are kept, so those to private addresses live apart:
/// an account without that grant must not get one of them.
#[derive(Default)]
pub(super) struct Clients(Mutex<HashMap<(Option<String>, bool), Client>>);

impl Clients {
    fn get(&self, extra_roots: Option<&str>, private: bool) -> Result<Client, String> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (extra_roots.map(str::to_owned), private);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls::client_config(extra_roots)?)
            .user_agent(concat!("oms/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(16);
        if !private {
            builder = builder.https_only(true).dns_resolver(Arc::new(PublicOnly));
        }
        let client = builder.build().map_err(|e| format!("HTTP client: {e}"))?;
        clients.insert(key, client.clone());
        Ok(client)
    }
}

/// Sends a request of the guest, if it may.
pub(super) async fn send(state: &mut State, request: Request) -> Result<Response, HttpError> {
    let Some(tape) = tape::current() else {
        return exchange(state, request, None).await;
    };
    let (noted, began) = (HttpRequest::from(&request), Instant::now());
    let answer = match tape.peer() {
        Some(peer) => exchange(state, request, Some((&**peer, &noted))).await,
        None => exchange(state, request, None).await,
    };
    tape.http(noted, &answer, began.elapsed());
    answer
}

/// With a `stand_in`, that one answers in the place of the network, after the same checks.
async fn exchange(
    state: &mut State,
    request: Request,
    stand_in: Option<(&dyn Peer, &HttpRequest)>,
) -> Result<Response, HttpError> {
    let limit = state.plugin.limits.http_calls;
    if state.http_calls >= limit {
        return Err(HttpError::Denied(format!(
            "this call has made its {limit} requests"
        )));
    }
    state.http_calls += 1;

    let size = request.body.len();
    if size > MAX_REQUEST {
        return Err(HttpError::TooLarge(size as u64));
    }
    let request_body = request.body;
    let method = method(&request.method).map_err(HttpError::Denied)?;
    let url = parse_url(&request.url).map_err(HttpError::Denied)?;
    let headers = headers(&request.headers).map_err(HttpError::Denied)?;
    let private = permit(&state.plugin.hosts, &state.account, &url).map_err(HttpError::Denied)?;
    let client = state
        .shared
        .clients
        .get(state.account.extra_roots.as_deref(), private)
        .map_err(HttpError::Denied)?;

    let wanted = request
        .timeout_ms
        .map_or(DEFAULT_TIMEOUT, |ms| Duration::from_millis(ms.into()));
    let timeout = wanted.min(state.time_left().saturating_sub(RESERVE));
    if timeout.is_zero() {
        return Err(HttpError::NotSent("no time is left for a request".into()));
    }
    // Set before it is sent: this call may be cut off while it waits.
    let reached_before = std::mem::replace(&mut state.reached, true);
    let answer = match stand_in {
        Some((peer, request)) => peer.answer(request).into_wit(),
        None => {
            let request = client.request(method.clone(), url.clone());
            let request = request.headers(headers).body(request_body).timeout(timeout);
            match request.send().await {
                Ok(response) => read(response).await,
                Err(error) => Err(judge(&error)),
            }
        }
    };
    if matches!(answer, Err(HttpError::NotSent(_) | HttpError::Denied(_))) {
        state.reached = reached_before;
    }
    tracing::debug!(
        plugin.id = %state.plugin.id,
        account = %state.account.name,
        %method,
        host = url.host_str().unwrap_or_default(),
        path = url.path(),
        status = answer.as_ref().ok().map(|response| response.status),
        error = answer.as_ref().err().map(tracing::field::debug),
        "a plugin sent a request"
    );
    answer
}

fn method(name: &str) -> Result<Method, String> {
    match name {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => {
            Method::from_bytes(name.as_bytes()).map_err(|e| e.to_string())
        }
        _ => Err(format!("the method {name:?} may not be sent")),
    }
}

fn parse_url(text: &str) -> Result<Url, String> {
    if text.len() > MAX_URL {
        return Err(format!("the URL has {} bytes, {MAX_URL} may be sent", text.len()));
    }
    let url = Url::parse(text).map_err(|e| format!("the URL cannot be read: {e}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials belong into a header, not into the URL".into());
    }
    Ok(url)
}

fn headers(pairs: &[(String, Vec<u8>)]) -> Result<HeaderMap, String> {
    let size: usize = pairs
        .iter()
        .map(|(name, value)| name.len() + value.len() + 4)
        .sum();
    if size > MAX_HEADERS {
        return Err(format!(
            "the headers have {size} bytes, {MAX_HEADERS} may be sent"
        ));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no header name"))?;
        if RESERVED_HEADERS.contains(&name.as_str()) || name.as_str().starts_with("proxy-") {
            return Err(format!("the header `{name}` is set by the host"));
        }
        let mut value =
            HeaderValue::from_bytes(value).map_err(|_| format!("the value of `{name}` cannot be sent"))?;
        // So that nothing prints it.
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

/// Whether the plugin asks for this host and the account grants it. The answer is whether the grant is a private one.
fn permit(hosts: &[String], account: &Account, url: &Url) -> Result<bool, String> {
    let origin = url.origin().ascii_serialization();
    let asked = hosts.iter().any(|host| match host.strip_prefix("config:") {
        Some(name) => account.config.get(name).and_then(|text| origin_of(text)).as_ref() == Some(&origin),
        None => origin_of(host).as_ref() == Some(&origin),
    });
    if !asked {
        return Err(format!(
            "{origin} is not among the hosts of the plugin's plugin.toml"
        ));
    }
    let granted = |private| {
        let mut grants = account.grants.iter().filter(|grant| grant.private == private);
        grants.any(|grant| origin_of(&grant.origin).as_ref() == Some(&origin))
    };
    if granted(true) {
        return Ok(true);
    }
    if !granted(false) {
        return Err(format!("the account {} does not grant {origin}", account.name));
    }
    if url.scheme() != "https" {
        return Err(format!(
            "{origin} is not https: the account must grant it as a private host"
        ));
    }
    let literal = match url.host() {
        Some(Host::Ipv4(address)) => Some(address.into()),
        Some(Host::Ipv6(address)) => Some(address.into()),
        _ => None,
    };
    if literal.is_some_and(|address| !is_public(address)) {
        return Err(format!(
            "{origin} is no public address: the account must grant it as a private host"
        ));
    }
    Ok(false)
}

fn origin_of(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    matches!(url.scheme(), "http" | "https").then(|| url.origin().ascii_serialization())
}

async fn read(mut response: reqwest::Response) -> Result<Response, HttpError> {
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_RESPONSE => {
                return Err(HttpError::TooLarge((body.len() + chunk.len()) as u64));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => {
                return Ok(Response {
                    status,
                    headers,
                    body,
                });
            }
            Err(error) => return Err(HttpError::OutcomeUnknown(text(&error))),
        }
    }
}

/// Only what failed before there was a connection is certain not to have arrived.
fn judge(error: &reqwest::Error) -> HttpError {
    if error.is_builder() {
        return HttpError::Denied(text(error));
    }
    if !error.is_connect() {
        return HttpError::OutcomeUnknown(text(error));
    }
    let mut source: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(inner) = source {
        if let Some(not_public) = inner.downcast_ref::<NotPublic>() {
            return HttpError::Denied(not_public.to_string());
        }
        source = inner.source();
    }
    HttpError::NotSent(text(error))
}

/// The innermost cause says most. The address is left out: its query may hold what is nobody's business.
fn text(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".into();
    }
    let mut innermost: &dyn StdError = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::Grant;

    fn account(grants: &[(&str, bool)]) -> Account {
        let mut account = Account::new("shop", "acme");
        account
            .config
            .insert("base-url".into(), "http://127.0.0.1:8000/bank".into());
        account.grants = grants
            .iter()
            .map(|(origin, private)| Grant {
                origin: (*origin).into(),
                private: *private,
            })
            .collect();
        account
    }

    fn may(grants: &[(&str, bool)], url: &str) -> Result<bool, String> {
        let hosts = [
            "https://api.acme.test".into(),
            "https://10.0.0.1".into(),
            "config:base-url".into(),
        ];
        permit(&hosts, &account(grants), &parse_url(url)?)
    }

    #[test]
    fn a_host_must_be_asked_for_and_granted() {
        let granted = [("https://api.acme.test", false), ("https://other.test", false)];
        assert_eq!(may(&granted, "https://api.acme.test/v1?x=1"), Ok(false));
        assert_eq!(may(&granted, "https://API.acme.test:443/"), Ok(false));
        assert!(
            may(&[], "https://api.acme.test/")
                .unwrap_err()
                .contains("does not grant")
        );
        for url in [
            "https://other.test/",
            "https://api.acme.test:8443/",
            "http://api.acme.test/",
            "https://api.acme.test.evil.test/",
            "https://api.acme.test@evil.test/",
            "ftp://api.acme.test/",
            "file:///etc/passwd",
        ] {
            assert!(may(&granted, url).is_err(), "{url}");
        }
    }

    #[test]
    fn plain_http_and_private_addresses_need_a_private_grant() {
        let base = "http://127.0.0.1:8000/bank/v1/payments";
        assert_eq!(may(&[("http://127.0.0.1:8000", true)], base), Ok(true));
        let error = may(&[("http://127.0.0.1:8000", false)], base).unwrap_err();
        assert!(error.contains("is not https"), "{error}");
        let error = may(&[("https://10.0.0.1", false)], "https://10.0.0.1/").unwrap_err();
        assert!(error.contains("no public address"), "{error}");
        // The same address, written so that a filter on text would miss it.
        let error = may(&[("https://10.0.0.1", false)], "https://167772161/").unwrap_err();
        assert!(error.contains("no public address"), "{error}");
    }

    #[test]
    fn the_host_alone_sets_some_headers() {
        let pair = |name: &str, value: &[u8]| [(name.to_owned(), value.to_vec())];
        assert!(headers(&pair("Authorization", b"Bearer x")).is_ok());
        for (name, value) in [
            ("Host", &b"evil.test"[..]),
            ("content-length", b"1"),
            ("Transfer-Encoding", b"chunked"),
            ("connection", b"close"),
            ("proxy-authorization", b"x"),
            ("bad name", b"x"),
            ("x", b"a\r\nhost: evil.test"),
        ] {
            assert!(headers(&pair(name, value)).is_err(), "{name}");
        }
        assert!(headers(&pair("x", &[b'a'; MAX_HEADERS])).is_err());
    }

    #[test]
    fn odd_methods_are_refused() {
        assert!(method("PATCH").is_ok());
        for name in ["CONNECT", "TRACE", "get", "GET /evil", ""] {
            assert!(method(name).is_err(), "{name}");
        }
    }
}
