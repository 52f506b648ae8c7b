//! Traces of the real program, as a collector of our own receives them.

use std::io::{Cursor, Read};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use poem::listener::{Acceptor, Listener};
use poem::web::Data;
use poem::{EndpointExt, Route, Server, handler, post};
use prost::Message;

use crate::shopping::Shopping;
use crate::smtp::Mailbox;
use crate::support::{Program, eventually, on_both};

#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    services: Arc<Mutex<Vec<String>>>,
}

#[handler]
fn take(Data(collector): Data<&Collector>, body: Vec<u8>) {
    let request = ExportTraceServiceRequest::decode(Cursor::new(body)).unwrap();
    for resource in request.resource_spans {
        for attribute in resource.resource.unwrap().attributes {
            if attribute.key == "service.name" {
                collector
                    .services
                    .lock()
                    .unwrap()
                    .push(format!("{:?}", attribute.value));
            }
        }
        let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        collector.spans.lock().unwrap().extend(spans);
    }
}

impl Collector {
    async fn open() -> (Self, String) {
        let acceptor = poem::listener::TcpListener::bind("127.0.0.1:0")
            .into_acceptor()
            .await
            .unwrap();
        let address = *acceptor.local_addr()[0].as_socket_addr().unwrap();
        let collector = Self::default();
        let app = Route::new().at("/v1/traces", post(take)).data(collector.clone());
        tokio::spawn(Server::new_with_acceptor(acceptor).run(app));
        (collector, format!("http://{address}"))
    }

    fn of_trace(&self, trace: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        spans
            .iter()
            .filter(|span| hex(&span.trace_id) == trace)
            .cloned()
            .collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The trace of each step: its name in numbers.
fn trace_of(step: &str) -> String {
    format!("{:0>32}", hex(step.as_bytes()))
}

const CALLER: &str = "b7ad6b7169203331";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_its_sql_its_plugin_call_and_its_jobs_are_one_trace() {
    on_both(async |database_url| {
        let (mailbox, port) = Mailbox::open().await;
        let (collector, endpoint) = Collector::open().await;
        let folder = tempfile::tempdir().unwrap();
        let port = port.to_string();
        let variables = [
            ("MAIL_SERVER", "127.0.0.1"),
            ("MAIL_PORT", &port),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_SERVICE_NAME", "mugs"),
        ];
        let program = Program::start(folder.path(), database_url, &variables).await;
        let mut shopping = Shopping::new(&program, &mailbox);
        shopping.headers = |step| Some(("traceparent", format!("00-{}-{CALLER}-01", trace_of(step))));
        shopping.play().await;
        let answer = program.get("/v1/products").await;
        let own = answer.headers["traceparent"].to_str().unwrap().to_owned();

        let names = |step: &str| {
            let spans = collector.of_trace(&trace_of(step));
            spans.into_iter().map(|span| span.name).collect::<Vec<_>>()
        };
        eventually("all spans", async || {
            let job_has_come = names("register").contains(&"job send_email".to_owned());
            let own_has_come = !collector.of_trace(own.split('-').nth(1).unwrap()).is_empty();
            (job_has_come && own_has_come)
                .then_some(())
                .ok_or_else(|| format!("{:?}", names("register")))
        })
        .await;

        let order = tree(&collector, "order", "POST /v1/orders");
        is_beneath(&order, "orders.place", "POST /v1/orders");
        is_beneath(&order, "batch", "orders.place");
        is_beneath(&order, "batch", "users.authenticate");
        for sql in ["begin", "sql", "commit"] {
            is_beneath(&order, sql, "batch");
        }
        let pay = tree(&collector, "pay", "POST /v1/orders/{id}/payments");
        is_beneath(&pay, "payments.start", "POST /v1/orders/{id}/payments");
        is_beneath(&pay, "sql", "payments.start");
        is_beneath(&pay, "gateway", "payments.start");
        let register = tree(&collector, "register", "POST /v1/users");
        is_beneath(&register, "users.register", "POST /v1/users");
        is_beneath(&register, "job send_email", "POST /v1/users");
        is_beneath(&register, "sql", "job send_email");

        let all = collector.spans.lock().unwrap().clone();
        let services = collector.services.lock().unwrap().clone();
        assert!(
            services.iter().all(|name| name.contains("\"mugs\"")),
            "{services:?}"
        );
        let probes = all
            .iter()
            .filter(|span| span.name.contains("/livez") || span.name.contains("/metrics"));
        assert_eq!(probes.count(), 0);
        // What the worker asks every second is no trace of its own.
        let roots = all.iter().filter(|span| span.parent_span_id.is_empty());
        for root in roots {
            let kinds = [SpanKind::Server as i32, SpanKind::Consumer as i32];
            assert!(kinds.contains(&root.kind), "{} is a root", root.name);
        }
        let shown = format!("{all:?}");
        for (what, secret) in shopping.secrets.lock().unwrap().iter() {
            assert!(!shown.contains(secret.as_str()), "the {what} is in a span");
        }
        for value in ["ada@example.com", "1 Main Street"] {
            assert!(!shown.contains(value), "{value} is in a span");
        }
    })
    .await;
}

/// The spans of a step's trace, whose request goes on from the caller's span.
fn tree(collector: &Collector, step: &str, request: &str) -> Vec<Span> {
    let spans = collector.of_trace(&trace_of(step));
    let root = spans
        .iter()
        .find(|span| span.name == request)
        .unwrap_or_else(|| panic!("{step}: {spans:?}"));
    assert_eq!(root.kind, SpanKind::Server as i32);
    assert_eq!(hex(&root.parent_span_id), CALLER);
    spans
}

/// One of these spans has the other above it.
#[track_caller]
fn is_beneath(spans: &[Span], name: &str, above: &str) {
    let parent = |span: &Span| spans.iter().find(|other| other.span_id == span.parent_span_id);
    let found = spans.iter().filter(|span| span.name == name).any(|span| {
        let ancestors = std::iter::successors(parent(span), |span| parent(span));
        ancestors.into_iter().any(|span| span.name == above)
    });
    let names: Vec<_> = spans
        .iter()
        .map(|span| (&span.name, parent(span).map(|parent| &parent.name)))
        .collect();
    assert!(found, "no {name} beneath {above}: {names:?}");
}

/// A collector that is not there, and one that takes everything and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_slows_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in silent.incoming() {
            std::thread::spawn(move || drop(stream.unwrap().read_to_end(&mut Vec::new())));
        }
    });
    for endpoint in ["http://127.0.0.1:1", &silent_url] {
        let folder = tempfile::tempdir().unwrap();
        let database_url = format!("sqlite://{}", folder.path().join("oms.db").display());
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("OMS_LOG", "warn")];
        let program = Program::start(folder.path(), &database_url, &variables).await;
        // More spans than the queue holds.
        let (mut slowest, mut asked) = (Duration::ZERO, 0);
        let started = Instant::now();
        while asked < 1_500 && started.elapsed() < Duration::from_secs(60) {
            let began = Instant::now();
            assert_eq!(program.get("/v1/products").await.status, 200);
            slowest = slowest.max(began.elapsed());
            asked += 1;
        }
        println!("{endpoint}: {asked} requests, the slowest took {slowest:?}");
        assert!(slowest < Duration::from_secs(3), "a request took {slowest:?}");
        let (ended_in, log) = program.stop().await;
        assert!(ended_in < Duration::from_secs(15), "it took {ended_in:?} to end");
        assert!(log.lines().count() < 50, "it complains too much:\n{log}");
    }
}
