//! Whether the process lives and whether it can serve.

use poem::web::Data;
use poem::{IntoResponse, Response, Route, get, handler};

use super::State;
use super::error::ApiError;
use crate::redis::Redis;

pub(super) fn mount(routes: Route) -> Route {
    routes.at("/livez", get(live)).at("/readyz", get(ready))
}

/// The process answers.
#[handler]
fn live() -> &'static str {
    "ok\n"
}

/// The database answers, its schema is there, and the server is not about to stop. Without Redis everything works, so
/// that it is told and no more: a balancer must not take all servers away because of it.
#[handler]
async fn ready(state: Data<&State>) -> Response {
    if state.leaving.is_cancelled() {
        return ApiError::overloaded("the server is about to stop", 1).into_response();
    }
    match state.oms.check().await {
        Ok(()) => match state.limits.shared().map(Redis::is_up) {
            None => "ok\n".into_response(),
            Some(true) => "ok\nredis: ok\n".into_response(),
            Some(false) => "ok\nredis: degraded\n".into_response(),
        },
        Err(e) => {
            tracing::warn!(error = %e, "not ready");
            let detail = "the database does not answer, or its schema is not up to date";
            ApiError::overloaded(detail, 1).into_response()
        }
    }
}
