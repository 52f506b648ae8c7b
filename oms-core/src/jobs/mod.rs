//! Background jobs: a table beside the business tables, so that a job exists exactly when its cause was committed.
//!
//! ```text
//! enqueue -> ready --claim--> running --+--> done (deleted)
//!              ^                        +--> dead (oms_job_dead) --retry--> ready
//!              +-- failed, given back, or the lease ran out
//! ```

mod admin;
mod exchange;
mod purge;
mod rules;
mod run;
mod schedule;
mod store;
mod worker;

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::{FulfillmentId, InboxId, OrderId, PaymentId, RefundId, UserId};
use crate::time::Timestamp;

pub use admin::{JobCount, JobFilter, JobState, JobView, Jobs};
pub(crate) use store::enqueue;
pub use worker::Worker;

/// A hint between processes that share a database: there may be work. The truth stays in the database and workers look
/// there by themselves, so that a ring which is lost, late, doubled or merged with others only costs time.
#[async_trait]
pub trait Doorbell: Send + Sync + 'static {
    /// Tells one idle worker somewhere. Called after every commit with jobs: it must return at once, whatever became of
    /// the other side.
    fn ring(&self);

    /// Until somebody rings. Called by workers that are idle, and dropped when something else woke them. It must not
    /// return for any other reason, nor when the other side cannot be reached.
    async fn wait(&self);
}

/// Every kind of job that this program knows.
pub(crate) fn known_kinds() -> impl Iterator<Item = &'static str> {
    rules::KINDS.into_iter().map(|(kind, _)| kind)
}

/// What can be done in the background. Payloads carry ids, not data; every handler is safe to run twice.
/// Old variants stay until the last job of their kind is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "payload", rename_all = "snake_case")]
pub(crate) enum Job {
    SendEmail(EmailJob),
    /// Give up a payment of an order that no longer wants it.
    CancelPayment {
        payment: PaymentId,
    },
    /// Carry out a refund whose row stands.
    RunRefund {
        refund: RefundId,
    },
    /// Ask the gateway what became of a payment.
    ReconcilePayment {
        payment: PaymentId,
    },
    /// Apply an event whose payment was not known when it came.
    MatchWebhook {
        inbox: InboxId,
    },
    /// Periodic: orders that were not paid in time.
    ExpireOrders,
    /// Periodic: attempts that a crash left between their two transactions.
    RescueAttempts,
    /// Periodic: tokens and sessions past their time.
    Purge,
}

/// Which mail. What it says is read when it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mail", rename_all = "snake_case")]
pub(crate) enum EmailJob {
    VerifyAddress { user: UserId },
    OrderPaid { order: OrderId },
    OrderCanceled { order: OrderId },
    OrderExpired { order: OrderId },
    OrderShipped { fulfillment: FulfillmentId },
    Refunded { refund: RefundId },
}

/// A job to enqueue.
#[derive(Debug, Clone)]
pub(crate) struct NewJob {
    pub(crate) job: Job,
    pub(crate) run_at: Timestamp,
    /// While a job of the same kind and key lives, this one is not added.
    pub(crate) unique_key: Option<String>,
}

impl NewJob {
    pub(crate) const fn at(run_at: Timestamp, job: Job) -> Self {
        Self {
            job,
            run_at,
            unique_key: None,
        }
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers hand over what they just made"
    )]
    pub(crate) fn unique(mut self, key: impl ToString) -> Self {
        self.unique_key = Some(key.to_string());
        self
    }
}

/// How a job failed.
#[derive(Debug)]
pub(crate) enum JobError {
    /// Later again, until the attempts are used up.
    Retry(String),
    /// Later again, at this time; does not use up an attempt. For schedules of their own.
    Again(Timestamp),
    /// Never again: it moves to the dead letters.
    Fail(String),
}

impl JobError {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers hand over what they just made"
    )]
    pub(crate) fn retry(why: impl ToString) -> Self {
        Self::Retry(why.to_string())
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers hand over what they just made"
    )]
    pub(crate) fn fail(why: impl ToString) -> Self {
        Self::Fail(why.to_string())
    }
}

/// A defect or a passing fault: both are tried again, and end as a dead letter that a person sees.
impl From<Error> for JobError {
    fn from(e: Error) -> Self {
        Self::Retry(e.to_string())
    }
}
