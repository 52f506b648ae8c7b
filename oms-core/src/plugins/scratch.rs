//! Memory of plugins between calls: access tokens, signing certificates. May be emptied at any time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::time::Timestamp;

const MAX_ENTRIES: usize = 64;
const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 64 << 10;

/// Values by (plugin, account) and key. No plugin sees another's, and no account another's.
#[derive(Default)]
pub(super) struct Scratch(Mutex<HashMap<(String, String), Shelf>>);

type Shelf = HashMap<String, Entry>;

struct Entry {
    value: Vec<u8>,
    expires: Timestamp,
}

impl Scratch {
    pub(super) fn get(&self, owner: (&str, &str), key: &str, now: Timestamp) -> Option<Vec<u8>> {
        let shelves = self.lock();
        let entry = shelves.get(&owned(owner))?.get(key)?;
        (entry.expires > now).then(|| entry.value.clone())
    }

    /// Keeps a value. What is too large is not kept; a full shelf loses what would expire first.
    pub(super) fn set(
        &self,
        owner: (&str, &str),
        key: String,
        value: Vec<u8>,
        ttl: Duration,
        now: Timestamp,
    ) {
        let mut shelves = self.lock();
        let shelf = shelves.entry(owned(owner)).or_default();
        shelf.remove(&key);
        if key.len() > MAX_KEY || value.len() > MAX_VALUE || ttl.is_zero() {
            return;
        }
        shelf.retain(|_, entry| entry.expires > now);
        while shelf.len() >= MAX_ENTRIES {
            let first = shelf.iter().min_by_key(|(_, entry)| entry.expires);
            let Some(key) = first.map(|(key, _)| key.clone()) else {
                break;
            };
            shelf.remove(&key);
        }
        let expires = now + ttl;
        shelf.insert(key, Entry { value, expires });
    }

    /// A panic while it was held can at most have lost an entry.
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Shelf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn owned((plugin, account): (&str, &str)) -> (String, String) {
    (plugin.to_owned(), account.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);
    const TTL: Duration = Duration::from_secs(10);

    #[test]
    fn owners_do_not_see_each_other() {
        let scratch = Scratch::default();
        scratch.set(("mock", "a"), "token".into(), b"1".to_vec(), TTL, NOW);
        assert_eq!(scratch.get(("mock", "a"), "token", NOW), Some(b"1".to_vec()));
        assert_eq!(scratch.get(("mock", "b"), "token", NOW), None);
        assert_eq!(scratch.get(("other", "a"), "token", NOW), None);
    }

    #[test]
    fn entries_expire_by_the_given_clock() {
        let scratch = Scratch::default();
        scratch.set(("p", "a"), "k".into(), vec![1], TTL, NOW);
        assert!(
            scratch
                .get(("p", "a"), "k", NOW + Duration::from_secs(9))
                .is_some()
        );
        assert!(scratch.get(("p", "a"), "k", NOW + TTL).is_none());
    }

    #[test]
    fn size_and_number_are_bounded() {
        let scratch = Scratch::default();
        scratch.set(("p", "a"), "large".into(), vec![0; MAX_VALUE + 1], TTL, NOW);
        assert_eq!(scratch.get(("p", "a"), "large", NOW), None);
        for i in 0..=MAX_ENTRIES {
            let ttl = Duration::from_secs(10 + i as u64);
            scratch.set(("p", "a"), i.to_string(), vec![1], ttl, NOW);
        }
        assert_eq!(
            scratch.get(("p", "a"), "0", NOW),
            None,
            "the first to expire made room"
        );
        assert!(scratch.get(("p", "a"), &MAX_ENTRIES.to_string(), NOW).is_some());
    }

    #[test]
    fn a_value_that_is_too_large_does_not_leave_the_old_one() {
        let scratch = Scratch::default();
        scratch.set(("p", "a"), "k".into(), vec![1], TTL, NOW);
        scratch.set(("p", "a"), "k".into(), vec![0; MAX_VALUE + 1], TTL, NOW);
        assert_eq!(scratch.get(("p", "a"), "k", NOW), None);
    }
}
