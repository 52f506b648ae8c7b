//! The log at its most talkative: nothing secret is in it, and every line of a request says which request it was.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::common::server::program;
use crate::shopping::{PASSWORD, Shopping, WRONG_PASSWORD};
use crate::smtp::Mailbox;
use crate::support::{DATABASE_PASSWORD, Program, on_both};

const SECRET_KEY: &str = "signing-key-5Tq8vB2nX7cL9wE4rY6uI1oP3aS0dF";
const MAIL_PASSWORD: &str = "mail-password-8c1d";
const METRICS_TOKEN: &str = "metrics-token-4411aabbccdd";

/// Each secret in the forms that programs write: as it is, in base64, percent-encoded, as Rust shows bytes.
fn forms(secret: &str) -> Vec<String> {
    let percent: String = secret.bytes().map(|b| format!("%{b:02X}")).collect();
    let shown: Vec<String> = secret.bytes().map(|b| b.to_string()).collect();
    // Where a base64 text begins is not known: the same bytes have three forms, of which the inner letters stay.
    let shifted = (0..3).map(|shift| {
        let text = STANDARD.encode(format!("{}{secret}", &"xxx"[..shift]));
        text[4..text.len() - 4].to_owned()
    });
    let escaped = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    [
        secret.to_owned(),
        percent,
        escaped,
        URL_SAFE_NO_PAD.encode(secret),
        shown.join(", "),
    ]
    .into_iter()
    .chain(shifted)
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_written_even_at_trace_level() {
    on_both(async |database_url| {
        let (mailbox, port) = Mailbox::open().await;
        let folder = tempfile::tempdir().unwrap();
        let port = port.to_string();
        let variables = [
            ("OMS_LOG", "trace"),
            ("OMS_LOG_FORMAT", "json"),
            ("SECRET_KEY", SECRET_KEY),
            ("MAIL_SERVER", "127.0.0.1"),
            ("MAIL_PORT", &port),
            ("MAIL_USERNAME", "postman"),
            ("MAIL_PASSWORD", MAIL_PASSWORD),
            ("OMS_METRICS_TOKEN", METRICS_TOKEN),
        ];
        let program = Program::start(folder.path(), database_url, &variables).await;
        let mut shopping = Shopping::new(&program, &mailbox);
        shopping.headers = |step| Some(("x-request-id", format!("request-{step}")));
        shopping.play().await;
        let metrics = program.client.get(format!("{}/metrics", program.url));
        program.send(metrics.bearer_auth(METRICS_TOKEN)).await.expect(200);
        assert!(
            !mailbox.logins.lock().unwrap().is_empty(),
            "the mail password was never used"
        );

        let mut secrets = shopping.secrets.lock().unwrap().clone();
        let file = |name: &str| {
            std::fs::read_to_string(folder.path().join(name))
                .unwrap()
                .trim()
                .to_owned()
        };
        let admin = file("admin.txt");
        secrets.extend([
            ("password", PASSWORD.to_owned()),
            ("wrong password", WRONG_PASSWORD.to_owned()),
            ("SECRET_KEY", SECRET_KEY.to_owned()),
            ("MAIL_PASSWORD", MAIL_PASSWORD.to_owned()),
            ("OMS_METRICS_TOKEN", METRICS_TOKEN.to_owned()),
            ("secret of the account", file("mock-api.key")),
            (
                "webhook secret",
                file("mock-webhook.key").trim_start_matches("whsec_").to_owned(),
            ),
            (
                "administrator's password",
                admin.rsplit(' ').next().unwrap().to_owned(),
            ),
        ]);
        if database_url.starts_with("postgres") {
            secrets.push(("database password", DATABASE_PASSWORD.to_owned()));
        }
        assert!(secrets.len() >= 13);
        let (_, log) = program.stop().await;
        assert!(log.contains("\"TRACE\""), "the log is not at trace level");
        for (what, secret) in secrets {
            assert!(secret.len() >= 16, "{what} is too short to look for");
            for form in forms(&secret) {
                if let Some(line) = log.lines().find(|line| line.contains(&form)) {
                    panic!("the {what} is in the log:\n{line}");
                }
            }
        }
        requests_are_named(&log);
    })
    .await;
}

/// Every line inside of a request, its batch, its plugin call or its jobs leads back to it.
fn requests_are_named(log: &str) {
    let lines: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert!(lines.len() > 100);
    let spans = |line: &Value| line["spans"].as_array().cloned().unwrap_or_default();
    let inside = |name: &str| {
        let stands = |line: &&Value| spans(line).iter().any(|span| span["name"] == name);
        lines.iter().filter(stands).collect::<Vec<_>>()
    };
    let id = |line: &Value| {
        spans(line)
            .iter()
            .find_map(|span| span["request_id"].as_str().map(str::to_owned))
    };
    for line in inside("request") {
        assert!(id(line).is_some(), "{line}");
    }
    let of = |span: &str, request: &str| {
        let found = inside(span)
            .iter()
            .any(|line| id(line).as_deref() == Some(request));
        assert!(found, "no line of {span} names {request}");
    };
    for request in ["request-register", "request-order", "request-pay"] {
        of("request", request);
    }
    of("batch", "request-order");
    of("gateway", "request-pay");
    of("job", "request-register");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_and_unknown_formats() {
    let folder = tempfile::tempdir().unwrap();
    let with = |variables: &[(&str, &str)]| {
        let mut program = program(folder.path());
        program.arg("migrate").envs(variables.iter().copied());
        program.output().unwrap()
    };
    for (variable, value) in [("OMS_LOG_FORMAT", "xml"), ("RUST_LOG", "==="), ("OMS_LOG", "===")] {
        let output = with(&[(variable, value)]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.contains(variable) && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
    assert!(
        with(&[("OMS_LOG_FORMAT", ""), ("OMS_LOG", ""), ("RUST_LOG", "")])
            .status
            .success()
    );
    // The first of both is ours.
    let output = with(&[
        ("OMS_LOG", "debug"),
        ("RUST_LOG", "off"),
        ("OMS_LOG_FORMAT", "json"),
    ]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let first: Value = serde_json::from_str(stderr.lines().next().unwrap()).unwrap();
    assert!(first["level"].is_string(), "{first}");
}
