//! Finding out what became of a payment: on a schedule, by asking the gateway or by sending the same request again.

use std::time::Duration;

use super::gateway::{Call, Decline, GatewayError, Snapshot, SyncRequest};
use super::gateways;
use super::locked::{Locked, cancel};
use super::merge::News;
use super::model::{Attention, OperationStatus, Payment, PaymentStatus};
use super::operation;
use super::store::attempts::{Attempt, Operation, Progress};
use super::{refunds, store};
use crate::actor::Actor;
use crate::db::Tx;
use crate::error::{Error, Result};
use crate::id::{AttemptId, PaymentId};
use crate::jobs::{Job, JobError, NewJob, enqueue};
use crate::oms::Oms;
use crate::orders::OrderState;
use crate::telemetry;
use crate::time::Timestamp;

/// When the gateway is first asked what became of an operation.
pub(super) const FIRST_DELAY: Duration = Duration::from_secs(30);

/// Days of asking once a day, after the short delays.
const DAYS: i64 = 7;

/// An attempt that is in flight for so long was left there by a crash: no call takes more than half of it.
const RESCUE_AFTER: Duration = Duration::from_secs(120);

/// How many payments are read at once.
const PAGE: usize = 1_000;

/// A gateway may have forgotten a key that is older: most keep them for a day, some for an hour.
const KEY_LIFE: Duration = Duration::from_secs(3600);

/// How long to wait after so many looks; none when the schedule ends.
pub(super) fn delay(looks: i64) -> Option<Duration> {
    let day = Duration::from_secs(24 * 3600);
    match looks {
        ..=0 => Some(FIRST_DELAY),
        1 => Some(Duration::from_secs(2 * 60)),
        2 => Some(Duration::from_secs(10 * 60)),
        3 => Some(Duration::from_secs(3600)),
        _ => (looks < 4 + DAYS).then_some(day),
    }
}

/// When the schedule that began at `begin` comes next; none when it has ended.
pub(super) fn next_after(begin: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let mut times = (0..).map_while(delay).scan(begin, |at, delay| {
        *at = *at + delay;
        Some(*at)
    });
    times.find(|at| *at > now)
}

/// One for each payment.
pub(super) fn job(payment: PaymentId, at: Timestamp) -> NewJob {
    NewJob::at(at, Job::ReconcilePayment { payment }).unique(payment)
}

/// The key of a look besides the schedule.
fn asked_key(payment: PaymentId) -> String {
    format!("{payment}/asked")
}

/// Asks the gateway as soon as possible, once and besides the schedule: whoever asks often does not use it up. A look
/// that is under way may have come too early for what is known now, so that another one follows it.
pub(super) async fn look_now(tx: &mut Tx, payment: PaymentId, now: Timestamp) -> Result<()> {
    let key = asked_key(payment);
    let other = format!("{key}/{}", AttemptId::new(now));
    store::release_look(tx, &key, &other).await?;
    let job = NewJob::at(now, Job::ReconcilePayment { payment }).unique(key);
    enqueue(tx, now, &[job]).await
}

/// Handler of `ReconcilePayment`.
pub(crate) async fn reconcile(oms: &Oms, id: PaymentId) -> std::result::Result<(), JobError> {
    if let Ok((payment, _)) = read(oms, id).await
        && let Some(at) = gateways::waits(oms, &payment)
    {
        return Err(JobError::Again(at));
    }
    if let Err(e) = find_out(oms, id).await {
        tracing::warn!(payment.id = %id, error = %e, "a payment could not be reconciled now");
    }
    match next_look(oms, id).await? {
        Some(at) => Err(JobError::Again(at)),
        None => Ok(()),
    }
}

async fn find_out(oms: &Oms, id: PaymentId) -> Result<()> {
    let old = oms.now() - KEY_LIFE;
    let (_, attempts) = read(oms, id).await?;
    let unknown = |a: &&Attempt| a.status == Progress::Unknown;
    let asks_first = |a: &Attempt| a.created_at < old && a.operation == Operation::Refund;
    // What the gateway shows is not sent again: under a key that it has forgotten it would be done twice.
    let asked = attempts.iter().filter(unknown).any(asks_first);
    if asked {
        look(oms, &Actor::System, id).await?;
    }
    let (payment, attempts) = read(oms, id).await?;
    for attempt in attempts
        .iter()
        .filter(unknown)
        .filter(|a| a.operation == Operation::Refund)
    {
        refunds::another_try(oms, &payment, attempt.id).await?;
    }
    let start = attempts.iter().find(|a| a.operation == Operation::Start);
    match start {
        Some(start)
            if payment.reference.is_none()
                && start.status == Progress::Unknown
                && start.created_at >= old =>
        {
            start_again_or_look(oms, &payment, start.id).await
        }
        _ if asked => Ok(()),
        _ => look(oms, &Actor::System, id).await.map(drop),
    }
}

async fn read(oms: &Oms, id: PaymentId) -> Result<(Payment, Vec<Attempt>)> {
    let mut tx = oms.db().read().await?;
    let payment = store::get(&mut tx, id).await?;
    let attempts = store::attempts::of_payment(&mut tx, id).await?;
    tx.rollback().await?;
    Ok((payment, attempts))
}

/// Without a reference the same request under the same key tells most, as long as its success is still wanted.
async fn start_again_or_look(oms: &Oms, payment: &Payment, start: AttemptId) -> Result<()> {
    let mut tx = oms.db().read().await?;
    let order = crate::orders::settle::load_locked(&mut tx, payment.order).await?;
    tx.rollback().await?;
    if order.state != OrderState::AwaitingPayment {
        return look(oms, &Actor::System, payment.id).await.map(drop);
    }
    let till = gateways::pinned(oms, payment).await?;
    if let Some((payment, attempt)) = operation::begin_again(oms, start, payment.id).await? {
        operation::carry_out(oms, &Actor::System, &till, &payment, &attempt).await?;
    }
    Ok(())
}

/// Asks the gateway where the payment stands and takes the answer in.
pub(super) async fn look(oms: &Oms, actor: &Actor, id: PaymentId) -> Result<Payment> {
    let mut tx = oms.db().read().await?;
    let payment = store::get(&mut tx, id).await?;
    tx.rollback().await?;
    let answer = ask(oms, &payment).await?;
    let mut tx = oms.db().write().await?;
    let mut locked = Locked::load(&mut tx, id, actor, oms.now()).await?;
    hear(&mut locked, answer.as_ref(), false)?;
    let payment = locked.save(&mut tx).await?;
    tx.commit().await?;
    oms.ring();
    Ok(payment)
}

/// The gateway's answer; none when it has never seen the payment.
pub(super) async fn ask(oms: &Oms, payment: &Payment) -> Result<Option<Snapshot>> {
    let till = gateways::pinned(oms, payment).await?;
    let now = oms.now();
    let call = Call {
        idempotency_key: AttemptId::new(now).to_string(),
        attempt: 1,
        now,
        test_mode: payment.test_mode,
    };
    let request = SyncRequest {
        call,
        payment: payment.id,
        reference: payment.reference.clone(),
        state: payment.state.clone(),
    };
    let patience = Duration::from_secs(60);
    let late = || {
        Err(GatewayError::Unavailable(
            "the adapter did not answer in time".into(),
        ))
    };
    let asked = Box::pin(async {
        let answer = tokio::time::timeout(patience, till.gateway.sync(&till.account, request)).await;
        answer.unwrap_or_else(|_| late())
    });
    match telemetry::gateway_call(&payment.account, "sync", asked).await {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(GatewayError::NotFound(_)) if payment.reference.is_none() => Ok(None),
        Err(source) => Err(Error::gateway(&payment.account, source)),
    }
}

/// Takes the answer of [`ask`] in.
pub(super) fn hear(locked: &mut Locked, answer: Option<&Snapshot>, accepted: bool) -> Result<()> {
    let Some(snapshot) = answer else {
        never_happened(locked);
        return Ok(());
    };
    locked.hear_snapshot(snapshot, accepted)?;
    // What the gateway does not show at the second look never happened; at the first it may have been too early.
    if locked.payment.sync_tries >= 1 {
        let (now, captured) = (locked.now, locked.payment.captured);
        let done = |c: &&super::model::Capture| c.status == OperationStatus::Succeeded;
        let known: i64 = locked
            .payment
            .captures
            .iter()
            .filter(done)
            .map(|c| c.amount.minor())
            .sum();
        let unknown = |c: &&mut super::model::Capture| c.status == OperationStatus::Unknown;
        let captures = &mut locked.payment.captures;
        for capture in captures
            .iter_mut()
            .filter(unknown)
            .filter(|c| c.amount.minor() > captured - known)
        {
            capture.status = OperationStatus::Failed;
            capture.updated_at = now;
        }
    }
    Ok(())
}

/// The gateway has never seen it. Not while the call may still be on its way, nor after it was heard of by an event.
fn never_happened(locked: &mut Locked) {
    let calling = locked.attempts.iter().any(|a| a.status == Progress::InFlight);
    if calling || locked.payment.status != PaymentStatus::Created {
        return;
    }
    locked.hear(&News::declined(&Decline {
        code: "never_started".into(),
        message: "the gateway has never seen this payment".into(),
    }));
}

/// When this look is to be repeated. None when nothing is left to find out, when nobody but a person can, and for a look
/// besides the schedule.
async fn next_look(oms: &Oms, id: PaymentId) -> Result<Option<Timestamp>> {
    let now = oms.now();
    let mut tx = oms.db().write().await?;
    let mut locked = Locked::load(&mut tx, id, &Actor::System, now).await?;
    if !locked.is_unsettled() {
        tx.rollback().await?;
        return Ok(None);
    }
    let asked = asked_key(id);
    let next = match store::running_looks(&mut tx, &id.to_string(), &asked).await? {
        (0, _) => {
            let next = delay(locked.payment.sync_tries).map(|delay| job(id, now + delay));
            enqueue(&mut tx, now, next.as_slice()).await?;
            None
        }
        (_, 0) => {
            let next = count_look(&mut locked);
            if next.is_some() && locked.is_unwanted() && !in_review(&locked.payment) {
                locked.enqueue(cancel(id, now));
            }
            next
        }
        // Which of them this one is cannot be told. The schedule's goes on, and the one that ends last counts for it.
        _ => {
            store::end_looks(&mut tx, &asked).await?;
            delay(locked.payment.sync_tries)
        }
    };
    locked.save(&mut tx).await?;
    tx.commit().await?;
    oms.ring();
    Ok(next.map(|delay| now + delay))
}

fn count_look(locked: &mut Locked) -> Option<Duration> {
    locked.payment.sync_tries += 1;
    let next = delay(locked.payment.sync_tries);
    if next.is_none() {
        locked.need_review("the gateway does not say what became of it");
    }
    next
}

/// Handler of `RescueAttempts`: what a crash left between its two transactions becomes unknown, and whatever is not
/// settled has a job that finds out.
pub(crate) async fn rescue_attempts(oms: &Oms) -> std::result::Result<(), JobError> {
    let mut tx = oms.db().read().await?;
    let before = oms.now() - RESCUE_AFTER;
    let stale = store::attempts::stale(&mut tx, before, 100).await?;
    tx.rollback().await?;
    for attempt in stale {
        tracing::warn!(payment.id = %attempt.payment, attempt.id = %attempt.id, "an attempt was left in flight");
        operation::give_up(oms, &attempt, before).await?;
    }
    let mut after = None;
    loop {
        let ids = watch_unsettled(oms, before, after).await?;
        after = ids.last().copied();
        if ids.len() < PAGE {
            return Ok(());
        }
    }
}

/// Adds the jobs that are missing for payments after this id. A job that was added while an earlier one of the payment
/// was about to be deleted is lost.
async fn watch_unsettled(oms: &Oms, before: Timestamp, after: Option<PaymentId>) -> Result<Vec<PaymentId>> {
    let now = oms.now();
    let mut tx = oms.db().read().await?;
    let ids = store::unsettled(&mut tx, before, after, i64::try_from(PAGE).unwrap_or(i64::MAX)).await?;
    tx.rollback().await?;
    if !ids.is_empty() {
        let jobs: Vec<_> = ids.iter().map(|id| job(*id, now + FIRST_DELAY)).collect();
        let mut tx = oms.db().write().await?;
        enqueue(&mut tx, now, &jobs).await?;
        tx.commit().await?;
        oms.ring();
    }
    Ok(ids)
}

/// Whether a payment is under review.
pub(super) fn in_review(payment: &Payment) -> bool {
    matches!(payment.attention, Some(Attention::NeedsReview(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_ends_after_a_week() {
        let seconds: Vec<_> = (0..).map_while(delay).map(|d| d.as_secs()).collect();
        let day = 86_400;
        assert_eq!(seconds, [30, 120, 600, 3_600, day, day, day, day, day, day, day]);
    }
}
