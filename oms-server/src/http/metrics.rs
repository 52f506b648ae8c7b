//! `/metrics`, for Prometheus: at an address of its own, or at the main one for those who show a token. It tells how
//! much is sold, so that it is never open by accident: without either it is there in development only, and only for
//! programs on the same machine.

use oms_core::Oms;
use poem::http::{StatusCode, header};
use poem::web::Data;
use poem::{Endpoint, EndpointExt, IntoResponse, Request, Response, Route, get, handler};

use super::State;
use super::error::{self, ApiError};
use crate::sight::{Door, Metrics};

pub(super) fn mount(routes: Route) -> Route {
    routes.at("/metrics", get(at_main_address))
}

/// All that the address for measurements answers.
pub fn metrics_app(metrics: Metrics, oms: Oms) -> impl Endpoint {
    Route::new()
        .at("/metrics", get(at_own_address))
        .data((metrics, oms))
        .catch_all_error(error::from_framework)
}

#[handler]
async fn at_main_address(request: &Request, Data(state): Data<&State>) -> Response {
    show(request, &state.metrics, &state.oms, state.metrics.main_door()).await
}

#[handler]
async fn at_own_address(request: &Request, Data((metrics, oms)): Data<&(Metrics, Oms)>) -> Response {
    show(request, metrics, oms, metrics.own_door()).await
}

async fn show(request: &Request, metrics: &Metrics, oms: &Oms, door: Door) -> Response {
    let admitted = match door {
        Door::Open => true,
        Door::Closed => false,
        Door::Loopback => is_local(request),
        Door::Token => match bearer(request) {
            Some(token) if metrics.is_token(token) => true,
            _ => return ApiError::unauthorized().into_response(),
        },
    };
    if !admitted {
        // As any other route that is not there.
        return ApiError::not_found("route").into_response();
    }
    Response::builder()
        .status(StatusCode::OK)
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(metrics.render(oms).await)
}

/// Whether a program on this machine asks for itself: a reverse proxy does so for others, and says it.
fn is_local(request: &Request) -> bool {
    let headers = request.headers();
    let passed_on = ["forwarded", "x-forwarded-for", "x-real-ip", "via"]
        .iter()
        .any(|name| headers.contains_key(*name));
    let peer = request.remote_addr().as_socket_addr();
    !passed_on && peer.is_some_and(|address| address.ip().to_canonical().is_loopback())
}

fn bearer(request: &Request) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
