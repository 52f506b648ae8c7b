//! For the tests of programs that embed the library: a clock to set, mails to look at and a gateway to direct.

mod gateway;
mod ledger;
#[doc(hidden)]
pub mod pure;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

pub use gateway::{Ask, Fake, FakeGateway};
pub use ledger::{FakePayment, FakeRefund};

use crate::mail::{MailError, Mailer, Message};
use crate::time::{Clock, Timestamp};

/// A clock that stands still until it is moved. Clones share the time.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// Starts at this time.
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.as_micros())))
    }

    /// Moves on.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// Keeps mails instead of sending them. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct CapturedMails {
    sent: Arc<Mutex<Vec<Message>>>,
    failures: Arc<Mutex<Vec<MailError>>>,
}

impl CapturedMails {
    /// What was sent so far, the oldest first.
    pub fn all(&self) -> Vec<Message> {
        guard(&self.sent).clone()
    }

    /// What was sent to this address.
    pub fn to(&self, address: &str) -> Vec<Message> {
        self.all().into_iter().filter(|m| m.to == address).collect()
    }

    /// Makes the next mail fail in this way.
    pub fn fail_next(&self, error: MailError) {
        guard(&self.failures).push(error);
    }
}

#[async_trait]
impl Mailer for CapturedMails {
    async fn send(&self, message: Message) -> Result<(), MailError> {
        if let Some(error) = guard(&self.failures).pop() {
            return Err(error);
        }
        guard(&self.sent).push(message);
        Ok(())
    }
}

/// A test that panicked while it held the lock has failed already; the others may go on.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
