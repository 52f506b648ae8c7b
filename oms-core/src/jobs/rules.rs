//! What a worker decides without looking at the database: which jobs fit its slots and when a failed one runs again.

use std::time::Duration;

/// Attempts before a job is given up.
const MAX_ATTEMPTS: i64 = 12;
const FIRST_DELAY: Duration = Duration::from_secs(5);
const LONGEST_DELAY: Duration = Duration::from_secs(3600);

/// A periodic job comes back anyway, so it is tried again within a minute and never given up.
const LONGEST_PERIODIC_DELAY: Duration = Duration::from_secs(60);

/// Errors are for a person who reads a list.
const LONGEST_ERROR: usize = 2_000;

/// Kinds that share slots. A lane that is full does not hold up the others: a slow gateway cannot starve mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Mail,
    Gateway,
    /// Periodic work on our own database.
    Upkeep,
}

/// Every kind that this program knows, as [`Job`](super::Job) spells it. No other is claimed: in a rolling deploy an
/// old worker leaves new kinds to those who know them.
pub(super) const KINDS: [(&str, Lane); 8] = [
    ("send_email", Lane::Mail),
    ("cancel_payment", Lane::Gateway),
    ("run_refund", Lane::Gateway),
    ("reconcile_payment", Lane::Gateway),
    ("match_webhook", Lane::Gateway),
    ("expire_orders", Lane::Upkeep),
    ("rescue_attempts", Lane::Upkeep),
    ("purge", Lane::Upkeep),
];

pub(super) fn lane(kind: &str) -> Option<Lane> {
    KINDS
        .iter()
        .find(|(name, _)| *name == kind)
        .map(|(_, lane)| *lane)
}

/// Slots: how many there are, or how many are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slots {
    total: usize,
    lanes: [usize; 3],
}

impl Slots {
    /// Shares `total` among the lanes, so that together they never exceed it (three slots and more).
    pub(super) fn share(total: usize) -> Self {
        let total = total.max(1);
        let upkeep = (total / 8).max(1);
        let gateway = (total.saturating_sub(upkeep) / 2).max(1);
        let mail = total.saturating_sub(upkeep + gateway).max(1);
        let mut lanes = [0; 3];
        lanes[Lane::Mail as usize] = mail;
        lanes[Lane::Gateway as usize] = gateway;
        lanes[Lane::Upkeep as usize] = upkeep;
        Self { total, lanes }
    }

    /// Takes a slot for a job of this kind, if one is free.
    pub(super) fn take(&mut self, kind: &str) -> bool {
        let Some(lane) = lane(kind) else { return false };
        let free = self.total > 0 && self.lanes[lane as usize] > 0;
        if free {
            self.total -= 1;
            self.lanes[lane as usize] -= 1;
        }
        free
    }

    /// Gives a slot back.
    pub(super) fn free(&mut self, kind: &str) {
        if let Some(lane) = lane(kind) {
            self.total += 1;
            self.lanes[lane as usize] += 1;
        }
    }

    /// How many jobs could be taken at most.
    pub(super) fn count(&self) -> usize {
        self.total.min(self.lanes.iter().sum())
    }

    /// The kinds that could be taken, each with how many of it at most.
    pub(super) fn kinds(&self) -> Vec<(&'static str, i64)> {
        let free = |lane: Lane| self.total.min(self.lanes[lane as usize]);
        KINDS
            .iter()
            .map(|(kind, lane)| (*kind, i64::try_from(free(*lane)).unwrap_or(i64::MAX)))
            .filter(|(_, most)| *most > 0)
            .collect()
    }
}

/// When a job that failed at its `attempt`th attempt runs again, or none when it is given up. Exponential with full
/// jitter: after a common cause has passed, its victims do not come back all at once.
pub(super) fn retry_in(kind: &str, attempt: i64, random: u64) -> Option<Duration> {
    let periodic = lane(kind) == Some(Lane::Upkeep);
    if attempt >= MAX_ATTEMPTS && !periodic {
        return None;
    }
    let cap = if periodic {
        LONGEST_PERIODIC_DELAY
    } else {
        LONGEST_DELAY
    };
    let doublings = u32::try_from((attempt - 1).clamp(0, 20)).unwrap_or(0);
    Some(fraction(
        FIRST_DELAY.saturating_mul(1 << doublings).min(cap),
        random,
    ))
}

/// Between nothing and all of `d`.
pub(super) fn fraction(d: Duration, random: u64) -> Duration {
    // 32 bits are fine enough, and their quotient is below one, so that the product cannot overflow.
    d.mul_f64(f64::from((random >> 32) as u32) / f64::from(u32::MAX))
}

pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    crate::id::random_bytes(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// An error as it can be stored: PostgreSQL's text has no NUL, and a job that cannot be put down is run for ever.
pub(super) fn storable(error: &str) -> String {
    error
        .chars()
        .map(|c| if c == '\0' { '\u{FFFD}' } else { c })
        .take(LONGEST_ERROR)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap_and_end() {
        let longest = |attempt| retry_in("send_email", attempt, u64::MAX).map(|d| d.as_secs());
        let all: Vec<_> = (1..=12).map(longest).collect();
        let expected = [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600];
        assert_eq!(all[..11], expected.map(Some));
        assert_eq!(all[11], None);
        assert_eq!(longest(i64::MAX), None);
    }

    #[test]
    fn jitter_is_full() {
        assert_eq!(retry_in("send_email", 3, 0), Some(Duration::ZERO));
        let half = retry_in("send_email", 3, u64::MAX / 2).unwrap().as_secs_f64();
        assert!((half - 10.0).abs() < 0.001, "{half}");
        for _ in 0..1_000 {
            assert!(retry_in("run_refund", 2, random()).unwrap() <= Duration::from_secs(10));
        }
    }

    #[test]
    fn periodic_jobs_are_never_given_up() {
        for attempt in [1, 12, 1_000, i64::MAX] {
            assert!(retry_in("purge", attempt, u64::MAX).unwrap() <= Duration::from_secs(60));
        }
    }

    #[test]
    fn lanes_share_all_slots() {
        assert_eq!(Slots::share(16).lanes, [7, 7, 2]);
        for total in 3..200 {
            let slots = Slots::share(total);
            assert_eq!(slots.lanes.iter().sum::<usize>(), total);
            assert!(slots.lanes.iter().all(|n| *n > 0), "{slots:?}");
        }
        for total in 0..3 {
            assert_eq!(Slots::share(total).count(), total.max(1));
        }
    }

    #[test]
    fn a_full_lane_leaves_the_others_open() {
        let mut slots = Slots::share(16);
        let before = slots;
        let taken = (0..100).filter(|_| slots.take("cancel_payment")).count();
        assert_eq!(taken, 7);
        let open = slots.kinds();
        assert!(open.contains(&("send_email", 7)) && open.contains(&("purge", 2)));
        assert!(open.iter().all(|(kind, _)| lane(kind) != Some(Lane::Gateway)));
        assert!(slots.take("send_email") && slots.take("purge"));
        assert!(!slots.take("of_the_future"));
        (0..7).for_each(|_| slots.free("cancel_payment"));
        slots.free("send_email");
        slots.free("purge");
        assert_eq!(slots, before);
    }

    #[test]
    fn errors_are_cut_and_cleaned() {
        assert_eq!(storable("a\0b"), "a\u{FFFD}b");
        assert_eq!(storable(&"é".repeat(5_000)).chars().count(), LONGEST_ERROR);
    }
}
