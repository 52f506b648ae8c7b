//! Payments: start, complete, capture, refund, webhooks, reconcile.
//!
//! `operation` has the three steps of everything that is asked of a gateway, `merge` the one rule by which a payment
//! follows what it says, and `locked` the one way in which a change is stored.

pub(crate) mod account;
pub(crate) mod gateway;
pub(crate) mod model;

mod books;
mod by_hand;
mod change;
mod gateways;
mod locked;
mod merge;
mod operation;
mod outcome;
mod reconcile;
mod refunds;
mod request;
mod review;
mod start;
pub(crate) mod store;
mod webhooks;

pub use account::{Account, Grant, Secret};
pub use gateway::*;
pub use gateways::Work;
pub use model::{
    Attention, Capture, CapturePayment, Decision, MoneyReceived, OperationStatus, Payment, PaymentStatus,
    Refund, RefundPayment, RefundSent, StartPayment,
};
pub use store::inbox::{InboxEntry, InboxStatus};
pub(crate) use webhooks::Intake;
pub use webhooks::WebhookOutcome;

#[cfg(feature = "conformance")]
pub(crate) use start::webhook_url;
#[cfg(feature = "conformance")]
pub(crate) use store::inbox::{KeptDelivery, deliveries_since};

pub(crate) use refunds::request_refund;

use crate::actor::Actor;
use crate::db::Tx;
use crate::error::Result;
use crate::id::{InboxId, OrderId, PaymentId, RefundId};
use crate::idempotency::{IdempotencyKey, Outcome};
use crate::jobs::{Job, JobError, NewJob, enqueue};
use crate::oms::Oms;
use crate::page::{Page, PageRequest};
use crate::time::Timestamp;

type JobResult = std::result::Result<(), JobError>;

/// Payments of orders. An operation that has begun goes on when its caller goes away; call again with the same key to
/// learn what became of it.
#[derive(Clone, Copy)]
pub struct Payments<'a> {
    oms: &'a Oms,
}

impl Oms {
    /// Payments.
    pub fn payments(&self) -> Payments<'_> {
        Payments { oms: self }
    }
}

impl Payments<'_> {
    /// Starts the payment of an order that waits for it, over the order's total. For the order's owner and operators.
    ///
    /// A declined payment is a payment with status `failed`, and an unknown outcome one with [`Attention::Unknown`].
    /// Errors: [`PaymentInProgress`](crate::Error::PaymentInProgress) while another payment of the order is open; [`InvalidState`](crate::Error::InvalidState) when the
    /// order does not wait for a payment or costs nothing; [`Gateway`](crate::Error::Gateway) when the gateway certainly did nothing,
    /// after which the same key may be used again.
    #[tracing::instrument(level = "debug", name = "payments.start", skip_all)]
    pub async fn start(
        &self,
        actor: &Actor,
        order: OrderId,
        command: StartPayment,
    ) -> Result<Outcome<Payment>> {
        let work = start::start(self.oms.clone(), actor.clone(), order, command);
        operation::detached(self.oms, work).await
    }

    /// The customer came back from the gateway, with the query of the address or what a browser library posted. For
    /// the order's owner and operators; safe to repeat.
    #[tracing::instrument(level = "debug", name = "payments.complete", skip_all)]
    pub async fn complete(&self, actor: &Actor, id: PaymentId, params: Metadata) -> Result<Payment> {
        let work = change::complete(self.oms.clone(), actor.clone(), id, params);
        operation::detached(self.oms, work).await
    }

    /// Takes (a part of) the authorized money. Operators only. A capture that the gateway declines is a row with status
    /// `failed` inside the payment.
    #[tracing::instrument(level = "debug", name = "payments.capture", skip_all)]
    pub async fn capture(
        &self,
        actor: &Actor,
        id: PaymentId,
        command: CapturePayment,
    ) -> Result<Outcome<Payment>> {
        let work = change::capture(self.oms.clone(), actor.clone(), id, command);
        operation::detached(self.oms, work).await
    }

    /// Gives up what is not captured. For operators, and for the order's owner while nothing is captured.
    #[tracing::instrument(level = "debug", name = "payments.cancel", skip_all)]
    pub async fn cancel(
        &self,
        actor: &Actor,
        id: PaymentId,
        key: IdempotencyKey,
    ) -> Result<Outcome<Payment>> {
        let work = change::cancel(self.oms.clone(), actor.clone(), id, key);
        operation::detached(self.oms, work).await
    }

    /// Sends (a part of) the captured money back. Operators only. The sum of all refunds that did not fail never
    /// passes what is captured. When the gateway is not available the refund stays pending and is sent later.
    #[tracing::instrument(level = "debug", name = "payments.refund", skip_all)]
    pub async fn refund(
        &self,
        actor: &Actor,
        id: PaymentId,
        command: RefundPayment,
    ) -> Result<Outcome<Refund>> {
        let work = refunds::refund(self.oms.clone(), actor.clone(), id, command);
        operation::detached(self.oms, work).await
    }

    /// A payment with its captures and refunds. For the order's owner and operators.
    #[tracing::instrument(level = "debug", name = "payments.get", skip_all)]
    pub async fn get(&self, actor: &Actor, id: PaymentId) -> Result<Payment> {
        let mut tx = self.oms.db().read().await?;
        let payment = store::get(&mut tx, id).await?;
        let owner = store::owner_of_order(&mut tx, payment.order).await?;
        tx.rollback().await?;
        actor.require_owner_or_operator(owner, "payment")?;
        Ok(payment)
    }

    /// All payments of an order, the oldest first. For its owner and operators.
    pub async fn of_order(&self, actor: &Actor, order: OrderId) -> Result<Vec<Payment>> {
        let mut tx = self.oms.db().read().await?;
        let owner = store::owner_of_order(&mut tx, order).await?;
        actor.require_owner_or_operator(owner, "order")?;
        let payments = store::of_order(&mut tx, order).await?;
        tx.rollback().await?;
        Ok(payments)
    }

    /// Payments that wait for a person, the oldest first. Operators only.
    pub async fn needing_review(&self, actor: &Actor, page: &PageRequest) -> Result<Page<Payment>> {
        actor.require_operator()?;
        let (limit, after) = (page.limit()?, page.after()?);
        let mut tx = self.oms.db().read().await?;
        let rows = store::with_attention(&mut tx, "needs_review", after, limit + 1).await?;
        tx.rollback().await?;
        Ok(Page::cut(rows, limit, |payment| payment.id))
    }

    /// Leads a payment out of review. Operators only. After [`Decision::Sync`] it may be under review again.
    #[tracing::instrument(level = "debug", name = "payments.review", skip_all)]
    pub async fn review(&self, actor: &Actor, id: PaymentId, decision: Decision) -> Result<Payment> {
        let work = review::review(self.oms.clone(), actor.clone(), id, decision);
        operation::detached(self.oms, work).await
    }

    /// Money came for a payment whose gateway neither tells nor can be asked: a bank transfer, or cash. Operators only.
    /// Another sum than the payment's goes to review, and comes out of it when the rest has come or by
    /// [`Decision::Accept`].
    #[tracing::instrument(level = "debug", name = "payments.received", skip_all)]
    pub async fn received(
        &self,
        actor: &Actor,
        id: PaymentId,
        command: MoneyReceived,
    ) -> Result<Outcome<Payment>> {
        let work = by_hand::received(self.oms.clone(), actor.clone(), id, command);
        operation::detached(self.oms, work).await
    }

    /// A refund of such a payment was sent by hand. Operators only.
    #[tracing::instrument(level = "debug", name = "payments.refund_sent", skip_all)]
    pub async fn refund_sent(
        &self,
        actor: &Actor,
        id: RefundId,
        command: RefundSent,
    ) -> Result<Outcome<Refund>> {
        let work = by_hand::refund_sent(self.oms.clone(), actor.clone(), id, command);
        operation::detached(self.oms, work).await
    }

    /// Asks the gateway where a payment stands. Operators only.
    #[tracing::instrument(level = "debug", name = "payments.sync", skip_all)]
    pub async fn sync(&self, actor: &Actor, id: PaymentId) -> Result<Payment> {
        actor.require_operator()?;
        let (oms, actor) = (self.oms.clone(), actor.clone());
        operation::detached(self.oms, async move { reconcile::look(&oms, &actor, id).await }).await
    }

    /// Takes a webhook in: `delivery` is what came at this account's address, byte for byte. Who sent it is proven by
    /// its signature alone, so that there is no actor. [`NotFound`](crate::Error::NotFound) when there is no such account.
    #[tracing::instrument(level = "debug", name = "payments.receive_webhook", skip_all)]
    pub async fn receive_webhook(&self, account: &str, delivery: Delivery) -> Result<WebhookOutcome> {
        let work = webhooks::receive(self.oms.clone(), account.into(), delivery);
        operation::detached(self.oms, work).await
    }

    /// Webhook events that were kept, the newest first. Operators only.
    pub async fn inbox(
        &self,
        actor: &Actor,
        page: &PageRequest,
        status: Option<InboxStatus>,
    ) -> Result<Page<InboxEntry>> {
        webhooks::list(self.oms, actor, page, status).await
    }

    /// A webhook event that was kept. Operators only.
    pub async fn inbox_entry(&self, actor: &Actor, id: InboxId) -> Result<InboxEntry> {
        actor.require_operator()?;
        let mut tx = self.oms.db().read().await?;
        let entry = store::inbox::get(&mut tx, id).await?;
        tx.rollback().await?;
        Ok(entry)
    }

    /// Applies a kept webhook event again. Operators only.
    #[tracing::instrument(level = "debug", name = "payments.replay", skip_all)]
    pub async fn replay(&self, actor: &Actor, id: InboxId) -> Result<InboxEntry> {
        let work = webhooks::replay(self.oms.clone(), actor.clone(), id);
        operation::detached(self.oms, work).await
    }

    pub(crate) async fn run_cancel(&self, payment: PaymentId) -> JobResult {
        Box::pin(change::run_cancel(self.oms, payment)).await
    }

    pub(crate) async fn run_refund(&self, refund: RefundId) -> JobResult {
        Box::pin(refunds::run_refund_job(self.oms, refund)).await
    }

    pub(crate) async fn reconcile(&self, payment: PaymentId) -> JobResult {
        Box::pin(reconcile::reconcile(self.oms, payment)).await
    }

    pub(crate) async fn match_webhook(&self, inbox: InboxId) -> JobResult {
        webhooks::match_webhook(self.oms, inbox).await
    }

    pub(crate) async fn rescue_attempts(&self) -> JobResult {
        reconcile::rescue_attempts(self.oms).await
    }
}

/// Gives up every open payment of an order, whose row the caller has locked, by jobs; how many there are.
pub(crate) async fn request_cancel(tx: &mut Tx, order: OrderId, now: Timestamp) -> Result<usize> {
    let open: Vec<_> = store::open_of_order(tx, order).await?.into_iter().collect();
    let job = |payment: &PaymentId| {
        let payment = *payment;
        NewJob::at(now, Job::CancelPayment { payment }).unique(payment)
    };
    enqueue(tx, now, &open.iter().map(job).collect::<Vec<_>>()).await?;
    Ok(open.len())
}

/// A line for each broken rule of payments, captures and refunds. Run it in a snapshot.
pub(crate) async fn verify(tx: &mut Tx) -> Result<Vec<String>> {
    store::verify(tx).await
}
