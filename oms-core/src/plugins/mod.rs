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
//! ```
//!
//! Each call runs in a fresh instance, which is dropped after it: no state is left, and what traps, loops, floods or
//! breaks the contract ends as an error of its own call. A plugin sees no files, environment, arguments or sockets. It
//! reaches the network through the contract's `http` alone, and of secrets those of its account.

mod address;
mod answer;
mod bindings;
mod crypto;
mod engine;
mod gateway;
mod host;
mod http;
mod load;
mod manifest;
mod request;
mod scratch;
mod state;
mod store;
mod tls;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use self::engine::Runtime;
use self::gateway::WasmGateway;
use self::http::Clients;
use self::manifest::Manifest;
use self::scratch::Scratch;
use self::state::Shared;
use self::store::VersionRow;
use crate::actor::Actor;
use crate::error::{Error, Result};
use crate::oms::Oms;
use crate::payments::{Account, Delivery, PaymentGateway, Proof, Received, WebhookError};
use crate::time::{Clock, Timestamp};

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
        let found = load::find(dir.to_owned()).await?;
        let natives = &self.oms.inner.natives;
        load::check_ids(&found, |id| natives.contains_key(id))?;
        // Compiled and asked what they are before the first one is written.
        let mut faults = Vec::new();
        for plugin in &found {
            let host = &self.oms.inner.plugins;
            let loaded = host.gateway(&plugin.digest, &plugin.text, async || Ok(plugin.wasm.clone()));
            if let Err(fault) = loaded.await {
                faults.push(plugin.fault(fault.in_words()));
            }
        }
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        let now = self.oms.now();
        let mut tx = self.oms.db().write().await?;
        for plugin in &found {
            store::keep(&mut tx, &plugin.version(), now).await?;
            store::activate(&mut tx, &plugin.manifest.id, &plugin.digest).await?;
        }
        tx.commit().await?;
        for plugin in &found {
            let Manifest { id, version, .. } = &plugin.manifest;
            tracing::info!(plugin.id = %id, plugin.version = %version, digest = %plugin.digest, "plugin is active");
        }
        self.versions().await
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

    /// The active version of a plugin, for new payments and webhooks.
    pub(crate) async fn active(&self, plugin_id: &str) -> Result<Option<Arc<dyn PaymentGateway>>> {
        let mut tx = self.oms.db().read().await?;
        let row = store::active(&mut tx, plugin_id).await?;
        tx.rollback().await?;
        self.compiled(row).await
    }

    /// The version with this digest, for payments that it started.
    pub(crate) async fn pinned(&self, digest: &str) -> Result<Option<Arc<dyn PaymentGateway>>> {
        let mut tx = self.oms.db().read().await?;
        let row = store::by_digest(&mut tx, digest).await?;
        tx.rollback().await?;
        self.compiled(row).await
    }

    /// From memory, or compiled from the bytes in the database.
    async fn compiled(&self, row: Option<VersionRow>) -> Result<Option<Arc<dyn PaymentGateway>>> {
        let Some(row) = row else { return Ok(None) };
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
        match self.oms.inner.plugins.gateway(digest, &row.manifest, bytes).await {
            Ok(gateway) => Ok(Some(gateway)),
            Err(Fault::Plugin(words)) => Err(corrupt(digest, "wasm", &words)),
            Err(Fault::Other(error)) => Err(error),
        }
    }

    async fn versions(&self) -> Result<Vec<PluginInfo>> {
        let mut tx = self.oms.db().read().await?;
        let rows = store::list(&mut tx).await?;
        tx.rollback().await?;
        rows.into_iter().map(PluginInfo::from_row).collect()
    }
}

impl PluginInfo {
    fn from_row(row: VersionRow) -> Result<Self> {
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
        })
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

/// Why a plugin cannot be had.
enum Fault {
    /// The plugin's own.
    Plugin(String),
    Other(Error),
}

impl Fault {
    fn in_words(self) -> String {
        match self {
            Self::Plugin(words) => words,
            Self::Other(error) => error.to_string(),
        }
    }
}

/// The part of an [`Oms`] that runs plugins. The engine and its clock start with the first plugin.
pub(crate) struct Host {
    cache_dir: Option<PathBuf>,
    runtime: OnceCell<Arc<Runtime>>,
    shared: Arc<Shared>,
    /// By digest and manifest.
    compiled: Mutex<HashMap<(String, String), Slot>>,
}

/// Filled by whoever comes first; the others wait for it.
type Slot = Arc<OnceCell<Arc<WasmGateway>>>;

impl Host {
    pub(crate) fn new(cache_dir: Option<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self {
            cache_dir,
            runtime: OnceCell::new(),
            shared: Arc::new(Shared {
                clock,
                clients: Clients::default(),
                scratch: Scratch::default(),
            }),
            compiled: Mutex::default(),
        }
    }

    /// The gateway of this digest and manifest; `bytes` gives the component when it is not compiled yet.
    async fn gateway(
        &self,
        digest: &str,
        manifest: &str,
        bytes: impl AsyncFnOnce() -> Result<Vec<u8>>,
    ) -> Result<Arc<WasmGateway>, Fault> {
        let slot = self.slot(digest, manifest);
        let gateway = slot
            .get_or_try_init(async || {
                let runtime = self
                    .runtime()
                    .await
                    .map_err(|e| Fault::Other(Error::Internal(e)))?;
                let manifest = Manifest::parse(manifest).map_err(Fault::Plugin)?;
                let bytes = bytes().await.map_err(Fault::Other)?;
                let compiler = Arc::clone(&runtime);
                let prepared = tokio::task::spawn_blocking(move || compiler.prepare(&bytes))
                    .await
                    .map_err(|e| Fault::Plugin(format!("the compiler failed: {e}")))?
                    .map_err(Fault::Plugin)?;
                let shared = Arc::clone(&self.shared);
                let gateway = WasmGateway::new(runtime, shared, manifest, prepared, digest.to_owned());
                Box::pin(gateway).await.map(Arc::new).map_err(Fault::Plugin)
            })
            .await?;
        Ok(Arc::clone(gateway))
    }

    fn slot(&self, digest: &str, manifest: &str) -> Slot {
        // Held for a look-up alone, so a panic cannot have left it half changed.
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        // With a new manifest the old one of the same component is not asked for again.
        compiled.retain(|(d, m), _| d != digest || m == manifest);
        Arc::clone(
            compiled
                .entry((digest.to_owned(), manifest.to_owned()))
                .or_default(),
        )
    }

    async fn runtime(&self) -> Result<Arc<Runtime>, String> {
        let runtime = self.runtime.get_or_try_init(async || {
            let cache_dir = self.cache_dir.clone();
            tokio::task::spawn_blocking(move || Runtime::new(cache_dir.as_deref()))
                .await
                .map_err(|e| format!("the WebAssembly engine: {e}"))?
                .map(Arc::new)
        });
        runtime.await.cloned()
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
