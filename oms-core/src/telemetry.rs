//! What the library tells about itself while it works: counters and histograms through the facade `metrics` (feature
//! `metrics`; without it nothing is counted) and spans through `tracing`. Where they go is for whoever embeds the
//! library to say. `docs/observability.md` lists the names for operators.
//!
//! Labels have few values: kinds, operations, outcomes and the names of accounts, never an id.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{Instrument, Span, debug_span, info_span};

use crate::error::Result;
use crate::payments::{GatewayError, WebhookError};

type Labels<'a> = &'a [(&'static str, &'a str)];

/// Waits for a connection and begins a transaction. `mode` says what for: `read` or `write`.
pub(crate) async fn begun<T>(mode: &'static str, begin: impl Future<Output = Result<T>>) -> Result<T> {
    let started = Instant::now();
    let waiting = Waiting::new(mode);
    let begun = begin.instrument(debug_span!("begin", mode)).await;
    drop(waiting);
    let outcome = if begun.is_ok() { "ok" } else { "failed" };
    let labels: Labels<'_> = &[("mode", mode), ("outcome", outcome)];
    observe("oms_db_begin_seconds", labels, started.elapsed().as_secs_f64());
    begun
}

/// Commits a transaction.
pub(crate) async fn committed<T, E>(commit: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let started = Instant::now();
    let done = commit.instrument(debug_span!("commit")).await;
    let outcome = if done.is_ok() { "ok" } else { "failed" };
    let labels: Labels<'_> = &[("outcome", outcome)];
    observe("oms_db_commit_seconds", labels, started.elapsed().as_secs_f64());
    done
}

/// Someone who waits for a connection, also one who goes away while waiting.
struct Waiting(&'static str);

impl Waiting {
    fn new(mode: &'static str) -> Self {
        adjust("oms_db_waiting", &[("mode", mode)], 1.0);
        Self(mode)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        adjust("oms_db_waiting", &[("mode", self.0)], -1.0);
    }
}

/// The span of what is done for several callers at once: a part of the first one's trace, with links to the others'. Most
/// batches have one caller.
pub(crate) fn batch<'a>(of: &'static str, mut callers: impl ExactSizeIterator<Item = &'a Span>) -> Span {
    let size = callers.len();
    let first = callers.next().and_then(Span::id);
    let span = info_span!(parent: first, "batch", of, size);
    for other in callers {
        span.follows_from(other);
    }
    span
}

/// A batch of orders was written in one transaction, or was not.
pub(crate) fn batch_placed(orders: usize, took: Duration, committed: bool) {
    let labels: Labels<'_> = &[("outcome", if committed { "committed" } else { "failed" })];
    observe("oms_order_batch_orders", labels, orders as f64);
    observe("oms_order_batch_seconds", labels, took.as_secs_f64());
}

/// What became of orders that asked to be placed: `placed`, `replayed`, `refused`, `failed` or `queue_full`.
pub(crate) fn orders_answered(outcome: &'static str, orders: usize) {
    if orders > 0 {
        count(
            "oms_order_placements_total",
            &[("outcome", outcome)],
            orders as u64,
        );
    }
}

/// An entry of an order's timeline was written.
pub(crate) fn order_changed(kind: &str) {
    count("oms_order_changes_total", &[("kind", kind)], 1);
}

/// A payment has another status.
pub(crate) fn payment_changed(account: &str, status: &'static str) {
    count(
        "oms_payment_changes_total",
        &[("account", account), ("state", status)],
        1,
    );
}

/// A run of a job ended: `done`, `retried`, `dead` or `given_back`.
pub(crate) fn job_ended(kind: &str, outcome: &'static str, took: Duration) {
    count("oms_job_runs_total", &[("kind", kind), ("outcome", outcome)], 1);
    observe("oms_job_run_seconds", &[("kind", kind)], took.as_secs_f64());
}

/// Asks an adapter; put the call into a box, as it is moved. A span, its time, and how it ended.
pub(crate) async fn gateway_call<T, E: Outcome>(
    account: &str,
    operation: &'static str,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let started = Instant::now();
    let span = debug_span!(
        "gateway",
        otel.kind = "client",
        account,
        operation,
        outcome = tracing::field::Empty
    );
    let answer = call.instrument(span.clone()).await;
    let outcome = answer.as_ref().err().map_or("ok", Outcome::name);
    span.record("outcome", outcome);
    let seconds = started.elapsed().as_secs_f64();
    let place = ("operation", operation);
    count(
        "oms_gateway_calls_total",
        &[("account", account), place, ("outcome", outcome)],
        1,
    );
    observe(
        "oms_gateway_call_seconds",
        &[("account", account), place],
        seconds,
    );
    answer
}

/// A call of a plugin ended: `answered`, `trapped`, `late`, `crowded` or `broke_contract`.
#[cfg(feature = "plugins")]
pub(crate) fn plugin_call_ended(plugin: &str, version: &str, account: &str, outcome: &'static str) {
    let labels: Labels<'_> = &[
        ("plugin", plugin),
        ("version", version),
        ("account", account),
        ("outcome", outcome),
    ];
    count("oms_plugin_calls_total", labels, 1);
}

/// A call was not made because the plugin had failed again and again for this account.
#[cfg(feature = "plugins")]
pub(crate) fn plugin_spared(account: &str, work: &'static str) {
    count(
        "oms_plugin_spared_total",
        &[("account", account), ("work", work)],
        1,
    );
}

/// How an error is counted.
pub(crate) trait Outcome {
    fn name(&self) -> &'static str;
}

impl Outcome for GatewayError {
    fn name(&self) -> &'static str {
        match self {
            Self::Declined(_) => "declined",
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidState(_) => "invalid_state",
            Self::NotFound(_) => "not_found",
            Self::Unsupported(_) => "unsupported",
            Self::NotAuthenticated(_) => "not_authenticated",
            Self::RateLimited(_) => "rate_limited",
            Self::Unavailable(_) => "unavailable",
            Self::Indeterminate(_) => "indeterminate",
            Self::Misconfigured(_) => "misconfigured",
            Self::Internal(_) => "internal",
        }
    }
}

impl Outcome for WebhookError {
    fn name(&self) -> &'static str {
        match self {
            Self::MissingSignature(_) => "missing_signature",
            Self::BadSignature => "bad_signature",
            Self::Stale => "stale",
            Self::Malformed(_) => "malformed",
            Self::Misconfigured(_) => "misconfigured",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

#[cfg(feature = "metrics")]
fn owned(labels: Labels<'_>) -> Vec<::metrics::Label> {
    let owned = |(name, value): &(&'static str, &str)| ::metrics::Label::new(*name, (*value).to_owned());
    labels.iter().map(owned).collect()
}

#[cfg(feature = "metrics")]
fn count(name: &'static str, labels: Labels<'_>, by: u64) {
    ::metrics::counter!(name, owned(labels)).increment(by);
}

#[cfg(feature = "metrics")]
fn observe(name: &'static str, labels: Labels<'_>, value: f64) {
    ::metrics::histogram!(name, owned(labels)).record(value);
}

#[cfg(feature = "metrics")]
fn adjust(name: &'static str, labels: Labels<'_>, by: f64) {
    ::metrics::gauge!(name, owned(labels)).increment(by);
}

#[cfg(not(feature = "metrics"))]
fn count(_: &'static str, _: Labels<'_>, _: u64) {}

#[cfg(not(feature = "metrics"))]
fn observe(_: &'static str, _: Labels<'_>, _: f64) {}

#[cfg(not(feature = "metrics"))]
fn adjust(_: &'static str, _: Labels<'_>, _: f64) {}
