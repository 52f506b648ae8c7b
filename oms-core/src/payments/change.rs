//! Operations on a payment that was started: complete, capture, cancel.

use super::gateway::{GatewayInfo, Metadata};
use super::locked::Locked;
use super::model::{Attention, Capture, CapturePayment, OperationStatus, Payment, PaymentStatus};
use super::operation::{self, Ended};
use super::store::attempts::{Attempt, Operation, Progress};
use super::{gateways, reconcile, store};
use crate::actor::Actor;
use crate::error::{Error, Result};
use crate::id::{CaptureId, PaymentId};
use crate::idempotency::{Claim, IdempotencyKey, Outcome};
use crate::jobs::{JobError, enqueue};
use crate::oms::Oms;
use crate::orders::{OrderState, settle};

/// The customer came back. Safe to repeat: what is decided stays as it is.
pub(super) async fn complete(oms: Oms, actor: Actor, id: PaymentId, params: Metadata) -> Result<Payment> {
    // As much as starting takes: it is kept and goes on to the gateway.
    let size: usize = params.iter().map(|(k, v)| k.len() + v.len()).sum();
    if size > 16_384 {
        return Err(Error::invalid("/params", "must have at most 16 KiB"));
    }
    let (payment, attempts) = read(&oms, id).await?;
    let mut tx = oms.db().read().await?;
    let owner = store::owner_of_order(&mut tx, payment.order).await?;
    tx.rollback().await?;
    actor.require_owner_or_operator(owner, "payment")?;
    if !undecided(payment.status) {
        return Ok(payment);
    }
    // A page that was loaded twice: the second one gets what the first one learns.
    if let Some(busy) = in_flight(&attempts) {
        return Ok(operation::wait(&oms, busy.id).await?.payment);
    }
    let till = gateways::pinned(&oms, &payment).await?;
    if !till.gateway.info().features.complete {
        return reconcile::look(&oms, &actor, id).await;
    }
    let prepare = |locked: &mut Locked, attempt: &mut Attempt| {
        refuse_busy(locked)?;
        if locked.payment.reference.is_none() || !undecided(locked.payment.status) {
            return Err(not(&locked.payment, "there is nothing to complete"));
        }
        attempt.memo.params = params;
        Ok(())
    };
    let operation = Operation::Complete;
    let ended = operation::run(&oms, &actor, &till, id, None, operation, prepare).await?;
    ended.value.payment()
}

fn undecided(status: PaymentStatus) -> bool {
    matches!(
        status,
        PaymentStatus::Created | PaymentStatus::Pending | PaymentStatus::ActionRequired
    )
}

fn in_flight(attempts: &[Attempt]) -> Option<&Attempt> {
    attempts
        .iter()
        .find(|a| a.status == Progress::InFlight && a.operation != Operation::Refund)
}

async fn read(oms: &Oms, id: PaymentId) -> Result<(Payment, Vec<Attempt>)> {
    let mut tx = oms.db().read().await?;
    let payment = store::get(&mut tx, id).await?;
    let attempts = store::attempts::of_payment(&mut tx, id).await?;
    tx.rollback().await?;
    Ok((payment, attempts))
}

/// A refusal because of where the payment stands.
pub(super) fn not(payment: &Payment, detail: &'static str) -> Error {
    Error::InvalidState {
        what: "payment",
        state: payment.shown_status().into(),
        detail,
    }
}

fn refuse_busy(locked: &Locked) -> Result<()> {
    if locked.is_busy() {
        return Err(not(
            &locked.payment,
            "another operation on it is under way: try again",
        ));
    }
    Ok(())
}

pub(super) async fn capture(
    oms: Oms,
    actor: Actor,
    id: PaymentId,
    command: CapturePayment,
) -> Result<Outcome<Payment>> {
    actor.require_operator()?;
    let amount = command
        .amount
        .map(|m| (m.minor(), m.currency().code().to_owned()));
    let claim = Claim::new(
        &actor,
        "payment.capture",
        &id.to_string(),
        &command.idempotency_key,
        &(amount, command.final_capture),
    )?;
    let till = gateways::pinned(&oms, &read(&oms, id).await?.0).await?;
    let info = till.gateway.info().clone();
    let prepare = |locked: &mut Locked, attempt: &mut Attempt| {
        let capture = new_capture(locked, &info, &command)?;
        attempt.capture = Some(capture.id);
        attempt.amount = Some(capture.amount.minor());
        locked.payment.captures.push(capture);
        Ok(())
    };
    let operation = Operation::Capture;
    let ended = operation::run(&oms, &actor, &till, id, Some(&claim), operation, prepare).await?;
    finish(ended)
}

fn finish(ended: Outcome<Ended>) -> Result<Outcome<Payment>> {
    let replayed = ended.replayed;
    let value = ended.value.payment()?;
    Ok(Outcome { value, replayed })
}

fn new_capture(locked: &Locked, info: &GatewayInfo, command: &CapturePayment) -> Result<Capture> {
    let payment = &locked.payment;
    refuse_busy(locked)?;
    if locked.order.state != OrderState::AwaitingPayment {
        return Err(Error::InvalidState {
            what: "order",
            state: locked.order.state.as_str().into(),
            detail: "it does not wait for a payment",
        });
    }
    // The order would count as paid by money that is gone.
    if payment.refunds.iter().any(|r| r.status.holds_money()) {
        return Err(not(payment, "a part of it was refunded"));
    }
    if !matches!(
        payment.status,
        PaymentStatus::Authorized | PaymentStatus::PartiallyCaptured
    ) {
        return Err(not(payment, "no money is authorized that could be captured"));
    }
    if payment.attention.is_some() {
        return Err(not(payment, "it must be cleared up first"));
    }
    let left = payment.money(payment.capturable().max(0))?;
    let amount = command.amount.unwrap_or(left);
    if amount.minor() == 0 || left.checked_sub(amount).is_none() {
        return Err(Error::invalid(
            "/amount",
            format!("must be above 0 and at most {left}"),
        ));
    }
    let all = amount == left;
    if !all && !info.features.partial_capture {
        return Err(Error::invalid(
            "/amount",
            format!("this gateway captures all at once: {left}"),
        ));
    }
    let once = !info.features.multiple_capture;
    Ok(Capture {
        id: CaptureId::new(locked.now),
        payment: payment.id,
        amount,
        final_capture: once || command.final_capture.unwrap_or(all),
        status: OperationStatus::Pending,
        reference: None,
        created_at: locked.now,
        updated_at: locked.now,
    })
}

pub(super) async fn cancel(
    oms: Oms,
    actor: Actor,
    id: PaymentId,
    key: IdempotencyKey,
) -> Result<Outcome<Payment>> {
    let claim = Claim::new(&actor, "payment.cancel", &id.to_string(), &key, &())?;
    let till = gateways::pinned(&oms, &read(&oms, id).await?.0).await?;
    let info = till.gateway.info().clone();
    let prepare = |locked: &mut Locked, attempt: &mut Attempt| {
        actor.require_owner_or_operator(locked.order.user, "payment")?;
        refuse_busy(locked)?;
        let payment = &locked.payment;
        if payment.captured > 0 && !actor.is_operator() {
            return Err(not(payment, "captured money is refunded, not canceled"));
        }
        if !payment.is_open() {
            return Err(not(payment, "there is nothing left to cancel"));
        }
        if payment.reference.is_none() || payment.attention == Some(Attention::Unknown) {
            return Err(not(
                payment,
                "the outcome of an earlier operation is not known yet",
            ));
        }
        if !info.features.cancel {
            return Err(not(payment, "this gateway cannot cancel"));
        }
        attempt.memo.reason = Some("requested".into());
        Ok(())
    };
    let operation = Operation::Cancel;
    let ended = operation::run(&oms, &actor, &till, id, Some(&claim), operation, prepare).await?;
    finish(ended)
}

/// Handler of `CancelPayment`: gives a payment up whose order no longer wants it.
pub(crate) async fn run_cancel(oms: &Oms, id: PaymentId) -> std::result::Result<(), JobError> {
    let (payment, attempts) = read(oms, id).await?;
    if !payment.is_open() || matches!(payment.attention, Some(Attention::NeedsReview(_))) {
        return Ok(());
    }
    if let Some(at) = gateways::waits(oms, &payment) {
        return Err(JobError::Again(at));
    }
    let unknown = payment.attention == Some(Attention::Unknown);
    let tried = attempts.iter().rfind(|a| a.operation == Operation::Cancel);
    let again = tried.filter(|a| a.memo.claim.is_none() && is_same_try(a));
    // The reconcile job finds out first, unless what is unknown is this very operation.
    if in_flight(&attempts).is_some() || (again.is_none() && (unknown || payment.reference.is_none())) {
        return Err(JobError::Again(oms.now() + reconcile::FIRST_DELAY));
    }
    let till = match gateways::pinned(oms, &payment).await {
        Ok(till) if till.gateway.info().features.cancel => till,
        Ok(_) => return keep_looking(oms, &payment, "the gateway cannot cancel").await,
        Err(e @ Error::Gateway { .. }) => return keep_looking(oms, &payment, e).await,
        Err(e) => return Err(e.into()),
    };
    let system = Actor::System;
    let ended = match again {
        Some(attempt) => match operation::begin_again(oms, attempt.id, id).await? {
            Some((payment, attempt)) => operation::carry_out(oms, &system, &till, &payment, &attempt).await?,
            None => return Err(JobError::Again(oms.now() + reconcile::FIRST_DELAY)),
        },
        None => {
            let prepare = |locked: &mut Locked, attempt: &mut Attempt| {
                refuse_busy(locked)?;
                attempt.memo.reason = Some("the order no longer wants it".into());
                Ok(())
            };
            let operation = Operation::Cancel;
            operation::run(oms, &system, &till, id, None, operation, prepare)
                .await?
                .value
        }
    };
    if !ended.payment.is_open() {
        return Ok(());
    }
    match ended.payment() {
        Err(e) => keep_looking(oms, &payment, e).await,
        Ok(_) => keep_looking(oms, &payment, "the payment is still open").await,
    }
}

/// The payment stays open. Where its order no longer wants it, the reconcile job looks at it on its schedule and has it
/// canceled again, until it closes or a person must look.
async fn keep_looking(oms: &Oms, payment: &Payment, why: impl ToString) -> std::result::Result<(), JobError> {
    let (id, why) = (payment.id, why.to_string());
    tracing::warn!(payment.id = %id, why, "a payment could not be canceled");
    let now = oms.now();
    let mut tx = oms.db().write().await?;
    let order = settle::load_locked(&mut tx, payment.order).await?;
    if order.state == OrderState::AwaitingPayment {
        tx.rollback().await?;
        return Err(JobError::Retry(why));
    }
    enqueue(&mut tx, now, &[reconcile::job(id, now + reconcile::FIRST_DELAY)]).await?;
    tx.commit().await?;
    oms.ring();
    Ok(())
}

/// Whether another try must use the same key: it may have happened, or certainly did not for lack of a gateway.
fn is_same_try(attempt: &Attempt) -> bool {
    use super::gateway::GatewayError::{Misconfigured, NotAuthenticated, RateLimited, Unavailable};
    match attempt.status {
        Progress::Unknown => true,
        Progress::Failed => matches!(
            attempt.error,
            Some(Misconfigured(_) | NotAuthenticated(_) | RateLimited(_) | Unavailable(_))
        ),
        Progress::InFlight | Progress::Succeeded | Progress::Declined => false,
    }
}
