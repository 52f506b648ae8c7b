//! Prints what the neighbours of hostile plugins notice, and how late hostile calls end:
//! `cargo run --release -p oms-core --all-features --example plugin_attack -- FOLDER [ROUNDS]`. The folder holds the guest
//! that misbehaves as it is told, `<target folder>/plugins-test/hostile`, as `cargo xtask plugins` builds it.
//!
//! Each round measures well-behaved calls, one each two milliseconds, before and during an attack by two callers that
//! try one thing after another. The library would leave such a plugin alone after a few failures; here nothing does.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that measures: it prints, and ends when something is wrong"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use oms_core::payments::{Account, Call, CaptureMode, Customer, PaymentGateway, StartRequest, SyncRequest};
use oms_core::{Actor, Money, Oms, PaymentId};

const ATTACKERS: usize = 2;
const ROUNDS: usize = 5;
const CALLS: usize = 1_000;
const PAUSE: Duration = Duration::from_millis(2);
/// One call's, by the guest's own manifest.
const DEADLINE: Duration = Duration::from_secs(4);

/// Processor, stacks, memory, logs and transfers.
const ATTACKS: [&str; 8] = [
    "loop",
    "loop-in-realloc",
    "memory",
    "recursion",
    "log-million",
    "huge-list",
    "gib-string",
    "panic",
];
/// Whatever takes its time, for how late its end is.
const LATE: [&str; 4] = ["sleep", "loop", "memory", "stderr-flood"];

#[tokio::main]
async fn main() {
    // On the threads that serve, like whatever comes over HTTP.
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap();
    let rounds = arguments.next().map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    tokio::spawn(run(folder, rounds)).await.unwrap();
}

async fn run(folder: String, rounds: usize) {
    let shop = Arc::new(Shop::open(Path::new(&folder)).await);
    shop.neighbours().await;
    println!("| round | before, p50 | p99 | during, p50 | p99 | of p99 | hostile calls | most memory |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut ratios: Vec<f64> = Vec::new();
    for round in 1..=rounds {
        ratios.push(row(&shop, round).await);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "\np99 during an attack, median of {rounds}: {:.2} times that before it",
        ratios[rounds / 2]
    );
    for attack in LATE {
        let took = shop.attack(attack).await.as_millis();
        println!("`{attack}` ended after {took} ms of {} ms", DEADLINE.as_millis());
    }
    shop.oms.shutdown().await;
}

async fn row(shop: &Arc<Shop>, round: usize) -> f64 {
    let (p50, p99) = shop.neighbours().await;
    let stop = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicU64::new(0));
    let attackers: Vec<_> = (0..ATTACKERS)
        .map(|first| {
            let (shop, stop, calls) = (Arc::clone(shop), Arc::clone(&stop), Arc::clone(&calls));
            tokio::spawn(async move {
                for attack in ATTACKS.iter().cycle().skip(first) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    shop.attack(attack).await;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let memory = tokio::spawn(most_memory(Arc::clone(&stop)));
    let (p50_during, p99_during) = shop.neighbours().await;
    stop.store(true, Ordering::Relaxed);
    for attacker in attackers {
        attacker.await.unwrap();
    }
    let ratio = p99_during.as_secs_f64() / p99.as_secs_f64();
    println!(
        "| {round} | {p50:.0?} | {p99:.0?} | {p50_during:.0?} | {p99_during:.0?} | {ratio:.2}x | {} | {} MiB |",
        calls.load(Ordering::Relaxed),
        memory.await.unwrap()
    );
    ratio
}

/// Of the process, as the system counts it, in MiB.
async fn most_memory(stop: Arc<AtomicBool>) -> u64 {
    let mut most = 0;
    while !stop.load(Ordering::Relaxed) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        most = most.max(kib.unwrap_or(0) / 1_024);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    most
}

/// An empty shop with the plugin.
struct Shop {
    oms: Oms,
    gateway: Arc<dyn PaymentGateway>,
    _folder: tempfile::TempDir,
}

impl Shop {
    async fn open(plugin: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("plugins/hostile");
        std::fs::create_dir_all(&copy).unwrap();
        for file in ["hostile.wasm", "plugin.toml"] {
            std::fs::copy(plugin.join(file), copy.join(file)).unwrap();
        }
        let url = format!("sqlite://{}", folder.path().join("shop.db").display());
        let oms = Oms::builder(url).connect().await.unwrap();
        oms.migrate().await.unwrap();
        let plugins = folder.path().join("plugins");
        oms.plugins().load_dir(&Actor::System, &plugins).await.unwrap();
        Self {
            gateway: oms.plugins().gateway(&Actor::System, "hostile").await.unwrap(),
            oms,
            _folder: folder,
        }
    }

    fn call(&self) -> Call {
        Call {
            idempotency_key: "key-1".into(),
            attempt: 1,
            now: self.oms.now(),
            test_mode: true,
        }
    }

    /// The median and the 99th percentile of well-behaved calls.
    async fn neighbours(&self) -> (Duration, Duration) {
        let account = Account::new("shop", "hostile");
        let mut times = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let request = SyncRequest {
                call: self.call(),
                payment: PaymentId::new(self.oms.now()),
                reference: Some("gw_1".into()),
                state: None,
            };
            let started = Instant::now();
            self.gateway.sync(&account, request).await.unwrap();
            times.push(started.elapsed());
            tokio::time::sleep(PAUSE).await;
        }
        times.sort();
        (times[CALLS / 2], times[CALLS * 99 / 100])
    }

    /// How long a call took that misbehaves. Most end as errors; what they end as is for the tests.
    async fn attack(&self, behaviour: &str) -> Duration {
        let mut account = Account::new("shop", "hostile");
        account.config.insert("behaviour".into(), behaviour.into());
        let request = StartRequest {
            call: self.call(),
            payment: PaymentId::new(self.oms.now()),
            order_number: "1001".into(),
            amount: Money::new(1_999, "EUR".parse().unwrap()).unwrap(),
            capture: CaptureMode::Automatic,
            instrument: None,
            instrument_data: Vec::new(),
            customer: Customer::default(),
            description: None,
            return_url: None,
            cancel_url: None,
            webhook_url: None,
            off_session: false,
            metadata: Vec::new(),
        };
        let started = Instant::now();
        let _ = self.gateway.start(&account, request).await;
        started.elapsed()
    }
}
