//! Webhooks of payment gateways: raw bytes and all headers go to the library, which lets the account's adapter verify
//! them.

use oms_core::payments::{Delivery, Reply, WebhookOutcome};
use poem::http::{StatusCode, header};
use poem::web::{Data, Path};
use poem::{IntoResponse, Request, Response, Route, get, handler};

use super::State;
use super::error::{ApiError, Result};
use super::limits::Client;
use crate::sight;

pub(super) fn mount(routes: Route) -> Route {
    routes.at("/v1/webhooks/:account", get(receive).post(receive))
}

/// Whether it comes for an account that does not exist.
pub(super) fn unknown_account(request: &Request) -> Option<ApiError> {
    let account = request.uri().path().strip_prefix("/v1/webhooks/")?;
    let state = request.data::<State>()?;
    // Names of accounts have no characters that a path would encode.
    (!state.oms.has_account(account)).then(|| ApiError::not_found("payment account"))
}

#[handler]
async fn receive(
    request: &Request,
    Data(state): Data<&State>,
    Path(account): Path<String>,
    body: Vec<u8>,
) -> Result<Response> {
    let headers = request.headers().iter();
    let delivery = Delivery {
        method: request.method().to_string(),
        // The library puts the address as it was registered; this one may be a proxy's.
        url: request.original_uri().to_string(),
        query: request.original_uri().query().unwrap_or_default().into(),
        headers: headers
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect(),
        body,
        received_at: state.oms.now(),
        remote_ip: request
            .data::<Client>()
            .map(|client| client.address().to_string()),
        tolerance_seconds: 1,
    };
    let outcome = state.oms.payments().receive_webhook(&account, delivery).await?;
    sight::webhook(&account, &outcome);
    match outcome {
        WebhookOutcome::Accepted(reply) => {
            Ok(reply.map_or_else(|| StatusCode::NO_CONTENT.into_response(), answer))
        }
        WebhookOutcome::Challenge(reply) => Ok(answer(reply)),
        WebhookOutcome::Refused(error) => {
            tracing::warn!(account, %error, "a webhook was refused");
            Err(ApiError::invalid_request(error.to_string()))
        }
        WebhookOutcome::Unavailable(why) => {
            tracing::error!(account, why, "a webhook could not be checked or kept");
            Err(ApiError::overloaded(
                "the webhook could not be taken in now: send it again",
                5,
            ))
        }
    }
}

/// In the gateway's own terms.
fn answer(reply: Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK);
    let mut response = Response::builder().status(status);
    if let Some(content_type) = reply.content_type {
        response = response.header(header::CONTENT_TYPE, content_type);
    }
    response.body(reply.body)
}
