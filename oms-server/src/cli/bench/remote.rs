//! `bench --url`: places orders at any deployment, keeps a ledger of what was acknowledged, and looks for all of it
//! afterwards.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use serde_json::{Value, json};

use super::load::{self, Answer, Caller, Load, Pace, Span};
use crate::secrets;

const PATIENCE: Duration = Duration::from_secs(35);
const WARM_UP: Duration = Duration::from_secs(1);
/// A request whose answer was lost is sent again so often before it is given up.
const RETRIES: u64 = 5;

#[derive(clap::Args)]
#[group(skip)]
pub(super) struct Options {
    /// Load a deployment that runs already, as a customer of it would; orders are really placed, and its limit for one
    /// customer (OMS_RATE_LIMIT_CLIENT) holds
    #[arg(long, value_name = "URL", requires_all = ["identifier", "password"])]
    pub(super) url: Option<String>,
    /// Who orders: user name or e-mail address
    #[arg(long, value_name = "NAME")]
    identifier: Option<String>,
    #[arg(long, env = "OMS_BENCH_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// What is ordered, one of them at random; the first products when none is named
    #[arg(long, value_name = "SKU")]
    sku: Vec<String>,
    /// Requests at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    clients: u64,
    /// Orders that are due each second, whatever becomes of those before; without it each client waits for its answer
    #[arg(long, value_name = "PER SECOND", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Where the ledger is written: a key and an order's id in each line
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

pub(super) async fn run(options: &Options, url: &str, seconds: u64) -> Result<ExitCode> {
    let shop = Arc::new(Remote::open(options, url).await?);
    let span = Span {
        warm_up: WARM_UP,
        measured: Duration::from_secs(seconds),
    };
    let pace = match options.rate {
        Some(rate) => Pace::Open {
            per_second: f64::from(rate),
        },
        None => Pace::Closed,
    };
    let run = secrets::random_text(9)?;
    let clients = (0..options.clients).map(|number| Customer {
        shop: Arc::clone(&shop),
        prefix: format!("bench-{run}-{number}"),
        count: 0,
    });
    let progress = tokio::spawn(show_progress(WARM_UP + span.measured));
    let load = load::run(clients.collect(), span, pace).await;
    progress.abort();
    let load = load?;
    let ledger = std::mem::take(&mut *shop.ledger());
    if let Some(path) = &options.ledger {
        write_ledger(path, &ledger).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let lost = shop.look_for(&ledger, options.clients).await?;
    super::super::print(&report(options, seconds, &load, &ledger, &lost)?)?;
    let good = lost.is_empty() && ledger.unsure.is_empty() && ledger.rude == 0;
    Ok(ExitCode::from(u8::from(!good)))
}

/// What the other side said.
#[derive(Debug, Default)]
struct Ledger {
    /// Key and order.
    acknowledged: Vec<(String, String)>,
    /// Code and how often.
    refused: std::collections::BTreeMap<String, u64>,
    /// 503 without the time at which to come back.
    rude: u64,
    /// Answers that were lost on the way and fetched by sending the same key again.
    resent: u64,
    /// Keys whose answer could not be fetched.
    unsure: Vec<String>,
}

struct Remote {
    client: reqwest::Client,
    url: String,
    token: String,
    skus: Vec<String>,
    ledger: Mutex<Ledger>,
}

impl Remote {
    async fn open(options: &Options, url: &str) -> Result<Self> {
        let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
        let url = url.trim_end_matches('/').to_owned();
        let body = json!({ "identifier": options.identifier, "password": options.password });
        let request = client.post(format!("{url}/v1/sessions")).json(&body);
        let session: Value = request.send().await?.error_for_status()?.json().await?;
        let token = session["access_token"]
            .as_str()
            .context("log-in gave no access_token")?;
        let mut shop = Self {
            client,
            url,
            token: token.to_owned(),
            skus: options.sku.clone(),
            ledger: Mutex::default(),
        };
        if shop.skus.is_empty() {
            let page = shop.get("/v1/products?limit=200").await?.error_for_status()?;
            shop.skus = skus(&page.json().await?);
        }
        ensure!(!shop.skus.is_empty(), "there is nothing to order: name a --sku");
        Ok(shop)
    }

    async fn get(&self, path: &str) -> reqwest::Result<reqwest::Response> {
        let request = self.client.get(format!("{}{path}", self.url));
        request.bearer_auth(&self.token).send().await
    }

    async fn order(&self, key: &str, sku: &str) -> reqwest::Result<(StatusCode, bool, Value)> {
        let request = self.client.post(format!("{}/v1/orders", self.url));
        let body = json!({ "lines": [{ "sku": sku, "quantity": 1 }] });
        let request = request.bearer_auth(&self.token).header("idempotency-key", key);
        let answer = request.json(&body).send().await?;
        let status = answer.status();
        let polite = answer.headers().contains_key(RETRY_AFTER);
        Ok((status, polite, answer.json().await?))
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        // A caller that panicked ends the bench; what it had written is whole.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keys of acknowledged orders that are not there.
    async fn look_for(&self, ledger: &Ledger, at_once: u64) -> Result<Vec<String>> {
        let at_once = usize::try_from(at_once)?;
        let looks = futures_util::stream::iter(&ledger.acknowledged).map(async |(key, id)| {
            let answer = self.get(&format!("/v1/orders/{id}")).await?;
            let found = match answer.status() {
                StatusCode::OK => true,
                StatusCode::NOT_FOUND => false,
                other => bail!("order {id} could not be looked up: {other}"),
            };
            Ok((!found).then(|| key.clone()))
        });
        let found: Vec<Result<Option<String>>> = looks.buffer_unordered(at_once).collect().await;
        let lost: Result<Vec<Option<String>>> = found.into_iter().collect();
        Ok(lost?.into_iter().flatten().collect())
    }
}

/// One of those who order.
struct Customer {
    shop: Arc<Remote>,
    prefix: String,
    count: usize,
}

impl Caller for Customer {
    async fn call(&mut self) -> Result<Answer> {
        self.count += 1;
        let key = format!("{}-{}", self.prefix, self.count);
        // Neighbours begin at different products, and nobody needs a random number.
        let start = self.prefix.bytes().map(usize::from).sum::<usize>();
        let sku = &self.shop.skus[(start + self.count * 7919) % self.shop.skus.len()];
        for attempt in 0..=RETRIES {
            let Ok((status, polite, body)) = self.shop.order(&key, sku).await else {
                tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
                continue;
            };
            let mut ledger = self.shop.ledger();
            ledger.resent += attempt;
            return match (status, body["id"].as_str()) {
                (StatusCode::CREATED, Some(id)) => {
                    ledger.acknowledged.push((key, id.to_owned()));
                    Ok(Answer::Done)
                }
                (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => bail!("{status}: {body}"),
                _ => {
                    ledger.rude += u64::from(status == StatusCode::SERVICE_UNAVAILABLE && !polite);
                    let code = body["code"].as_str().unwrap_or("no code");
                    *ledger
                        .refused
                        .entry(format!("{} {code}", status.as_u16()))
                        .or_default() += 1;
                    Ok(Answer::Refused)
                }
            };
        }
        self.shop.ledger().unsure.push(key);
        Ok(Answer::Refused)
    }
}

fn skus(page: &Value) -> Vec<String> {
    let products = page["data"].as_array().into_iter().flatten();
    let variants = products.flat_map(|product| product["variants"].as_array().into_iter().flatten());
    variants
        .filter_map(|variant| variant["sku"].as_str().map(str::to_owned))
        .collect()
}

async fn show_progress(time: Duration) {
    let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} s") else {
        return;
    };
    // Draws on stderr, and only when that is a terminal.
    let bar = ProgressBar::new(time.as_secs()).with_style(style);
    for _ in 0..time.as_secs() {
        bar.tick();
        tokio::time::sleep(Duration::from_secs(1)).await;
        bar.inc(1);
    }
    bar.finish_and_clear();
}

fn write_ledger(path: &PathBuf, ledger: &Ledger) -> Result<()> {
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    for (key, order) in &ledger.acknowledged {
        writeln!(file, "{key} {order}")?;
    }
    Ok(file.flush()?)
}

fn report(options: &Options, seconds: u64, load: &Load, ledger: &Ledger, lost: &[String]) -> Result<String> {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let mut text = String::new();
    match options.rate {
        Some(rate) => write!(text, "open loop, {rate} orders due each second")?,
        None => write!(text, "closed loop")?,
    }
    writeln!(
        text,
        ", {} clients, {seconds} s after {} s of warm-up\n",
        options.clients,
        WARM_UP.as_secs()
    )?;
    writeln!(text, "| orders/s |  p50 ms |  p99 ms | p99.9 ms |  max ms |")?;
    writeln!(text, "|---------:|--------:|--------:|---------:|--------:|")?;
    writeln!(
        text,
        "| {:>8.0} | {:>7.2} | {:>7.2} | {:>8.2} | {:>7.2} |\n",
        load.per_second,
        millis(load.p50),
        millis(load.p99),
        millis(load.p999),
        millis(load.max)
    )?;
    writeln!(
        text,
        "- acknowledged: {}, of which lost: {}",
        ledger.acknowledged.len(),
        lost.len()
    )?;
    writeln!(
        text,
        "- sent again after an answer was lost: {}; never answered: {}",
        ledger.resent,
        ledger.unsure.len()
    )?;
    for (code, count) in &ledger.refused {
        writeln!(text, "- refused with {code}: {count}")?;
    }
    if ledger.rude > 0 {
        writeln!(text, "- 503 without Retry-After: {}", ledger.rude)?;
    }
    for key in lost.iter().take(20) {
        writeln!(text, "- LOST: the order of {key}")?;
    }
    Ok(text)
}
