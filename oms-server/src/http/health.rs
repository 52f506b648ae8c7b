//! Whether the process lives and whether it can serve.

use std::time::Duration;

use poem::web::Data;
use poem::{IntoResponse, Response, Route, get, handler};

use super::State;
use super::error::ApiError;
use crate::redis::Redis;

/// Whoever probes waits for a second or a few.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn mount(routes: Route) -> Route {
    routes.at("/livez", get(live)).at("/readyz", get(ready))
}

/// The process answers.
#[handler]
fn live() -> &'static str {
    "ok\n"
}

/// The database answers in time, its schema is not older than the program, and the server is not about to stop. Without
/// Redis everything works, so that it is told and no more: a balancer must not take all servers away because of it.
#[handler]
async fn ready(state: Data<&State>) -> Response {
    if state.leaving.is_cancelled() {
        return ApiError::overloaded("the server is about to stop", 1).into_response();
    }
    let why = match tokio::time::timeout(PATIENCE, state.oms.check()).await {
        Ok(Ok(())) => return well(&state).into_response(),
        Ok(Err(e)) => e.to_string(),
        Err(_) => "the database did not answer in time".into(),
    };
    tracing::warn!(error = why, "not ready");
    let detail = "the database does not answer, or its schema is not up to date";
    ApiError::overloaded(detail, 1).into_response()
}

fn well(state: &State) -> &'static str {
    match state.limits.shared().map(Redis::is_up) {
        None => "ok\n",
        Some(true) => "ok\nredis: ok\n",
        Some(false) => "ok\nredis: degraded\n",
    }
}
