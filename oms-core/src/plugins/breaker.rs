//! Leaves a plugin alone that fails again and again: for some time nobody asks it, then one call tries.
//!
//! There is a circuit for each version, account and kind of work. By version, so that a repaired one begins anew; by
//! account, because one merchant's settings may be what it trips over; by kind of work, because anybody can send a
//! webhook, and one that makes the plugin trap must not keep payments waiting.
//!
//! Each process counts for itself: it needs no look into the database, and another may well be able to go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::manifest::Manifest;
use crate::payments::Work;
use crate::time::Timestamp;

/// The first pause; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// How long a call that tries may keep the others waiting. It may never come to be: what was admitted can still be
/// refused for other reasons, and then nobody says how it ended.
const TRIAL: Duration = Duration::from_secs(10);

/// What is kept of a failure's words.
const MAX_WORDS: usize = 300;

/// Circuits that are kept, of far fewer accounts and versions than could be.
const MAX_CIRCUITS: usize = 1_000;

/// How long the pauses may become. Whoever sends webhooks that make a plugin trap shall not gain much by it.
const fn longest_pause(work: Work) -> Duration {
    match work {
        Work::Operation => Duration::from_secs(300),
        Work::Webhook => Duration::from_secs(20),
    }
}

/// The circuits of a process. Only those that have seen a failure are there.
#[derive(Default)]
pub(super) struct Breakers(Mutex<HashMap<Key, Circuit>>);

/// What a circuit is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) digest: String,
    pub(super) account: String,
    pub(super) work: Work,
}

impl Key {
    pub(super) fn new(digest: &str, account: &str, work: Work) -> Self {
        Self {
            digest: digest.to_owned(),
            account: account.to_owned(),
            work,
        }
    }
}

struct Circuit {
    plugin: Arc<Manifest>,
    /// In a row.
    failures: u32,
    state: State,
    pause: Duration,
    failed_at: Timestamp,
    words: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// Nobody asks before then.
    Open(Timestamp),
    /// One call tries; nobody else asks before then, unless it ends earlier.
    Trying(Timestamp),
}

/// Whether a plugin is asked for an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// As always.
    Closed,
    /// Not before `retry_at`.
    Open,
    /// One call tries, or the next one will.
    HalfOpen,
}

impl BreakerState {
    /// Its spelling in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// How a version does for an account, as this process has seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountHealth {
    /// The account.
    pub account: String,
    /// Operations or webhooks.
    pub work: Work,
    /// Whether it is asked.
    pub state: BreakerState,
    /// Failures in a row.
    pub failures: u32,
    /// When it may be asked again, where it may not now.
    pub retry_at: Option<Timestamp>,
    /// When it failed last.
    pub failed_at: Timestamp,
    /// How it failed last: without the secrets that it saw, and shortened.
    pub failure: String,
}

/// What an end of a call has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    None,
    Opened(Duration),
    Closed,
}

impl Breakers {
    /// Whether a call may be made; if not, when to come back. Where it is the one that tries, the others wait for it.
    pub(super) fn admit(&self, key: &Key, now: Timestamp) -> Result<(), Timestamp> {
        let mut circuits = self.lock();
        let Some(circuit) = circuits.get_mut(key) else {
            return Ok(());
        };
        if let Some(at) = circuit.waits(now) {
            return Err(at);
        }
        if circuit.state != State::Closed {
            circuit.state = State::Trying(now + TRIAL);
        }
        Ok(())
    }

    /// When a call that would not be admitted now may come back.
    pub(super) fn waits(&self, key: &Key, now: Timestamp) -> Option<Timestamp> {
        self.lock().get(key)?.waits(now)
    }

    /// The guest answered, whatever it said.
    pub(super) fn answered(&self, key: &Key) -> Turn {
        match self.lock().get_mut(key) {
            None => Turn::None,
            Some(circuit) => circuit.close(),
        }
    }

    /// It trapped, came too late or broke the contract. After some times in a row it is left alone.
    pub(super) fn failed(&self, key: &Key, plugin: &Arc<Manifest>, words: &str, now: Timestamp) -> Turn {
        let mut circuits = self.lock();
        if circuits.len() >= MAX_CIRCUITS && !circuits.contains_key(key) {
            let oldest = circuits.iter().min_by_key(|(_, circuit)| circuit.failed_at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                circuits.remove(&oldest);
            }
        }
        let circuit = circuits.entry(key.clone()).or_insert_with(|| Circuit {
            plugin: Arc::clone(plugin),
            failures: 0,
            state: State::Closed,
            pause: Duration::ZERO,
            failed_at: now,
            words: String::new(),
        });
        circuit.fail(longest_pause(key.work), words, now)
    }

    /// How a version does, by account.
    pub(super) fn of(&self, digest: &str, now: Timestamp) -> Vec<AccountHealth> {
        let circuits = self.lock();
        let mut found: Vec<_> = circuits
            .iter()
            .filter(|(key, _)| key.digest == digest)
            .map(|(key, circuit)| circuit.health(key, now))
            .collect();
        found.sort_by(|a, b| (&a.account, a.work.as_str()).cmp(&(&b.account, b.work.as_str())));
        found
    }

    /// Whether any version is left alone now for this account and work.
    pub(super) fn is_open(&self, account: &str, work: Work, now: Timestamp) -> bool {
        let circuits = self.lock();
        let mut of_it = circuits
            .iter()
            .filter(|(key, _)| key.account == account && key.work == work);
        of_it.any(|(_, circuit)| circuit.waits(now).is_some())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Circuit>> {
        // Held for a look-up alone, so a panic cannot have left it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Circuit {
    fn waits(&self, now: Timestamp) -> Option<Timestamp> {
        match self.state {
            State::Closed => None,
            // A time further away than any pause: the clock was set back.
            State::Open(until) | State::Trying(until) => {
                (until > now && until.since(now) <= self.pause.max(TRIAL)).then_some(until)
            }
        }
    }

    fn close(&mut self) -> Turn {
        self.failures = 0;
        self.pause = Duration::ZERO;
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Closed => Turn::None,
            State::Open(_) | State::Trying(_) => Turn::Closed,
        }
    }

    fn fail(&mut self, longest: Duration, words: &str, now: Timestamp) -> Turn {
        self.failures = self.failures.saturating_add(1);
        self.failed_at = now;
        self.words = words.chars().take(MAX_WORDS).collect();
        let opens = match self.state {
            State::Closed => self.failures >= self.plugin.limits.failures,
            // A straggler that began before; it says nothing new.
            State::Open(until) => until <= now,
            State::Trying(_) => true,
        };
        if !opens {
            return Turn::None;
        }
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, longest);
        self.state = State::Open(now + self.pause);
        Turn::Opened(self.pause)
    }

    fn health(&self, key: &Key, now: Timestamp) -> AccountHealth {
        let waits = self.waits(now);
        AccountHealth {
            account: key.account.clone(),
            work: key.work,
            state: match (self.state, waits) {
                (State::Closed, _) => BreakerState::Closed,
                (State::Open(_), Some(_)) => BreakerState::Open,
                (State::Open(_), None) | (State::Trying(_), _) => BreakerState::HalfOpen,
            },
            failures: self.failures,
            retry_at: waits,
            failed_at: self.failed_at,
            failure: self.words.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);

    fn at(seconds: u64) -> Timestamp {
        NOW + Duration::from_secs(seconds)
    }

    fn key(account: &str, work: Work) -> Key {
        Key::new("d1", account, work)
    }

    fn plugin(failures: u32) -> Arc<Manifest> {
        let text = format!(
            "id = \"acme\"\nversion = \"1.0.0\"\ncontract = \"oms:payment@1\"\nwasm = \"a.wasm\"\n[limits]\nfailures = {failures}"
        );
        Arc::new(Manifest::parse(&text).unwrap())
    }

    fn opened(seconds: u64) -> Turn {
        Turn::Opened(Duration::from_secs(seconds))
    }

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_closes_it() {
        let breakers = Breakers::default();
        let shop = key("shop", Work::Operation);
        assert_eq!(breakers.failed(&shop, &plugin(3), "trap", at(0)), Turn::None);
        assert_eq!(breakers.failed(&shop, &plugin(3), "trap", at(0)), Turn::None);
        assert_eq!(breakers.answered(&shop), Turn::None, "not in a row any more");
        for _ in 0..2 {
            assert_eq!(breakers.failed(&shop, &plugin(3), "trap", at(1)), Turn::None);
            assert_eq!(breakers.admit(&shop, at(1)), Ok(()));
        }
        assert_eq!(breakers.failed(&shop, &plugin(3), "trap", at(1)), opened(5));
        assert_eq!(breakers.admit(&shop, at(2)), Err(at(6)));
        assert_eq!(breakers.waits(&shop, at(2)), Some(at(6)));
        assert!(breakers.is_open("shop", Work::Operation, at(2)));
        assert!(!breakers.is_open("shop", Work::Webhook, at(2)));
        assert!(!breakers.is_open("other", Work::Operation, at(2)));
        // Others are not touched: another account, the same one's webhooks, another version.
        let mut other = shop.clone();
        other.digest = "d2".into();
        for other in [key("other", Work::Operation), key("shop", Work::Webhook), other] {
            assert_eq!(breakers.admit(&other, at(2)), Ok(()));
        }
        // One tries, and the others wait for it.
        assert_eq!(breakers.waits(&shop, at(6)), None);
        assert_eq!(breakers.admit(&shop, at(6)), Ok(()));
        assert_eq!(breakers.admit(&shop, at(6)), Err(at(16)));
        assert_eq!(breakers.answered(&shop), Turn::Closed);
        assert_eq!(breakers.admit(&shop, at(6)), Ok(()));
        assert_eq!(
            breakers.failed(&shop, &plugin(3), "trap", at(7)),
            Turn::None,
            "counted anew"
        );
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let breakers = Breakers::default();
        for (work, longest) in [(Work::Operation, 300), (Work::Webhook, 20)] {
            let shop = key("shop", work);
            let (mut now, mut pauses) = (NOW, Vec::new());
            for _ in 0..9 {
                assert_eq!(breakers.admit(&shop, now), Ok(()));
                let Turn::Opened(pause) = breakers.failed(&shop, &plugin(1), "trap", now) else {
                    panic!("it tried and failed");
                };
                pauses.push(pause.as_secs());
                assert_eq!(
                    breakers.failed(&shop, &plugin(1), "late", now),
                    Turn::None,
                    "a straggler"
                );
                now = now + pause;
            }
            let expected: Vec<u64> = (0..9).map(|n| (5 << n).min(longest)).collect();
            assert_eq!(pauses, expected);
        }
    }

    #[test]
    fn a_trial_that_never_ends_makes_room_for_another() {
        let breakers = Breakers::default();
        let shop = key("shop", Work::Operation);
        assert_eq!(breakers.failed(&shop, &plugin(1), "trap", NOW), opened(5));
        assert_eq!(breakers.admit(&shop, at(5)), Ok(()));
        assert_eq!(breakers.admit(&shop, at(14)), Err(at(15)));
        assert_eq!(breakers.admit(&shop, at(15)), Ok(()));
        // Nor does a clock that is set back keep it waiting for hours.
        assert_eq!(breakers.admit(&shop, NOW - Duration::from_secs(3_600)), Ok(()));
    }

    #[test]
    fn what_is_shown() {
        let breakers = Breakers::default();
        let shop = key("shop", Work::Webhook);
        breakers.failed(&shop, &plugin(1), &"x".repeat(1_000), NOW);
        let shown = |now| breakers.of("d1", now).remove(0);
        let open = shown(at(1));
        assert_eq!((open.state, open.retry_at), (BreakerState::Open, Some(at(5))));
        assert_eq!((open.failure.len(), open.failures), (MAX_WORDS, 1));
        assert_eq!(shown(at(5)).state, BreakerState::HalfOpen);
        breakers.answered(&shop);
        let closed = shown(at(6));
        assert_eq!((closed.state, closed.failures), (BreakerState::Closed, 0));
        assert_eq!(closed.failed_at, NOW, "the last failure stays to be seen");
        assert!(breakers.of("d2", NOW).is_empty());
    }

    #[test]
    fn there_is_an_end_to_them() {
        let breakers = Breakers::default();
        for n in 0..MAX_CIRCUITS as u64 + 10 {
            breakers.failed(&key(&format!("a{n}"), Work::Operation), &plugin(5), "trap", at(n));
        }
        assert_eq!(breakers.of("d1", NOW).len(), MAX_CIRCUITS);
    }
}
