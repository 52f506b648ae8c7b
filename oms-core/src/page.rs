//! Lists come in pages, by an opaque cursor.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Which part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// The `next_cursor` of the page before; none for the first page.
    pub cursor: Option<String>,
    /// How many items at most; 50 when not given, never more than [`PageRequest::MAX`].
    pub limit: Option<u32>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub data: Vec<T>,
    /// Where the next page begins; none after the last.
    pub next_cursor: Option<String>,
}

impl PageRequest {
    /// The largest page.
    pub const MAX: u32 = 200;

    pub(crate) fn limit(&self) -> Result<i64> {
        match self.limit {
            None => Ok(50),
            Some(n @ 1..=Self::MAX) => Ok(i64::from(n)),
            Some(_) => Err(Error::invalid("/limit", "must be between 1 and 200")),
        }
    }

    /// What the cursor points after: whatever [`Page::cut`] was given for the last item.
    pub(crate) fn after<K: DeserializeOwned>(&self) -> Result<Option<K>> {
        let Some(cursor) = &self.cursor else {
            return Ok(None);
        };
        URL_SAFE_NO_PAD
            .decode(cursor)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .map(Some)
            .ok_or_else(|| Error::invalid("/cursor", "is not a cursor of this list"))
    }
}

impl<T> Page<T> {
    /// Makes a page of `rows`, which were asked for with one more than `limit`.
    pub(crate) fn cut<K: Serialize>(mut rows: Vec<T>, limit: i64, key: impl Fn(&T) -> K) -> Self {
        let limit = usize::try_from(limit).unwrap_or(0);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|last| {
            // Keys are ids, numbers and texts, which always serialise.
            URL_SAFE_NO_PAD.encode(serde_json::to_vec(&key(last)).unwrap_or_default())
        });
        Self {
            data: rows,
            next_cursor,
        }
    }

    /// The same page of other items.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page {
            data: self.data.into_iter().map(f).collect(),
            next_cursor: self.next_cursor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_and_end() {
        let page = Page::cut(vec![1, 2, 3], 2, |n| *n);
        assert_eq!(page.data, [1, 2]);
        let next = PageRequest {
            cursor: page.next_cursor,
            limit: Some(2),
        };
        assert_eq!(next.after::<i32>().unwrap(), Some(2));
        assert_eq!(Page::cut(vec![3], 2, |n| *n).next_cursor, None);
    }

    #[test]
    fn garbage_is_refused() {
        for cursor in ["", "x", "AAAA", "eyJ9"] {
            let request = PageRequest {
                cursor: Some(cursor.into()),
                limit: None,
            };
            assert!(request.after::<i32>().is_err(), "{cursor}");
        }
        assert!(
            PageRequest {
                cursor: None,
                limit: Some(0)
            }
            .limit()
            .is_err()
        );
        assert!(
            PageRequest {
                cursor: None,
                limit: Some(201)
            }
            .limit()
            .is_err()
        );
    }
}
