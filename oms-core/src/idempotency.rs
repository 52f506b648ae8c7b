//! Idempotency keys: the same command with the same key takes effect once.
//!
//! A key is stored in the commit of its effect with the id of what it made. A refusal stores nothing.

use std::str::FromStr;

use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::actor::Actor;
use crate::db::{Tx, run};
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// What a client sends to make a retry safe: 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let visible = text.bytes().all(|b| b.is_ascii_graphic());
        if visible && (1..=255).contains(&text.len()) {
            Ok(Self(text.into()))
        } else {
            Err(Error::invalid(
                "/idempotency_key",
                "must be 1 to 255 visible ASCII characters",
            ))
        }
    }
}

/// What a service method made, and whether this call made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome<T> {
    /// The object as it stands now.
    pub value: T,
    /// True when an earlier call with the same key made it and nothing happened now.
    pub replayed: bool,
}

impl<T> Outcome<T> {
    pub(crate) const fn fresh(value: T) -> Self {
        Self {
            value,
            replayed: false,
        }
    }

    pub(crate) const fn replayed(value: T) -> Self {
        Self {
            value,
            replayed: true,
        }
    }
}

/// A key in its scope (actor, operation, target) with the fingerprint of the whole command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) id: Uuid,
    pub(crate) operation: &'static str,
    pub(crate) key: IdempotencyKey,
    pub(crate) fingerprint: Vec<u8>,
}

/// What the table says of a [`Claim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// It is ours: the effect may follow in the same transaction.
    Fresh,
    /// The same command was carried out and made this.
    Replay(Uuid),
}

impl Claim {
    /// `target` names the object that the operation works on; empty where it makes a new one.
    pub(crate) fn new(
        actor: &Actor,
        operation: &'static str,
        target: &str,
        key: &IdempotencyKey,
        command: &impl Serialize,
    ) -> Result<Self> {
        let mut scope = Sha256::new();
        for part in [&actor.to_string(), operation, target, key.as_str()] {
            // The length before each part keeps ("ab", "c") apart from ("a", "bc").
            scope.update((part.len() as u64).to_be_bytes());
            scope.update(part);
        }
        let command =
            serde_json::to_vec(command).map_err(|e| Error::Internal(format!("fingerprint: {e}")))?;
        let mut id = [0; 16];
        id.copy_from_slice(&scope.finalize()[..16]);
        Ok(Self {
            id: Uuid::from_bytes(id),
            operation,
            key: key.clone(),
            fingerprint: Sha256::digest(&command).to_vec(),
        })
    }

    /// Judges a stored row.
    pub(crate) fn judge(&self, fingerprint: &[u8], result: Uuid) -> Result<Uuid> {
        if fingerprint == self.fingerprint {
            Ok(result)
        } else {
            Err(Error::IdempotencyKeyReused)
        }
    }

    /// Takes the key for `result`, or says what took it before. Waits for another transaction that is taking it now.
    pub(crate) async fn take(&self, tx: &mut Tx, result: Uuid, now: Timestamp) -> Result<Claimed> {
        let inserted = run!(tx, |conn| {
            sqlx::query(
                "INSERT INTO oms_idempotency (id, operation, key, fingerprint, result_id, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            )
            .bind(self.id)
            .bind(self.operation)
            .bind(self.key.as_str())
            .bind(&self.fingerprint)
            .bind(result)
            .bind(now)
            .execute(conn)
            .await
            .map(|done| done.rows_affected())
        })?;
        if inserted == 1 {
            return Ok(Claimed::Fresh);
        }
        match self.find(tx).await? {
            Some(result) => Ok(Claimed::Replay(result)),
            // It was there a moment ago: only a purge of old keys can have come between.
            None => Err(Error::overloaded()),
        }
    }

    /// What the key made before, if anything.
    pub(crate) async fn find(&self, tx: &mut Tx) -> Result<Option<Uuid>> {
        let row: Option<(Vec<u8>, Uuid)> = run!(tx, |conn| {
            sqlx::query_as("SELECT fingerprint, result_id FROM oms_idempotency WHERE id = $1")
                .bind(self.id)
                .fetch_optional(conn)
                .await
        })?;
        row.map(|(fingerprint, result)| self.judge(&fingerprint, result))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_visible_ascii() {
        for bad in ["", " ", "a b", "é", "a\n", &"x".repeat(256)] {
            assert!(bad.parse::<IdempotencyKey>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(255).parse::<IdempotencyKey>().is_ok());
    }

    #[test]
    fn scopes_and_fingerprints() {
        let key: IdempotencyKey = "k".parse().unwrap();
        let claim = |operation, target, command: &str| {
            Claim::new(&Actor::System, operation, target, &key, &command).unwrap()
        };
        let base = claim("place", "", "x");
        assert_eq!(base, claim("place", "", "x"));
        assert_eq!(base.id, claim("place", "", "y").id);
        assert_ne!(base.id, claim("cancel", "", "x").id);
        assert_ne!(base.id, claim("plac", "e", "x").id);
        assert!(matches!(
            base.judge(&claim("place", "", "y").fingerprint, Uuid::nil()),
            Err(Error::IdempotencyKeyReused)
        ));
    }
}
