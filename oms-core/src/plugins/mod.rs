//! Payment gateways as sandboxed WebAssembly components. The only place that names wasmtime.
//!
//! The database holds every version that was ever loaded, so that replicas agree, a replaced file loses nothing, and a
//! payment can be finished by the version that started it.
//!
//! A plugin is a folder with a component of the contract `oms:payment@1` (`wit/payment.wit`) and its `plugin.toml`:
//!
//! ```toml
//! id = "acme"
//! version = "1.0.0"
//! contract = "oms:payment@1"
//! wasm = "acme.wasm"
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"   # optional
//! hosts = ["https://api.acme.example", "config:base-url"]   # the account must grant them too
//!
//! [limits]                 # of one call; these are the defaults and, in brackets, the most that may be set
//! memory_mib = 64          # [256]
//! operation_seconds = 30   # [60]
//! webhook_seconds = 10     # [20]
//! cpu_seconds = 5          # [20]
//! http_calls = 16          # [64]
//! log_kib = 64             # [256]
//! concurrent_calls = 32    # [128]
//! failures = 5             # [100] in a row, then it is left alone for a while
//! ```
//!
//! Each call runs in a fresh instance, which is dropped after it: no state is left, and what traps, loops, floods or
//! breaks the contract ends as an error of its own call. A plugin sees no files, environment, arguments or sockets. It
//! reaches the network through the contract's `http` alone, and of secrets those of its account.

#[cfg(feature = "conformance")]
pub mod conformance;

mod address;
mod answer;
mod bindings;
mod breaker;
mod compiled;
mod crypto;
mod engine;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod host;
mod http;
mod load;
mod manifest;
mod recording;
mod request;
mod scratch;
mod settings;
mod state;
mod store;
mod tape;
mod tls;

use std::path::Path;
use std::sync::Arc;

pub use self::breaker::{AccountHealth, BreakerState};
pub(crate) use self::compiled::Host;
pub use self::recording::RecordedCall;
pub(crate) use self::recording::Recording;
pub use self::tape::{Exchange, HostCall, HttpAnswer, HttpRequest, HttpResponse, Text};

use self::breaker::Key;
use self::compiled::{Fault, sha256_hex};
use self::load::Found;
use self::manifest::Manifest;
use self::store::{Uses, VersionRow};
use crate::actor::Actor;
use crate::db::Tx;
use crate::error::{Error, Result, Violation};
use crate::oms::Oms;
use crate::payments::{Account, Delivery, PaymentGateway, Proof, Received, WebhookError, Work};
use crate::time::Timestamp;

/// The contract of plugins, `oms:payment@1`, for those who make their folders.
pub const WIT: &str = include_str!("../../wit/payment.wit");

/// The plugins of an [`Oms`]: see [`Oms::plugins`].
pub struct Plugins<'a> {
    oms: &'a Oms,
}

/// One version of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginInfo {
    /// Its id, which accounts name.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// The hosts that it asks for; an account still has to grant them.
    pub hosts: Vec<String>,
    /// Whether new payments and webhooks go to this version.
    pub active: bool,
    /// When it was first loaded.
    pub created_at: Timestamp,
    /// When it last became the active one; none when it never did, or was rolled back.
    pub activated_at: Option<Timestamp>,
    /// Payments that it started and of which money may still come.
    pub open_payments: i64,
    /// Payments that it started, with money that can still be refunded.
    pub refundable_payments: i64,
    /// How it does for the accounts for which it has failed, as this process has seen it.
    pub health: Vec<AccountHealth>,
}

/// A plugin to be kept, from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    /// A folder with `plugin.toml` and the component, or either of the two files.
    pub path: std::path::PathBuf,
    /// The component, when it is not the file beside `plugin.toml`.
    pub component: Option<std::path::PathBuf>,
    /// What the component's SHA-256 must be, in hexadecimal, besides what `plugin.toml` says of it.
    pub sha256: Option<String>,
    /// Whether it becomes the active version.
    pub activate: bool,
}

impl Oms {
    /// The WASM gateways.
    pub fn plugins(&self) -> Plugins<'_> {
        Plugins { oms: self }
    }
}

impl Plugins<'_> {
    /// Every version that the database holds, by id and age. For operators.
    pub async fn list(&self, actor: &Actor) -> Result<Vec<PluginInfo>> {
        actor.require_operator()?;
        self.versions().await
    }

    /// Loads the folder that the builder was given, as [`Plugins::load_dir`]. Without one it only lists what is there.
    pub async fn reload(&self, actor: &Actor) -> Result<Vec<PluginInfo>> {
        actor.require_admin()?;
        match &self.oms.inner.settings.plugin_dir {
            Some(dir) => self.load_dir(actor, dir).await,
            None => self.versions().await,
        }
    }

    /// Loads every plugin that lies in a folder of its own beneath `dir`, and makes each the active version of its id.
    /// For administrators.
    ///
    /// All or nothing: when one is at fault, [`Error::Invalid`] names each fault by its file and nothing changes. Calls
    /// that are under way end with the version that they began with.
    pub async fn load_dir(&self, actor: &Actor, dir: &Path) -> Result<Vec<PluginInfo>> {
        actor.require_admin()?;
        let (found, mut faults) = load::find(dir.to_owned()).await?;
        let found = self.sound(found, &mut faults).await;
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        let now = self.oms.now();
        let mut tx = self.oms.db().write().await?;
        for plugin in &found {
            store::keep(&mut tx, &plugin.version(), now).await?;
            store::activate(&mut tx, &plugin.manifest.id, &plugin.digest, now).await?;
        }
        self.commit(tx).await?;
        for plugin in &found {
            plugin.tell("plugin is active");
        }
        self.versions().await
    }

    /// What a process does at its start with the folder that the builder was given: a component that the database has
    /// never seen becomes the active version. One that it knows stays what operators made of it, so that no restart
    /// undoes a rollback. For administrators.
    ///
    /// What is at fault is passed over, with a line in the log, as long as every account has an adapter without it; else
    /// [`Error::Invalid`] names the faults.
    pub async fn load_new(&self, actor: &Actor) -> Result<Vec<PluginInfo>> {
        actor.require_admin()?;
        let Some(dir) = &self.oms.inner.settings.plugin_dir else {
            return self.versions().await;
        };
        let (found, mut faults) = load::find(dir.clone()).await?;
        let found = self.sound(found, &mut faults).await;
        let now = self.oms.now();
        let (mut activated, mut passed_over) = (Vec::new(), Vec::new());
        let mut tx = self.oms.db().write().await?;
        for plugin in &found {
            let known = store::by_digest(&mut tx, &plugin.digest).await?;
            store::keep(&mut tx, &plugin.version(), now).await?;
            let active = store::active(&mut tx, &plugin.manifest.id).await?;
            if known.is_none() || active.is_none() {
                store::activate(&mut tx, &plugin.manifest.id, &plugin.digest, now).await?;
                activated.push(plugin);
            } else if active.is_some_and(|active| active.digest != plugin.digest) {
                passed_over.push(plugin);
            }
        }
        self.commit(tx).await?;
        for plugin in activated {
            plugin.tell("plugin is active");
        }
        for plugin in passed_over {
            plugin.tell(
                "the plugin folder has another version than the active one, which stays: reload to change it",
            );
        }
        let versions = self.versions().await?;
        let served = |account: &&Account| {
            let plugin = &account.plugin;
            self.oms.inner.natives.contains_key(plugin)
                || versions.iter().any(|v| v.active && v.id == *plugin)
        };
        if !faults.is_empty() && !self.oms.inner.accounts.values().all(|account| served(&account)) {
            return Err(Error::Invalid(faults));
        }
        for Violation { pointer, detail } in faults {
            tracing::error!(file = %pointer, fault = %detail, "a plugin was not loaded: what was active stays so");
        }
        Ok(versions)
    }

    /// Compiles them and asks them what they are, before the first one is written. Notes the faults of the others.
    async fn sound(&self, found: Vec<Found>, faults: &mut Vec<Violation>) -> Vec<Found> {
        let natives = &self.oms.inner.natives;
        let found = load::check_ids(found, |id| natives.contains_key(id), faults);
        let mut sound = Vec::new();
        for plugin in found {
            match self.try_out(&plugin).await {
                Ok(_) => sound.push(plugin),
                Err(fault) => faults.push(plugin.fault(fault.in_words())),
            }
        }
        sound
    }

    async fn try_out(&self, plugin: &Found) -> Result<Arc<gateway::WasmGateway>, Fault> {
        let host = &self.oms.inner.plugins;
        let loaded = host.gateway(&plugin.digest, &plugin.text, async || Ok(plugin.wasm.clone()));
        loaded.await
    }

    /// Keeps a version in the database, for all servers, and makes it the active one if wanted. For administrators.
    ///
    /// [`Error::Invalid`] says what is wrong with it; then nothing has changed.
    pub async fn install(&self, actor: &Actor, install: Install) -> Result<PluginInfo> {
        actor.require_admin()?;
        let plugin = load::one(install.path, install.component).await?;
        if let Some(expected) = &install.sha256
            && !expected.eq_ignore_ascii_case(&plugin.digest)
        {
            let detail = format!("its sha256 is {}, but {expected} was asked for", plugin.digest);
            return Err(Error::Invalid(vec![plugin.fault(detail)]));
        }
        let mut faults = Vec::new();
        let Some(plugin) = self.sound(vec![plugin], &mut faults).await.pop() else {
            return Err(Error::Invalid(faults));
        };
        let now = self.oms.now();
        let mut tx = self.oms.db().write().await?;
        store::keep(&mut tx, &plugin.version(), now).await?;
        if install.activate {
            store::activate(&mut tx, &plugin.manifest.id, &plugin.digest, now).await?;
        }
        self.commit(tx).await?;
        plugin.tell(match install.activate {
            true => "plugin is installed and active",
            false => "plugin is installed",
        });
        self.version(&plugin.digest).await
    }

    /// Makes a version that the database holds the active one, for all servers: new payments and webhooks go to it from
    /// now on. `which` is its version, or its digest or the first 8 or more digits of it. For administrators.
    ///
    /// It is compiled and asked what it is before; what cannot be used does not become active.
    pub async fn activate(&self, actor: &Actor, id: &str, which: &str) -> Result<PluginInfo> {
        actor.require_admin()?;
        let row = self.find(id, which).await?;
        let digest = row.digest.clone();
        self.compiled(row).await?;
        let now = self.oms.now();
        let mut tx = self.oms.db().write().await?;
        store::activate(&mut tx, id, &digest, now).await?;
        self.commit(tx).await?;
        let activated = self.version(&digest).await?;
        activated.tell("plugin is active");
        Ok(activated)
    }

    /// Goes back to the version that was active before the present one. Once more goes back further. For administrators.
    pub async fn roll_back(&self, actor: &Actor, id: &str) -> Result<PluginInfo> {
        actor.require_admin()?;
        let mut tx = self.oms.db().read().await?;
        let active = store::active(&mut tx, id)
            .await?
            .ok_or(Error::NotFound("plugin"))?;
        let before = store::before(&mut tx, id).await?;
        tx.rollback().await?;
        let before = before.ok_or(Error::InvalidState {
            what: "plugin",
            state: "active".into(),
            detail: "no other version of it was active before: activate one by its version or digest",
        })?;
        let digest = before.digest.clone();
        self.compiled(before).await?;
        let mut tx = self.oms.db().write().await?;
        store::roll_back(&mut tx, &active.digest, &digest).await?;
        self.commit(tx).await?;
        let activated = self.version(&digest).await?;
        activated.tell("plugin was rolled back");
        Ok(activated)
    }

    /// One version of a plugin, to be called by hand: see [`Plugins::activate`] for `which`. For administrators.
    pub async fn gateway_of(&self, actor: &Actor, id: &str, which: &str) -> Result<Arc<dyn PaymentGateway>> {
        actor.require_admin()?;
        let row = self.find(id, which).await?;
        self.compiled(row).await
    }

    async fn find(&self, id: &str, which: &str) -> Result<VersionRow> {
        let mut tx = self.oms.db().read().await?;
        let rows = store::list(&mut tx).await?;
        tx.rollback().await?;
        let which = which.trim();
        let is_digest = which.len() >= 8 && which.bytes().all(|b| b.is_ascii_hexdigit());
        let mut fitting = rows.into_iter().filter(|row| {
            let by_digest = is_digest && row.digest.starts_with(&which.to_ascii_lowercase());
            row.id == id && (row.version == which || by_digest)
        });
        let first = fitting.next().ok_or(Error::NotFound("version of this plugin"))?;
        let others: Vec<_> = fitting.map(|row| row.digest).collect();
        match others.is_empty() {
            true => Ok(first),
            false => Err(Error::invalid(
                "/version",
                format!(
                    "several fit: name the digest, {} or {}",
                    first.digest,
                    others.join(" or ")
                ),
            )),
        }
    }

    /// Lets the active plugin of an account verify and read a delivery; nothing is recorded. For a plugin author's
    /// trial and for tests; webhooks that count go through the payments. For administrators.
    pub async fn try_webhook(
        &self,
        actor: &Actor,
        account: &Account,
        delivery: Delivery,
    ) -> Result<Result<Received, WebhookError>> {
        let gateway = self.gateway(actor, &account.plugin).await?;
        Ok(gateway.receive(account, Proof::new(), delivery).await)
    }

    /// The active version of a plugin, to be called by hand. For administrators.
    pub async fn gateway(&self, actor: &Actor, id: &str) -> Result<Arc<dyn PaymentGateway>> {
        actor.require_admin()?;
        self.active(id).await?.ok_or(Error::NotFound("plugin"))
    }

    /// The active version of a plugin, for new payments and webhooks. One that takes long to be compiled here for the
    /// first time, or cannot be, is stood in for by the one before it.
    ///
    /// A change is seen at once by the process that makes it, and by others within a second.
    pub(crate) async fn active(&self, plugin_id: &str) -> Result<Option<Arc<dyn PaymentGateway>>> {
        let host = &self.oms.inner.plugins;
        let asked = match host.known(plugin_id) {
            Ok(gateway) => return Ok(Some(gateway)),
            Err(asked) => asked,
        };
        let mut tx = self.oms.db().read().await?;
        let row = store::active(&mut tx, plugin_id).await?;
        tx.rollback().await?;
        let Some(row) = row else { return Ok(None) };
        let meantime = host.in_the_meantime(self.oms, plugin_id, &row.digest, &row.manifest);
        if let Some(before) = meantime.await {
            return Ok(Some(before));
        }
        let gateway = self.compiled_wasm(row).await?;
        host.serves(&gateway, asked);
        Ok(Some(gateway))
    }

    /// The version with this digest, for payments that it started.
    pub(crate) async fn pinned(&self, digest: &str) -> Result<Option<Arc<dyn PaymentGateway>>> {
        let mut tx = self.oms.db().read().await?;
        let row = store::by_digest(&mut tx, digest).await?;
        tx.rollback().await?;
        match row {
            Some(row) => self.compiled(row).await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether a version may be asked for this account now; if not, when to come back. The caller is to ask soon.
    pub(crate) fn admit(&self, digest: &str, account: &str, work: Work) -> Result<(), Timestamp> {
        let key = Key::new(digest, account, work);
        let admitted = self.oms.inner.plugins.shared.breakers.admit(&key, self.oms.now());
        if admitted.is_err() {
            crate::telemetry::plugin_spared(account, work.as_str());
        }
        admitted
    }

    /// When a version that may not be asked now for this account may be.
    pub(crate) fn waits(&self, digest: &str, account: &str, work: Work) -> Option<Timestamp> {
        let key = Key::new(digest, account, work);
        self.oms.inner.plugins.shared.breakers.waits(&key, self.oms.now())
    }

    async fn compiled(&self, row: VersionRow) -> Result<Arc<dyn PaymentGateway>> {
        let gateway = self.compiled_wasm(row).await?;
        Ok(gateway)
    }

    /// From memory, or compiled from the bytes in the database.
    async fn compiled_wasm(&self, row: VersionRow) -> Result<Arc<gateway::WasmGateway>> {
        let digest = &row.digest;
        let bytes = async || {
            let mut tx = self.oms.db().read().await?;
            let wasm = store::component(&mut tx, digest).await?;
            tx.rollback().await?;
            match sha256_hex(&wasm) == *digest {
                true => Ok(wasm),
                false => Err(corrupt(digest, "wasm", "its digest is another")),
            }
        };
        let gateway = self.oms.inner.plugins.gateway(digest, &row.manifest, bytes).await;
        gateway.map_err(|fault| match fault {
            Fault::Plugin(words) => corrupt(digest, "wasm", &words),
            Fault::Other(error) => error,
        })
    }

    async fn versions(&self) -> Result<Vec<PluginInfo>> {
        let mut tx = self.oms.db().read().await?;
        let rows = store::list(&mut tx).await?;
        let uses = store::uses(&mut tx).await?;
        tx.rollback().await?;
        let info = |row: VersionRow| {
            let uses = uses.iter().find(|uses| uses.digest == row.digest);
            let health = self.health_of(&row.digest);
            PluginInfo::new(row, uses, health)
        };
        rows.into_iter().map(info).collect()
    }

    async fn version(&self, digest: &str) -> Result<PluginInfo> {
        let found = self.versions().await?.into_iter().find(|v| v.digest == digest);
        found.ok_or(Error::NotFound("version of this plugin"))
    }

    /// For each account that a plugin serves, and each kind of work, whether it is left alone now, as this process has
    /// seen it: needs no database. For operators.
    pub fn left_alone(&self, actor: &Actor) -> Result<Vec<(String, Work, bool)>> {
        actor.require_operator()?;
        let (inner, now) = (&self.oms.inner, self.oms.now());
        let by_plugin = |account: &&Account| !inner.natives.contains_key(&account.plugin);
        let accounts = inner.accounts.values().filter(by_plugin);
        let both = accounts.flat_map(|account| [Work::Operation, Work::Webhook].map(|work| (account, work)));
        let is_open = |account: &str, work| inner.plugins.shared.breakers.is_open(account, work, now);
        Ok(both
            .map(|(account, work)| (account.name.clone(), work, is_open(&account.name, work)))
            .collect())
    }

    /// What was written may be another active version.
    async fn commit(&self, tx: Tx) -> Result<()> {
        let committed = tx.commit().await;
        // Also after an error: a lost connection leaves open whether it was committed.
        self.oms.inner.plugins.changed();
        committed
    }

    /// How a version does for the accounts for which it has failed, as this process has seen it.
    fn health_of(&self, digest: &str) -> Vec<AccountHealth> {
        self.oms.inner.plugins.shared.breakers.of(digest, self.oms.now())
    }
}

impl PluginInfo {
    fn new(row: VersionRow, uses: Option<&Uses>, health: Vec<AccountHealth>) -> Result<Self> {
        let manifest =
            Manifest::parse(&row.manifest).map_err(|fault| corrupt(&row.digest, "manifest", &fault))?;
        Ok(Self {
            name: manifest.name.unwrap_or_else(|| manifest.id.clone()),
            id: manifest.id,
            version: manifest.version,
            digest: row.digest,
            hosts: manifest.hosts,
            active: row.active,
            created_at: row.created_at,
            activated_at: row.activated_at,
            open_payments: uses.map_or(0, |uses| uses.open),
            refundable_payments: uses.map_or(0, |uses| uses.refundable),
            health,
        })
    }

    fn tell(&self, what: &str) {
        tracing::info!(plugin.id = %self.id, plugin.version = %self.version, digest = %self.digest, "{what}");
    }
}

fn corrupt(digest: &str, column: &'static str, detail: &str) -> Error {
    Error::Corrupt {
        table: "oms_plugin_version",
        column,
        id: digest.to_owned(),
        detail: detail.to_owned(),
    }
}
