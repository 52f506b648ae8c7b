//! The WebAssembly engine: how components are compiled, and which imports they may have.

use std::path::Path;
use std::sync::Arc;
use std::thread::Thread;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::{
    Cache, CacheConfig, Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
    ResourcesRequired,
};

use super::bindings::PaymentPlugin;
use super::state::{MEMORIES, State, TABLE_ELEMENTS, TABLES};

/// How often a running guest lets others run. Everything that counts a guest's processor time counts these.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// How often the clock looks around while no guest runs.
const IDLE: Duration = Duration::from_millis(500);

/// What the host speaks: the major version is part of the name in a plugin's manifest.
pub(super) const CONTRACT: &str = "oms:payment@1";

/// Memories that all calls may have at the same moment, whatever their plugins: so many are reserved. Nearly all
/// components have one. The address space for each is 4 GiB, so that the processor checks what a guest reads and writes.
const PLACES: u32 = 512;

/// Tables to each of those memories.
const TABLES_A_PLACE: u32 = 4;

/// What stays of a memory after a call, as long as the system can tell which pages were written to: those are put back to
/// what they were, and the next call need not ask for them. What a call has written beyond this is given back.
const KEPT_MEMORY: usize = 512 << 10;
/// The same of the stack on which guest and host functions run.
const KEPT_STACK: usize = 64 << 10;
/// The same of each table.
const KEPT_TABLE: usize = 16 << 10;

/// A component, the names of what it exports, and how many places a call of it takes.
pub(super) struct Prepared {
    pub(super) pre: InstancePre<State>,
    pub(super) exports: Vec<String>,
    pub(super) places: u32,
}

/// One engine for all plugins of an [`Oms`](crate::Oms), with the host functions linked.
pub(super) struct Runtime {
    engine: Engine,
    linker: Linker<State>,
    /// A call waits here for its places: a pool that is empty would fail it instead.
    places: Arc<Semaphore>,
    /// What counts the epochs. It sleeps while no call is under way.
    clock: Thread,
}

impl Runtime {
    /// Starts the engine and its clock. Compiled components are kept in `cache_dir`.
    pub(super) fn new(cache_dir: Option<&Path>) -> Result<Self, String> {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            // Not needed by any guest toolchain that we know, so not there to be attacked.
            .wasm_memory64(false)
            .wasm_relaxed_simd(false)
            // The code between the components of one file, which wasmtime makes by itself, copies from one memory to the
            // other: plugins in JavaScript consist of several. All memories of a call share one limit.
            .wasm_multi_memory(true);
        if let Some(dir) = cache_dir {
            config.cache(Some(disk_cache(dir)?));
        }
        let engine = pooled(&config).map_err(|e| format!("the WebAssembly engine: {e:#}"))?;
        let linker = link(&engine).map_err(|e| format!("the host functions for plugins: {e:#}"))?;
        let places = Arc::new(Semaphore::new(PLACES as usize));
        let clock = tick(&engine, &places)?;
        Ok(Self {
            engine,
            linker,
            places,
            clock,
        })
    }

    /// Waits until so many places are free. From then on guests are interrupted at each tick.
    pub(super) async fn places(&self, count: u32) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        let places = self.places.acquire_many(count).await.ok();
        self.clock.unpark();
        places
    }

    /// Compiles a component. Takes long: not for an async thread.
    pub(super) fn prepare(&self, wasm: &[u8]) -> Result<Prepared, String> {
        // Both begin alike, and the wrong one is what a wrong build target gives.
        if wasm.starts_with(b"\0asm\x01\0\0\0") {
            return Err(
                "the file is a core WebAssembly module, not a component: build it for wasm32-wasip2, or turn it \
                 into a component with its toolchain's componentize step"
                    .into(),
            );
        }
        let component = Component::new(&self.engine, wasm)
            .map_err(|e| format!("the file is not a WebAssembly component that can be compiled: {e:#}"))?;
        let kind = component.component_type();
        let names = |(name, _): (&str, _)| name.to_owned();
        check_imports(kind.imports(&self.engine).map(names))?;
        let exports: Vec<_> = kind.exports(&self.engine).map(names).collect();
        check_exports(&exports)?;
        let places = places(component.resources_required())?;
        let pre = self
            .linker
            .instantiate_pre(&component)
            .map_err(|e| format!("the component does not fit {CONTRACT}: {e:#}"))?;
        Ok(Prepared { pre, exports, places })
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// With memories, tables and stacks that are reserved once and used again: a call needs neither maps nor page faults. Where
/// the system does not let a process reserve as much address space, each call makes its own, more slowly.
fn pooled(config: &Config) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    // Counted, not reserved: what a call may have of them is limited by its store.
    pool.total_component_instances(u32::MAX)
        .total_core_instances(u32::MAX)
        .total_memories(PLACES)
        .total_tables(PLACES * TABLES_A_PLACE)
        .total_stacks(PLACES)
        .max_memories_per_module(MEMORIES)
        .max_tables_per_module(TABLES)
        .table_elements(TABLE_ELEMENTS)
        .async_stack_keep_resident(KEPT_STACK)
        .table_keep_resident(KEPT_TABLE);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Auto)
            .linear_memory_keep_resident(KEPT_MEMORY);
    }
    let mut pooled = config.clone();
    pooled
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .async_stack_zeroing(true);
    Engine::new(&pooled).or_else(|why| {
        tracing::warn!("plugins run without a pool of memories, which takes longer: {why:#}");
        Engine::new(config)
    })
}

/// How many places a call takes.
fn places(required: Option<ResourcesRequired>) -> Result<u32, String> {
    let required = required.ok_or("the component imports core modules, which this host does not offer")?;
    let ResourcesRequired {
        num_memories: memories,
        num_tables: tables,
        ..
    } = required;
    if memories > MEMORIES || tables > TABLES {
        return Err(format!(
            "the component has {memories} memories and {tables} tables; {MEMORIES} and {TABLES} are taken"
        ));
    }
    Ok(memories.max(tables.div_ceil(TABLES_A_PLACE)).max(1))
}

fn link(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    // All of WASI 0.2 that a language's standard library may ask for, over an empty context.
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    PaymentPlugin::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    Ok(linker)
}

/// Counts the engine's epochs until the engine is gone.
fn tick(engine: &Engine, places: &Arc<Semaphore>) -> Result<Thread, String> {
    let (engine, places) = (engine.weak(), Arc::clone(places));
    let clock = std::thread::Builder::new()
        .name("oms-plugin-ticks".into())
        .spawn(move || {
            loop {
                let under_way = places.available_permits() < PLACES as usize;
                match under_way {
                    true => std::thread::sleep(TICK),
                    // Whoever takes places unparks it afterwards, so that no call is overlooked.
                    false => std::thread::park_timeout(IDLE),
                }
                let Some(engine) = engine.upgrade() else { return };
                if under_way {
                    engine.increment_epoch();
                }
            }
        })
        .map_err(|e| format!("cannot start the thread that counts the plugins' time: {e}"))?;
    Ok(clock.thread().clone())
}

/// Compiled code is loaded from there and run: nobody else may write it.
fn disk_cache(dir: &Path) -> Result<Cache, String> {
    let named =
        |e: &dyn std::fmt::Display| format!("the cache of compiled plugins in {}: {e}", dir.display());
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

        builder.mode(0o700).create(dir).map_err(|e| named(&e))?;
        let mode = std::fs::metadata(dir)
            .map_err(|e| named(&e))?
            .permissions()
            .mode();
        if mode & 0o022 != 0 {
            return Err(named(&"others may write to this folder: `chmod go-w` it"));
        }
    }
    #[cfg(not(unix))]
    builder.create(dir).map_err(|e| named(&e))?;
    let mut config = CacheConfig::new();
    config.with_directory(std::path::absolute(dir).map_err(|e| named(&e))?);
    Cache::new(config).map_err(|e| named(&format!("{e:#}")))
}

/// Says in words what the linker would say in its own.
fn check_imports(imports: impl Iterator<Item = String>) -> Result<(), String> {
    let unknown: Vec<_> = imports.filter(|name| !is_ours(name) && !is_wasi(name)).collect();
    match unknown.as_slice() {
        [] => Ok(()),
        names => Err(format!(
            "the component imports {}, which this host does not offer: it offers {CONTRACT} and WASI 0.2 without \
             wasi:http (requests go through the contract's http interface)",
            names.join(", ")
        )),
    }
}

fn check_exports(exports: &[String]) -> Result<(), String> {
    for name in ["descriptor", "gateway"] {
        if exports.iter().any(|export| is_interface(export, name)) {
            continue;
        }
        let prefix = format!("oms:payment/{name}@");
        return Err(match exports.iter().find(|export| export.starts_with(&prefix)) {
            Some(other) => format!("the component exports {other}, but this host speaks {CONTRACT}"),
            None => format!(
                "the component does not export oms:payment/{name}: build it against the world payment-plugin or \
                 payment-gateway of {CONTRACT}"
            ),
        });
    }
    Ok(())
}

/// Whether an export is this interface of a version that the host speaks. Others are ignored: toolchains add some.
pub(super) fn is_interface(export: &str, name: &str) -> bool {
    export
        .strip_prefix("oms:payment/")
        .and_then(|rest| rest.strip_prefix(name))
        .is_some_and(|version| version.starts_with("@1."))
}

fn is_ours(import: &str) -> bool {
    import
        .strip_prefix("oms:payment/")
        .and_then(|rest| rest.split_once('@'))
        .is_some_and(|(_, version)| version.starts_with("1."))
}

fn is_wasi(import: &str) -> bool {
    import
        .strip_prefix("wasi:")
        .and_then(|rest| rest.split_once('@'))
        .is_some_and(|(name, version)| version.starts_with("0.2.") && !name.starts_with("http/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_ends_with_the_engine() {
        let runtime = Runtime::new(None).unwrap();
        let engine = runtime.engine().weak();
        drop(runtime);
        // The thread may hold it for a moment.
        let gone = (0..100).any(|_| {
            std::thread::sleep(TICK * 10);
            engine.upgrade().is_none()
        });
        assert!(gone, "the thread keeps the engine alive");
    }

    #[test]
    fn versions_of_the_contract() {
        assert!(is_interface("oms:payment/gateway@1.0.0", "gateway"));
        assert!(is_interface("oms:payment/gateway@1.4.2", "gateway"));
        for other in [
            "oms:payment/gateway@2.0.0",
            "oms:payment/gateway@10.0.0",
            "oms:payment/gateways@1.0.0",
            "gateway",
        ] {
            assert!(!is_interface(other, "gateway"), "{other}");
        }
        assert!(is_ours("oms:payment/types@1.0.0") && !is_ours("oms:payment/types@2.0.0"));
        assert!(
            is_wasi("wasi:cli/stderr@0.2.6")
                && !is_wasi("wasi:http/types@0.2.6")
                && !is_wasi("wasi:io/poll@0.3.0")
        );
    }
}
