//! An order and one of its payments, locked. Every change of a payment goes through here, so that the rows, the order
//! and the jobs that follow are stored together or not at all.

use super::gateway::{GatewayStatus, RefundReport, Snapshot};
use super::merge::{News, Source, foreign_refunds, merge};
use super::model::{Attention, Capture, OperationStatus, Payment, PaymentStatus, Refund};
use super::store::attempts::{self, Attempt, Operation, Progress};
use super::{reconcile, store};
use crate::actor::Actor;
use crate::db::Tx;
use crate::error::Result;
use crate::id::{AttemptId, CaptureId, PaymentId, RefundId};
use crate::jobs::{Job, NewJob, enqueue};
use crate::orders::Order;
use crate::orders::settle::{self, Moved, Verdict};
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
    payment_before: Payment,
    attempts_before: Vec<Attempt>,
}

impl Locked {
    pub(super) async fn load(tx: &mut Tx, id: PaymentId, actor: &Actor, now: Timestamp) -> Result<Self> {
        let order = store::order_of(tx, id).await?;
        let order = settle::load_locked(tx, order).await?;
        let payment = store::get_locked(tx, id).await?;
        let attempts = attempts::of_payment(tx, id).await?;
        Ok(Self {
            order,
            payment_before: payment.clone(),
            payment,
            attempts_before: attempts.clone(),
            attempts,
            now,
            ask: false,
            order_untold: false,
            actor: actor.clone(),
            jobs: Vec::new(),
        })
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

    /// Who knows where the payment stands knows what became of the operations that led there.
    fn resolve_attempts(&mut self, source: Source) {
        let status = self.payment.status;
        let settled = matches!(
            status,
            PaymentStatus::Captured | PaymentStatus::Canceled | PaymentStatus::Failed
        );
        for attempt in self.attempts.iter_mut().filter(|a| a.status == Progress::Unknown) {
            let known = match attempt.operation {
                Operation::Start | Operation::Complete => settled || source != Source::Event,
                Operation::Cancel => settled || source == Source::Sync,
                Operation::Capture | Operation::Refund => false,
            };
            if !known {
                continue;
            }
            let happened = match attempt.operation {
                Operation::Cancel => status == PaymentStatus::Canceled,
                _ => status != PaymentStatus::Failed,
            };
            attempt.status = if happened {
                Progress::Succeeded
            } else {
                Progress::Declined
            };
            attempt.updated_at = self.now;
        }
    }

    /// Takes a sync's answer in.
    pub(super) fn hear_snapshot(&mut self, snapshot: &Snapshot, accepted: bool) -> Result<()> {
        let mut news = News::report(Source::Sync, &snapshot.payment);
        news.accepted = accepted;
        self.hear(&news);
        for report in &snapshot.refunds {
            match self.match_refund(report) {
                Some(id) => self.refund_told(id, report),
                None => self.add_foreign_refund(
                    report.amount.unwrap_or(0),
                    report.status.into(),
                    report.reference.clone(),
                )?,
            }
        }
        if snapshot.refunds.is_empty() {
            self.settle_refunds_by_total(snapshot.payment.totals.refunded.unwrap_or(0));
        }
        let foreign = foreign_refunds(&self.payment, &news);
        self.add_foreign_refund(foreign, OperationStatus::Succeeded, None)
    }

    /// By our id, by the gateway's, else by amount one of which no id of the gateway is known yet.
    pub(super) fn match_refund(&self, report: &RefundReport) -> Option<RefundId> {
        let refunds = &self.payment.refunds;
        let ours = refunds.iter().find(|r| Some(r.id) == report.refund);
        let known = || {
            refunds
                .iter()
                .find(|r| r.reference.is_some() && r.reference == report.reference)
        };
        let alike = || {
            refunds.iter().find(|r| {
                r.reference.is_none() && r.status.is_unsettled() && Some(r.amount.minor()) == report.amount
            })
        };
        ours.or_else(known).or_else(alike).map(|r| r.id)
    }

    /// For gateways that tell a total and no single refunds.
    fn settle_refunds_by_total(&mut self, total: i64) {
        let now = self.now;
        let done = |s| matches!(s, OperationStatus::Succeeded | OperationStatus::Reversed);
        let refunds = &mut self.payment.refunds;
        let mut rest = total
            - refunds
                .iter()
                .filter(|r| done(r.status))
                .map(|r| r.amount.minor())
                .sum::<i64>();
        for refund in refunds.iter_mut().filter(|r| r.status.is_unsettled()) {
            if refund.amount.minor() <= rest {
                rest -= refund.amount.minor();
                refund.status = OperationStatus::Succeeded;
                refund.updated_at = now;
            }
        }
    }

    /// A refund that was made at the gateway without us.
    fn add_foreign_refund(
        &mut self,
        minor: i64,
        status: OperationStatus,
        reference: Option<String>,
    ) -> Result<()> {
        if minor <= 0 || status == OperationStatus::Failed {
            return Ok(());
        }
        if minor > self.payment.refundable() {
            self.need_review("the gateway reports more refunded than captured");
            return Ok(());
        }
        let refund = self.new_refund(minor, Some("made at the gateway".into()), status)?;
        self.payment.refunds.push(Refund { reference, ..refund });
        Ok(())
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

    /// Takes news of one of the refunds in.
    pub(super) fn refund_told(&mut self, id: RefundId, report: &RefundReport) {
        let now = self.now;
        let Some(refund) = self.refund(id) else {
            return;
        };
        if let Some(told) = report.amount
            && told != refund.amount.minor()
        {
            let asked = refund.amount;
            self.need_review(format!(
                "the gateway reports a refund of {told} in minor units, {asked} was asked for"
            ));
            return;
        }
        let status = follow(refund.status, report.status.into());
        if status != refund.status || (refund.reference.is_none() && report.reference.is_some()) {
            refund.status = status;
            refund.reference = refund.reference.take().or_else(|| report.reference.clone());
            refund.updated_at = now;
        }
    }

    /// Stores what changed, tells the order, and enqueues what has to follow.
    pub(super) async fn save(mut self, tx: &mut Tx) -> Result<Payment> {
        self.settle_captures()?;
        self.settle_attempts();
        self.count_refunds();
        self.keep_reference_unique(tx).await?;
        self.set_attention();
        let changed = self.payment != self.payment_before;
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
        self.look_later(tx, changed).await?;
        enqueue(tx, self.now, &self.jobs).await?;
        Ok(self.payment)
    }

    /// What is captured settles the captures that were asked for, the oldest first. What is captured beyond them was
    /// captured at the gateway without us. A payment that was captured at once has none.
    fn settle_captures(&mut self) -> Result<()> {
        let (now, payment) = (self.now, &mut self.payment);
        if payment.captures.is_empty() {
            return Ok(());
        }
        let succeeded = |c: &&Capture| c.status == OperationStatus::Succeeded;
        let done: i64 = payment
            .captures
            .iter()
            .filter(succeeded)
            .map(|c| c.amount.minor())
            .sum();
        let mut rest = payment.captured - done;
        let unsettled = |c: &&mut Capture| c.status.is_unsettled();
        for capture in payment.captures.iter_mut().filter(unsettled) {
            if capture.amount.minor() <= rest {
                rest -= capture.amount.minor();
                capture.status = OperationStatus::Succeeded;
                capture.updated_at = now;
            }
        }
        let late = |c: &&mut Capture| c.status == OperationStatus::Failed && c.amount.minor() == rest;
        if let Some(capture) = payment.captures.iter_mut().find(late) {
            capture.status = OperationStatus::Succeeded;
            capture.updated_at = now;
        } else if rest > 0 {
            let capture = Capture {
                id: CaptureId::new(now),
                payment: payment.id,
                amount: payment.money(rest)?,
                final_capture: false,
                status: OperationStatus::Succeeded,
                reference: None,
                created_at: now,
                updated_at: now,
            };
            payment.captures.push(capture);
        }
        Ok(())
    }

    /// Unknown attempts of captures and refunds end as their rows do.
    fn settle_attempts(&mut self) {
        for attempt in self.attempts.iter_mut().filter(|a| a.status == Progress::Unknown) {
            let captures = self.payment.captures.iter();
            let refunds = self.payment.refunds.iter();
            let row = captures
                .filter(|c| Some(c.id) == attempt.capture)
                .map(|c| c.status)
                .chain(refunds.filter(|r| Some(r.id) == attempt.refund).map(|r| r.status))
                .next();
            attempt.status = match row {
                Some(OperationStatus::Succeeded | OperationStatus::Reversed | OperationStatus::Pending) => {
                    Progress::Succeeded
                }
                Some(OperationStatus::Failed) => Progress::Declined,
                Some(OperationStatus::Unknown) | None => continue,
            };
            attempt.updated_at = self.now;
        }
    }

    fn count_refunds(&mut self) {
        let succeeded = |r: &&Refund| r.status == OperationStatus::Succeeded;
        let refunds = self.payment.refunds.iter().filter(succeeded);
        let refunded: i64 = refunds.map(|r| r.amount.minor()).sum();
        if refunded > self.payment.captured {
            self.need_review("more is refunded than captured");
        }
        self.payment.refunded = refunded.min(self.payment.captured);
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

    /// While something is not settled, a job asks the gateway on its schedule; at once when there is a reason.
    async fn look_later(&mut self, tx: &mut Tx, changed: bool) -> Result<()> {
        if self.ask {
            return reconcile::look_now(tx, self.payment.id, self.now).await;
        }
        // Whoever is calling the gateway now will know soon; after a crash the rescue job takes over.
        let calling = self.attempts.iter().any(|a| a.status == Progress::InFlight);
        if changed && !calling && self.payment.is_unsettled() {
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

/// The job that carries a refund out.
pub(super) fn run_refund(refund: RefundId, at: Timestamp) -> NewJob {
    NewJob::at(at, Job::RunRefund { refund }).unique(refund)
}

/// How a refund moves on: a total order, as for payments.
pub(super) fn follow(now: OperationStatus, told: OperationStatus) -> OperationStatus {
    let rank = |status| match status {
        OperationStatus::Unknown => 0,
        OperationStatus::Pending => 1,
        OperationStatus::Failed => 2,
        OperationStatus::Succeeded => 3,
        OperationStatus::Reversed => 4,
    };
    if rank(told) > rank(now) { told } else { now }
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
