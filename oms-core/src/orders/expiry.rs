//! The sweep over orders that were not paid in time.

use serde_json::json;

use super::model::{OrderState, Transition};
use super::{Orders, stock, store};
use crate::actor::Actor;
use crate::error::Result;
use crate::id::OrderId;
use crate::jobs::{self, EmailJob, Job, NewJob};
use crate::money::Money;
use crate::payments;
use crate::time::Timestamp;

/// How long an order whose money may be on its way is left alone before it is looked at again.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(15 * 60);
/// The most orders that are looked up at once.
const MAX_ORDERS: i64 = 500;

impl Orders<'_> {
    /// Expires every order whose time is over and that no payment holds, each in a transaction of its own.
    /// Returns how many expired. The worker calls this by itself.
    pub async fn expire_due(&self) -> Result<usize> {
        let now = self.oms.now();
        let mut expired = 0;
        loop {
            let mut tx = self.oms.db().read().await?;
            let due = store::due(&mut tx, now, MAX_ORDERS).await?;
            tx.rollback().await?;
            for &id in &due {
                match self.expire(id, now).await {
                    Ok(done) => expired += usize::from(done),
                    // The sweep comes again.
                    Err(error) if error.is_retryable() => return Err(error),
                    // One order that cannot be expired must not hold those behind it for ever.
                    Err(error) => {
                        tracing::error!(order.id = %id, %error, "an order could not be expired; it is tried again later");
                        self.postpone(id, now + LOOK_AGAIN).await?;
                    }
                }
            }
            if i64::try_from(due.len()).unwrap_or(0) < MAX_ORDERS {
                break;
            }
        }
        if expired > 0 {
            self.oms.ring();
        }
        Ok(expired)
    }

    async fn postpone(&self, id: OrderId, until: Timestamp) -> Result<()> {
        let mut tx = self.oms.db().write().await?;
        store::postpone(&mut tx, id, until).await?;
        tx.commit().await
    }

    async fn expire(&self, id: OrderId, now: Timestamp) -> Result<bool> {
        let mut tx = self.oms.db().write().await?;
        let mut order = store::load_locked(&mut tx, id).await?;
        // Somebody may have paid or canceled it since the look.
        let due = order.expires_at.is_some_and(|at| at <= now);
        if order.state != OrderState::AwaitingPayment || !due {
            tx.rollback().await?;
            return Ok(false);
        }
        let limit = order.created_at + self.oms.inner.settings.hold_limit;
        if now < limit && store::is_held(&mut tx, id).await? {
            store::postpone(&mut tx, id, (now + LOOK_AGAIN).min(limit)).await?;
            tx.commit().await?;
            return Ok(false);
        }
        order.state = order.state.after(Transition::Expire)?;
        order.expires_at = None;
        payments::request_cancel(&mut tx, id, now).await?;
        let paid = store::paid(&mut tx, id).await?;
        if let Ok(rest) = Money::new(paid.captured - paid.refunded, order.currency)
            && rest.minor() > 0
        {
            payments::request_refund(&mut tx, id, rest, "order expired", now).await?;
        }
        stock::release(&mut tx, &order, &Actor::System, now).await?;
        store::change(&mut tx, &mut order, &Actor::System, "expired", &json!({}), now).await?;
        let mail = Job::SendEmail(EmailJob::OrderExpired { order: id });
        jobs::enqueue(&mut tx, now, &[NewJob::at(now, mail)]).await?;
        tx.commit().await?;
        Ok(true)
    }
}
