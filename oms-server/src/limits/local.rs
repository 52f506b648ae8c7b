//! Counts in this process, within a bounded memory.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use super::{Limit, Verdict};

/// Clients who are remembered one by one, some megabytes of them. Those who have not used up anything are forgotten.
const CLIENTS: usize = 50_000;
/// What the rest share when there are more: that many crowds.
const CROWDS: u64 = 4_096;
/// How many requests pass between two looks at how many clients there are. So many more may have come.
const LOOK: usize = 1_024;

type Counter = RateLimiter<u64, DashMapStateStore<u64>, DefaultClock, StateInformationMiddleware>;

/// The counter of one class.
pub(super) struct Local {
    counter: Counter,
    clock: DefaultClock,
    step: Duration,
    quota: u32,
    /// Turns a client into its key. With a seed of its own: nobody can choose to meet somebody else's.
    hash: RandomState,
    taken: AtomicUsize,
    crowded: AtomicBool,
}

impl Local {
    pub(super) fn new(limit: Limit) -> Self {
        let quota = NonZeroU32::new(limit.quota).unwrap_or(NonZeroU32::MIN);
        let step = (limit.window / quota.get()).max(Duration::from_nanos(1));
        let allowed = Quota::with_period(step).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        Self {
            counter: RateLimiter::dashmap(allowed.allow_burst(quota)).with_middleware(),
            clock: DefaultClock::default(),
            step,
            quota: quota.get(),
            hash: RandomState::new(),
            taken: AtomicUsize::new(0),
            crowded: AtomicBool::new(false),
        }
    }

    pub(super) fn take(&self, who: &str) -> Verdict {
        if self.taken.fetch_add(1, Ordering::Relaxed) % LOOK == LOOK - 1 {
            self.tidy();
        }
        let mut key = self.hash.hash_one(who);
        if self.crowded.load(Ordering::Relaxed) {
            key %= CROWDS;
        }
        match self.counter.check_key(&key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                Verdict {
                    allowed: true,
                    remaining,
                    reset: self.step * self.quota.saturating_sub(remaining),
                }
            }
            Err(not_yet) => Verdict {
                allowed: false,
                remaining: 0,
                reset: not_yet.wait_time_from(self.clock.now()),
            },
        }
    }

    /// Forgets whom it need not remember. If that does not help, the others share from here on.
    fn tidy(&self) {
        if self.counter.len() > CLIENTS {
            self.counter.retain_recent();
            self.counter.shrink_to_fit();
        }
        let crowded = self.counter.len() > CLIENTS;
        if crowded && !self.crowded.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "more clients than can be remembered one by one: they share their limits in groups"
            );
        } else if !crowded {
            self.crowded.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn limit(quota: u32, window: Duration) -> Limit {
        Limit { quota, window }
    }

    #[test]
    fn a_quota_comes_back_step_by_step() {
        let local = Local::new(limit(2, Duration::from_millis(400)));
        let first = local.take("a");
        assert!(first.allowed && first.remaining == 1 && first.reset <= Duration::from_millis(200));
        assert!(local.take("a").allowed);
        let refused = local.take("a");
        assert!(
            !refused.allowed && refused.reset <= Duration::from_millis(200),
            "{refused:?}"
        );
        std::thread::sleep(refused.reset);
        assert!(local.take("a").allowed);
        assert!(!local.take("a").allowed);
    }

    #[test]
    fn memory_is_bounded_and_nobody_is_shut_out() {
        let local = Local::new(limit(1_000, Duration::from_secs(3600)));
        for client in 0..4 * CLIENTS {
            assert!(local.take(&client.to_string()).allowed);
        }
        assert!(
            local.counter.len() <= CLIENTS + LOOK + CROWDS as usize,
            "{}",
            local.counter.len()
        );
        assert!(local.crowded.load(Ordering::Relaxed));
        // Crowded is not open: one client can still use up its share.
        let mut refused = 0;
        for _ in 0..2_000 {
            refused += usize::from(!local.take("greedy").allowed);
        }
        assert!(refused > 0);
    }

    #[test]
    fn who_used_up_nothing_is_forgotten() {
        let local = Local::new(limit(1_000_000, Duration::from_secs(1)));
        for client in 0..4 * CLIENTS {
            local.take(&client.to_string());
        }
        assert!(local.counter.len() <= CLIENTS + LOOK, "{}", local.counter.len());
        assert!(!local.crowded.load(Ordering::Relaxed));
    }
}
