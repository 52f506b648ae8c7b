//! `/metrics` of the real program after a purchase.

use std::os::unix::fs::PermissionsExt;

use std::collections::BTreeSet;

use crate::common::redis_server::RedisServer;
use crate::common::server::Server;
use crate::files;
use crate::shopping::Shopping;
use crate::smtp::Mailbox;
use crate::support::{Answer, Program, eventually, on_both};

const TOKEN: &str = "metrics-token-0123456789";

/// The value of a series, labels in the order in which they are printed.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}"))
        .parse()
        .unwrap()
}

/// The names in the lines that tell what they are.
fn names(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

async fn ask(program: &Program, url: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = program.client.get(format!("{url}/metrics"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    program.send(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_is_seen() {
    on_both(async |database_url| {
        let (mailbox, port) = Mailbox::open().await;
        let folder = tempfile::tempdir().unwrap();
        let mut redis = RedisServer::new();
        redis.start();
        let settings = [
            ("MAIL_SERVER", "127.0.0.1"),
            ("MAIL_PORT", &port.to_string()),
            ("REDIS_URL", &redis.url()),
        ];
        let program = Program::start(folder.path(), database_url, &settings).await;
        let bought = Shopping::new(&program, &mailbox).play().await;
        guess_a_password(&program).await;
        program.get("/wp-login.php?x=1").await.expect(404);
        let strange = program
            .client
            .request("BREW".parse().unwrap(), format!("{}/v1/orders", program.url));
        program.send(strange).await;
        let text = eventually("the last mail", async || {
            let text = program.get("/metrics").await.text;
            let sent = text.contains("oms_job_runs_total{kind=\"send_email\",outcome=\"done\"} 2\n");
            sent.then(|| text.clone()).ok_or(text)
        })
        .await;

        for (series, least) in [
            (
                "oms_http_requests_total{route=\"/v1/users\",method=\"POST\",status=\"201\"}",
                1.0,
            ),
            (
                "oms_http_requests_total{route=\"/v1/orders/{id}/payments\",method=\"POST\",status=\"201\"}",
                1.0,
            ),
            (
                "oms_http_requests_total{route=\"other\",method=\"GET\",status=\"404\"}",
                1.0,
            ),
            (
                "oms_http_request_seconds_count{route=\"/v1/orders\",method=\"POST\"}",
                2.0,
            ),
            ("oms_http_requests_in_flight", 1.0),
            ("oms_order_placements_total{outcome=\"placed\"}", 1.0),
            ("oms_order_placements_total{outcome=\"refused\"}", 1.0),
            (
                "oms_order_batch_orders_bucket{outcome=\"committed\",le=\"1\"}",
                2.0,
            ),
            ("oms_order_changes_total{kind=\"paid\"}", 1.0),
            (
                "oms_gateway_calls_total{account=\"mock\",operation=\"start\",outcome=\"ok\"}",
                1.0,
            ),
            (
                "oms_gateway_calls_total{account=\"mock\",operation=\"receive\",outcome=\"ok\"}",
                1.0,
            ),
            (
                "oms_gateway_call_seconds_count{account=\"mock\",operation=\"start\"}",
                1.0,
            ),
            ("oms_webhooks_total{account=\"mock\",outcome=\"accepted\"}", 1.0),
            ("oms_webhooks_total{account=\"mock\",outcome=\"refused\"}", 1.0),
            ("oms_rate_limited_total{class=\"sign-in-name\"}", 1.0),
            ("oms_redis_up", 1.0),
            (
                "oms_payment_changes_total{account=\"mock\",state=\"captured\"}",
                1.0,
            ),
            ("oms_job_run_seconds_count{kind=\"send_email\"}", 2.0),
            ("oms_db_begin_seconds_count{mode=\"write\",outcome=\"ok\"}", 10.0),
            ("oms_db_commit_seconds_count{outcome=\"ok\"}", 10.0),
            ("oms_db_up", 1.0),
            ("oms_placement_queue_capacity", 4096.0),
            ("process_resident_memory_bytes", 1e6),
            ("process_start_time_seconds", 1.7e9),
        ] {
            assert!(value(&text, series) >= least, "{series} in\n{text}");
        }
        for series in [
            "oms_jobs{kind=\"send_email\",state=\"dead\"}",
            "oms_payments_attention{attention=\"needs_review\"}",
            "oms_payments_open{state=\"pending\"}",
            "oms_placement_queue_length",
            "oms_jobs_oldest_due_seconds",
        ] {
            assert!(value(&text, series) <= 60.0, "{series} in\n{text}");
        }
        let pool = if database_url.starts_with("sqlite") {
            "reader"
        } else {
            "postgres"
        };
        assert!(value(&text, &format!("oms_db_connections_max{{pool=\"{pool}\"}}")) >= 16.0);
        assert!(text.contains("method=\"other\""), "{text}");

        for secret in [bought.order.as_str(), &bought.payment, "wp-login", "BREW", "ada@"] {
            assert!(!text.contains(secret), "{secret} in\n{text}");
        }
        assert_eq!(
            names(&text),
            files::documented(),
            "docs/observability.md and /metrics differ"
        );
        for (file, name) in files::used() {
            assert!(
                names(&text).contains(&name),
                "{file} uses {name}, which is not printed"
            );
        }
    })
    .await;
}

/// Until it is refused: on a busy machine some of the budget comes back meanwhile.
async fn guess_a_password(program: &Program) {
    for _ in 0..60 {
        let guess = serde_json::json!({"identifier": "nobody", "password": "a guess of mine"});
        let request = program.client.post(format!("{}/v1/sessions", program.url));
        if program.send(request.json(&guess)).await.status == 429 {
            return;
        }
    }
    panic!("sixty guesses were answered");
}

/// What is told before anybody reads, and perhaps never again.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_never_there_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let database_url = format!("sqlite://{}", folder.path().join("oms.db").display());
    // Nobody listens at a socket that is not there.
    let away = [("REDIS_URL", "unix:///nowhere/redis.sock")];
    let program = Program::start(folder.path(), &database_url, &away).await;
    let seen = eventually("the gauge", async || {
        let text = program.get("/metrics").await.text;
        let shown = text.contains("\noms_redis_up ");
        shown.then(|| text.clone()).ok_or(text)
    });
    assert!(value(&seen.await, "oms_redis_up") < 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn development_shows_them_to_this_machine_alone() {
    let folder = tempfile::tempdir().unwrap();
    let database_url = format!("sqlite://{}", folder.path().join("oms.db").display());
    let program = Program::start(folder.path(), &database_url, &[]).await;
    let open = ask(&program, &program.url, &[]).await;
    assert_eq!(open.status, 200);
    assert_eq!(
        open.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    for header in ["x-forwarded-for", "forwarded", "x-real-ip", "via"] {
        let through_proxy = ask(&program, &program.url, &[(header, "for=203.0.113.9")]).await;
        assert_eq!(through_proxy.status, 404, "{header}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn production_shows_them_to_those_with_the_token() {
    let production = [
        ("OMS_ENV", "production"),
        ("SECRET_KEY", "kW3k0c9cJ7rC1dX8fQ2mZ5vB6nL4pT0a"),
        ("OMS_PUBLIC_URL", "https://shop.example.com"),
        ("MAIL_SERVER", "127.0.0.1"),
        ("MAIL_FROM", "shop@example.com"),
    ];
    let started = async |more: &[(&str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        // Production wants it so.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let database_url = format!("sqlite://{}", folder.path().join("oms.db").display());
        let program = Program::start(folder.path(), &database_url, &[&production, more].concat()).await;
        (program, folder)
    };
    let (closed, _folder) = started(&[]).await;
    assert_eq!(ask(&closed, &closed.url, &[]).await.status, 404);
    drop(closed);

    let (guarded, _folder) = started(&[("OMS_METRICS_TOKEN", TOKEN)]).await;
    let with = async |authorization: &str| {
        let headers = [("authorization", authorization)];
        ask(&guarded, &guarded.url, &headers).await.status
    };
    let without = ask(&guarded, &guarded.url, &[]).await;
    assert_eq!(without.status, 401);
    assert!(without.headers.contains_key("www-authenticate"));
    assert_eq!(with(&format!("Bearer {TOKEN}")).await, 200);
    for wrong in [
        "Bearer",
        "Bearer ",
        "Bearer metrics-token-012345678",
        "Basic bWV0cmljcw==",
    ] {
        assert_eq!(with(wrong).await, 401, "{wrong}");
    }
    assert_eq!(with(&format!("Bearer {TOKEN}0")).await, 401);
    drop(guarded);

    let (apart, _folder) = started(&[("OMS_METRICS_LISTEN", "127.0.0.1:0")]).await;
    assert_eq!(ask(&apart, &apart.url, &[]).await.status, 404);
    let log = apart.log();
    let (_, rest) = log.split_once("metrics are at ").unwrap();
    let own = rest.split("/metrics").next().unwrap();
    let answer = ask(&apart, own, &[]).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text.contains("\noms_build_info{"), "{}", answer.text);
    let elsewhere = apart.client.get(format!("{own}/v1/products"));
    assert_eq!(apart.send(elsewhere).await.status, 404);
}

/// A worker by itself has no other address.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_shows_them_at_their_own_address() {
    let folder = tempfile::tempdir().unwrap();
    let database_url = format!("sqlite://{}", folder.path().join("oms.db").display());
    let mut worker = Server::new(folder.path(), &database_url).with("OMS_METRICS_LISTEN", "127.0.0.1:0");
    worker.spawn(&["worker"]);
    let url = eventually("the address", async || {
        let log = worker.logged();
        let found = log
            .split_once("metrics are at ")
            .and_then(|(_, rest)| rest.split_whitespace().next());
        found.map(str::to_owned).ok_or(log)
    })
    .await;
    let ran = eventually("a periodic job", async || {
        let answer = reqwest::get(&url).await.map_err(|e| e.to_string())?;
        let text = answer.text().await.unwrap();
        let ran = text.contains("oms_job_runs_total{kind=\"expire_orders\",outcome=\"done\"} ");
        ran.then_some(()).ok_or(text)
    });
    ran.await;
    worker.kill();
}
