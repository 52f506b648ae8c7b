//! Limits that several servers count together: the generic cell rate algorithm, in one script, by the clock of Redis.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use super::{PREFIX, Redis};
use crate::limits::{Limit, Verdict};

/// A key holds the time at which its whole quota is there again, in microseconds, and goes at that time.
///
/// No answer may depend on how a stored time compares to a clock that was set back: it is never further away than the
/// whole window.
const TAKE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local quota, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local step = window / quota
local full = tonumber(redis.call('GET', KEYS[1])) or now
full = math.max(now, math.min(full, now + window))
local wait = full + step - (now + window)
if wait >= 1 then
    return {0, 0, math.ceil(wait)}
end
full = full + step
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', string.format('%.0f', math.ceil((full - now) / 1000)))
return {1, math.max(0, math.floor((now + window - full) / step)), math.ceil(full - now)}
";

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(TAKE));

impl Redis {
    /// Takes one from what `key` may have; None when Redis is away.
    pub(crate) async fn take(&self, key: &str, limit: Limit) -> Option<Verdict> {
        let mut call = SCRIPT.key(format!("{PREFIX}limit:{key}"));
        call.arg(limit.quota).arg(limit.window.as_micros().to_string());
        let (allowed, remaining, micros): (u8, u32, u64) = self
            .link
            .ask(|mut connection| async move { call.invoke_async(&mut connection).await })
            .await?;
        Some(Verdict {
            allowed: allowed == 1,
            remaining,
            reset: Duration::from_micros(micros),
        })
    }
}
