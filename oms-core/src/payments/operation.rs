//! One operation at a gateway in three steps, never in one transaction:
//!
//! 1. [`begin`]: a transaction writes the attempt with the gateway's key and binds the client's key to it.
//! 2. [`ask`]: the adapter is called; nothing is locked.
//! 3. [`settle`]: a transaction takes the answer in.
//!
//! A crash between them leaves the attempt in flight; the rescue job makes it unknown and the gateway is asked.

use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument;

use super::gateway::GatewayError;
use super::gateways::Till;
use super::locked::Locked;
use super::model::Payment;
use super::outcome::{answered, refund_answered, refused};
use super::request::{Answer, ask};
use super::store;
use super::store::attempts::{self, Attempt, Operation, Progress};
use crate::actor::Actor;
use crate::cause::Cause;
use crate::error::{Error, Result};
use crate::id::{AttemptId, PaymentId};
use crate::idempotency::{Claim, Claimed, Outcome};
use crate::oms::Oms;
use crate::telemetry;
use crate::time::Timestamp;

/// No adapter may take longer: its outcome counts as unknown then. Below the age at which attempts are rescued.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a retry of a client waits for the first call.
const WAIT: Duration = Duration::from_secs(10);

/// What step 1 found.
pub(super) enum Begun {
    /// A new attempt, and the payment as the gateway is to see it.
    Now(Box<(Payment, Attempt)>),
    /// The client's key began this one before.
    Before(AttemptId),
}

/// An operation as it stands after the three steps, or after the wait for another call's.
pub(super) struct Ended {
    pub(super) payment: Payment,
    pub(super) attempt: Attempt,
}

/// Runs to its end even when the caller goes away: money must not be left between two steps.
pub(super) fn detached<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
    oms: &Oms,
    work: F,
) -> impl Future<Output = Result<T>> + Send + use<T, F> {
    // Another task, but the same cause and the same trace. In a box at once, so that no caller's future holds it too.
    let work = Cause::current().scope(Box::pin(work)).in_current_span();
    let task = oms.inner.tasks.spawn(work);
    async move {
        task.await
            .unwrap_or_else(|e| Err(Error::Internal(format!("a payment's task: {e}"))))
    }
}

/// All three steps of an operation on a payment that exists.
pub(super) async fn run(
    oms: &Oms,
    actor: &Actor,
    till: &Till,
    payment: PaymentId,
    claim: Option<&Claim>,
    operation: Operation,
    prepare: impl FnOnce(&mut Locked, &mut Attempt) -> Result<()>,
) -> Result<Outcome<Ended>> {
    match begin(oms, actor, payment, claim, operation, prepare).await? {
        Begun::Before(attempt) => wait(oms, attempt).await.map(Outcome::replayed),
        Begun::Now(begun) => {
            let (payment, attempt) = *begun;
            carry_out(oms, actor, till, &payment, &attempt)
                .await
                .map(Outcome::fresh)
        }
    }
}

/// Step 1. `prepare` checks rights and state and fills the attempt in; a refusal stores nothing.
async fn begin(
    oms: &Oms,
    actor: &Actor,
    payment: PaymentId,
    claim: Option<&Claim>,
    operation: Operation,
    prepare: impl FnOnce(&mut Locked, &mut Attempt) -> Result<()>,
) -> Result<Begun> {
    let now = oms.now();
    let mut attempt = Attempt::new(payment, operation, now);
    let mut tx = oms.db().write().await?;
    if let Some(claim) = claim {
        if let Claimed::Replay(earlier) = claim.take(&mut tx, attempt.id.uuid(), now).await? {
            tx.rollback().await?;
            return Ok(Begun::Before(AttemptId::from_uuid(earlier)));
        }
        attempt.memo.claim = Some(claim.id);
    }
    let mut locked = Locked::load(&mut tx, payment, actor, now).await?;
    prepare(&mut locked, &mut attempt)?;
    locked.attempts.push(attempt.clone());
    let payment = locked.save(&mut tx).await?;
    tx.commit().await?;
    oms.ring();
    Ok(Begun::Now(Box::new((payment, attempt))))
}

/// Step 1 of another try under the same key. None when somebody else took it up or it has ended.
pub(super) async fn begin_again(
    oms: &Oms,
    attempt: AttemptId,
    payment: PaymentId,
) -> Result<Option<(Payment, Attempt)>> {
    let now = oms.now();
    let mut tx = oms.db().write().await?;
    let mut locked = Locked::load(&mut tx, payment, &Actor::System, now).await?;
    let Some(attempt) = locked.attempt(attempt) else {
        return Ok(None);
    };
    if !matches!(attempt.status, Progress::Unknown | Progress::Failed) {
        return Ok(None);
    }
    attempt.status = Progress::InFlight;
    attempt.error = None;
    attempt.tries += 1;
    attempt.updated_at = now;
    let attempt = attempt.clone();
    // The payment stays unknown meanwhile: stored by itself, not through `save`, which would lift that.
    attempts::save(&mut tx, &attempt).await?;
    tx.commit().await?;
    Ok(Some((locked.payment, attempt)))
}

/// Steps 2 and 3.
pub(super) async fn carry_out(
    oms: &Oms,
    actor: &Actor,
    till: &Till,
    payment: &Payment,
    attempt: &Attempt,
) -> Result<Ended> {
    let asked = Box::pin(async {
        let answer = tokio::time::timeout(PATIENCE, ask(till, payment, attempt, oms.now())).await;
        answer.unwrap_or_else(|_| {
            Err(GatewayError::Indeterminate(
                "the adapter did not answer in time".into(),
            ))
        })
    });
    let answer = telemetry::gateway_call(&till.account.name, attempt.operation.as_str(), asked).await;
    // The answer is worth more than one try: without it the gateway must be asked again later.
    let mut tries = 0;
    loop {
        match settle(oms, actor, payment.id, attempt.id, &answer).await {
            Err(e) if e.is_retryable() && tries < 3 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(200) * tries).await;
            }
            ended => return ended,
        }
    }
}

/// Step 3.
async fn settle(
    oms: &Oms,
    actor: &Actor,
    payment: PaymentId,
    id: AttemptId,
    answer: &Result<Answer, GatewayError>,
) -> Result<Ended> {
    let mut tx = oms.db().write().await?;
    let mut locked = Locked::load(&mut tx, payment, actor, oms.now()).await?;
    let attempt = locked.attempt(id).ok_or(Error::NotFound("payment attempt"))?;
    attempt.updated_at = oms.now();
    let attempt = attempt.clone();
    let freed = match answer {
        Ok(Answer::Payment(report)) => {
            answered(&mut locked, &attempt, report);
            None
        }
        Ok(Answer::Refund(report)) => {
            refund_answered(&mut locked, &attempt, report);
            None
        }
        Err(e) => refused(&mut locked, &attempt, e),
    };
    let attempt = locked.attempt(id).cloned().unwrap_or(attempt);
    let payment = locked.save(&mut tx).await?;
    if let Some(claim) = freed {
        attempts::release(&mut tx, claim).await?;
    }
    tx.commit().await?;
    oms.ring();
    Ok(Ended { payment, attempt })
}

/// Ends an attempt that a crash left in flight, unless somebody touched it since `before`.
pub(super) async fn give_up(oms: &Oms, stale: &Attempt, before: Timestamp) -> Result<()> {
    let mut tx = oms.db().write().await?;
    let mut locked = Locked::load(&mut tx, stale.payment, &Actor::System, oms.now()).await?;
    let Some(attempt) = locked.attempt(stale.id).cloned() else {
        return Ok(());
    };
    if attempt.status != Progress::InFlight || attempt.updated_at >= before {
        return tx.rollback().await;
    }
    let lost = GatewayError::Indeterminate("no answer was recorded".into());
    refused(&mut locked, &attempt, &lost);
    locked.save(&mut tx).await?;
    tx.commit().await?;
    oms.ring();
    Ok(())
}

/// A retry of the client's key: waits for the call that is under way, then reports how things stand.
pub(super) async fn wait(oms: &Oms, id: AttemptId) -> Result<Ended> {
    let end = Instant::now() + WAIT;
    loop {
        let mut tx = oms.db().read().await?;
        let attempt = attempts::get(&mut tx, id).await?;
        if attempt.status != Progress::InFlight || Instant::now() >= end {
            let payment = store::get(&mut tx, attempt.payment).await?;
            return Ok(Ended { payment, attempt });
        }
        tx.rollback().await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
