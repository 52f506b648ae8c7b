//! Spans, and with the feature `otel` their way to a collector by OTLP over HTTP.
//!
//! A request that comes with a `traceparent` goes on in that trace; its jobs go on in the request's, which their rows
//! remember. Spans wait in a bounded queue and are sent in the background: a collector that is away costs nothing but
//! the spans.

use oms_core::JobStart;
use tracing::Span;

use super::TraceSettings;
use crate::config::ConfigError;

#[cfg(feature = "otel")]
pub(crate) use export::{Traces, layer};
#[cfg(not(feature = "otel"))]
pub(crate) use nowhere::{Traces, layer};

/// A request as its span tells of it.
pub(crate) struct Incoming<'a> {
    pub(crate) id: &'a str,
    pub(crate) method: &'static str,
    /// The template of the path.
    #[cfg_attr(
        not(feature = "otel"),
        expect(dead_code, reason = "traces alone are named by it")
    )]
    pub(crate) route: &'static str,
    pub(crate) path: &'a str,
    /// Well formed.
    pub(crate) traceparent: Option<&'a str>,
}

/// The span of a request: all its log lines carry it.
pub(crate) fn request_span(incoming: &Incoming<'_>) -> Span {
    #[cfg(feature = "otel")]
    if export::is_on() && !matches!(incoming.route, "/livez" | "/readyz" | "/metrics") {
        return export::request_span(incoming);
    }
    tracing::info_span!(
        "request",
        request_id = incoming.id,
        method = incoming.method,
        path = incoming.path,
        traceparent = incoming.traceparent,
    )
}

/// The request was answered.
pub(crate) fn answered(span: &Span, status: u16) {
    #[cfg(feature = "otel")]
    export::answered(span, status);
    let _ = (span, status);
}

/// The span of a job, in the trace of the request that brought it about.
pub(crate) fn job_span(start: JobStart<'_>) -> Span {
    #[cfg(feature = "otel")]
    if export::is_on() {
        return export::job_span(start);
    }
    start.span()
}

/// The place in a trace that a span has, to hand on. None where no traces are kept.
pub(crate) fn traceparent(span: &Span) -> Option<String> {
    #[cfg(feature = "otel")]
    return export::traceparent(span);
    #[cfg(not(feature = "otel"))]
    {
        let _ = span;
        None
    }
}

/// Whether this program can send traces where the settings want them.
pub(crate) fn check(settings: Option<&TraceSettings>) -> Result<(), ConfigError> {
    match settings {
        Some(_) if !cfg!(feature = "otel") => Err(ConfigError {
            variable: "OTEL_EXPORTER_OTLP_ENDPOINT",
            detail: "is set, but this program was built without the feature otel".into(),
        }),
        _ => Ok(()),
    }
}

/// A program that was built without the feature.
#[cfg(not(feature = "otel"))]
mod nowhere {
    use tracing_subscriber::layer::Identity;

    use crate::config::ConfigError;
    use crate::sight::TraceSettings;

    pub(crate) struct Traces;

    pub(crate) fn layer(settings: Option<&TraceSettings>) -> Result<(Traces, Option<Identity>), ConfigError> {
        super::check(settings).map(|()| (Traces, None))
    }

    impl Traces {
        pub(crate) fn finish(self) {}
    }
}

#[cfg(feature = "otel")]
mod export {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use oms_core::JobStart;
    use opentelemetry::trace::{
        Link, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
        TracerProvider,
    };
    use opentelemetry::{Context, KeyValue};
    use opentelemetry_otlp::{Protocol, WithExportConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
    use opentelemetry_sdk::trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingResult, SdkTracerProvider, ShouldSample,
        SpanData, SpanExporter,
    };
    use tokio::runtime::Handle;
    use tracing::level_filters::LevelFilter;
    use tracing::{Span, Subscriber};
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    use tracing_subscriber::Layer;
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::registry::LookupSpan;

    use super::Incoming;
    use crate::config::ConfigError;
    use crate::sight::TraceSettings;

    /// Spans that may wait; more are dropped.
    const QUEUE: usize = 8_192;
    const BATCH: usize = 512;
    const INTERVAL: Duration = Duration::from_secs(1);
    /// How long one delivery may take.
    const PATIENCE: Duration = Duration::from_secs(5);
    /// How long the program waits for the last delivery when it ends.
    const LAST_DELIVERY: Duration = Duration::from_secs(3);

    /// Whether traces are kept: a process keeps them from its start on or never.
    static ON: AtomicBool = AtomicBool::new(false);

    pub(crate) fn is_on() -> bool {
        ON.load(Ordering::Relaxed)
    }

    /// Sends what is left when the program ends.
    pub(crate) struct Traces(Option<SdkTracerProvider>);

    impl Traces {
        /// Waits a few seconds for it at most. Call it outside of the runtime, while that still runs.
        pub(crate) fn finish(self) {
            if let Some(provider) = self.0
                && let Err(error) = provider.shutdown_with_timeout(LAST_DELIVERY)
            {
                tracing::warn!(%error, "the last spans could not be delivered");
            }
        }
    }

    /// The layer that makes spans of traces out of those of the log. Call it inside of the runtime.
    pub(crate) fn layer<S>(
        settings: Option<&TraceSettings>,
    ) -> Result<(Traces, Option<impl Layer<S> + use<S>>), ConfigError>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let Some(settings) = settings else {
            return Ok((Traces(None), None));
        };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{}/v1/traces", settings.endpoint))
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(PATIENCE)
            .build()
            .map_err(|e| ConfigError {
                variable: "OTEL_EXPORTER_OTLP_ENDPOINT",
                detail: format!("traces cannot be sent: {e}"),
            })?;
        let exporter = Courier {
            exporter: Arc::new(exporter),
            runtime: Handle::current(),
        };
        let limits = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(INTERVAL)
            .build();
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(limits)
            .build();
        let resource = Resource::builder()
            .with_service_name(settings.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampler::ParentBased(Box::new(Roots {
                ratio: settings.ratio,
            })))
            .with_resource(resource)
            .build();
        ON.store(true, Ordering::Relaxed);
        // Our own spans, and no others: those of the client that sends them would never end.
        let ours = Targets::new()
            .with_target("oms_core", LevelFilter::DEBUG)
            .with_target("oms_server", LevelFilter::INFO);
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("oms"))
            .with_threads(false)
            .with_filter(ours);
        Ok((Traces(Some(provider)), Some(layer)))
    }

    pub(super) fn request_span(incoming: &Incoming<'_>) -> Span {
        let Incoming { method, route, .. } = incoming;
        let span = tracing::info_span!(
            "request",
            request_id = incoming.id,
            method,
            path = incoming.path,
            traceparent = tracing::field::Empty,
            otel.kind = "server",
            otel.name = format_args!("{method} {route}"),
            http.request.method = method,
            http.route = route,
        );
        go_on(&span, incoming.traceparent);
        if let Some(ours) = traceparent(&span) {
            span.record("traceparent", ours);
        }
        span
    }

    pub(super) fn answered(span: &Span, status: u16) {
        if !is_on() {
            return;
        }
        span.set_attribute("http.response.status_code", i64::from(status));
        if status >= 500 {
            span.set_status(Status::error(format!("answered {status}")));
        }
    }

    pub(super) fn job_span(start: JobStart<'_>) -> Span {
        let span = tracing::info_span!(
            "job",
            job.id = %start.id,
            job.kind = start.kind,
            attempt = start.attempt,
            request_id = start.cause.request_id,
            otel.kind = "consumer",
            otel.name = format_args!("job {}", start.kind),
        );
        go_on(&span, start.cause.traceparent.as_deref());
        span
    }

    /// Makes a span that nobody has entered yet a part of another program's trace, or of an earlier one of ours.
    fn go_on(span: &Span, traceparent: Option<&str>) {
        let Some(parent) = traceparent.and_then(parse) else {
            return;
        };
        if let Err(error) = span.set_parent(Context::new().with_remote_span_context(parent)) {
            tracing::debug!(%error, "a span is not a part of its caller's trace");
        }
    }

    /// As W3C Trace Context writes it.
    pub(super) fn traceparent(span: &Span) -> Option<String> {
        if !is_on() {
            return None;
        }
        let context = span.context();
        let place = context.span().span_context().clone();
        place.is_valid().then(|| {
            let (trace, span, flags) = (place.trace_id(), place.span_id(), place.trace_flags().to_u8());
            format!("00-{trace}-{span}-{flags:02x}")
        })
    }

    fn parse(traceparent: &str) -> Option<SpanContext> {
        let mut parts = traceparent.split('-').skip(1);
        let trace = TraceId::from_hex(parts.next()?).ok()?;
        let span = SpanId::from_hex(parts.next()?).ok()?;
        let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?) & TraceFlags::SAMPLED;
        let context = SpanContext::new(trace, span, flags, true, TraceState::default());
        context.is_valid().then_some(context)
    }

    /// Which traces begin here: those of requests and jobs. What a worker asks the database every second is none.
    #[derive(Debug, Clone)]
    struct Roots {
        ratio: f64,
    }

    impl ShouldSample for Roots {
        fn should_sample(
            &self,
            parent: Option<&Context>,
            trace: TraceId,
            name: &str,
            kind: &SpanKind,
            attributes: &[KeyValue],
            links: &[Link],
        ) -> SamplingResult {
            let sampler = match kind {
                SpanKind::Server | SpanKind::Consumer => Sampler::TraceIdRatioBased(self.ratio),
                _ => Sampler::AlwaysOff,
            };
            sampler.should_sample(parent, trace, name, kind, attributes, links)
        }
    }

    /// Lets the runtime do the work: spans are gathered by a thread outside of it, in which the client cannot run.
    #[derive(Debug)]
    struct Courier {
        exporter: Arc<opentelemetry_otlp::SpanExporter>,
        runtime: Handle,
    }

    impl SpanExporter for Courier {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            let exporter = Arc::clone(&self.exporter);
            let sent = self.runtime.spawn(async move {
                // Bounds all its attempts together.
                let sent = tokio::time::timeout(2 * PATIENCE, exporter.export(batch)).await;
                sent.unwrap_or(Err(OTelSdkError::Timeout(2 * PATIENCE)))
            });
            sent.await
                .unwrap_or_else(|e| Err(OTelSdkError::InternalFailure(format!("the delivery ended: {e}"))))
        }

        fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
            self.exporter.shutdown_with_timeout(timeout)
        }

        fn set_resource(&mut self, resource: &Resource) {
            // Nobody else has it before the first delivery.
            if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
                exporter.set_resource(resource);
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        use opentelemetry_sdk::trace::SamplingDecision;

        #[test]
        fn a_place_in_a_trace_is_read() {
            let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            let place = parse(text).unwrap();
            assert!(place.is_remote() && place.is_sampled());
            assert_eq!(place.span_id().to_string(), "b7ad6b7169203331");
            assert!(!parse(&text.replace("-01", "-00")).unwrap().is_sampled());
            for odd in [
                "",
                "00-0-0-01",
                "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            ] {
                assert!(parse(odd).is_none(), "{odd}");
            }
        }

        #[test]
        fn only_requests_and_jobs_begin_traces() {
            let roots = Roots { ratio: 1.0 };
            let trace = TraceId::from_hex("0af7651916cd43dd8448eb211c80319c").unwrap();
            let kept = |kind| {
                let result = roots.should_sample(None, trace, "x", &kind, &[], &[]);
                result.decision == SamplingDecision::RecordAndSample
            };
            assert!(kept(SpanKind::Server) && kept(SpanKind::Consumer));
            assert!(!kept(SpanKind::Client) && !kept(SpanKind::Internal));
        }
    }
}
