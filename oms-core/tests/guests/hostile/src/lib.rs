//! A plugin that misbehaves as its account's setting `behaviour` says. What it could find out goes into `state`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use oms_plugin_sdk::{
    Change, Delivery, Event, Features, Gateway, Info, NextAction, Outcome, PaymentError, PaymentResult,
    PaymentStatus, Reply, Snapshot, StartRequest, SyncRequest, Totals, WebhookError, Webhooks, cache, config,
    crypto, export_plugin, http, log,
};

struct Hostile;

/// The system's allocator, until it is told not to come back: what the host writes into the guest goes through it.
struct Stuck;

static STUCK: AtomicBool = AtomicBool::new(false);

// Safety: it does what the system's does, or does not return.
unsafe impl GlobalAlloc for Stuck {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        while STUCK.load(Ordering::Relaxed) {
            black_box(0);
        }
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Stuck = Stuck;

export_plugin!(Hostile);

/// Must be 0 at the start of every call.
static CALLS: AtomicU32 = AtomicU32::new(0);

impl Gateway for Hostile {
    fn describe() -> Info {
        Info {
            id: "hostile".into(),
            name: "Hostile".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            features: Features::SYNC | Features::WEBHOOKS,
            config_schema: "{}".into(),
            hosts: Vec::new(),
            currencies: Vec::new(),
        }
    }

    fn start(request: StartRequest) -> Result<PaymentResult, PaymentError> {
        fail_for_a_while(request.call.now_ms);
        misbehave(&config::require("behaviour")?)
    }

    /// Behaves well: the neighbour of the others.
    fn sync(request: SyncRequest) -> Result<Snapshot, PaymentError> {
        fail_for_a_while(request.call.now_ms);
        Ok(Snapshot {
            payment: PaymentResult {
                reference: request.reference,
                ..PaymentResult::new(PaymentStatus::Pending)
            },
            refunds: Vec::new(),
        })
    }
}

impl Webhooks for Hostile {
    fn receive(delivery: Delivery) -> Result<Outcome, WebhookError> {
        match config::require("behaviour")?.as_str() {
            "html-reply" => Ok(Outcome::Challenge(Reply {
                status: 200,
                content_type: Some("text/html".into()),
                body: delivery.body,
            })),
            "old-event" => Ok(Outcome::event(
                Event::new("evt_1", "paid", Change::NeedsSync),
                Some(1_000),
            )),
            "many-events" => {
                let events = (0..101).map(|i| Event::new(format!("evt_{i}"), "paid", Change::NeedsSync));
                let Outcome::Verified(mut verified) =
                    Outcome::event(Event::new("x", "x", Change::NeedsSync), None)
                else {
                    return Err(WebhookError::BadSignature);
                };
                verified.events = events.collect();
                Ok(Outcome::Verified(verified))
            }
            other => match misbehave(other) {
                Ok(_) => Ok(Outcome::UnsignedHint(Vec::new())),
                Err(error) => Err(WebhookError::Malformed(format!("{error:?}"))),
            },
        }
    }
}

/// An outage of the plugin itself, between two times of the account's settings.
fn fail_for_a_while(now_ms: u64) {
    let time = |name| config::get(name).and_then(|text| text.parse::<u64>().ok());
    if let (Some(from), Some(until)) = (time("fails-from"), time("fails-until")) {
        assert!(!(from..until).contains(&now_ms), "it is broken for a while");
    }
}

fn misbehave(behaviour: &str) -> Result<PaymentResult, PaymentError> {
    match behaviour {
        // Ways not to answer.
        "panic" => panic!("it broke"),
        "loop" => loop {
            black_box(0);
        },
        "loop-in-realloc" => {
            STUCK.store(true, Ordering::Relaxed);
            // The host asks the guest for room to put the answer into.
            found(config::get("behaviour").unwrap_or_default())
        }
        "memory" => fill_memory(),
        "recursion" => found(recurse(1).to_string()),
        "sleep" => {
            std::thread::sleep(Duration::from_secs(3_600));
            found("awake".into())
        }
        "exit" => std::process::exit(3),
        "random" => found(crypto::random_bytes(1 << 20).len().to_string()),
        "charge-then-panic" => {
            let _ = http::post(url()?).send();
            panic!("it broke after the charge");
        }
        "unsent-then-panic" => {
            let _ = http::post("https://public.test/never-granted").send();
            panic!("it broke before the charge");
        }
        // Answers that break the contract.
        "large-state" => found("x".repeat((8 << 10) + 1)),
        "huge-answer" => found("x".repeat(5 << 20)),
        "huge-list" => Ok(PaymentResult {
            method: vec![(String::new(), "x".repeat(1_000)); 10_000],
            ..pending()
        }),
        "script-url" => Ok(PaymentResult {
            next_action: Some(NextAction::redirect_to("javascript:alert(1)")),
            ..pending()
        }),
        "negative-total" => Ok(PaymentResult {
            totals: Totals {
                captured: Some(-1),
                ..Totals::default()
            },
            ..pending()
        }),
        "nul" => found("a\0b".into()),
        // Looking for what is not its own.
        "look-around" => found(look_around()),
        "leave-marks" => {
            leave_marks();
            found(String::new())
        }
        "leave-and-look" => {
            leave_marks();
            found(look_for_marks().to_string())
        }
        "look-for-marks" => found(look_for_marks().to_string()),
        "count" => found(CALLS.fetch_add(1, Ordering::Relaxed).to_string()),
        "tell-secret" => tell_secret(),
        "keep" => {
            cache::set("note", config::require("note")?.as_bytes(), 60);
            found(String::new())
        }
        "recall" => found(match cache::get("note") {
            Some(note) => String::from_utf8_lossy(&note).into_owned(),
            None => "nothing".into(),
        }),
        "secret-name" => found(format!("{:?}", config::secret("only-here").is_ok())),
        // Floods.
        "log-flood" => {
            for _ in 0..1_000 {
                log::info(&"flood ".repeat(200), &[]);
            }
            found(String::new())
        }
        "log-million" => {
            for _ in 0..1_000_000 {
                log::info("x", &[]);
            }
            found(String::new())
        }
        // A text that claims to be longer than all of the memory.
        "gib-string" => {
            let short = "short";
            // Safety: none. The host must not believe the length.
            let long = unsafe {
                std::str::from_utf8_unchecked(std::slice::from_raw_parts(short.as_ptr(), black_box(1 << 30)))
            };
            log::info(long, &[]);
            found(String::new())
        }
        "stderr-flood" => {
            for _ in 0..1_000 {
                eprintln!("{}", "flood ".repeat(1_000));
            }
            found(String::new())
        }
        "requests" => {
            let url = url()?;
            let sent = (0..1_000).filter(|_| http::get(&url).send().is_ok()).count();
            found(sent.to_string())
        }
        "request" => found(match http::get(url()?).send() {
            Ok(response) => format!("{} {}", response.status, response.text()),
            Err(error) => error.to_string(),
        }),
        "large-request" => found(
            match http::post(url()?).body("text/plain", vec![0; 300 << 10]).send() {
                Ok(response) => response.status.to_string(),
                Err(error) => error.to_string(),
            },
        ),
        other => Err(PaymentError::misconfigured(format!("no behaviour {other:?}"))),
    }
}

fn pending() -> PaymentResult {
    PaymentResult::new(PaymentStatus::Pending)
}

fn found(state: String) -> Result<PaymentResult, PaymentError> {
    Ok(PaymentResult {
        state: Some(state),
        ..pending()
    })
}

fn url() -> Result<String, PaymentError> {
    Ok(config::require("url")?)
}

fn fill_memory() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1_u8; 1 << 20]));
    }
}

#[expect(unconditional_recursion, reason = "the point of it")]
fn recurse(depth: u64) -> u64 {
    1 + recurse(black_box(depth + 1))
}

fn look_around() -> String {
    let files = ["/", ".", "/etc/passwd", "plugin.toml"].map(|path| std::fs::metadata(path).is_ok());
    let dir = std::fs::read_dir("/").is_ok();
    let socket = std::net::TcpStream::connect("127.0.0.1:80").is_ok();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").is_ok();
    format!(
        "variables {}, arguments {}, files {}, folder {dir}, socket {socket}, listener {listener}",
        std::env::vars().count(),
        std::env::args().count(),
        files.iter().filter(|there| **there).count(),
    )
}

/// What a run of bytes looks like that one call leaves for the next. It is computed, so that it stands nowhere in the
/// component.
fn mark(at: usize) -> u8 {
    (at as u8).wrapping_mul(black_box(37)) ^ black_box(0xa5)
}

/// In much memory, in little memory and on the stack.
fn leave_marks() {
    let (mut much, mut little, mut stack) = (vec![0; 8 << 20], vec![0; 4 << 10], [0; 16 << 10]);
    for bytes in [much.as_mut_slice(), little.as_mut_slice(), stack.as_mut_slice()] {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = mark(at);
        }
        black_box(bytes);
    }
}

/// In all the memory that there is, and in as much more as the call before had.
fn look_for_marks() -> usize {
    core::arch::wasm32::memory_grow(0, 128);
    let size = core::arch::wasm32::memory_size(0) << 16;
    // Safety: none. All of it is there, and whose it is does not matter here.
    let all = unsafe { std::slice::from_raw_parts(black_box(16 as *const u8), size - 16) };
    let run = 32;
    let is_mark = |at: &usize| (0..run).all(|i| all[at + i] == mark(i));
    (0..all.len() - run).filter(is_mark).count()
}

/// In every way that it has.
fn tell_secret() -> Result<PaymentResult, PaymentError> {
    let secret = config::secret("api-key")?;
    log::error(&format!("the key is {secret}"), &[("key", &secret)]);
    eprintln!("the key is {secret}");
    Err(PaymentError::internal(format!("the key is {secret}")))
}
