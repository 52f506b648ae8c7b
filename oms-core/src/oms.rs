//! The handle and its builder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Span;

use crate::cause::{JobSpan, JobStart};
use crate::db::{Db, SchemaVersion};
use crate::error::{Error, Result};
use crate::jobs::Doorbell;
use crate::mail::{LogMailer, Mailer};
use crate::orders::placement;
use crate::payments::{Account, Intake, PaymentGateway};
use crate::time::{Clock, SystemClock, Timestamp};
use crate::users::{Gate, Passwords};

/// How long what is under way may take to end when a handle is shut down. More than a worker's grace.
const UNDER_WAY: Duration = Duration::from_secs(30);

/// An order management system over one database. Cloning is cheap: it is a handle.
#[derive(Clone)]
pub struct Oms {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) db: Db,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) mailer: Arc<dyn Mailer>,
    pub(crate) job_span: Option<JobSpan>,
    pub(crate) passwords: Passwords,
    /// Where requests wait to be told who asks.
    pub(crate) gate: Gate,
    pub(crate) settings: Settings,
    pub(crate) accounts: BTreeMap<String, Account>,
    pub(crate) natives: BTreeMap<String, Arc<dyn PaymentGateway>>,
    /// Where orders wait for their batch.
    pub(crate) placement: placement::Queue,
    /// Where webhook events wait to be kept.
    pub(crate) intake: Intake,
    #[cfg(feature = "plugins")]
    pub(crate) plugins: crate::plugins::Host,
    /// Rings when jobs were committed.
    pub(crate) doorbell: Notify,
    /// Rings in other processes.
    pub(crate) elsewhere: Option<Arc<dyn Doorbell>>,
    /// What outlives its caller: batches of orders and gateway operations.
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// What can be set, with defaults that fit.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) max_connections: u32,
    pub(crate) public_url: Option<String>,
    pub(crate) plugin_dir: Option<PathBuf>,
    pub(crate) cache_dir: Option<PathBuf>,
    /// How long an order waits for its first payment to start.
    pub(crate) order_expiry: Duration,
    /// How long a payment that is pending, authorized, unknown or under review may hold its order.
    pub(crate) hold_limit: Duration,
    /// Orders that may wait for a batch before callers are told to come back.
    pub(crate) placement_queue: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 16,
            public_url: None,
            plugin_dir: None,
            cache_dir: None,
            order_expiry: Duration::from_secs(30 * 60),
            hold_limit: Duration::from_secs(7 * 24 * 3600),
            placement_queue: 4096,
        }
    }
}

/// Makes an [`Oms`].
pub struct OmsBuilder {
    url: String,
    settings: Settings,
    clock: Arc<dyn Clock>,
    mailer: Arc<dyn Mailer>,
    job_span: Option<JobSpan>,
    accounts: Vec<Account>,
    natives: BTreeMap<String, Arc<dyn PaymentGateway>>,
    elsewhere: Option<Arc<dyn Doorbell>>,
}

impl Oms {
    /// Begins with a database: `sqlite://shop.db` (made when missing) or `postgres://user:password@host/name`.
    pub fn builder(database_url: impl Into<String>) -> OmsBuilder {
        OmsBuilder {
            url: database_url.into(),
            settings: Settings::default(),
            clock: Arc::new(SystemClock),
            mailer: Arc::new(LogMailer),
            job_span: None,
            accounts: Vec::new(),
            natives: BTreeMap::new(),
            elsewhere: None,
        }
    }

    /// Brings the schema up to date. Does nothing when it is.
    pub async fn migrate(&self) -> Result<()> {
        self.inner.db.migrate().await
    }

    /// Which schema the database has. Reads, and changes nothing.
    pub async fn schema_version(&self) -> Result<SchemaVersion> {
        self.inner.db.schema_version().await
    }

    /// Whether the database answers and its schema is not older than this program.
    pub async fn check(&self) -> Result<()> {
        let mut tx = self.inner.db.routine_read().await?;
        crate::db::check_schema(&mut tx).await?;
        tx.rollback().await
    }

    /// Stops what runs on behalf of this handle and all its clones, waits for what is under way, and closes the
    /// database. Orders that wait for a batch are still placed, as long as their callers wait for them.
    ///
    /// It ends within 45 seconds, also when neither the database nor a gateway answers: 30 are for what is under way,
    /// the rest for taking leave of the database. What has not ended by then is as after a crash: orders are found by
    /// their keys, jobs and payments are taken up by the next worker. A worker with a longer
    /// [grace](crate::jobs::Worker::grace) is to be stopped before.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        if timeout(UNDER_WAY, self.inner.tasks.wait()).await.is_err() {
            let tasks = self.inner.tasks.len();
            tracing::warn!(tasks, "what was under way did not end in time and is cut off");
        }
        self.inner.db.close().await;
    }

    /// The library's time.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    pub(crate) fn db(&self) -> &Db {
        &self.inner.db
    }

    /// Tells idle workers that there may be work: those of this process, and of others when there is a bell for them.
    pub(crate) fn ring(&self) {
        self.inner.doorbell.notify_one();
        if let Some(bell) = &self.inner.elsewhere {
            bell.ring();
        }
    }

    /// Until another process rings; for ever when there is no bell.
    pub(crate) async fn rung_elsewhere(&self) {
        match &self.inner.elsewhere {
            Some(bell) => bell.wait().await,
            None => std::future::pending().await,
        }
    }

    /// Whether there is such a payment account: what comes for another needs no further look.
    pub fn has_account(&self, name: &str) -> bool {
        self.inner.accounts.contains_key(name)
    }

    pub(crate) fn account(&self, name: &str) -> Result<&Account> {
        self.inner
            .accounts
            .get(name)
            .ok_or(Error::NotFound("payment account"))
    }
}

impl OmsBuilder {
    /// Sends mails; without one they are dropped with a line in the log.
    #[must_use]
    pub fn mailer(mut self, mailer: impl Mailer) -> Self {
        self.mailer = Arc::new(mailer);
        self
    }

    /// Makes the span that each run of a job stands in, for programs whose traces go on in the jobs that a request has
    /// left. [`JobStart::span`] when not set.
    #[must_use]
    pub fn job_span(mut self, make: fn(JobStart<'_>) -> Span) -> Self {
        self.job_span = Some(make);
        self
    }

    /// Another clock, for tests.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// A merchant's account at a gateway. May be called for several.
    #[must_use]
    pub fn account(mut self, account: Account) -> Self {
        self.accounts.push(account);
        self
    }

    /// A gateway adapter in Rust. Its [`info`](PaymentGateway::info) says its id, which accounts name.
    #[must_use]
    pub fn gateway(mut self, gateway: impl PaymentGateway) -> Self {
        self.natives.insert(gateway.info().id.clone(), Arc::new(gateway));
        self
    }

    /// A bell between processes that share the database: without one, a job that one of them commits is found by the
    /// worker of another when it looks by itself, which it does about every second.
    #[must_use]
    pub fn doorbell(mut self, doorbell: impl Doorbell) -> Self {
        self.elsewhere = Some(Arc::new(doorbell));
        self
    }

    /// Where gateway plugins lie: one folder each, with `plugin.toml` and the component.
    #[must_use]
    pub fn plugin_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.plugin_dir = Some(path.into());
        self
    }

    /// Where compiled plugins are kept; only this process may write there. Without it they are compiled at each start.
    #[must_use]
    pub fn cache_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.cache_dir = Some(path.into());
        self
    }

    /// The address at which gateways reach this system, without a slash at the end: webhooks are asked for at
    /// `<public_url>/v1/webhooks/<account>`.
    #[must_use]
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.settings.public_url = Some(url.into().trim_end_matches('/').into());
        self
    }

    /// The most database connections (on SQLite: readers). 16 when not set. On PostgreSQL seven more are for placing orders
    /// and claiming jobs alone.
    #[must_use]
    pub fn max_connections(mut self, n: u32) -> Self {
        self.settings.max_connections = n;
        self
    }

    /// How long an order waits for a payment to start before it expires. 30 minutes when not set.
    #[must_use]
    pub fn order_expiry(mut self, d: Duration) -> Self {
        self.settings.order_expiry = d;
        self
    }

    /// Opens the database. The schema is left as it is: see [`Oms::migrate`].
    pub async fn connect(self) -> Result<Oms> {
        let db = Db::connect(&self.url, self.settings.max_connections).await?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let placement = placement::Queue::start(
            &db,
            &self.clock,
            self.settings.order_expiry,
            self.settings.placement_queue,
            &tasks,
            &stop,
        )?;
        let gate = Gate::start(&db, &self.clock, &tasks, &stop);
        let accounts = self.accounts.into_iter().map(|a| (a.name.clone(), a)).collect();
        let inner = Inner {
            intake: Intake::new(&db),
            db,
            #[cfg(feature = "plugins")]
            plugins: crate::plugins::Host::new(self.settings.cache_dir.clone(), Arc::clone(&self.clock)),
            clock: self.clock,
            mailer: self.mailer,
            job_span: self.job_span,
            passwords: Passwords::new(),
            gate,
            settings: self.settings,
            accounts,
            natives: self.natives,
            placement,
            doorbell: Notify::new(),
            elsewhere: self.elsewhere,
            tasks,
            stop,
        };
        Ok(Oms {
            inner: Arc::new(inner),
        })
    }
}
