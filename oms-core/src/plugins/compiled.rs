//! The versions that this process has compiled.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::breaker::Breakers;
use super::engine::Runtime;
use super::gateway::WasmGateway;
use super::http::Clients;
use super::manifest::Manifest;
use super::scratch::Scratch;
use super::state::{Shared, Turns};
use crate::error::{Error, Result};
use crate::oms::Oms;
use crate::time::Clock;

/// Versions that stay compiled. A payment whose version is not among them waits until it is compiled again.
const KEPT: usize = 24;

/// How long to wait before a version is compiled again that could not be.
const PAUSE: Duration = Duration::from_secs(30);

/// How long a new version is waited for, before the one before it serves instead. Most are compiled in much less; a whole
/// language takes many seconds, which no customer shall wait for.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a process goes by what the database said of the active version. Other processes may have changed it since;
/// each webhook would otherwise ask, and wait for the answer longer than for the plugin.
const KNOWN: Duration = Duration::from_secs(1);

/// Why a plugin cannot be had.
pub(super) enum Fault {
    /// The plugin's own.
    Plugin(String),
    Other(Error),
}

impl Fault {
    pub(super) fn in_words(self) -> String {
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
    pub(super) shared: Arc<Shared>,
    /// By digest and manifest.
    compiled: Mutex<Compiled>,
    serving: Mutex<Serving>,
    /// Digests that are compiled beside.
    beside: Mutex<HashMap<String, Beside>>,
}

#[derive(Default)]
struct Compiled {
    slots: HashMap<(String, String), Held>,
    /// Counts look-ups: the slot that was not used for longest has the smallest number.
    uses: u64,
}

#[derive(Default)]
struct Serving {
    /// What the active version of a plugin was, the last time that somebody asked.
    by_id: HashMap<String, Served>,
    /// How often this process changed which version is active. Who asked before a change may have the answer after it.
    changes: u64,
}

struct Served {
    gateway: Arc<WasmGateway>,
    asked: Asked,
}

/// The moment at which somebody asks the database.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    at: Instant,
    changes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Compiling,
    /// A moment ago.
    Failed,
}

struct Held {
    slot: Slot,
    used: u64,
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
                breakers: Breakers::default(),
                turns: Turns::default(),
            }),
            compiled: Mutex::default(),
            serving: Mutex::default(),
            beside: Mutex::default(),
        }
    }

    /// The gateway of this digest and manifest; `bytes` gives the component when it is not compiled yet.
    pub(super) async fn gateway(
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

    /// What serves in the place of a version that cannot be used here yet: the one before it. None when it is there, or
    /// there was none before.
    pub(super) async fn in_the_meantime(
        &self,
        oms: &Oms,
        id: &str,
        digest: &str,
        manifest: &str,
    ) -> Option<Arc<WasmGateway>> {
        let slot = self.slot(digest, manifest);
        if slot.initialized() {
            return None;
        }
        let before = Arc::clone(&lock(&self.serving).by_id.get(id)?.gateway);
        self.compile_beside(oms, digest);
        let end = tokio::time::Instant::now() + PATIENCE;
        while !slot.initialized() {
            let compiles = lock(&self.beside).get(digest) == Some(&Beside::Compiling);
            if !compiles || tokio::time::Instant::now() > end {
                return Some(before);
            }
            // Once for each version in each process.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// In a task of its own, so that it goes on when nobody waits for it any longer.
    fn compile_beside(&self, oms: &Oms, digest: &str) {
        let mut beside = lock(&self.beside);
        if beside.contains_key(digest) {
            return;
        }
        beside.insert(digest.to_owned(), Beside::Compiling);
        let (oms, digest) = (oms.clone(), digest.to_owned());
        let tasks = oms.inner.tasks.clone();
        tasks.spawn(Box::pin(async move {
            let beside = &oms.inner.plugins.beside;
            if let Err(error) = oms.plugins().pinned(&digest).await {
                tracing::error!(
                    %digest,
                    %error,
                    "the new version of a plugin cannot be used here: the one before it serves on"
                );
                lock(beside).insert(digest.clone(), Beside::Failed);
                // It ends earlier when the process is to stop.
                let _ = tokio::time::timeout(PAUSE, oms.inner.stop.cancelled()).await;
            }
            lock(beside).remove(&digest);
        }));
    }

    /// The active version, if the database said so a moment ago; else it is to be asked now, and the answer is for
    /// [`Host::serves`].
    pub(super) fn known(&self, id: &str) -> Result<Arc<WasmGateway>, Asked> {
        let serving = lock(&self.serving);
        let now = Asked {
            at: Instant::now(),
            changes: serving.changes,
        };
        let served = serving.by_id.get(id).filter(|served| {
            served.asked.changes == now.changes && now.at.duration_since(served.asked.at) < KNOWN
        });
        served.map(|served| Arc::clone(&served.gateway)).ok_or(now)
    }

    /// Remembers which version of its plugin serves, as the database said when it was asked.
    pub(super) fn serves(&self, gateway: &Arc<WasmGateway>, asked: Asked) {
        let served = Served {
            gateway: Arc::clone(gateway),
            asked,
        };
        let before = lock(&self.serving).by_id.insert(gateway.id().to_owned(), served);
        // Outside of the lock: it may be the last one to hold a compiled component.
        drop(before);
    }

    /// This process has changed which version is active, or what a manifest says: its next call is to see that.
    pub(super) fn changed(&self) {
        lock(&self.serving).changes += 1;
    }

    fn slot(&self, digest: &str, manifest: &str) -> Slot {
        let mut compiled = lock(&self.compiled);
        compiled.uses += 1;
        let used = compiled.uses;
        let key = (digest.to_owned(), manifest.to_owned());
        if let Some(held) = compiled.slots.get_mut(&key) {
            held.used = used;
            return Arc::clone(&held.slot);
        }
        // With a new manifest the old one of the same component is not asked for again.
        compiled.slots.retain(|(d, _), _| d != digest);
        if compiled.slots.len() >= KEPT {
            let oldest = compiled.slots.iter().min_by_key(|(_, held)| held.used);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                compiled.slots.remove(&key);
            }
        }
        let slot = Slot::default();
        let held = Held {
            slot: Arc::clone(&slot),
            used,
        };
        compiled.slots.insert(key, held);
        slot
    }

    pub(super) async fn runtime(&self) -> Result<Arc<Runtime>, String> {
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Held for a look-up alone, so a panic cannot have left it half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SystemClock;

    #[test]
    fn what_was_not_used_for_longest_is_given_up() {
        let host = Host::new(None, Arc::new(SystemClock));
        let digests: Vec<_> = (0..KEPT).map(|n| format!("d{n}")).collect();
        let first = host.slot("d0", "m");
        for digest in &digests {
            host.slot(digest, "m");
        }
        assert!(Arc::ptr_eq(&first, &host.slot("d0", "m")));
        let second = host.slot("d1", "m");
        for n in 0..KEPT - 2 {
            host.slot(&format!("new{n}"), "m");
        }
        assert!(Arc::ptr_eq(&first, &host.slot("d0", "m")), "used since");
        assert!(Arc::ptr_eq(&second, &host.slot("d1", "m")), "used since");
        assert_eq!(lock(&host.compiled).slots.len(), KEPT);
        host.slot("one more", "m");
        assert_eq!(lock(&host.compiled).slots.len(), KEPT);
        // Another manifest takes the place of the one before.
        assert!(!Arc::ptr_eq(&first, &host.slot("d0", "m2")));
        assert_eq!(lock(&host.compiled).slots.len(), KEPT);
    }
}
