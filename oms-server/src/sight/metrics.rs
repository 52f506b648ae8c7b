//! The measurements of this process, as Prometheus reads them. The library counts through the facade `metrics`; here is
//! the one recorder of the process, what the server counts itself, and the list of all names.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use oms_core::Oms;
use oms_core::payments::{Secret, WebhookOutcome};

use super::gauges::Gauges;
use crate::config::Config;
use crate::secrets;

/// Between the fastest answer that is worth telling from another and the limit of every request.
const SECONDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Up to the largest batch.
const ORDERS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// How often samples are put into their buckets when nobody reads them.
const UPKEEP: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}
use Kind::{Counter, Gauge, Histogram};

/// Every name with its kind and its meaning. `docs/observability.md` has the same table with the labels, and a test
/// holds both against what is printed.
const ALL: [(&str, Kind, &str); 37] = [
    ("oms_http_requests_total", Counter, "Requests that were answered"),
    ("oms_http_request_seconds", Histogram, "Time to the answer's head"),
    (
        "oms_http_requests_in_flight",
        Gauge,
        "Requests that are not answered yet",
    ),
    (
        "oms_webhooks_total",
        Counter,
        "Webhooks of payment gateways by what came of them",
    ),
    (
        "oms_rate_limited_total",
        Counter,
        "Requests that were refused because there were too many",
    ),
    (
        "oms_redis_up",
        Gauge,
        "Whether Redis can be used, where the settings name one",
    ),
    (
        "oms_order_placements_total",
        Counter,
        "Orders by what became of the wish to place them",
    ),
    (
        "oms_order_batch_orders",
        Histogram,
        "Orders that shared one transaction",
    ),
    ("oms_order_batch_seconds", Histogram, "Time to write such a batch"),
    (
        "oms_order_changes_total",
        Counter,
        "Entries of the timelines of orders",
    ),
    (
        "oms_orders_awaiting_payment",
        Gauge,
        "Unpaid orders that hold stock until they expire",
    ),
    (
        "oms_placement_queue_length",
        Gauge,
        "Orders that wait for a batch",
    ),
    (
        "oms_placement_queue_capacity",
        Gauge,
        "Orders that may wait for a batch",
    ),
    (
        "oms_payment_changes_total",
        Counter,
        "Payments that took on a state",
    ),
    (
        "oms_payments_open",
        Gauge,
        "Payments of which money may still come",
    ),
    (
        "oms_payments_attention",
        Gauge,
        "Payments that are unknown or wait for a person",
    ),
    (
        "oms_gateway_calls_total",
        Counter,
        "Calls of payment adapters by how they ended",
    ),
    (
        "oms_gateway_call_seconds",
        Histogram,
        "Time of calls of payment adapters",
    ),
    (
        "oms_plugin_calls_total",
        Counter,
        "Calls of plugins by what became of the guest",
    ),
    (
        "oms_plugin_breaker_open",
        Gauge,
        "Whether a plugin that failed again and again is left alone now",
    ),
    (
        "oms_plugin_spared_total",
        Counter,
        "Calls that were not made because the plugin is left alone",
    ),
    ("oms_jobs", Gauge, "Jobs that are due, waiting, running or dead"),
    (
        "oms_jobs_oldest_due_seconds",
        Gauge,
        "How long the oldest job that is due has waited for a worker",
    ),
    ("oms_job_runs_total", Counter, "Runs of jobs by how they ended"),
    ("oms_job_run_seconds", Histogram, "Time of runs of jobs"),
    (
        "oms_db_up",
        Gauge,
        "Whether the last look into the database was answered in time",
    ),
    (
        "oms_db_connections",
        Gauge,
        "Connections of a pool that are used or idle",
    ),
    (
        "oms_db_connections_max",
        Gauge,
        "Connections that a pool may have",
    ),
    ("oms_db_waiting", Gauge, "Those who wait for a connection"),
    (
        "oms_db_begin_seconds",
        Histogram,
        "Time to get a connection and begin a transaction",
    ),
    ("oms_db_commit_seconds", Histogram, "Time to commit a transaction"),
    (
        "oms_build_info",
        Gauge,
        "Always 1: the version and the kind of database stand in its labels",
    ),
    (
        "process_resident_memory_bytes",
        Gauge,
        "Memory that the process occupies",
    ),
    (
        "process_cpu_seconds_total",
        Counter,
        "Time that the process has computed",
    ),
    ("process_open_fds", Gauge, "Files and connections that are open"),
    (
        "process_start_time_seconds",
        Gauge,
        "When the process was started, since 1970",
    ),
    ("process_uptime_seconds", Gauge, "How long the process has run"),
];

/// The recorder with who may read it. Cloning is cheap.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    recorder: PrometheusHandle,
    gauges: Gauges,
    token: Option<Secret>,
    /// Whether `/metrics` is at the main address, too.
    main: bool,
    production: bool,
}

/// Who may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// There is nothing to read here.
    Closed,
    /// Whoever shows the token.
    Token,
    /// Programs on this machine: development.
    Loopback,
    /// Anybody who reaches the address, which is for nothing else.
    Open,
}

impl Metrics {
    /// Installs the recorder, if that was not done before: a process has one.
    pub fn new(config: &Config) -> Self {
        Self(Arc::new(Inner {
            recorder: recorder(),
            gauges: Gauges::default(),
            token: config.sight.metrics_token.clone(),
            main: config.sight.metrics_listen.is_none(),
            production: config.production,
        }))
    }

    /// What the main address asks of readers.
    pub(crate) fn main_door(&self) -> Door {
        match (self.0.main, &self.0.token, self.0.production) {
            (false, _, _) => Door::Closed,
            (true, Some(_), _) => Door::Token,
            (true, None, true) => Door::Closed,
            (true, None, false) => Door::Loopback,
        }
    }

    /// What the address for measurements asks of readers.
    pub(crate) fn own_door(&self) -> Door {
        match self.0.token {
            Some(_) => Door::Token,
            None => Door::Open,
        }
    }

    /// Whether this is the token. The time it takes does not tell how much of it is right.
    pub(crate) fn is_token(&self, shown: &str) -> bool {
        let token = self.0.token.as_ref();
        token.is_some_and(|token| secrets::same(token.reveal(), shown))
    }

    /// The text that Prometheus reads. Never waits long: what the database does not say in time is left open.
    pub async fn render(&self, oms: &Oms) -> String {
        self.0.gauges.refresh(oms).await;
        self.0.recorder.render()
    }
}

/// Installs the recorder, if that was not done before: what is measured earlier is lost. For parts that begin to measure
/// before there are [`Metrics`].
pub(crate) fn begin_recording() {
    recorder();
}

/// A request was answered. `route` is a template, never the path that a client chose.
pub(crate) fn answered(route: &'static str, method: &'static str, status: u16, took: Duration) {
    let status = status.to_string();
    metrics::counter!("oms_http_requests_total", "route" => route, "method" => method, "status" => status)
        .increment(1);
    metrics::histogram!("oms_http_request_seconds", "route" => route, "method" => method)
        .record(took.as_secs_f64());
}

/// A webhook came for an account that exists.
pub(crate) fn webhook(account: &str, outcome: &WebhookOutcome) {
    let outcome = match outcome {
        WebhookOutcome::Accepted(_) => "accepted",
        WebhookOutcome::Challenge(_) => "challenge",
        WebhookOutcome::Refused(_) => "refused",
        WebhookOutcome::Unavailable(_) => "unavailable",
    };
    metrics::counter!("oms_webhooks_total", "account" => account.to_owned(), "outcome" => outcome)
        .increment(1);
}

/// A request that is not answered yet, also one whose client goes away.
pub(crate) struct InFlight;

impl InFlight {
    pub(crate) fn begin() -> Self {
        metrics::gauge!("oms_http_requests_in_flight").increment(1.0);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!("oms_http_requests_in_flight").decrement(1.0);
    }
}

fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(install).clone()
}

fn install() -> PrometheusHandle {
    let builder = PrometheusBuilder::new();
    let builder = with_buckets(builder).unwrap_or_else(|error| {
        tracing::error!(%error, "histograms are shown without buckets");
        PrometheusBuilder::new()
    });
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::error!("another recorder is installed: /metrics stays empty");
    }
    for (name, kind, help) in ALL {
        match kind {
            Counter => metrics::describe_counter!(name, help),
            Gauge => metrics::describe_gauge!(name, help),
            Histogram => metrics::describe_histogram!(name, help),
        }
    }
    // Samples pile up until they are read or put into their buckets. A thread of its own: the recorder belongs to the
    // process and outlives every runtime in it.
    let upkeep = handle.clone();
    let thread = std::thread::Builder::new().name("metrics".into());
    let spawned = thread.spawn(move || {
        loop {
            std::thread::sleep(UPKEEP);
            upkeep.run_upkeep();
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "measurements are put into order only when they are read");
    }
    handle
}

fn with_buckets(
    builder: PrometheusBuilder,
) -> Result<PrometheusBuilder, metrics_exporter_prometheus::BuildError> {
    builder
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_orders".into()), &ORDERS)
}
