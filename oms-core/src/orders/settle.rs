//! What an order makes of its payments. Called by `payments` inside its transaction, after the order's row and the
//! payment's row were locked (in this order) and the payment's row was stored.

use std::time::Duration;

use super::model::Order;
use crate::actor::Actor;
use crate::db::Tx;
use crate::error::Result;
use crate::id::{OrderId, PaymentId};
use crate::payments::{Payment, PaymentStatus, Refund};
use crate::time::Timestamp;

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

/// The order with its lines, its row locked. `NotFound` when there is none.
pub(crate) async fn load_locked(tx: &mut Tx, id: OrderId) -> Result<Order> {
    let _ = (tx, id);
    Err(crate::error::Error::NotFound("order"))
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
    let _ = (tx, order, payment, hold, actor, now);
    Ok(())
}

/// A payment changed: moves the order, its stock and its timeline, and enqueues its mails.
pub(crate) async fn payment_moved(
    tx: &mut Tx,
    order: &mut Order,
    moved: Moved<'_>,
    actor: &Actor,
    now: Timestamp,
) -> Result<Verdict> {
    let _ = (tx, order, moved, actor, now);
    Ok(Verdict::Nothing)
}

/// A refund was asked for or changed: the timeline, the order's payment state and the mail.
pub(crate) async fn refund_moved(
    tx: &mut Tx,
    order: &mut Order,
    refund: &Refund,
    actor: &Actor,
    now: Timestamp,
) -> Result<()> {
    let _ = (tx, order, refund, actor, now);
    Ok(())
}
