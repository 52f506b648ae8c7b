//! What runs by the clock. A row per schedule is moved on by compare-and-set in the transaction that enqueues the
//! job, so there is no leader and nothing fires twice.

use std::time::Duration;

use super::Job;
use crate::time::Timestamp;

/// Name, period and job of each schedule. The name is the kind of the job.
pub(super) const PERIODIC: [(&str, Duration, Job); 3] = [
    ("expire_orders", Duration::from_secs(10), Job::ExpireOrders),
    ("rescue_attempts", Duration::from_secs(30), Job::RescueAttempts),
    ("purge", Duration::from_secs(3600), Job::Purge),
];

/// When a schedule runs next, or none when it is due. A time that is further away than the period was written by a
/// clock that went wrong.
pub(super) fn next(stored: Option<Timestamp>, now: Timestamp, period: Duration) -> Option<Timestamp> {
    stored.filter(|at| *at > now && *at <= now + period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::rules::{Lane, lane};

    #[test]
    fn due_when_new_past_or_absurd() {
        let (now, period) = (Timestamp::from_millis(1_000_000), Duration::from_secs(10));
        let soon = now + Duration::from_secs(3);
        assert_eq!(next(Some(soon), now, period), Some(soon));
        assert_eq!(next(None, now, period), None);
        assert_eq!(next(Some(now), now, period), None);
        assert_eq!(next(Some(now + period + period), now, period), None);
    }

    #[test]
    fn schedules_are_upkeep() {
        for (kind, _, _) in PERIODIC {
            assert_eq!(lane(kind), Some(Lane::Upkeep), "{kind}");
        }
    }
}
