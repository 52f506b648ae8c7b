//! The fake bank: the other side of the mock gateway plugin, for development and tests.
//!
//! A hosted payment page, a JSON API and signed webhooks, on a small database file of its own. What
//! it says happened is committed before it says so, so killing the server loses no charge and no
//! webhook. It must not be mounted in production: anyone who knows a payment's address can pay it.
//!
//! | method and path | what |
//! |---|---|
//! | `POST /v1/payments` | start; answers with `redirect_url` |
//! | `GET /v1/payments/{ref}`, `GET /v1/payments?merchant_payment_id=` | read |
//! | `POST /v1/payments/{ref}/capture`, `/cancel`, `/refunds` | change |
//! | `GET`, `POST /pay/{ref}` | the page; form field `decision` is `approve`, `decline` or `challenge` |
//!
//! The API wants `Authorization: Bearer`, its changes `Idempotency-Key` as well: the same key and
//! request get the same answer, another request with that key gets 409.
//!
//! # Faults
//! A payment of one of these amounts (minor units, any currency) shows the fault. The page has a
//! switch for the same faults, save the second, for payments of any amount.
//!
//! | amount | name | what happens |
//! |---|---|---|
//! | 99901 | `decline` | approving fails with `insufficient_funds` |
//! | 99902 | `timeout_after_charge` | starting charges at once; the answer is withheld, then 504; no webhooks |
//! | 99903 | `duplicate_webhooks` | every webhook three times |
//! | 99904 | `out_of_order_webhooks` | `payment.authorized` seconds after `payment.captured` |
//! | 99905 | `tampered_webhooks` | body changed after signing, the right one later |
//! | 99906 | `stale_webhooks` | signed ten minutes ago, a good one later |
//! | 99907 | `future_webhooks` | signed in ten minutes, a good one later |
//! | 99908 | `wrong_amount` | webhooks tell of 100 minor units less |
//! | 99909 | `slow_answers` | answers about this payment take 3 seconds |
//! | 99910 | `no_webhooks` | none, only asking finds out |
//! | 99911 | `timeout_on_change` | captures, cancellations and refunds are done, their answers withheld, then 504; no webhooks for them |
//! | 99912 | `refund_fails` | refunds fail |

mod api;
mod delivery;
mod faults;
mod model;
mod operations;
mod page;
mod requests;
mod store;
#[cfg(test)]
mod tests;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use poem::{EndpointExt as _, Route};
use sqlx::SqlitePool;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Where the bank lives and what it shares with the merchant.
#[derive(Clone)]
pub(crate) struct BankConfig {
    /// The bank's own SQLite file; made when missing.
    pub(crate) database: PathBuf,
    /// Where the bank is mounted, e.g. `http://127.0.0.1:8000/mock-gateway`.
    pub(crate) public_url: String,
    /// The shop's public address, and the one at which the bank reaches it instead: inside a network of containers the
    /// public one may lead nowhere.
    pub(crate) internal: Option<(String, String)>,
    /// The bearer token of the API.
    pub(crate) api_key: String,
    /// `whsec_` and base64, as Standard Webhooks writes secrets.
    pub(crate) webhook_secret: String,
}

/// A handle that is cheap to clone.
#[derive(Clone)]
pub struct Bank(Arc<Inner>);

struct Inner {
    db: SqlitePool,
    public_url: String,
    internal: Option<(String, String)>,
    api_key: String,
    webhook_key: Vec<u8>,
    timing: Timing,
    http: reqwest::Client,
    /// Rung after a commit that put something into the outbox.
    outbox: Notify,
    page: page::Template,
}

/// How long things take; tests shorten them.
#[derive(Debug, Clone, Copy)]
struct Timing {
    faults: faults::Delays,
    /// Longer than any client waits, so that it is the client who gives up.
    withhold: Duration,
    slow: Duration,
    first_retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            faults: faults::Delays {
                follow_up_ms: 1_000,
                hold_back_ms: 3_000,
            },
            withhold: Duration::from_secs(60),
            slow: Duration::from_secs(3),
            first_retry: Duration::from_secs(1),
        }
    }
}

impl Bank {
    /// Opens the bank's file and checks the configuration.
    pub(crate) async fn open(config: BankConfig) -> anyhow::Result<Self> {
        Self::open_with(config, Timing::default()).await
    }

    async fn open_with(config: BankConfig, timing: Timing) -> anyhow::Result<Self> {
        ensure!(
            config.api_key.len() >= 16,
            "the bank's API key is shorter than 16 characters"
        );
        let public_url = config.public_url.trim_end_matches('/').to_owned();
        requests::check_url("the bank's public URL", &public_url).map_err(anyhow::Error::msg)?;
        let webhook_key = config
            .webhook_secret
            .strip_prefix("whsec_")
            .and_then(|encoded| BASE64.decode(encoded).ok())
            .filter(|key| key.len() >= 16)
            .context("the bank's webhook secret must be whsec_ and the base64 of at least 16 bytes")?;
        Ok(Self(Arc::new(Inner {
            db: store::open(&config.database).await?,
            public_url,
            internal: config.internal,
            api_key: config.api_key,
            webhook_key,
            timing,
            http: delivery::client()?,
            outbox: Notify::new(),
            page: page::Template::new()?,
        })))
    }

    /// The page and the API, relative to where the bank is mounted.
    pub fn routes(&self) -> Route {
        let routes = Route::new()
            .at("/", poem::get(page::front))
            .at("/v1/payments", poem::get(api::find).post(api::start))
            .at("/v1/payments/:reference", poem::get(api::read))
            .at("/v1/payments/:reference/capture", poem::post(api::capture))
            .at("/v1/payments/:reference/cancel", poem::post(api::cancel))
            .at("/v1/payments/:reference/refunds", poem::post(api::refund))
            .at("/pay/:reference", poem::get(page::show).post(page::decide));
        Route::new().nest("/", routes.data(self.clone()))
    }

    /// Sends webhooks until told to stop. Run one of these per database file.
    pub async fn deliver(&self, stop: CancellationToken) {
        delivery::run(&self.0, stop).await;
    }
}

/// The bank is a world of its own with its own clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the bank stands outside of the system under test, and so does its clock"
)]
fn now_ms() -> i64 {
    let since_1970 = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

/// An unguessable id: whoever knows a payment's id can open its page.
fn new_id(prefix: &str) -> String {
    let mut bytes = [0_u8; 16];
    #[expect(
        clippy::expect_used,
        reason = "without randomness from the system nothing in this process is safe"
    )]
    getrandom::fill(&mut bytes).expect("the system provides randomness");
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{prefix}_{digits}")
}
