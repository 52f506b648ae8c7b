//! The books of the fake gateway.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::gateway::{Ask, Fake};
use crate::id::{PaymentId, RefundId};
use crate::payments::{
    CaptureMode, GatewayError, GatewayStatus, NextAction, PaymentReport, RedirectMethod, RefundReport,
    RefundStatus, StartRequest, Totals,
};

/// A payment in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct FakePayment {
    pub payment: PaymentId,
    pub reference: String,
    pub currency: String,
    pub capture: CaptureMode,
    pub amount: i64,
    pub status: GatewayStatus,
    pub authorized: i64,
    pub captured: i64,
    pub canceled: i64,
    pub refunds: Vec<FakeRefund>,
}

/// A refund in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct FakeRefund {
    pub refund: RefundId,
    pub reference: String,
    pub amount: i64,
    pub status: RefundStatus,
}

#[derive(Debug, Clone)]
pub(super) enum Answer {
    Payment(Box<PaymentReport>),
    Refund(RefundReport),
}

#[derive(Debug, Default)]
pub(super) struct Bank {
    pub(super) payments: Vec<FakePayment>,
    pub(super) answers: HashMap<String, Result<Answer, GatewayError>>,
    pub(super) calls: BTreeMap<Ask, usize>,
    pub(super) script: VecDeque<(Ask, Fake)>,
    pub(super) events: u64,
}

impl Bank {
    pub(super) fn next(&mut self, ask: Ask) -> Option<Fake> {
        *self.calls.entry(ask).or_default() += 1;
        let at = self.script.iter().position(|(planned, _)| *planned == ask)?;
        self.script.remove(at).map(|(_, fake)| fake)
    }

    pub(super) fn payment(&mut self, reference: &str) -> Result<&mut FakePayment, GatewayError> {
        let found = self.payments.iter_mut().find(|p| p.reference == reference);
        found.ok_or_else(|| GatewayError::NotFound(reference.into()))
    }

    pub(super) fn start(&mut self, request: &StartRequest, fake: Option<&Fake>) -> PaymentReport {
        let mut payment = FakePayment {
            payment: request.payment,
            reference: format!("fp_{}", self.payments.len() + 1),
            currency: request.amount.currency().code().into(),
            capture: request.capture,
            amount: request.amount.minor(),
            status: GatewayStatus::ActionRequired,
            authorized: 0,
            captured: 0,
            canceled: 0,
            refunds: Vec::new(),
        };
        match fake {
            Some(Fake::Redirect) => {}
            Some(Fake::Pend) => payment.status = GatewayStatus::Pending,
            Some(Fake::Charge(minor)) => {
                payment.amount = *minor;
                payment.approve();
            }
            _ => payment.approve(),
        }
        let report = payment.report();
        self.payments.push(payment);
        report
    }
}

impl FakePayment {
    /// The customer agreed: the money is held or taken.
    pub fn approve(&mut self) {
        if matches!(
            self.status,
            GatewayStatus::ActionRequired | GatewayStatus::Pending
        ) {
            self.authorized = self.amount;
            self.status = GatewayStatus::Authorized;
            if self.capture == CaptureMode::Automatic {
                self.take(self.amount, true);
            }
        }
    }

    /// Money is taken; the last time when `last`.
    pub fn take(&mut self, minor: i64, last: bool) {
        self.captured += minor;
        self.status = if last || self.captured == self.authorized {
            GatewayStatus::Captured
        } else {
            GatewayStatus::PartiallyCaptured
        };
    }

    pub(super) fn totals(&self) -> Totals {
        let succeeded = |r: &&FakeRefund| r.status == RefundStatus::Succeeded;
        Totals {
            currency: Some(self.currency.clone()),
            authorized: Some(self.authorized),
            captured: Some(self.captured),
            refunded: Some(self.refunds.iter().filter(succeeded).map(|r| r.amount).sum()),
            canceled: Some(self.canceled),
        }
    }

    pub(super) fn report(&self) -> PaymentReport {
        let redirect = || NextAction::Redirect {
            url: format!("https://fake.example/pay/{}", self.reference),
            method: RedirectMethod::Get,
            form_fields: Vec::new(),
        };
        PaymentReport {
            status: self.status,
            reference: Some(self.reference.clone()),
            operation_reference: None,
            totals: self.totals(),
            next_action: (self.status == GatewayStatus::ActionRequired).then(redirect),
            expires_at: None,
            state: None,
            method: vec![("brand".into(), "fake".into())],
            decline: None,
        }
    }
}

impl FakeRefund {
    pub(super) fn report(&self) -> RefundReport {
        RefundReport {
            refund: Some(self.refund),
            status: self.status,
            reference: Some(self.reference.clone()),
            amount: Some(self.amount),
        }
    }
}
