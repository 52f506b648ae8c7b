//! Mails to a real SMTP server: aiosmtpd, driven by `server.py`, which refuses, stalls and breaks off as it is told.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub,
    dead_code,
    reason = "tests may panic, and not every story needs every helper"
)]

#[path = "../common/mod.rs"]
mod common;

mod delivery;
mod stories;
mod templates;

use std::path::{Path, PathBuf};
use std::time::Duration;

use oms_core::Timestamp;
use oms_core::mail::{Email, MailError, Mailer, Message};
use oms_core::payments::Secret;
use oms_server::mailer::{MailSender, MailTls, Smtp};
use serde_json::{Value, json};

use crate::common::script::Script;

/// A certificate for `localhost` by a root of our own.
fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../oms-core/tests/fixtures/tls")
        .join(file)
}

/// An SMTP server with these settings; see `server.py`.
fn smtp_server(tls: &str, more: &Value) -> Script {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (cert, key) = (fixture("localhost.pem"), fixture("localhost.key"));
    let mut settings = json!({"tls": tls, "cert": cert, "key": key});
    for (name, value) in more.as_object().unwrap() {
        settings[name] = value.clone();
    }
    Script::start("mail/server.py", &[&settings.to_string()])
}

/// The way to it, with the test's root trusted and little patience.
fn way(server: &Script, tls: MailTls) -> Smtp {
    Smtp {
        server: "localhost".into(),
        port: server.port.try_into().unwrap(),
        tls,
        ca_file: Some(fixture("root.pem")),
        timeout: Duration::from_secs(20),
        credentials: None,
    }
}

fn login(user: &str, password: &str) -> Option<(String, Secret)> {
    Some((user.into(), Secret::new(password.to_owned())))
}

fn sender(smtp: &Smtp) -> MailSender {
    let from = "\"Ännchens Lädchen\" <shop@example.com>".parse().unwrap();
    MailSender::new(Some(smtp), Path::new("unused"), None, from, "https://shop.test").unwrap()
}

fn message(number: u32, to: &str, username: &str) -> Message {
    Message {
        id: format!("job_{number}"),
        to: to.into(),
        email: Email::VerifyAddress {
            username: username.into(),
            token: "Ab-_9".repeat(9),
            expires_at: Timestamp::from_millis(1_767_225_600_000),
        },
    }
}

async fn send(sender: &MailSender, number: u32) -> Result<(), MailError> {
    sender.send(message(number, "ann@example.com", "ann")).await
}

#[track_caller]
fn transient(result: Result<(), MailError>) -> String {
    match result.unwrap_err() {
        MailError::Transient(why) => why,
        MailError::Permanent(why) => panic!("given up: {why}"),
    }
}

#[track_caller]
fn permanent(result: Result<(), MailError>) -> String {
    match result.unwrap_err() {
        MailError::Permanent(why) => why,
        MailError::Transient(why) => panic!("to be tried again: {why}"),
    }
}
