//! Whether the process lives and whether it can serve.

use std::sync::Arc;
use std::time::{Duration, Instant};

use oms_core::Oms;
use poem::web::Data;
use poem::{IntoResponse, Response, Route, get, handler};
use tokio::sync::Mutex;

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
    if state.probe.finds_database(&state.oms).await {
        return well(&state).into_response();
    }
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

/// Looks at the database for everybody who asks. Anybody may, and nobody counts them: one look at a time, which answers
/// all who asked before it began, keeps them from taking the connections of the shop.
#[derive(Clone, Default)]
pub struct Probe(Arc<Mutex<Option<Look>>>);

struct Look {
    began: Instant,
    good: bool,
}

impl Probe {
    async fn finds_database(&self, oms: &Oms) -> bool {
        let asked = Instant::now();
        let mut last = self.0.lock().await;
        if let Some(look) = last.as_ref().filter(|look| look.began >= asked) {
            return look.good;
        }
        let began = Instant::now();
        let why = match tokio::time::timeout(PATIENCE, oms.check()).await {
            Ok(Ok(())) => None,
            Ok(Err(e)) => Some(e.to_string()),
            Err(_) => Some("the database did not answer in time".into()),
        };
        let good = why.is_none();
        if let Some(why) = why
            && last.as_ref().is_none_or(|before| before.good)
        {
            tracing::warn!(error = why, "not ready");
        }
        *last = Some(Look { began, good });
        good
    }
}
