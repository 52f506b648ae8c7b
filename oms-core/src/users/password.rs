//! Password hashes: argon2id, few at a time.
//!
//! One hash takes tens of milliseconds and 19 MiB. So they run on blocking threads, no more at once than there are
//! cores, with a short queue before them: a flood of log-ins is told to come back and takes neither all memory nor
//! the time of what else the process does.

use std::sync::Arc;

use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Argon2, Params};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;

use crate::error::{Error, Result};
use crate::id::random_bytes;

/// Callers that may wait for their turn: about two seconds' work on two cores.
const WAITING: usize = 64;

/// Longer input is refused before anything is done with it.
pub(super) const MAX_BYTES: usize = 1_024;

/// The hasher of one [`Oms`](crate::Oms).
pub(crate) struct Passwords {
    running: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Passwords {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            running: Arc::new(Semaphore::new(cores)),
            waiting: Semaphore::new(WAITING),
        }
    }

    /// The PHC text of a new hash with its own salt.
    pub(super) async fn hash(&self, password: &str) -> Result<String> {
        let password = normalised(password);
        self.run(move || {
            let mut salt = [0; 16];
            random_bytes(&mut salt);
            Argon2::from(Params::DEFAULT)
                .hash_password_with_salt(password.as_bytes(), &salt)
                .map(|hash| hash.to_string())
                .map_err(|e| Error::Internal(format!("password hash: {e}")))
        })
        .await?
    }

    /// Whether the password belongs to the hash. Without a hash it works as long and says no, so that the time does
    /// not tell who has an account.
    pub(super) async fn verify(&self, password: &str, hash: Option<String>) -> Result<bool> {
        if password.len() > MAX_BYTES {
            return Ok(false);
        }
        let password = normalised(password);
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(nobodys);
        let matches = self
            .run(move || {
                let hash = PasswordHash::new(&hash)
                    .map_err(|e| Error::Internal(format!("stored password hash: {e}")))?;
                // The cost stands in the hash: old hashes stay valid when the cost of new ones rises.
                Ok::<_, Error>(
                    Argon2::default()
                        .verify_password(password.as_bytes(), &hash)
                        .is_ok(),
                )
            })
            .await??;
        Ok(known && matches)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let place = self.waiting.try_acquire().map_err(|_| Error::overloaded())?;
        let turn = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .map_err(|_| Error::overloaded())?;
        drop(place);
        tokio::task::spawn_blocking(move || {
            // Held by the work itself: a caller that goes away does not stop it.
            let _turn = turn;
            work()
        })
        .await
        .map_err(|e| Error::Internal(format!("password hash: {e}")))
    }
}

/// The same password typed on another system may come in another Unicode form.
fn normalised(password: &str) -> String {
    password.nfc().collect()
}

/// A hash of no password at the cost of new ones.
fn nobodys() -> String {
    let p = Params::DEFAULT;
    format!(
        "$argon2id$v=19$m={},t={},p={}${}${}",
        p.m_cost(),
        p.t_cost(),
        p.p_cost(),
        "A".repeat(22),
        "A".repeat(43)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hashes_are_salted_argon2id_and_verify() {
        let passwords = Passwords::new();
        let hash = passwords.hash("correct horse").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, passwords.hash("correct horse").await.unwrap());
        assert!(
            passwords
                .verify("correct horse", Some(hash.clone()))
                .await
                .unwrap()
        );
        assert!(!passwords.verify("correct horsf", Some(hash)).await.unwrap());
        assert!(!passwords.verify("correct horse", None).await.unwrap());
    }

    #[tokio::test]
    async fn the_end_of_a_long_password_counts_and_unicode_forms_do_not() {
        let passwords = Passwords::new();
        let hash = passwords.hash(&format!("{}x", "é".repeat(127))).await.unwrap();
        let same = format!("{}x", "e\u{301}".repeat(127));
        let other = format!("{}y", "é".repeat(127));
        assert!(passwords.verify(&same, Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify(&other, Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn nobodys_hash_costs_what_a_real_one_does() {
        let real = Passwords::new().hash("correct horse").await.unwrap();
        let nobodys = nobodys();
        assert!(PasswordHash::new(&nobodys).is_ok());
        assert_eq!(nobodys.len(), real.len());
        let cost = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(cost(&nobodys), cost(&real));
    }

    #[tokio::test]
    async fn a_full_queue_sends_away() {
        let passwords = Arc::new(Passwords::new());
        let cores = u32::try_from(passwords.running.available_permits()).unwrap();
        let turns = passwords.running.acquire_many(cores).await.unwrap();
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| {
                let passwords = Arc::clone(&passwords);
                tokio::spawn(async move { passwords.run(|| ()).await })
            })
            .collect();
        while passwords.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(
            passwords.run(|| ()).await,
            Err(Error::Overloaded { .. })
        ));
        drop(turns);
        for one in waiting {
            one.await.unwrap().unwrap();
        }
        passwords.run(|| ()).await.unwrap();
    }
}
