//! What an order makes of its payments. Called by `payments` inside its transaction, after the order's row and the
//! payment's row were locked (in this order) and the payment's row was stored.

use std::time::Duration;

use serde_json::json;

use super::model::{Order, OrderState, PaymentState, Transition};
use super::{stock, store};
use crate::actor::Actor;
use crate::db::Tx;
use crate::error::Result;
use crate::id::{OrderId, PaymentId};
use crate::jobs::{self, EmailJob, Job, NewJob};
use crate::payments::{self, OperationStatus, Payment, PaymentStatus, Refund};
use crate::time::Timestamp;

/// How long payments that start and fail, one after the other, may hold an order from when it was placed.
const MAX_HOLD: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a customer has for another try after a payment that would have held the order for ever came to nothing.
const ANOTHER_TRY: Duration = Duration::from_secs(30 * 60);

/// A payment that changed, with what it was before.
pub(crate) struct Moved<'a> {
    pub(crate) before: PaymentStatus,
    /// Minor units captured before.
    pub(crate) captured_before: i64,
    pub(crate) payment: &'a Payment,
}

/// What the payments have to do about it, in the same transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Nothing,
    /// The order does not want this money: send back so many minor units.
    Refund {
        minor: i64,
        reason: &'static str,
    },
}

/// What an order does about money that was captured. Pure; the stock is asked afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Money {
    /// Nothing new, or not all of it yet.
    Wait,
    Accept,
    /// Accept if every line can be allocated again.
    AcceptIfStock,
    SendBack(&'static str),
}

/// The order with its lines, its row locked. `NotFound` when there is none.
pub(crate) async fn load_locked(tx: &mut Tx, id: OrderId) -> Result<Order> {
    store::load_locked(tx, id).await
}

/// As [`load_locked`], those that there are of at least one.
pub(crate) async fn all_locked(tx: &mut Tx, ids: &[OrderId]) -> Result<Vec<Order>> {
    store::all_locked(tx, ids).await
}

/// A payment starts: the order is held for `hold` from now on, for ever when none.
pub(crate) async fn payment_started(
    tx: &mut Tx,
    order: &mut Order,
    payment: PaymentId,
    hold: Option<Duration>,
    actor: &Actor,
    now: Timestamp,
) -> Result<()> {
    order.expires_at = hold.map(|hold| (now + hold).min(order.created_at + hold.max(MAX_HOLD)));
    order.payment_state = PaymentState::Pending;
    store::change(
        tx,
        order,
        actor,
        "payment_started",
        &json!({ "payment": payment }),
        now,
    )
    .await
}

/// A payment changed: moves the order, its stock and its timeline, and enqueues its mails.
pub(crate) async fn payment_moved(
    tx: &mut Tx,
    order: &mut Order,
    moved: Moved<'_>,
    actor: &Actor,
    now: Timestamp,
) -> Result<Verdict> {
    let payment = moved.payment;
    let gained = payment.captured - moved.captured_before;
    let facts = json!({ "payment": payment.id, "captured": payment.captured, "currency": payment.amount.currency().code() });
    let paid = store::paid(tx, order.id).await?;
    order.payment_state = payment_state(&paid);
    if order.state == OrderState::AwaitingPayment && !payment.is_open() && order.expires_at.is_none() {
        order.expires_at = Some(now + ANOTHER_TRY);
    }
    let judged = match judge(order.state, whole(payment), gained) {
        Money::AcceptIfStock if !stock::reallocate(tx, order, actor, now).await? => {
            Money::SendBack("paid after it had expired, and the goods are gone")
        }
        judged => judged,
    };
    match judged {
        Money::Wait => {
            if payment.status != moved.before
                && let Some(kind) = kind_of(payment.status)
            {
                store::change(tx, order, actor, kind, &facts, now).await?;
            }
            Ok(Verdict::Nothing)
        }
        Money::Accept | Money::AcceptIfStock => {
            let kind = if order.state == OrderState::Expired {
                "paid_late"
            } else {
                "paid"
            };
            order.state = order.state.after(Transition::Pay)?;
            order.expires_at = None;
            store::change(tx, order, actor, kind, &facts, now).await?;
            // An earlier payment may have come through while another one was under way: that one is not wanted now.
            if paid.open > 0 {
                payments::request_cancel(tx, order.id, now).await?;
            }
            let mail = Job::SendEmail(EmailJob::OrderPaid { order: order.id });
            jobs::enqueue(tx, now, &[NewJob::at(now, mail)]).await?;
            Ok(Verdict::Nothing)
        }
        Money::SendBack(reason) => {
            let facts = json!({ "payment": payment.id, "amount": gained, "reason": reason });
            store::change(tx, order, actor, "payment_refused", &facts, now).await?;
            Ok(Verdict::Refund {
                minor: gained,
                reason,
            })
        }
    }
}

/// A refund was asked for or changed: the timeline, the order's payment state and the mail.
pub(crate) async fn refund_moved(
    tx: &mut Tx,
    order: &mut Order,
    refund: &Refund,
    actor: &Actor,
    now: Timestamp,
) -> Result<()> {
    order.payment_state = payment_state(&store::paid(tx, order.id).await?);
    let kind = match refund.status {
        OperationStatus::Pending => "refund_requested",
        OperationStatus::Succeeded => "refunded",
        OperationStatus::Failed => "refund_failed",
        OperationStatus::Reversed => "refund_reversed",
        OperationStatus::Unknown => "refund_unknown",
    };
    let facts = json!({
        "refund": refund.id, "amount": refund.amount.minor(), "currency": refund.amount.currency().code(),
        "reason": refund.reason,
    });
    store::change(tx, order, actor, kind, &facts, now).await?;
    if refund.status == OperationStatus::Succeeded {
        let mail = Job::SendEmail(EmailJob::Refunded { refund: refund.id });
        jobs::enqueue(tx, now, &[NewJob::at(now, mail)]).await?;
    }
    Ok(())
}

/// How much of its money a payment has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// All that it will capture.
    All,
    /// More may come.
    Part,
    /// All that it will capture, but some of it went back: it pays no order any more.
    Rest,
}

/// A person decided that an order which is gone keeps what is left of its money: it was sent back in some other way.
pub(crate) async fn money_kept(
    tx: &mut Tx,
    order: &mut Order,
    payment: &Payment,
    actor: &Actor,
    now: Timestamp,
) -> Result<()> {
    let facts = json!({ "payment": payment.id, "amount": payment.refundable() });
    store::change(tx, order, actor, "money_kept", &facts, now).await
}

fn whole(payment: &Payment) -> Holds {
    match payment.status {
        PaymentStatus::Captured if payment.refundable() == payment.captured => Holds::All,
        PaymentStatus::Captured => Holds::Rest,
        _ => Holds::Part,
    }
}

/// `gained`: minor units since the last look.
fn judge(state: OrderState, holds: Holds, gained: i64) -> Money {
    match state {
        _ if gained <= 0 => Money::Wait,
        OrderState::AwaitingPayment | OrderState::Expired if holds == Holds::Rest => {
            Money::SendBack("a part of it had been sent back")
        }
        OrderState::AwaitingPayment if holds == Holds::All => Money::Accept,
        OrderState::AwaitingPayment => Money::Wait,
        OrderState::Expired if holds == Holds::All => Money::AcceptIfStock,
        OrderState::Expired => Money::SendBack("paid in part after it had expired"),
        OrderState::Canceled => Money::SendBack("paid after it had been canceled"),
        OrderState::Paid | OrderState::PartiallyFulfilled | OrderState::Fulfilled => {
            Money::SendBack("the order had been paid already")
        }
    }
}

/// What the timeline calls a payment's new status, where it is worth an entry.
fn kind_of(status: PaymentStatus) -> Option<&'static str> {
    match status {
        PaymentStatus::Created | PaymentStatus::ActionRequired => None,
        PaymentStatus::Pending => Some("payment_pending"),
        PaymentStatus::Authorized => Some("payment_authorized"),
        PaymentStatus::PartiallyCaptured | PaymentStatus::Captured => Some("payment_captured"),
        PaymentStatus::Canceled => Some("payment_canceled"),
        PaymentStatus::Failed => Some("payment_failed"),
    }
}

fn payment_state(paid: &store::Paid) -> PaymentState {
    match paid {
        p if p.captured > 0 && p.refunded >= p.captured => PaymentState::Refunded,
        p if p.refunded > 0 => PaymentState::PartiallyRefunded,
        p if p.captured > 0 => PaymentState::Paid,
        p if p.authorized > 0 => PaymentState::Authorized,
        p if p.open > 0 => PaymentState::Pending,
        _ => PaymentState::Unpaid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_by_state_and_completeness() {
        let sent_back = |m| matches!(m, Money::SendBack(_));
        for state in OrderState::ALL {
            assert_eq!(
                judge(state, Holds::All, 0),
                Money::Wait,
                "{state:?}: no new money"
            );
            let (all, part) = (judge(state, Holds::All, 5), judge(state, Holds::Part, 5));
            assert!(
                sent_back(judge(state, Holds::Rest, 5)),
                "{state:?}: less than the price"
            );
            match state {
                OrderState::AwaitingPayment => assert_eq!((all, part), (Money::Accept, Money::Wait)),
                OrderState::Expired => assert!(all == Money::AcceptIfStock && sent_back(part)),
                _ => assert!(sent_back(all) && sent_back(part), "{state:?}"),
            }
        }
    }
}
