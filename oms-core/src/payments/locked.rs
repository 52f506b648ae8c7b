//! An order and one of its payments, locked. Every change of a payment goes through here, so that the rows, the order
//! and the jobs that follow are stored together or not at all.

use std::collections::HashMap;
use std::hash::Hash;

use super::gateway::GatewayStatus;
use super::merge::{News, merge};
use super::model::{Attention, Capture, OperationStatus, Payment, Refund};
use super::store::Place;
use super::store::attempts::{self, Attempt, Operation, Progress};
use super::{reconcile, store};
use crate::actor::Actor;
use crate::db::Tx;
use crate::error::{Error, Result};
use crate::id::{AttemptId, CaptureId, OrderId, PaymentId, RefundId};
use crate::jobs::{Job, NewJob, enqueue};
use crate::orders::settle::{self, Moved, Verdict};
use crate::orders::{Order, OrderState};
use crate::telemetry;
use crate::time::Timestamp;

pub(super) struct Locked {
    pub(super) order: Order,
    pub(super) payment: Payment,
    pub(super) attempts: Vec<Attempt>,
    pub(super) now: Timestamp,
    /// Something does not fit: ask the gateway as soon as possible.
    pub(super) ask: bool,
    /// The money is on its way back already, so that the order must not be paid by it.
    pub(super) order_untold: bool,
    actor: Actor,
    jobs: Vec<NewJob>,
    pub(super) payment_before: Payment,
    attempts_before: Vec<Attempt>,
}

impl Locked {
    pub(super) async fn load(tx: &mut Tx, id: PaymentId, actor: &Actor, now: Timestamp) -> Result<Self> {
        let place = store::place_of(tx, id).await?;
        Self::load_at(tx, place, actor, now).await
    }

    pub(super) async fn load_at(tx: &mut Tx, place: Place, actor: &Actor, now: Timestamp) -> Result<Self> {
        let all = Self::load_all(tx, vec![(place, actor.clone())], now).await?;
        all.into_iter().next().ok_or(Error::NotFound("payment"))
    }

    /// Payments of different orders, in the order in which they are given.
    pub(super) async fn load_all(
        tx: &mut Tx,
        wanted: Vec<(Place, Actor)>,
        now: Timestamp,
    ) -> Result<Vec<Self>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<OrderId> = wanted.iter().map(|(place, _)| place.order).collect();
        let mut orders: HashMap<OrderId, Order> = by(settle::all_locked(tx, &ids).await?, |order| order.id);
        let ids: Vec<PaymentId> = wanted.iter().map(|(place, _)| place.payment).collect();
        let mut payments: HashMap<PaymentId, Payment> =
            by(store::all_locked(tx, &ids).await?, |payment| payment.id);
        let mut attempts: HashMap<PaymentId, Vec<Attempt>> = HashMap::new();
        for attempt in attempts::of_payments(tx, &ids).await? {
            attempts.entry(attempt.payment).or_default().push(attempt);
        }
        let one = |(place, actor): (Place, Actor)| {
            let order = orders.remove(&place.order).ok_or(Error::NotFound("order"))?;
            let payment = payments
                .remove(&place.payment)
                .ok_or(Error::NotFound("payment"))?;
            let attempts = attempts.remove(&place.payment).unwrap_or_default();
            Ok(Self {
                order,
                payment_before: payment.clone(),
                payment,
                attempts_before: attempts.clone(),
                attempts,
                now,
                ask: false,
                order_untold: false,
                actor,
                jobs: Vec::new(),
            })
        };
        wanted.into_iter().map(one).collect()
    }

    pub(super) fn attempt(&mut self, id: AttemptId) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find(|a| a.id == id)
    }

    /// Whether an operation that changes the payment itself is between its two transactions.
    pub(super) fn is_busy(&self) -> bool {
        let in_flight = |a: &Attempt| a.status == Progress::InFlight && a.operation != Operation::Refund;
        self.attempts.iter().any(in_flight)
    }

    pub(super) fn capture(&mut self, id: CaptureId) -> Option<&mut Capture> {
        self.payment.captures.iter_mut().find(|c| c.id == id)
    }

    pub(super) fn refund(&mut self, id: RefundId) -> Option<&mut Refund> {
        self.payment.refunds.iter_mut().find(|r| r.id == id)
    }

    pub(super) fn enqueue(&mut self, job: NewJob) {
        self.jobs.push(job);
    }

    /// A person must look. The first reason stays: what follows is often only its consequence.
    pub(super) fn need_review(&mut self, reason: impl Into<String>) {
        if !matches!(self.payment.attention, Some(Attention::NeedsReview(_))) {
            self.payment.attention = Some(Attention::NeedsReview(reason.into()));
        }
    }

    /// Takes news of the payment in.
    pub(super) fn hear(&mut self, news: &News) {
        let merged = merge(&self.payment, news);
        let believed = !merged.ask && merged.payment.attention == self.payment.attention;
        let attention = self.payment.attention.take();
        self.payment = merged.payment;
        if matches!(attention, Some(Attention::NeedsReview(_))) {
            self.payment.attention = attention;
        }
        self.ask |= merged.ask;
        if believed {
            self.resolve_attempts(news.source);
        }
    }

    pub(super) fn new_refund(
        &self,
        minor: i64,
        reason: Option<String>,
        status: OperationStatus,
    ) -> Result<Refund> {
        Ok(Refund {
            id: RefundId::new(self.now),
            payment: self.payment.id,
            amount: self.payment.money(minor)?,
            reason,
            status,
            reference: None,
            created_at: self.now,
            updated_at: self.now,
        })
    }

    /// Stores what changed, tells the order, and enqueues what has to follow.
    pub(super) async fn save(mut self, tx: &mut Tx) -> Result<Payment> {
        self.settle_captures()?;
        self.settle_attempts();
        self.count_refunds();
        self.review_refused_refunds();
        self.keep_reference_unique(tx).await?;
        self.set_attention();
        self.begin_schedule();
        let changed = self.payment != self.payment_before;
        if self.payment.status != self.payment_before.status {
            telemetry::payment_changed(&self.payment.account, self.payment.status.as_str());
        }
        if changed {
            self.update(tx).await?;
            self.save_parts(tx).await?;
        }
        for attempt in self.attempts.iter().filter(|a| !self.attempts_before.contains(a)) {
            attempts::save(tx, attempt).await?;
        }
        if changed {
            self.tell_order(tx).await?;
        }
        self.give_up_unwanted();
        self.look_later(tx, changed).await?;
        enqueue(tx, self.now, &self.jobs).await?;
        Ok(self.payment)
    }

    /// Two payments cannot be one at the gateway: somebody must look, and the first one keeps the reference.
    async fn keep_reference_unique(&mut self, tx: &mut Tx) -> Result<()> {
        if self.payment.reference == self.payment_before.reference {
            return Ok(());
        }
        let Some(reference) = &self.payment.reference else {
            return Ok(());
        };
        let other = store::by_reference(tx, &self.payment.account, reference).await?;
        let other = other.map(|other| other.payment);
        if let Some(other) = other.filter(|other| *other != self.payment.id) {
            let reason = format!("the gateway gives it the reference of payment {other}");
            self.payment.reference.clone_from(&self.payment_before.reference);
            self.need_review(reason);
        }
        Ok(())
    }

    /// A payment is unknown exactly while one of its attempts is, unless a person must look anyway.
    fn set_attention(&mut self) {
        if !matches!(self.payment.attention, Some(Attention::NeedsReview(_))) {
            let unknown = self.attempts.iter().any(|a| a.status == Progress::Unknown);
            self.payment.attention = unknown.then_some(Attention::Unknown);
        }
    }

    /// What was learned of earlier operations does not shorten the time in which the outcome of a new one is found out.
    fn begin_schedule(&mut self) {
        let before = &self.payment_before;
        let waited = |now: OperationStatus, before: Option<OperationStatus>| {
            !now.is_unsettled() || before.is_some_and(OperationStatus::is_unsettled)
        };
        let captures = self.payment.captures.iter().all(|c| {
            let mut known = before.captures.iter();
            waited(c.status, known.find(|b| b.id == c.id).map(|b| b.status))
        });
        let refunds = self.payment.refunds.iter().all(|r| {
            let mut known = before.refunds.iter();
            waited(r.status, known.find(|b| b.id == r.id).map(|b| b.status))
        });
        // A refund that a job carries out stood before.
        let tried = |a: &Attempt| self.attempts_before.iter().any(|b| b.id == a.id);
        let sent = self.attempts.iter().any(|a| a.refund.is_some() && !tried(a));
        if !captures || !refunds || sent {
            self.payment.sync_tries = 0;
        }
    }

    async fn update(&mut self, tx: &mut Tx) -> Result<()> {
        let mut open = self.payment.is_open();
        if open {
            // Money of a payment that was given up came after all, while the customer already pays by another one.
            let other = store::open_of_order(tx, self.payment.order).await?;
            if other.is_some_and(|other| other != self.payment.id) {
                open = false;
                self.need_review("another payment of the order is open");
            }
        }
        if self.payment.status != self.payment_before.status {
            self.payment.sync_tries = 0;
        }
        self.payment.version += 1;
        self.payment.updated_at = self.now;
        store::update(tx, &self.payment, open).await
    }

    async fn save_parts(&self, tx: &mut Tx) -> Result<()> {
        let before = &self.payment_before;
        for capture in &self.payment.captures {
            if !before.captures.contains(capture) {
                store::save_capture(tx, capture).await?;
            }
        }
        for refund in &self.payment.refunds {
            if !before.refunds.contains(refund) {
                store::save_refund(tx, refund).await?;
            }
        }
        Ok(())
    }

    async fn tell_order(&mut self, tx: &mut Tx) -> Result<()> {
        let told = |p: &Payment| (p.status, p.captured, p.authorized, p.attention.clone());
        if !self.order_untold && told(&self.payment_before) != told(&self.payment) {
            let moved = Moved {
                before: self.payment_before.status,
                captured_before: self.payment_before.captured,
                payment: &self.payment,
            };
            let verdict = settle::payment_moved(tx, &mut self.order, moved, &self.actor, self.now).await?;
            if let Verdict::Refund { minor, reason } = verdict {
                self.send_back(tx, minor, reason).await?;
            }
        }
        let before = &self.payment_before.refunds;
        let known = |r: &Refund| before.iter().any(|b| b.id == r.id && b.status == r.status);
        for refund in self.payment.refunds.iter().filter(|r| !known(r)) {
            settle::refund_moved(tx, &mut self.order, refund, &self.actor, self.now).await?;
        }
        Ok(())
    }

    /// The order does not want this money.
    async fn send_back(&mut self, tx: &mut Tx, minor: i64, reason: &str) -> Result<()> {
        let minor = minor.min(self.payment.refundable());
        if minor <= 0 {
            return Ok(());
        }
        let refund = self.new_refund(minor, Some(reason.into()), OperationStatus::Pending)?;
        store::save_refund(tx, &refund).await?;
        self.jobs.push(run_refund(refund.id, self.now));
        self.payment.refunds.push(refund);
        Ok(())
    }

    /// Whether the gateway has still to say something. A payment that its order no longer wants has to close.
    pub(super) fn is_unsettled(&self) -> bool {
        self.payment.is_unsettled() || self.is_unwanted()
    }

    pub(super) fn is_unwanted(&self) -> bool {
        self.payment.is_open() && self.order.state != OrderState::AwaitingPayment
    }

    /// What was under review, or closed, when its order went was not given up then.
    fn give_up_unwanted(&mut self) {
        let waits = |p: &Payment| p.is_open() && !reconcile::in_review(p);
        if self.is_unwanted() && waits(&self.payment) && !waits(&self.payment_before) {
            self.jobs.push(cancel(self.payment.id, self.now));
        }
    }

    /// While something is not settled, a job asks the gateway on its schedule; at once when there is a reason.
    async fn look_later(&mut self, tx: &mut Tx, changed: bool) -> Result<()> {
        if self.ask {
            return reconcile::look_now(tx, self.payment.id, self.now).await;
        }
        // Whoever is calling the gateway now will know soon; after a crash the rescue job takes over.
        let calling = self.attempts.iter().any(|a| a.status == Progress::InFlight);
        if changed && !calling && self.is_unsettled() {
            let at = self.now + reconcile::FIRST_DELAY;
            let unknown = |p: &Payment| p.attention == Some(Attention::Unknown);
            if unknown(&self.payment) && !unknown(&self.payment_before) {
                store::hasten_reconcile(tx, self.payment.id, at).await?;
            }
            self.jobs.push(reconcile::job(self.payment.id, at));
        }
        Ok(())
    }
}

fn by<K: Eq + Hash, V>(values: Vec<V>, key: impl Fn(&V) -> K) -> HashMap<K, V> {
    values.into_iter().map(|value| (key(&value), value)).collect()
}

/// The job that carries a refund out.
pub(super) fn run_refund(refund: RefundId, at: Timestamp) -> NewJob {
    NewJob::at(at, Job::RunRefund { refund }).unique(refund)
}

/// The job that gives a payment up.
pub(super) fn cancel(payment: PaymentId, at: Timestamp) -> NewJob {
    NewJob::at(at, Job::CancelPayment { payment }).unique(payment)
}

impl From<GatewayStatus> for Progress {
    /// How an operation ended whose answer has this status.
    fn from(status: GatewayStatus) -> Self {
        match status {
            GatewayStatus::Failed => Self::Declined,
            _ => Self::Succeeded,
        }
    }
}
