//! Sending captured money back.

use std::time::Duration;

use super::change::not;
use super::gateway::GatewayError;
use super::locked::{Locked, run_refund};
use super::model::{OperationStatus, Payment, Refund, RefundPayment};
use super::operation::{self, Ended};
use super::store::attempts::{Attempt, Operation, Progress};
use super::{gateways, reconcile, store};
use crate::actor::Actor;
use crate::db::{Table, Tx, lock};
use crate::error::{Check, Error, Result};
use crate::id::{AttemptId, OrderId, PaymentId, RefundId};
use crate::idempotency::{Claim, Outcome};
use crate::jobs::{JobError, enqueue};
use crate::money::Money;
use crate::oms::Oms;
use crate::text;
use crate::time::Timestamp;

pub(super) async fn refund(
    oms: Oms,
    actor: Actor,
    id: PaymentId,
    command: RefundPayment,
) -> Result<Outcome<Refund>> {
    actor.require_operator()?;
    let mut check = Check::default();
    if let Some(reason) = &command.reason {
        check.take("/reason", text::check(reason, 500));
    }
    check.done()?;
    let amount = command
        .amount
        .map(|m| (m.minor(), m.currency().code().to_owned()));
    let fingerprint = (amount, &command.reason);
    let target = id.to_string();
    let claim = Claim::new(
        &actor,
        "payment.refund",
        &target,
        &command.idempotency_key,
        &fingerprint,
    )?;
    let mut tx = oms.db().read().await?;
    let payment = store::get(&mut tx, id).await?;
    tx.rollback().await?;
    let till = gateways::pinned(&oms, &payment).await?;
    let features = till.gateway.info().features;
    let prepare = |locked: &mut Locked, attempt: &mut Attempt| {
        if !features.refund {
            return Err(not(&locked.payment, "this gateway cannot refund"));
        }
        let amount = refundable(&locked.payment, command.amount, features.partial_refund)?;
        let refund = locked.new_refund(amount.minor(), command.reason, OperationStatus::Pending)?;
        attempt.refund = Some(refund.id);
        attempt.amount = Some(amount.minor());
        locked.payment.refunds.push(refund);
        Ok(())
    };
    let operation = Operation::Refund;
    let ended = operation::run(&oms, &actor, &till, id, Some(&claim), operation, prepare).await?;
    let replayed = ended.replayed;
    let value = ended.value.refund()?;
    Ok(Outcome { value, replayed })
}

/// How much is to be refunded: what was asked for if it fits, else all that is left.
fn refundable(payment: &Payment, amount: Option<Money>, partly: bool) -> Result<Money> {
    let left = payment.money(payment.refundable().max(0))?;
    if left.minor() == 0 {
        return Err(not(payment, "there is nothing left to refund"));
    }
    let amount = amount.unwrap_or(left);
    if amount.minor() == 0 || left.checked_sub(amount).is_none() {
        return Err(Error::invalid(
            "/amount",
            format!("must be above 0 and at most {left}"),
        ));
    }
    if amount != payment.amount && !partly {
        let detail = format!("this gateway refunds all at once: {}", payment.amount);
        return Err(Error::invalid("/amount", detail));
    }
    Ok(amount)
}

impl Ended {
    /// The refund as it stands now. A refusal is a result: its status says so.
    fn refund(self) -> Result<Refund> {
        let id = self.attempt.refund;
        let mut refunds = self.payment.refunds.into_iter();
        refunds
            .find(|r| Some(r.id) == id)
            .ok_or(Error::NotFound("refund"))
    }
}

/// Handler of `RunRefund`: carries out a refund whose row stands. Safe to run twice: the gateway's key is the same.
pub(crate) async fn run_refund_job(oms: &Oms, id: RefundId) -> std::result::Result<(), JobError> {
    let mut tx = oms.db().read().await?;
    let payment = store::payment_of_refund(&mut tx, id).await?;
    let payment = store::get(&mut tx, payment).await?;
    let attempts = store::attempts::of_payment(&mut tx, payment.id).await?;
    tx.rollback().await?;
    let refund = payment.refunds.iter().find(|r| r.id == id);
    if !refund.is_some_and(|r| r.status.is_unsettled()) {
        return Ok(());
    }
    if let Some(at) = gateways::waits(oms, &payment) {
        return Err(JobError::Again(at));
    }
    let tried = attempts.into_iter().rfind(|a| a.refund == Some(id));
    let ended = match tried {
        None => first_try(oms, &payment, id).await.map(Some),
        Some(attempt) if attempt.status == Progress::Failed => another_try(oms, &payment, attempt.id).await,
        // Accepted: the outcome comes by webhook or sync. Unknown: the reconcile job finds out.
        Some(attempt) if attempt.status != Progress::InFlight => return Ok(()),
        Some(_) => Ok(None),
    };
    let ended = match ended {
        Err(Error::Gateway { source, .. }) => return without_adapter(oms, &payment, id, &source).await,
        ended => ended?,
    };
    match ended {
        // Somebody else is sending it.
        None => Err(JobError::Again(oms.now() + reconcile::FIRST_DELAY)),
        Some(ended) => match later(&ended) {
            Some(delay) => Err(JobError::Again(oms.now() + delay)),
            None => Ok(()),
        },
    }
}

/// The payment's own adapter or its account is missing. It may come back; on the same schedule as for a gateway that is
/// away, then for a person.
async fn without_adapter(
    oms: &Oms,
    payment: &Payment,
    id: RefundId,
    why: &GatewayError,
) -> std::result::Result<(), JobError> {
    let now = oms.now();
    let asked_at = payment.refunds.iter().find(|r| r.id == id).map(|r| r.created_at);
    if let Some(at) = reconcile::next_after(asked_at.unwrap_or(now), now) {
        return Err(JobError::Again(at));
    }
    let mut tx = oms.db().write().await?;
    let mut locked = Locked::load(&mut tx, payment.id, &Actor::System, now).await?;
    // What may have been sent is the reconcile job's.
    if let Some(refund) = locked.refund(id)
        && refund.status == OperationStatus::Pending
    {
        refund.status = OperationStatus::Failed;
        refund.updated_at = now;
        locked.need_review(format!("a refund could not be sent: {why}"));
    }
    locked.save(&mut tx).await?;
    tx.commit().await?;
    oms.ring();
    Ok(())
}

/// When a refund that could not be sent is to be sent again; none when it was, or when its schedule has ended.
fn later(ended: &Ended) -> Option<Duration> {
    let attempt = &ended.attempt;
    let waits = ended
        .payment
        .refunds
        .iter()
        .any(|r| Some(r.id) == attempt.refund && r.status == OperationStatus::Pending);
    (waits && attempt.status == Progress::Failed).then(|| reconcile::delay(attempt.tries - 1))?
}

async fn first_try(oms: &Oms, payment: &Payment, id: RefundId) -> Result<Ended> {
    let till = gateways::pinned(oms, payment).await?;
    let prepare = |locked: &mut Locked, attempt: &mut Attempt| {
        let taken = locked.attempts.iter().any(|a| a.refund == Some(id));
        let refund = locked.refund(id).ok_or(Error::NotFound("refund"))?;
        let amount = refund.amount.minor();
        if taken {
            return Err(not(&locked.payment, "the refund is under way"));
        }
        attempt.refund = Some(id);
        attempt.amount = Some(amount);
        Ok(())
    };
    let (system, operation) = (Actor::System, Operation::Refund);
    let ended = operation::run(oms, &system, &till, payment.id, None, operation, prepare).await?;
    Ok(ended.value)
}

/// Sends a refund again under its key, after it could not be sent or its outcome was not learned. None when somebody
/// else does.
pub(super) async fn another_try(oms: &Oms, payment: &Payment, attempt: AttemptId) -> Result<Option<Ended>> {
    let till = gateways::pinned(oms, payment).await?;
    match operation::begin_again(oms, attempt, payment.id).await? {
        Some((payment, attempt)) => operation::carry_out(oms, &Actor::System, &till, &payment, &attempt)
            .await
            .map(Some),
        None => Ok(None),
    }
}

/// Takes `amount` back over the captured payments of an order, whose row the caller has locked; less where refunds are
/// under way already. The refunds are carried out by jobs.
pub(crate) async fn request_refund(
    tx: &mut Tx,
    order: OrderId,
    amount: Money,
    reason: &str,
    now: Timestamp,
) -> Result<Vec<RefundId>> {
    let ids: Vec<_> = store::of_order(tx, order)
        .await?
        .iter()
        .map(|p| p.id.uuid())
        .collect();
    lock(tx, Table::Payment, &ids).await?;
    let mut left = amount.minor();
    let (mut made, mut jobs) = (Vec::new(), Vec::new());
    for payment in store::of_order(tx, order).await? {
        let minor = left.min(payment.refundable());
        if minor <= 0 || payment.amount.currency() != amount.currency() {
            continue;
        }
        let refund = Refund {
            id: RefundId::new(now),
            payment: payment.id,
            amount: payment.money(minor)?,
            reason: Some(reason.into()),
            status: OperationStatus::Pending,
            reference: None,
            created_at: now,
            updated_at: now,
        };
        store::save_refund(tx, &refund).await?;
        jobs.push(run_refund(refund.id, now));
        made.push(refund.id);
        left -= minor;
    }
    enqueue(tx, now, &jobs).await?;
    Ok(made)
}
