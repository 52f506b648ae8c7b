//! What only a person can decide.

use super::change::not;
use super::gateway::GatewayError;
use super::locked::{Locked, run_refund};
use super::model::{Decision, OperationStatus, Payment};
use super::{reconcile, store, webhooks};
use crate::actor::Actor;
use crate::error::{Error, Result};
use crate::id::PaymentId;
use crate::jobs::{Job, NewJob};
use crate::oms::Oms;
use crate::orders::settle;

/// Leads a payment out of review. What the gateway says now is the basis of every decision.
pub(super) async fn review(oms: Oms, actor: Actor, id: PaymentId, decision: Decision) -> Result<Payment> {
    actor.require_operator()?;
    let mut tx = oms.db().read().await?;
    let payment = store::get(&mut tx, id).await?;
    tx.rollback().await?;
    if !reconcile::in_review(&payment) {
        return Err(not(&payment, "it is not under review"));
    }
    let answer = match reconcile::ask(&oms, &payment).await {
        Ok(answer) => Some(answer),
        // A gateway that cannot be asked: the operator decides by what is known.
        Err(Error::Gateway {
            source: GatewayError::Unsupported(_) | GatewayError::NotFound(_),
            ..
        }) if decision != Decision::Sync => None,
        Err(e) => return Err(e),
    };
    let mut tx = oms.db().write().await?;
    let mut locked = Locked::load(&mut tx, id, &actor, oms.now()).await?;
    if !reconcile::in_review(&locked.payment) {
        return Err(not(&locked.payment, "it is not under review any more"));
    }
    locked.payment.attention = None;
    locked.order_untold = decision == Decision::Refund;
    match answer {
        Some(answer) => reconcile::hear(&mut locked, answer.as_ref(), decision != Decision::Sync)?,
        // What it told by itself is what is known. An answer would hold it.
        None => webhooks::hear_again(&mut tx, &mut locked).await?,
    }
    // What is done now is found out in the usual time, not in what a week of silence has left of it.
    locked.payment.sync_tries = 0;
    if decision == Decision::Sync {
        locked.review_kept_money();
    }
    if decision == Decision::Refund {
        send_all_back(&mut locked)?;
    }
    if decision == Decision::Accept && locked.keeps_money() {
        let now = locked.now;
        settle::money_kept(&mut tx, &mut locked.order, &locked.payment, &actor, now).await?;
    }
    let payment = locked.save(&mut tx).await?;
    tx.commit().await?;
    oms.ring();
    Ok(payment)
}

fn send_all_back(locked: &mut Locked) -> Result<()> {
    let now = locked.now;
    let minor = locked.payment.refundable();
    if minor > 0 {
        let reason = Some("refused in review".into());
        let refund = locked.new_refund(minor, reason, OperationStatus::Pending)?;
        locked.enqueue(run_refund(refund.id, now));
        locked.payment.refunds.push(refund);
    }
    if locked.payment.is_open() {
        let payment = locked.payment.id;
        locked.enqueue(NewJob::at(now, Job::CancelPayment { payment }).unique(payment));
    }
    Ok(())
}
