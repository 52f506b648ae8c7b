//! The access token: fetched with the client's id and secret, and kept in the host's cache until shortly before its end.

use oms_plugin_sdk::{Detail, PaymentError, basic, cache, config, http};
use serde::Deserialize;

/// So long before its end a token is not used any more.
const MARGIN_SECONDS: u32 = 60;

#[derive(Deserialize)]
struct Grant {
    access_token: String,
    expires_in: u32,
}

fn cache_key(client_id: &str) -> String {
    format!("token:{client_id}")
}

/// A token that was fetched before, if one is kept.
pub(crate) fn kept(client_id: &str) -> Option<String> {
    String::from_utf8(cache::get(&cache_key(client_id))?).ok()
}

/// A fresh one. It changes nothing at PayPal: whatever goes wrong, nothing has happened.
pub(crate) fn fetch(base_url: &str, client_id: &str, timeout_ms: u32) -> Result<String, PaymentError> {
    let secret = config::secret("client-secret")?;
    let response = http::post(format!("{base_url}/v1/oauth2/token"))
        .header("authorization", basic::authorization(client_id, &secret))
        .header("accept", "application/json")
        .form(&[("grant_type", "client_credentials")])
        .timeout_ms(timeout_ms)
        .send()
        .map_err(http::Error::of_a_read)?;
    let detail = |message: String| Detail::new("no_token", message).with_http_status(response.status);
    match response.status {
        200 => {}
        400 | 401 | 403 => {
            return Err(PaymentError::not_authenticated(detail(
                "PayPal refuses the client's id or secret".into(),
            )));
        }
        status => {
            return Err(PaymentError::unavailable(detail(format!(
                "PayPal answered with status {status}"
            ))));
        }
    }
    let grant: Grant = response
        .json()
        .map_err(|error| PaymentError::unavailable(detail(error.to_string())))?;
    let life = grant.expires_in.saturating_sub(MARGIN_SECONDS);
    if life > 0 {
        cache::set(&cache_key(client_id), grant.access_token.as_bytes(), life);
    }
    Ok(grant.access_token)
}
