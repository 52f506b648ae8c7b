//! Mails about orders. What they say is read when they are sent.

use super::{Orders, store};
use crate::db::{Tx, run};
use crate::error::{Error, Result};
use crate::id::{JobId, OrderId, RefundId};
use crate::jobs::{EmailJob, JobError};
use crate::mail::{Email, MailError, Message, OrderMail};
use crate::money::Money;
use crate::orders::Order;

impl Orders<'_> {
    /// Sends a mail about an order. A retry sends the same message id again.
    pub(crate) async fn send_mail(&self, mail: &EmailJob, job: JobId) -> Result<(), JobError> {
        let mut tx = self.oms.db().read().await?;
        let read = self.read(&mut tx, mail).await;
        tx.rollback().await?;
        let (to, email) = match read {
            Ok(read) => read,
            // What the mail is about is gone: no retry brings it back.
            Err(Error::NotFound(what)) => return Err(JobError::fail(format!("no such {what}"))),
            Err(error) => return Err(error.into()),
        };
        self.oms
            .inner
            .mailer
            .send(Message {
                id: job.to_string(),
                to,
                email,
            })
            .await
            .map_err(|e| match e {
                MailError::Transient(_) => JobError::retry(e),
                MailError::Permanent(_) => JobError::fail(e),
            })
    }

    async fn read(&self, tx: &mut Tx, mail: &EmailJob) -> Result<(String, Email)> {
        match mail {
            EmailJob::VerifyAddress { .. } => {
                Err(Error::Internal("a mail of the users came to the orders".into()))
            }
            EmailJob::OrderPaid { order } => about(tx, *order, Email::OrderPaid).await,
            EmailJob::OrderCanceled { order } => about(tx, *order, Email::OrderCanceled).await,
            EmailJob::OrderExpired { order } => about(tx, *order, Email::OrderExpired).await,
            EmailJob::OrderShipped { fulfillment } => {
                let sent = store::find_fulfillment(tx, *fulfillment)
                    .await?
                    .ok_or(Error::NotFound("fulfillment"))?;
                about(tx, sent.order, |order| Email::OrderShipped {
                    order,
                    tracking: sent.tracking,
                })
                .await
            }
            EmailJob::Refunded { refund } => {
                let (order, minor) = refunded(tx, *refund).await?;
                let found = load(tx, order).await?;
                let amount = Money::new(minor, found.currency).map_err(Error::Internal)?;
                Ok((
                    found.email.clone(),
                    Email::Refunded {
                        order: words(&found),
                        amount,
                    },
                ))
            }
        }
    }
}

async fn about(tx: &mut Tx, id: OrderId, email: impl FnOnce(OrderMail) -> Email) -> Result<(String, Email)> {
    let order = load(tx, id).await?;
    let mail = email(words(&order));
    Ok((order.email, mail))
}

async fn load(tx: &mut Tx, id: OrderId) -> Result<Order> {
    store::find(tx, id).await?.ok_or(Error::NotFound("order"))
}

async fn refunded(tx: &mut Tx, refund: RefundId) -> Result<(OrderId, i64)> {
    let row = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT p.order_id, r.amount FROM oms_refund r JOIN oms_payment p ON p.id = r.payment_id WHERE r.id = $1",
        )
        .bind(refund)
        .fetch_optional(conn)
        .await
    })?;
    row.ok_or(Error::NotFound("refund"))
}

fn words(order: &Order) -> OrderMail {
    let lines = order
        .lines
        .iter()
        .map(|line| (line.name.clone(), line.quantity, line.total));
    OrderMail {
        number: order.number,
        total: order.total,
        lines: lines.collect(),
    }
}
