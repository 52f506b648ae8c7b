//! What a webhook costs before it touches an order: the mock plugin verifies its signature in a fresh instance.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use oms_core::payments::{Account, Delivery, Received, Secret};
use oms_core::{Actor, Oms, Timestamp};
use serde_json::Value;
use sha2::Sha256;

use super::goals::{Goals, Reach};
use super::load::{Answer, Caller, Load, Span, closed_loop};
use super::over_http::{Connection, Server};

pub(super) const PATH: &str = "/v1/webhooks/mock";
/// An event as the fake bank sends it, of a payment that nobody knows.
const BODY: &str = r#"{"type":"payment.captured","created_at_ms":1767225600000,"data":{"payment":{
    "id":"bp_bench","merchant_payment_id":"pay_01h455vb4pex5vsknk084sn02q","status":"captured","amount":5000,
    "currency":"EUR","exponent":2,"authorized":5000,"captured":5000,"refunded":0,"canceled":0,
    "redirect_url":null,"decline_code":null,"captures":[{"id":"cp_1","amount":5000}],"refunds":[]}}}"#;

/// The mock plugin behind a library of its own.
pub(super) struct Receiver {
    oms: Oms,
    account: Account,
    key: Vec<u8>,
}

/// What was measured in one round.
pub(super) struct Measured {
    /// By the number of deliveries at once.
    plugin: Vec<(usize, Load)>,
    /// The median of a verification in Rust, without a plugin around it.
    native: Duration,
}

/// A gateway that delivers the same event again and again, signed each time.
#[derive(Clone)]
struct Gateway {
    oms: Oms,
    account: Account,
    key: Vec<u8>,
}

impl Receiver {
    pub(super) async fn start(dir: &Path, plugin_dir: &Path) -> Result<Self> {
        let url = format!("sqlite://{}", dir.join("webhooks.db").display());
        let oms = Oms::builder(url).connect().await?;
        oms.migrate().await?;
        let loaded = oms.plugins().load_dir(&Actor::System, plugin_dir).await?;
        ensure!(
            loaded.iter().any(|plugin| plugin.id == "mock"),
            "no mock plugin beneath {}: run cargo xtask plugins",
            plugin_dir.display()
        );
        let key = b"0123456789abcdef0123456789abcdef".to_vec();
        let mut account = Account::new("mock", "mock");
        let secret = format!("whsec_{}", STANDARD.encode(&key));
        account.secrets = [("webhook-secret".to_owned(), Secret::new(secret))].into();
        account.config = [("base-url".to_owned(), "http://127.0.0.1:9".to_owned())].into();
        Ok(Self { oms, account, key })
    }

    pub(super) async fn measure(&self, span: Span) -> Result<Measured> {
        let gateway = Gateway {
            oms: self.oms.clone(),
            account: self.account.clone(),
            key: self.key.clone(),
        };
        let mut plugin = Vec::new();
        for callers in [1, 2] {
            plugin.push((callers, closed_loop(vec![gateway.clone(); callers], span).await?));
        }
        let native = self.native()?;
        Ok(Measured { plugin, native })
    }

    /// Verifies and reads the same event as the plugin does.
    fn native(&self) -> Result<Duration> {
        let now = self.oms.now();
        let headers = signed_headers(&self.key, "msg_bench", now, BODY)?;
        let mut times = Vec::with_capacity(10_000);
        for _ in 0..10_000 {
            let started = Instant::now();
            let event = std::hint::black_box(verify(&self.key, &headers, now)?);
            times.push(started.elapsed());
            ensure!(event["type"] == "payment.captured", "the event was not read");
        }
        times.sort_unstable();
        Ok(times[times.len() / 2])
    }

    pub(super) async fn stop(self) {
        self.oms.shutdown().await;
    }
}

impl Measured {
    /// What a plugin adds to a verification, beside what it may add.
    pub(super) fn compare(&self, goals: &mut Goals) {
        if let Some((_, alone)) = self.plugin.first() {
            let added = micros(alone.p50) - micros(self.native);
            let work = "µs that a fresh instance adds to a verification, p50";
            goals.add(work, added, ("60", 60.0), Reach::AtMost(1.0));
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let plugin = self.plugin.iter().map(|(callers, load)| {
            format!(
                "webhooks verified in a fresh instance, {callers} at a time: {:.0}/s, p50 {:.0} µs, p99 {:.0} µs",
                load.per_second,
                micros(load.p50),
                micros(load.p99)
            )
        });
        let native = format!(
            "the same in Rust without a plugin: p50 {:.1} µs",
            micros(self.native)
        );
        plugin.chain([native]).collect()
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

impl Caller for Gateway {
    async fn call(&mut self) -> Result<Answer> {
        let now = self.oms.now();
        let delivery = Delivery {
            method: "POST".into(),
            url: format!("http://127.0.0.1{PATH}"),
            query: String::new(),
            headers: signed_headers(&self.key, "msg_bench", now, BODY)?
                .map(|(name, value)| (name.to_owned(), value.into_bytes()))
                .into(),
            body: BODY.into(),
            received_at: now,
            remote_ip: None,
            tolerance_seconds: self.account.tolerance_seconds,
        };
        let received = self
            .oms
            .plugins()
            .try_webhook(&Actor::System, &self.account, delivery)
            .await??;
        ensure!(
            matches!(received, Received::Verified(_)),
            "a good signature was not verified"
        );
        Ok(Answer::Done)
    }
}

/// One webhook for a server, signed with the secret that it shares with its fake bank.
pub(super) async fn deliver(server: &Server, data_dir: &Path) -> Result<()> {
    let key = bank_key(data_dir)?;
    let now = oms_core::Clock::now(&oms_core::SystemClock);
    let headers = signed_headers(&key, "msg_bench", now, BODY)?
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .concat();
    let mut connection = Connection::open(server.address).await?;
    let (status, body) = connection.post(PATH, &headers, BODY.as_bytes()).await?;
    ensure!(
        (200..300).contains(&status),
        "the webhook was answered with {status}: {}",
        String::from_utf8_lossy(&body)
    );
    Ok(())
}

/// What a server and its fake bank sign with.
pub(super) fn bank_key(data_dir: &Path) -> Result<Vec<u8>> {
    let secret =
        fs::read_to_string(data_dir.join("mock-webhook.key")).context("the server has no fake bank")?;
    Ok(STANDARD.decode(secret.trim().trim_start_matches("whsec_"))?)
}

/// As Standard Webhooks has it.
pub(super) fn signed_headers(
    key: &[u8],
    id: &str,
    now: Timestamp,
    body: &str,
) -> Result<[(&'static str, String); 3]> {
    let at = now.as_secs().to_string();
    let signature = STANDARD.encode(mac(key, id, &at, body.as_bytes())?.finalize().into_bytes());
    Ok([
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", at),
        ("webhook-signature", format!("v1,{signature}")),
    ])
}

/// As Standard Webhooks has it, and what the message says.
fn verify(
    key: &[u8],
    [(_, id), (_, at), (_, signature)]: &[(&str, String); 3],
    now: Timestamp,
) -> Result<Value> {
    let signature = signature.strip_prefix("v1,").context("no version 1")?;
    mac(key, id, at, BODY.as_bytes())?.verify_slice(&STANDARD.decode(signature)?)?;
    let late = now.as_secs().abs_diff(at.parse()?);
    ensure!(late <= 300, "it is stale");
    Ok(serde_json::from_str(BODY)?)
}

fn mac(key: &[u8], id: &str, at: &str, body: &[u8]) -> Result<Hmac<Sha256>> {
    let mac = Hmac::<Sha256>::new_from_slice(key)?;
    Ok(mac.chain_update(format!("{id}.{at}.")).chain_update(body))
}
