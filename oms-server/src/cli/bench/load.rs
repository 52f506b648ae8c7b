//! The closed loop: every caller sends its next call when the last one was answered.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

/// Something that can be done again and again. Each caller has its own.
pub(super) trait Caller: Send + 'static {
    /// Done, and acknowledged by the other side, when this returns. An error ends the bench.
    fn call(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// How long to load before measuring, and how long to measure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) warm_up: Duration,
    pub(super) measured: Duration,
}

/// What was measured.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) per_second: f64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// Calls that were acknowledged, those of the warm-up and of the last moment too.
    pub(super) acknowledged: u64,
}

/// Latencies of calls that ended within the measured time.
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Result<Self> {
        // Microseconds up to a minute, to three digits.
        Ok(Self(Histogram::new_with_bounds(1, 60_000_000, 3)?))
    }

    pub(super) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros);
    }

    pub(super) fn load(&self, measured: Duration, acknowledged: u64) -> Load {
        let quantile = |q| Duration::from_micros(self.0.value_at_quantile(q));
        Load {
            per_second: self.0.len() as f64 / measured.as_secs_f64(),
            p50: quantile(0.5),
            p99: quantile(0.99),
            acknowledged,
        }
    }
}

/// Runs all callers at once.
pub(super) async fn closed_loop<C: Caller>(callers: Vec<C>, span: Span) -> Result<Load> {
    let begin = Instant::now() + span.warm_up;
    let end = begin + span.measured;
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        tasks.spawn(async move {
            let (mut latencies, mut acknowledged) = (Latencies::new()?, 0);
            loop {
                let started = Instant::now();
                if started >= end {
                    return anyhow::Ok((latencies, acknowledged));
                }
                caller.call().await?;
                acknowledged += 1;
                let ended = Instant::now();
                if ended >= begin && ended < end {
                    latencies.record(ended - started);
                }
            }
        });
    }
    let (mut all, mut acknowledged) = (Latencies::new()?, 0);
    while let Some(caller) = tasks.join_next().await {
        let (latencies, calls) = caller.context("a caller panicked")??;
        all.0.add(&latencies.0)?;
        acknowledged += calls;
    }
    Ok(all.load(span.measured, acknowledged))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sleeper {
        fails: bool,
    }

    impl Caller for Sleeper {
        async fn call(&mut self) -> Result<()> {
            anyhow::ensure!(!self.fails, "refused");
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(())
        }
    }

    const SPAN: Span = Span {
        warm_up: Duration::from_millis(50),
        measured: Duration::from_millis(300),
    };

    #[tokio::test]
    async fn callers_wait_for_their_answers() {
        let callers = vec![Sleeper { fails: false }, Sleeper { fails: false }];
        let load = closed_loop(callers, SPAN).await.unwrap();
        // Two callers of at least 10 ms each cannot do more.
        assert!(
            load.per_second > 0.0 && load.per_second <= 200.0 + 2.0 / 0.3,
            "{load:?}"
        );
        assert!(
            load.p50 >= Duration::from_micros(9_990) && load.p99 >= load.p50,
            "{load:?}"
        );
        assert!(load.acknowledged as f64 >= load.per_second * 0.3, "{load:?}");
    }

    #[tokio::test]
    async fn a_call_that_fails_ends_the_bench() {
        let callers = vec![Sleeper { fails: false }, Sleeper { fails: true }];
        let error = closed_loop(callers, SPAN).await.unwrap_err();
        assert_eq!(error.to_string(), "refused");
    }
}
