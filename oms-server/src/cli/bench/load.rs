//! Load. In a closed loop every caller sends its next call when the last one was answered; in an open one the calls have
//! times at which they are due, whatever becomes of those before them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

/// Something that can be done again and again. Each caller has its own.
pub(super) trait Caller: Send + 'static {
    /// An error ends the bench.
    fn call(&mut self) -> impl Future<Output = Result<Answer>> + Send;
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Done, and acknowledged by the other side.
    Done,
    /// Judged, and turned down for a good reason: work as well, but nothing that has to be found afterwards.
    Judged,
    /// Nothing was done, and nothing is measured.
    Refused,
}

/// When calls are sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    Closed,
    /// So many each second over all callers. A call that is sent late, since every caller still waits for an answer, is
    /// measured from when it was due: the wait belongs to what a user would see.
    Open {
        per_second: f64,
    },
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
    pub(super) p999: Duration,
    pub(super) max: Duration,
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

    pub(super) fn add(&mut self, others: &Self) -> Result<()> {
        Ok(self.0.add(&others.0)?)
    }

    pub(super) fn load(&self, measured: Duration, acknowledged: u64) -> Load {
        let quantile = |q| Duration::from_micros(self.0.value_at_quantile(q));
        Load {
            per_second: self.0.len() as f64 / measured.as_secs_f64(),
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: quantile(1.0),
            acknowledged,
        }
    }
}

/// Runs all callers at once in a closed loop.
pub(super) async fn closed_loop<C: Caller>(callers: Vec<C>, span: Span) -> Result<Load> {
    run(callers, span, Pace::Closed).await
}

/// Runs all callers at once.
pub(super) async fn run<C: Caller>(callers: Vec<C>, span: Span, pace: Pace) -> Result<Load> {
    let schedule = Arc::new(Schedule::new(span, pace));
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        let schedule = Arc::clone(&schedule);
        tasks.spawn(async move {
            let (mut latencies, mut acknowledged) = (Latencies::new()?, 0);
            while let Some(due) = schedule.next() {
                // A timer rounds up to the next millisecond, also for what is due now.
                if due > Instant::now() {
                    tokio::time::sleep_until(due.into()).await;
                }
                match caller.call().await? {
                    Answer::Done => acknowledged += 1,
                    Answer::Judged => {}
                    Answer::Refused => continue,
                }
                let ended = Instant::now();
                if schedule.measures(due, ended) {
                    latencies.record(ended - due);
                }
            }
            anyhow::Ok((latencies, acknowledged))
        });
    }
    let (mut all, mut acknowledged) = (Latencies::new()?, 0);
    while let Some(caller) = tasks.join_next().await {
        let (latencies, calls) = caller.context("a caller panicked")??;
        all.add(&latencies)?;
        acknowledged += calls;
    }
    Ok(all.load(span.measured, acknowledged))
}

/// When each call is due.
struct Schedule {
    pace: Pace,
    start: Instant,
    begin: Instant,
    end: Instant,
    calls: AtomicU64,
}

impl Schedule {
    fn new(span: Span, pace: Pace) -> Self {
        let start = Instant::now();
        let begin = start + span.warm_up;
        Self {
            pace,
            start,
            begin,
            end: begin + span.measured,
            calls: AtomicU64::new(0),
        }
    }

    /// The time of the next call; none after the last one.
    fn next(&self) -> Option<Instant> {
        let due = match self.pace {
            Pace::Closed => Instant::now(),
            Pace::Open { per_second } => {
                let call = self.calls.fetch_add(1, Ordering::Relaxed);
                self.start + Duration::from_secs_f64(call as f64 / per_second)
            }
        };
        (due < self.end).then_some(due)
    }

    /// In an open loop every call that was due counts, however late it was answered: leaving the slow ones out would
    /// flatter.
    fn measures(&self, due: Instant, ended: Instant) -> bool {
        match self.pace {
            Pace::Closed => ended >= self.begin && ended < self.end,
            Pace::Open { .. } => due >= self.begin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sleeper {
        fails: bool,
    }

    impl Caller for Sleeper {
        async fn call(&mut self) -> Result<Answer> {
            anyhow::ensure!(!self.fails, "refused");
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(Answer::Done)
        }
    }

    /// Answers at once, but stands still for a while at its tenth call.
    struct Hiccup(u32);

    impl Caller for Hiccup {
        async fn call(&mut self) -> Result<Answer> {
            self.0 += 1;
            if self.0 == 10 {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            Ok(Answer::Done)
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
    async fn an_open_loop_counts_the_wait_of_calls_that_could_not_be_sent() {
        let span = Span {
            warm_up: Duration::ZERO,
            measured: Duration::from_millis(400),
        };
        let load = run(vec![Hiccup(0)], span, Pace::Open { per_second: 100.0 })
            .await
            .unwrap();
        assert_eq!(load.acknowledged, 40, "{load:?}");
        // A closed loop would have seen one slow call of forty; here about thirty were due meanwhile.
        assert!(load.p50 >= Duration::from_millis(50), "{load:?}");
        assert!(load.max >= Duration::from_millis(295), "{load:?}");
    }

    #[tokio::test]
    async fn a_call_that_fails_ends_the_bench() {
        let callers = vec![Sleeper { fails: false }, Sleeper { fails: true }];
        let error = closed_loop(callers, SPAN).await.unwrap_err();
        assert_eq!(error.to_string(), "refused");
    }
}
