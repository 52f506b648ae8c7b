//! How captures, refunds and attempts follow what is known of their payment.

use super::gateway::{RefundReport, Snapshot};
use super::locked::Locked;
use super::merge::{News, Source, foreign_refunds};
use super::model::{Capture, OperationStatus, PaymentStatus, Refund};
use super::store::attempts::{Operation, Progress};
use crate::error::Result;
use crate::id::{CaptureId, RefundId};
use crate::orders::OrderState;

impl Locked {
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

    /// What is captured settles the captures that were asked for, the oldest first. What is captured beyond them was
    /// captured at the gateway without us. A payment that was captured at once has none.
    pub(super) fn settle_captures(&mut self) -> Result<()> {
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
    pub(super) fn settle_attempts(&mut self) {
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

    pub(super) fn count_refunds(&mut self) {
        let succeeded = |r: &&Refund| r.status == OperationStatus::Succeeded;
        let refunds = self.payment.refunds.iter().filter(succeeded);
        let refunded: i64 = refunds.map(|r| r.amount.minor()).sum();
        if refunded > self.payment.captured {
            self.need_review("more is refunded than captured");
        }
        self.payment.refunded = refunded.min(self.payment.captured);
    }

    /// Money that was to go back and stays: a person must look, unless the caller learns it who asked for the refund. Of
    /// an order that is gone the money never stays.
    pub(super) fn review_refused_refunds(&mut self) {
        let gone = matches!(self.order.state, OrderState::Canceled | OrderState::Expired);
        let mut reason = None;
        for refund in &self.payment.refunds {
            let mut before = self.payment_before.refunds.iter();
            if !before.any(|b| b.id == refund.id && b.status != refund.status) {
                continue;
            }
            let attempt = self.attempts.iter().rfind(|a| a.refund == Some(refund.id));
            let told = attempt.is_some_and(|a| a.memo.claim.is_some());
            let error = attempt.and_then(|a| a.error.as_ref());
            match refund.status {
                OperationStatus::Failed if gone || !told => {
                    let why =
                        error.map_or_else(|| "the gateway reports it as failed".into(), ToString::to_string);
                    reason = Some(format!("a refund was refused: {why}"));
                }
                OperationStatus::Reversed => reason = Some("a refund came back".into()),
                _ => {}
            }
        }
        if let Some(reason) = reason {
            self.need_review(reason);
        }
    }

    /// Whether an order that is gone keeps money that is not on its way back.
    pub(super) fn keeps_money(&self) -> bool {
        let gone = matches!(self.order.state, OrderState::Canceled | OrderState::Expired);
        gone && self.payment.refundable() > 0
    }

    /// By the usual rules an order that is gone keeps no money. What came just now is sent back by itself.
    pub(super) fn review_kept_money(&mut self) {
        let gone = matches!(self.order.state, OrderState::Canceled | OrderState::Expired);
        let gained = self.payment.captured - self.payment_before.captured;
        if gone && self.payment.refundable() > gained {
            self.need_review("its order is gone, and not all of the money is on its way back");
        }
    }

    /// Who knows where the payment stands knows what became of the operations that led there.
    pub(super) fn resolve_attempts(&mut self, source: Source) {
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
}

/// How a refund moves on: a total order, as for payments.
fn follow(now: OperationStatus, told: OperationStatus) -> OperationStatus {
    let rank = |status| match status {
        OperationStatus::Unknown => 0,
        OperationStatus::Pending => 1,
        OperationStatus::Failed => 2,
        OperationStatus::Succeeded => 3,
        OperationStatus::Reversed => 4,
    };
    if rank(told) > rank(now) { told } else { now }
}
