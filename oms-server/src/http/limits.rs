//! Rate limits at the door: whom a request counts for, and what the answers say about it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use oms_core::users::identifier_key;
use poem::http::{HeaderMap, HeaderValue, StatusCode};
use poem::{Endpoint, IntoResponse, Request, Response};
use sha2::{Digest, Sha256};

use super::State;
use super::auth::Presented;
use super::body::refuse_unread;
use super::error::{ApiError, Result, from_framework};
use crate::client::neighbourhood;
use crate::limits::{Class, Limit, Limits, Verdict};

/// Where a request came from, behind the proxies that are trusted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client(IpAddr);

impl Client {
    fn of(state: &State, request: &Request) -> Self {
        let peer = request
            .remote_addr()
            .as_socket_addr()
            .map(std::net::SocketAddr::ip);
        let forwarded = request.headers().get_all("x-forwarded-for");
        // A value that is no text is one that nobody can have meant.
        let forwarded = forwarded.iter().map(|value| value.to_str().unwrap_or_default());
        let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Self(state.proxies.client(peer, forwarded))
    }

    /// The address, for those who judge by it themselves.
    pub(super) fn address(self) -> IpAddr {
        self.0
    }

    fn key(self) -> String {
        neighbourhood(self.0).to_string()
    }
}

/// Counts the request, refuses it when there were too many, and tells how many are left.
pub(super) async fn apply<E: Endpoint>(next: Arc<E>, mut request: Request) -> poem::Result<Response> {
    let Some(state) = request.data::<State>() else {
        return Err(ApiError::internal(&"the routes are mounted without their state").into());
    };
    let client = Client::of(state, &request);
    let presented = Presented::by(&request, state);
    let counted = counted(state, &request, client, presented.as_ref());
    let limits = Arc::clone(&state.limits);
    request.set_data(client);
    if let Some(presented) = presented {
        request.set_data(presented);
    }
    let taken = match &counted {
        Some((class, who)) => match take(&limits, *class, who).await {
            Err(refusal) => return Ok(refuse_unread(refusal, request)),
            Ok(taken) => taken,
        },
        None => None,
    };
    let answer = next.call(request).await.map(IntoResponse::into_response);
    let Some((class, limit, verdict)) = taken else {
        return answer;
    };
    let mut response = match answer {
        Ok(response) => response,
        Err(error) => from_framework(error).await,
    };
    tell(response.headers_mut(), class, limit, verdict);
    Ok(response)
}

/// Counts an attempt to get in, by the address and by the name or mail address that was given, whether there is such a
/// user or not.
pub(super) async fn sign_in(state: &State, client: Client, name: &str) -> Result<()> {
    take(&state.limits, Class::SignIn, &client.key()).await?;
    // What lies in Redis should tell nobody who has an account here.
    take(&state.limits, Class::SignInName, &digest_of(name)).await?;
    Ok(())
}

/// The same for every spelling under which the user is found.
fn digest_of(name: &str) -> String {
    let digest = Sha256::digest(identifier_key(name).unwrap_or_default());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Which class a request is in, and for whom it counts. Probes and scrapers are never refused: somebody acts on it.
fn counted(
    state: &State,
    request: &Request,
    client: Client,
    presented: Option<&Presented>,
) -> Option<(Class, String)> {
    let path = request.uri().path();
    if ["/livez", "/readyz", "/metrics"].contains(&path) {
        return None;
    }
    if let Some(account) = path.strip_prefix("/v1/webhooks/")
        // Whoever makes accounts up would have a limit for each of them.
        && state.oms.has_account(account)
    {
        return Some((Class::Webhook, format!("{account}:{}", client.key())));
    }
    let user = presented.and_then(Presented::user);
    let who = user.map_or_else(|| client.key(), |user| user.to_string());
    Some((Class::Client, who))
}

async fn take(limits: &Limits, class: Class, who: &str) -> Result<Option<(Class, Limit, Verdict)>> {
    let Some((limit, verdict)) = limits.take(class, who).await else {
        return Ok(None);
    };
    if verdict.allowed {
        return Ok(Some((class, limit, verdict)));
    }
    let seconds = whole_seconds(verdict.reset).max(1);
    tracing::debug!(class = class.name(), seconds, "too many requests");
    let detail = format!(
        "more than {} requests in {} s: try again in {seconds} s",
        limit.quota,
        limit.window.as_secs()
    );
    let mut error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).retry_after(seconds);
    tell(error.headers_mut(), class, limit, verdict);
    Err(error)
}

/// In the words of the IETF's draft: quota and window in seconds; what remains, and seconds until it is more.
fn tell(headers: &mut HeaderMap, class: Class, limit: Limit, verdict: Verdict) {
    let name = class.name();
    let policy = format!("\"{name}\";q={};w={}", limit.quota, limit.window.as_secs());
    let state = format!(
        "\"{name}\";r={};t={}",
        verdict.remaining,
        whole_seconds(verdict.reset)
    );
    for (header, text) in [("ratelimit-policy", policy), ("ratelimit", state)] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            // Added: a refusal of a stricter class has said its own.
            headers.append(header, value);
        }
    }
}

/// Rounded up: whoever comes back after so many seconds is not too early.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_the_draft() {
        let limit = Limit {
            quota: 600,
            window: Duration::from_secs(60),
        };
        let verdict = Verdict {
            allowed: true,
            remaining: 599,
            reset: Duration::from_millis(100),
        };
        let mut headers = HeaderMap::new();
        tell(&mut headers, Class::Client, limit, verdict);
        assert_eq!(headers["ratelimit-policy"], "\"client\";q=600;w=60");
        assert_eq!(headers["ratelimit"], "\"client\";r=599;t=1");
    }

    #[test]
    fn every_spelling_of_a_name_counts_for_it() {
        let names = [
            "admin",
            " ADMIN ",
            "\u{ff41}dmin",
            "\u{24d0}dmin",
            "\u{1d41a}dmin",
        ];
        for name in names {
            assert_eq!(digest_of(name), digest_of("admin"), "{name}");
        }
        assert_ne!(digest_of("admin"), digest_of("admin2"));
    }
}
