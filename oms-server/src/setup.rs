//! From settings to a running library: accounts, mails, plugins, secrets, and the fake bank of development.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use oms_core::payments::{Account, Grant, Secret};
use oms_core::{Actor, Oms, OmsBuilder};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigError, resolve_secret};
use crate::http::{Probe, State, Tokens};
use crate::limits::Limits;
use crate::mailer::MailSender;
use crate::media::MediaStore;
use crate::mock_gateway::{Bank, BankConfig};
use crate::redis::Redis;
use crate::secrets;
use crate::sight::{Metrics, begin_recording, traces};

/// How often, and how long apart, plugins are loaded when the database has no time for it.
const PLUGIN_TRIES: u32 = 10;
const PLUGIN_PAUSE: Duration = Duration::from_millis(300);

/// Opens the library as the settings say, with its schema up to date. `public_url` has no slash at its end.
pub async fn open(config: &Config, public_url: &str) -> Result<Oms> {
    connect(builder(config, public_url)?).await
}

/// As [`open`], for commands that ask no gateway: without accounts, so that nobody's secrets need be at hand.
pub async fn open_without_accounts(config: &Config, public_url: &str) -> Result<Oms> {
    connect(without_accounts(config, public_url)?).await
}

/// As [`open`], beside other processes that share the database: the bell in Redis, if there is one, is heard and rung.
pub async fn open_beside_others(config: &Config, public_url: &str, redis: Option<&Redis>) -> Result<Oms> {
    let builder = builder(config, public_url)?;
    connect(match redis {
        Some(redis) => builder.doorbell(redis.doorbell()),
        None => builder,
    })
    .await
}

/// Redis, if the settings name it. Whether it can be reached shows later and stops nobody.
pub fn redis(config: &Config) -> Result<Option<Redis>> {
    // It tells once whether it is there, at once.
    begin_recording();
    config.redis_url.as_ref().map(Redis::start).transpose()
}

/// The library as the settings say, for those who add to it.
pub fn builder(config: &Config, public_url: &str) -> Result<OmsBuilder> {
    let builder = without_accounts(config, public_url)?;
    Ok(accounts(config, public_url)?
        .into_iter()
        .fold(builder, OmsBuilder::account))
}

fn without_accounts(config: &Config, public_url: &str) -> Result<OmsBuilder> {
    make_data_dir(config)?;
    let mailer = MailSender::new(
        config.smtp.as_ref(),
        &config.data_dir.join("mail"),
        config.mail_templates.as_deref(),
        config.mail_from.clone(),
        public_url,
    )?;
    Ok(Oms::builder(&config.database_url)
        .public_url(public_url)
        .plugin_dir(&config.plugin_dir)
        .cache_dir(config.data_dir.join("cache"))
        .mailer(mailer)
        .job_span(traces::job_span))
}

/// For its owner alone: the database in it, its journals and the mails are made with whatever mode they get. A folder
/// that is there stays as its owner has set it.
pub(crate) fn make_data_dir(config: &Config) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .recursive(true)
        .create(&config.data_dir)
        .with_context(|| format!("cannot make the data folder {}", config.data_dir.display()))
}

/// Opens the database and brings its schema up to date.
pub async fn connect(builder: OmsBuilder) -> Result<Oms> {
    let oms = builder.connect().await.context("cannot open the database")?;
    oms.migrate()
        .await
        .context("cannot bring the database's schema up to date")?;
    Ok(oms)
}

/// Makes what is new in the plugin folder the active versions.
pub async fn load_plugins(config: &Config, oms: &Oms) -> Result<()> {
    if !config.plugin_dir.is_dir() {
        // In production it stands among the warnings of the start.
        if !config.production {
            tracing::warn!(folder = %config.plugin_dir.display(), "there is no plugin folder (OMS_PLUGIN_DIR)");
        }
        return Ok(());
    }
    let mut tries = 0;
    loop {
        tries += 1;
        match oms.plugins().load_new(&Actor::System).await {
            // Another replica that starts at this moment is making its own version the active one.
            Err(e) if e.is_retryable() && tries < PLUGIN_TRIES => tokio::time::sleep(PLUGIN_PAUSE).await,
            loaded => {
                return loaded
                    .map(drop)
                    .with_context(|| format!("cannot load the plugins in {}", config.plugin_dir.display()));
            }
        }
    }
}

/// What the routes need beside the library. With Redis, limits are counted together with other servers.
pub fn state(config: &Config, oms: Oms, redis: Option<Redis>) -> Result<State> {
    let secret = match &config.secret_key {
        Some(secret) => secret.reveal().to_owned(),
        None if config.production => anyhow::bail!("there is no SECRET_KEY"),
        None => secrets::kept(&config.data_dir.join("secret.key"), || secrets::random_text(48))?,
    };
    Ok(State {
        oms,
        tokens: Tokens::new(&secret),
        metrics: Metrics::new(config),
        media: media(config)?,
        leaving: CancellationToken::new(),
        limits: Arc::new(Limits::new(config.limits.clone(), redis)),
        proxies: config.trusted_proxies.clone(),
        probe: Probe::default(),
    })
}

/// Where pictures are kept.
pub fn media(config: &Config) -> Result<MediaStore> {
    MediaStore::open(&config.media)
}

/// The fake bank, which keeps its books in the data folder. There is none in production.
pub async fn bank(config: &Config, mounted_at: &str) -> Result<Option<Bank>> {
    if config.production {
        return Ok(None);
    }
    make_data_dir(config)?;
    let (api_key, webhook_secret) = bank_secrets(config)?;
    let bank = Bank::open(BankConfig {
        database: config.data_dir.join("mock-gateway.db"),
        public_url: mounted_at.to_owned(),
        internal: config.public_url.clone().zip(config.internal_url.clone()),
        api_key,
        webhook_secret,
    });
    Ok(Some(bank.await.context("cannot open the fake bank")?))
}

/// The accounts of the file and, in development, `mock` at the fake bank, unless the file declares it.
pub(crate) fn accounts(config: &Config, public_url: &str) -> Result<Vec<Account>> {
    let mut accounts = declared(config)?;
    if !config.production && accounts.iter().all(|account| account.name != "mock") {
        accounts.push(mock_account(config, public_url)?);
    }
    for account in &mut accounts {
        account.record |= config.record_plugins;
    }
    Ok(accounts)
}

/// The accounts of the file.
pub(crate) fn declared(config: &Config) -> Result<Vec<Account>, ConfigError> {
    read_accounts(config, resolve_secret)
}

/// As [`declared`], for those who ask which secrets an account has and not what they are: they stay where they are.
pub(crate) fn named(config: &Config) -> Result<Vec<Account>, ConfigError> {
    read_accounts(config, |_| Ok(String::new()))
}

fn read_accounts(
    config: &Config,
    resolve: impl Fn(&str) -> Result<String, String>,
) -> Result<Vec<Account>, ConfigError> {
    let (path, named) = &config.accounts;
    let wrong = |detail| ConfigError {
        variable: "OMS_ACCOUNTS",
        detail,
    };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !named => return Ok(Vec::new()),
        Err(e) => return Err(wrong(format!("cannot read {}: {e}", path.display()))),
    };
    let parsed = Account::parse_all(&text, resolve);
    parsed.map_err(|e| wrong(format!("{}: {}", path.display(), e.trim_end().replace('\n', " "))))
}

fn mock_account(config: &Config, public_url: &str) -> Result<Account> {
    let (api_key, webhook_secret) = bank_secrets(config)?;
    let reachable = config.internal_url.as_deref().unwrap_or(public_url);
    let origin = url::Url::parse(reachable)?.origin().ascii_serialization();
    let mut account = Account::new("mock", "mock");
    account.grants = vec![Grant {
        origin,
        private: true,
    }];
    account.config = [("base-url".to_owned(), format!("{reachable}/mock-gateway"))].into();
    account.secrets = [
        ("api-key".to_owned(), Secret::new(api_key)),
        ("webhook-secret".to_owned(), Secret::new(webhook_secret)),
    ]
    .into();
    Ok(account)
}

/// What the shop and the fake bank share.
fn bank_secrets(config: &Config) -> Result<(String, String)> {
    let key = secrets::kept(&config.data_dir.join("mock-api.key"), || secrets::random_text(24))?;
    let webhook = secrets::kept(&config.data_dir.join("mock-webhook.key"), secrets::webhook_secret)?;
    Ok((key, webhook))
}
