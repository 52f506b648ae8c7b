//! What one call of a plugin has: its limits, its account, what it may still do and what it has done.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::breaker::Breakers;
use super::engine::TICK;
use super::http::Clients;
use super::manifest::Manifest;
use super::scratch::Scratch;
use super::tape;
use crate::payments::Account;
use crate::time::{Clock, Timestamp};

/// Bytes that may pass from the guest to the host in one call of a function, in either direction. Without it a list of
/// a million strings that all lie at the same place would fill the host's memory.
const TRANSFER: usize = 4 << 20;
/// Bytes of stderr that are taken; more ends the call.
const STDERR: usize = 1 << 20;

/// Ticks that a guest computes like everybody else. After these it waits for its turn among those who compute for long.
const LIGHT: u64 = 5;

/// Elements that the tables of a store may have together.
pub(super) const TABLE_ELEMENTS: usize = 100_000;
/// Tables that a store may have.
pub(super) const TABLES: u32 = 64;
/// Memories that a store may have.
pub(super) const MEMORIES: u32 = 16;

/// What all plugins of an [`Oms`](crate::Oms) share.
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) clients: Clients,
    pub(super) scratch: Scratch,
    pub(super) breakers: Breakers,
    pub(super) turns: Turns,
}

/// What lets guests compute that do so for long, one tick at a time: half of the processors, so that guests which loop
/// leave the others to everybody else, however many they are.
pub(super) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new((processors / 2).max(1))))
    }
}

/// The turn that a guest has now, if any.
type Turn = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

/// Waits for a turn. It ends with the guest's next tick, and soon even if that does not come: a guest that waits for the
/// network must not keep it.
async fn turn(turns: Arc<Semaphore>, mine: Turn) {
    tokio::task::yield_now().await;
    // It is never closed.
    if let Ok(turn) = turns.acquire_owned().await {
        give(&mine, Some(turn));
        tokio::spawn(async move {
            tokio::time::sleep(TICK * 2).await;
            give(&mine, None);
        });
    }
}

fn give(to: &Turn, turn: Option<OwnedSemaphorePermit>) {
    // Nothing in here can panic while it is held.
    *to.lock().unwrap_or_else(PoisonError::into_inner) = turn;
}

/// The data of a store. Made for one call and dropped after it.
pub(super) struct State {
    space: Space,
    wasi: WasiCtx,
    table: ResourceTable,
    pub(super) shared: Arc<Shared>,
    pub(super) plugin: Arc<Manifest>,
    pub(super) account: Account,
    /// The time of this call: what the guest's clocks and certificate checks go by.
    pub(super) now: Timestamp,
    pub(super) deadline: Instant,
    pub(super) http_calls: u32,
    /// Whether a request may have left: then a failure of the guest leaves the outcome unknown.
    pub(super) reached: bool,
    /// Whether the guest's turn came. One that waited for others in vain is not to blame.
    pub(super) began: bool,
    log_left: usize,
    revealed: BTreeSet<String>,
    stderr: MemoryOutputPipe,
}

impl State {
    /// A store for one call, which must be over within `time`.
    pub(super) fn store(
        engine: &Engine,
        shared: &Arc<Shared>,
        plugin: &Arc<Manifest>,
        account: &Account,
        now: Timestamp,
        time: Duration,
    ) -> Store<Self> {
        let limits = plugin.limits;
        let stderr = MemoryOutputPipe::new(STDERR);
        let mut table = ResourceTable::new();
        table.set_max_capacity(1_000);
        let state = Self {
            space: Space {
                memory_left: limits.memory_bytes(),
                elements_left: TABLE_ELEMENTS,
            },
            wasi: wasi(now, &stderr),
            table,
            shared: Arc::clone(shared),
            plugin: Arc::clone(plugin),
            account: account.clone(),
            now,
            deadline: Instant::now() + time,
            http_calls: 0,
            reached: false,
            began: false,
            log_left: limits.log_bytes(),
            revealed: BTreeSet::new(),
            stderr,
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.space);
        store.set_hostcall_fuel(TRANSFER);
        // The guest yields at each tick, so that a loop holds up nobody and a timeout can end it; and it ends by itself
        // when it has computed for long, although its deadline has not come.
        store.set_epoch_deadline(1);
        let (mut ticks, all) = (0, limits.ticks());
        let (turns, mine) = (Arc::clone(&shared.turns.0), Turn::default());
        store.epoch_deadline_callback(move |_| {
            give(&mine, None);
            ticks += 1;
            if ticks == all {
                let seconds = limits.cpu_seconds;
                return Err(wasmtime::format_err!("it computed for more than {seconds} s"));
            }
            let pause: Pin<Box<dyn Future<Output = ()> + Send>> = match ticks > LIGHT {
                // Also lets the runtime look whether something has come over the network.
                false => Box::pin(tokio::task::yield_now()),
                true => Box::pin(turn(Arc::clone(&turns), Arc::clone(&mine))),
            };
            Ok(UpdateDeadline::YieldCustom(1, pause))
        });
        store
    }

    /// How long this call may still take.
    pub(super) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Remembers a secret that the guest has seen, so that it does not get into a log.
    pub(super) fn reveal(&mut self, secret: &str) {
        // The lines of a key that has several may be shown apart.
        let lines = secret.lines().map(str::trim).filter(|line| line.len() >= 8);
        let whole = Some(secret).filter(|secret| !secret.trim().is_empty());
        self.revealed
            .extend(whole.into_iter().chain(lines).map(str::to_owned));
    }

    /// A text of the guest without the secrets that it has seen, cut to `max` bytes.
    pub(super) fn redact(&self, text: &str, max: usize) -> String {
        // The longest first: one secret may be a part of another.
        let mut secrets: Vec<_> = self.revealed.iter().collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let mut text = text.replace('\0', "\u{fffd}");
        for secret in secrets {
            text = text.replace(secret.as_str(), "***");
        }
        if text.len() > max {
            text.truncate(text.floor_char_boundary(max));
            text.push_str("..");
        }
        text
    }

    /// As [`State::redact`], out of what this call may write to the log; none when that is used up.
    pub(super) fn for_log(&mut self, text: &str) -> Option<String> {
        if self.log_left == 0 {
            return None;
        }
        // One line each: a guest must not be able to write what looks like another's line.
        let text = self.redact(text, self.log_left).replace(char::is_control, " ");
        self.log_left = self.log_left.saturating_sub(text.len());
        if self.log_left == 0 {
            tracing::warn!(
                plugin.id = %self.plugin.id,
                plugin.version = %self.plugin.version,
                account = %self.account.name,
                "the plugin wrote more to the log than one call may; the rest is dropped"
            );
        }
        Some(text)
    }

    /// What the guest wrote to stderr. A panic's message stands only there.
    pub(super) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.contents()).trim().to_owned()
    }
}

/// What the memories and tables of a store may still take, all of them together: a component can have many of each.
struct Space {
    memory_left: usize,
    elements_left: usize,
}

/// A guest that asks for more ends: most of them would not get far without it, and none is told "no" again and again.
/// What was granted stays counted even if the system refuses it then, which ends the guest too.
impl ResourceLimiter for Space {
    fn memory_growing(&mut self, now: usize, wanted: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        match take(&mut self.memory_left, now, wanted) {
            true => {
                tape::grew(wanted.saturating_sub(now));
                Ok(true)
            }
            false => Err(wasmtime::format_err!(
                "it wants more memory than the limit of all its memories together"
            )),
        }
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error.context("its memory cannot grow"))
    }

    fn table_growing(&mut self, now: usize, wanted: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        match take(&mut self.elements_left, now, wanted) {
            true => Ok(true),
            false => Err(wasmtime::format_err!(
                "its tables have more than {TABLE_ELEMENTS} elements together"
            )),
        }
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error.context("its table cannot grow"))
    }

    fn instances(&self) -> usize {
        128
    }

    fn tables(&self) -> usize {
        TABLES as usize
    }

    fn memories(&self) -> usize {
        MEMORIES as usize
    }
}

/// Takes the growth out of what is left, or nothing.
fn take(left: &mut usize, now: usize, wanted: usize) -> bool {
    match left.checked_sub(wanted.saturating_sub(now)) {
        Some(rest) => {
            *left = rest;
            true
        }
        None => false,
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// No files, environment, arguments or sockets; stdout is dropped.
fn wasi(now: Timestamp, stderr: &MemoryOutputPipe) -> WasiCtx {
    WasiCtxBuilder::new()
        .stderr(stderr.clone())
        .wall_clock(Standing(now))
        .max_random_size(64 << 10)
        .build()
}

/// A wall clock that shows the time of the call.
struct Standing(Timestamp);

impl HostWallClock for Standing {
    fn resolution(&self) -> Duration {
        TICK
    }

    fn now(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.as_micros()).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::{Config, Instance, Module};

    use super::*;

    /// A module with one memory of 32 pages, which is 2 MiB, and one table of 60,000 elements.
    const MODULE: &[u8] = b"\0asm\x01\0\0\0\
        \x04\x06\x01\x70\x00\xe0\xd4\x03\
        \x05\x03\x01\x00\x20";

    #[test]
    fn all_memories_and_tables_share_one_limit() {
        let engine = Engine::new(&Config::new()).unwrap();
        let module = Module::new(&engine, MODULE).unwrap();
        let granted = |memory_left, elements_left| {
            let space = Space {
                memory_left,
                elements_left,
            };
            let mut store = Store::new(&engine, space);
            store.limiter(|space| space);
            let made = (0..4).map(|_| Instance::new(&mut store, &module, &[]));
            made.take_while(Result::is_ok).count()
        };
        assert_eq!(granted(5 << 20, 1_000_000), 2);
        assert_eq!(granted(1 << 30, TABLE_ELEMENTS), 1);
        assert_eq!(granted(1 << 30, 1_000_000), 4);
    }

    /// A module whose function `f` adds 1,000 elements to its table for ever.
    const TABLE_BOMB: &[u8] = b"\0asm\x01\0\0\0\
        \x01\x04\x01\x60\0\0\
        \x03\x02\x01\0\
        \x04\x04\x01\x70\0\x01\
        \x07\x05\x01\x01f\0\0\
        \x0a\x12\x01\x10\0\x03\x40\xd0\x70\x41\xe8\x07\xfc\x0f\0\x1a\x0c\0\x0b\x0b";

    #[test]
    fn a_table_that_grows_for_ever_ends_the_guest() {
        let engine = Engine::new(&Config::new()).unwrap();
        let module = Module::new(&engine, TABLE_BOMB).unwrap();
        let space = Space {
            memory_left: 1 << 20,
            elements_left: TABLE_ELEMENTS,
        };
        let mut store = Store::new(&engine, space);
        store.limiter(|space| space);
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let f = instance.get_typed_func::<(), ()>(&mut store, "f").unwrap();
        let ended = f.call(&mut store, ()).unwrap_err();
        let why = ended.root_cause().to_string();
        assert!(why.contains("more than 100000 elements"), "{why}");
    }

    #[test]
    fn growth_is_what_counts() {
        let mut space = Space {
            memory_left: 100,
            elements_left: 0,
        };
        assert!(space.memory_growing(0, 60, None).unwrap());
        assert!(space.memory_growing(60, 100, None).unwrap());
        assert!(space.memory_growing(100, 101, None).is_err());
        assert!(space.table_growing(0, 1, None).is_err());
    }
}
