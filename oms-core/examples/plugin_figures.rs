//! Prints what plugins cost: `cargo run -p oms-core --all-features --example plugin_figures -- FOLDER..`, each a folder
//! with a `plugin.toml` and a gateway of the fake bank (`plugins/mock` and `plugins/examples`, as they are built).
//!
//! Times come in pairs where Linux tells it: by the clock, and of the processor, which other programs do not lengthen.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that measures: it prints, and ends when something is wrong"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oms_core::payments::{
    Account, Call, Delivery, GatewayError, Received, Secret, SyncRequest, WebhookError,
};
use oms_core::{Actor, Oms, PaymentId, Timestamp};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const CALLS: usize = 300;
/// The default limit of a call.
const MEMORY: u32 = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("By the clock, and in brackets of the processor:\n");
    println!(
        "| plugin | size | compiled | from the cache | first call | empty call, p50 | verification, p50 | memory |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for folder in std::env::args().skip(1) {
        println!("{}", row(Path::new(&folder)).await);
    }
}

async fn row(folder: &Path) -> String {
    let manifest = std::fs::read_to_string(folder.join("plugin.toml")).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let cold = Loaded::new(folder, &manifest, cache.path()).await.unwrap();
    cold.oms.shutdown().await;
    let warm = Loaded::new(folder, &manifest, cache.path()).await.unwrap();
    let first = time(thread_time, || warm.verify()).await;
    let empty = p50(|| warm.refuse()).await;
    let verification = p50(|| warm.verify()).await;
    warm.oms.shutdown().await;
    let memory = least_memory(folder, &manifest, cache.path()).await;
    format!(
        "| `{}` | {} kB | {} | {} | {} | {} | {} | {memory} MiB |",
        warm.id,
        warm.size / 1_000,
        cold.loading.show(),
        warm.loading.show(),
        first.show(),
        empty.show(),
        verification.show()
    )
}

/// A plugin in an empty shop.
struct Loaded {
    oms: Oms,
    id: String,
    size: u64,
    loading: Taken,
    _folder: tempfile::TempDir,
}

impl Loaded {
    async fn new(folder: &Path, manifest: &str, cache: &Path) -> Result<Self, oms_core::Error> {
        let shop = tempfile::tempdir().unwrap();
        let id = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let plugin = shop.path().join("plugins").join(&id);
        std::fs::create_dir_all(&plugin).unwrap();
        let wasm = format!("{id}.wasm");
        let size = std::fs::copy(folder.join(&wasm), plugin.join(&wasm)).unwrap();
        std::fs::write(plugin.join("plugin.toml"), manifest).unwrap();
        let url = format!("sqlite://{}", shop.path().join("shop.db").display());
        let oms = Oms::builder(url).cache_dir(cache).connect().await?;
        oms.migrate().await?;
        let plugins = shop.path().join("plugins");
        let (begun, used) = (Instant::now(), process_time());
        oms.plugins().load_dir(&Actor::System, &plugins).await?;
        let loading = Taken::since(begun, used, process_time);
        Ok(Self {
            oms,
            id,
            size,
            loading,
            _folder: shop,
        })
    }

    /// A webhook: verified and read.
    async fn verify(&self) {
        let received = self.receive().await;
        assert!(matches!(received, Ok(Received::Verified(_))), "{received:?}");
    }

    async fn receive(&self) -> Result<Received, WebhookError> {
        let body = r#"{"type":"payment.captured","created_at_ms":1700000000123,"data":{"payment":{"id":"bp_1",
            "merchant_payment_id":"pay_1","status":"captured","currency":"EUR","exponent":2,"authorized":1999,
            "captured":1999,"refunded":0,"canceled":0,"redirect_url":null,"decline_code":null}}}"#;
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &BASE64.decode(&SECRET[6..]).unwrap());
        let signature = ring::hmac::sign(&key, format!("evt_1.1700000000.{body}").as_bytes());
        let header = |name: &str, value: String| (name.to_owned(), value.into_bytes());
        let delivery = Delivery {
            method: "POST".into(),
            url: "https://shop.test/v1/webhooks/shop".into(),
            query: String::new(),
            headers: vec![
                header("webhook-id", "evt_1".into()),
                header("webhook-timestamp", "1700000000".into()),
                header("webhook-signature", format!("v1,{}", BASE64.encode(signature))),
            ],
            body: body.as_bytes().to_vec(),
            received_at: Timestamp::from_millis(1_700_000_000_000),
            remote_ip: None,
            tolerance_seconds: 300,
        };
        let mut account = Account::new("shop", &self.id);
        let secret = Secret::new(SECRET);
        account.secrets.insert("webhook-secret".into(), secret);
        let plugins = self.oms.plugins();
        plugins
            .try_webhook(&Actor::System, &account, delivery)
            .await
            .unwrap()
    }

    /// A call that ends at once, as the account has no settings: little but the making of the instance.
    async fn refuse(&self) {
        let gateway = self.oms.plugins().gateway(&Actor::System, &self.id).await;
        let now = self.oms.now();
        let request = SyncRequest {
            call: Call {
                idempotency_key: "key-1".into(),
                attempt: 1,
                now,
                test_mode: true,
            },
            payment: PaymentId::new(now),
            reference: Some("bp_1".into()),
            state: None,
        };
        let answer = gateway
            .unwrap()
            .sync(&Account::new("shop", &self.id), request)
            .await;
        assert!(
            matches!(answer, Err(GatewayError::Misconfigured(_))),
            "{answer:?}"
        );
    }
}

/// The least limit, in MiB, with which the plugin is loaded and verifies a webhook.
async fn least_memory(folder: &Path, manifest: &str, cache: &Path) -> u32 {
    let (mut too_little, mut enough) = (0, MEMORY);
    while enough - too_little > 1 {
        let limit = (too_little + enough) / 2;
        let manifest = format!("{manifest}\n[limits]\nmemory_mib = {limit}\n");
        let fits = match Loaded::new(folder, &manifest, cache).await {
            Err(_) => false,
            Ok(loaded) => {
                let received = loaded.receive().await;
                loaded.oms.shutdown().await;
                received.is_ok()
            }
        };
        match fits {
            true => enough = limit,
            false => too_little = limit,
        }
    }
    enough
}

/// What something took.
#[derive(Clone, Copy)]
struct Taken {
    clock: Duration,
    processor: Option<Duration>,
}

impl Taken {
    fn since(begun: Instant, used: Option<Duration>, now_used: impl Fn() -> Option<Duration>) -> Self {
        let clock = begun.elapsed();
        let used = now_used().zip(used);
        Self {
            clock,
            processor: used.map(|(now, then)| now.saturating_sub(then)),
        }
    }

    fn show(self) -> String {
        let ms = |time: Duration| match time.as_secs() {
            0 => format!("{:.2} ms", time.as_secs_f64() * 1_000.0),
            _ => format!("{:.1} s", time.as_secs_f64()),
        };
        let processor = self.processor.map(|time| format!(" ({})", ms(time)));
        ms(self.clock) + &processor.unwrap_or_default()
    }
}

/// What this thread has had of a processor; guests run on it.
fn thread_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = text.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

/// What all threads have had, to hundredths of a second: the compiler uses many.
fn process_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // After the name, which may hold anything, come the state and then numbers.
    let fields: Vec<_> = text.rsplit(')').next()?.split_whitespace().collect();
    let hundredths = |n: usize| fields.get(n)?.parse::<u64>().ok();
    Some(Duration::from_millis((hundredths(11)? + hundredths(12)?) * 10))
}

async fn time(used: fn() -> Option<Duration>, call: impl AsyncFn()) -> Taken {
    let (begun, before) = (Instant::now(), used());
    call().await;
    Taken::since(begun, before, used)
}

async fn p50(call: impl AsyncFn()) -> Taken {
    let (mut clock, mut processor) = (Vec::new(), Vec::new());
    for _ in 0..CALLS {
        let taken = time(thread_time, &call).await;
        clock.push(taken.clock);
        processor.extend(taken.processor);
    }
    clock.sort();
    processor.sort();
    Taken {
        clock: clock[clock.len() / 2],
        processor: processor.get(processor.len() / 2).copied(),
    }
}
