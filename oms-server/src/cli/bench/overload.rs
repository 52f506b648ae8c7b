//! Five times as many orders as the server can place: it must go on placing, and turn the rest away at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::load::{Answer, Caller, Pace, Span, run};
use super::over_http::{OverHttp, Server};
use super::shop::{HOT_OMS, Mix, Shop, Wishes};

/// More than the queue of orders takes, so that it does fill.
const CONNECTIONS: usize = 6_000;
const TIMES: f64 = 5.0;
/// How long an answer may take at most: longer is a hang.
const LONGEST: Duration = Duration::from_secs(10);

pub(super) struct Overload {
    /// Orders placed in a second, and calls turned away.
    pub(super) placed: f64,
    pub(super) refused: f64,
    pub(super) longest: Duration,
}

/// Loads the server with [`TIMES`] its capacity of orders a second.
pub(super) async fn measure(
    shop: &Shop,
    server: &Server,
    tokens: &[String],
    capacity: f64,
    keys: &Arc<AtomicU64>,
    span: Span,
) -> Result<Overload> {
    let seen = Arc::new(Seen::default());
    let wishes = Wishes::of(CONNECTIONS, Mix::Hot, HOT_OMS, keys);
    let callers = OverHttp::callers(server, tokens, wishes).await?;
    let callers = callers.into_iter().map(|customer| Pushy {
        customer,
        seen: Arc::clone(&seen),
    });
    let before = shop.last_number().await?;
    let pace = Pace::Open {
        per_second: capacity * TIMES,
    };
    let started = Instant::now();
    let load = run(callers.collect(), span, pace).await?;
    let seconds = started.elapsed().as_secs_f64();
    shop.check_ledger(before, load.acknowledged).await?;
    let longest = Duration::from_micros(seen.longest.load(Ordering::Relaxed));
    ensure!(longest < LONGEST, "an answer took {longest:?} under overload");
    Ok(Overload {
        placed: load.acknowledged as f64 / seconds,
        refused: seen.refused.load(Ordering::Relaxed) as f64 / seconds,
        longest,
    })
}

#[derive(Default)]
struct Seen {
    refused: AtomicU64,
    /// Microseconds.
    longest: AtomicU64,
}

/// Orders when it is time, however the last order ended.
struct Pushy {
    customer: OverHttp,
    seen: Arc<Seen>,
}

impl Caller for Pushy {
    async fn call(&mut self) -> Result<Answer> {
        let sent = Instant::now();
        let answer = self.customer.try_order().await?;
        let took = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.seen.longest.fetch_max(took, Ordering::Relaxed);
        if answer == Answer::Refused {
            self.seen.refused.fetch_add(1, Ordering::Relaxed);
        }
        Ok(answer)
    }
}
