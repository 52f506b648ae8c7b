//! Gauges that are set when somebody reads them: the state of this process, and what waits in the database. The latter
//! is asked at most every ten seconds and given two: a database that is away must not keep the reader waiting.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::gauge;
use oms_core::{Actor, Backlog, Oms};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

const KEPT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Gauges {
    started: Instant,
    /// Seconds since 1970, taken once: a number that wavers would look like restarts.
    started_at: OnceLock<f64>,
    looked: Mutex<Looked>,
}

/// The last look into the database.
#[derive(Default)]
struct Looked {
    at: Option<Instant>,
    /// What it found. After one that found nothing the gauges have no number: an old one would be taken for a new one.
    backlog: Option<Backlog>,
}

impl Default for Gauges {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            started_at: OnceLock::new(),
            looked: Mutex::default(),
        }
    }
}

impl Gauges {
    pub(super) async fn refresh(&self, oms: &Oms) {
        self.look(oms).await;
        pools(oms);
        plugins(oms);
        let uptime = self.started.elapsed();
        let started_at = || oms.now().as_micros() as f64 / 1e6 - uptime.as_secs_f64();
        gauge!("process_start_time_seconds").set(*self.started_at.get_or_init(started_at));
        process(oms, uptime);
    }

    async fn look(&self, oms: &Oms) {
        let mut looked = self.looked.lock().await;
        if looked.at.is_some_and(|at| at.elapsed() < KEPT) {
            return;
        }
        let found = match timeout(PATIENCE, oms.backlog(&Actor::System)).await {
            Ok(Ok(backlog)) => Some(backlog),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the database could not be asked for measurements");
                None
            }
            Err(_) => {
                tracing::warn!("the database did not answer in time for measurements");
                None
            }
        };
        looked.at = Some(Instant::now());
        gauge!("oms_db_up").set(if found.is_some() { 1.0 } else { 0.0 });
        match (&found, &looked.backlog) {
            (Some(now), _) => show(oms, now, |count| count as f64),
            (None, Some(last)) => show(oms, last, |_| f64::NAN),
            (None, None) => {}
        }
        if found.is_some() {
            looked.backlog = found;
        }
    }
}

/// Sets the gauges of everything that the backlog names.
fn show(oms: &Oms, backlog: &Backlog, number: impl Fn(i64) -> f64) {
    for job in &backlog.jobs {
        for (state, count) in [
            ("due", job.due),
            ("waiting", job.waiting),
            ("running", job.running),
            ("dead", job.dead),
        ] {
            gauge!("oms_jobs", "kind" => job.kind.clone(), "state" => state).set(number(count));
        }
    }
    let now = oms.now();
    let waited = backlog.oldest_due.map_or(0, |at| now.as_secs() - at.as_secs());
    gauge!("oms_jobs_oldest_due_seconds").set(number(waited.max(0)));
    for (state, count) in &backlog.open_payments {
        gauge!("oms_payments_open", "state" => *state).set(number(*count));
    }
    for (attention, count) in &backlog.attention {
        gauge!("oms_payments_attention", "attention" => *attention).set(number(*count));
    }
    gauge!("oms_orders_awaiting_payment").set(number(backlog.awaiting_payment));
}

fn pools(oms: &Oms) {
    for pool in oms.connections() {
        let used = pool.open.saturating_sub(pool.idle);
        gauge!("oms_db_connections", "pool" => pool.pool, "state" => "used").set(used as f64);
        gauge!("oms_db_connections", "pool" => pool.pool, "state" => "idle").set(pool.idle as f64);
        gauge!("oms_db_connections_max", "pool" => pool.pool).set(pool.most as f64);
    }
    let queue = oms.placement_queue();
    gauge!("oms_placement_queue_length").set(queue.waiting as f64);
    gauge!("oms_placement_queue_capacity").set(queue.capacity as f64);
}

/// For each account whether its plugin is left alone at this moment.
fn plugins(oms: &Oms) {
    for (account, work, open) in oms.plugins().left_alone(&Actor::System).unwrap_or_default() {
        let work = work.as_str();
        gauge!("oms_plugin_breaker_open", "account" => account.clone(), "work" => work).set(if open {
            1.0
        } else {
            0.0
        });
        // So that the first one counts as an increase: a series that begins with 1 has none.
        metrics::counter!("oms_plugin_spared_total", "account" => account, "work" => work).increment(0);
    }
}

fn process(oms: &Oms, uptime: Duration) {
    let database = match oms.connections().first() {
        Some(pool) if pool.pool == "postgres" => "postgres",
        _ => "sqlite",
    };
    gauge!("oms_build_info", "version" => env!("CARGO_PKG_VERSION"), "database" => database).set(1.0);
    gauge!("process_uptime_seconds").set(uptime.as_secs_f64());
    if let Some(bytes) = memory() {
        gauge!("process_resident_memory_bytes").set(bytes as f64);
    }
    if let Some(seconds) = computed() {
        metrics::counter!("process_cpu_seconds_total").absolute(seconds);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(open.count() as f64);
    }
}

/// None where there is no `/proc`.
fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Seconds of computing; none where there is no `/proc`.
fn computed() -> Option<u64> {
    /// Of a clock that the kernel has shown to programs ever since, whatever its own is.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in brackets, with whatever is in it.
    let mut rest = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || rest.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_seen() {
        assert!(memory().unwrap() > 1 << 20);
        let before = computed().unwrap();
        let started = Instant::now();
        let mut x = 1_u64;
        while started.elapsed() < Duration::from_millis(1_100) {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(computed().unwrap() <= before + 10);
    }
}
