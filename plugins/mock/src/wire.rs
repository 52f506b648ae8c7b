//! The bank's JSON, and what it means in the words of the contract.

use oms_plugin_sdk::{
    Money, NextAction, PaymentResult, PaymentStatus, RefundResult, RefundStatus, Snapshot, Totals,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
pub(crate) struct Start<'a> {
    pub(crate) merchant_payment_id: &'a str,
    pub(crate) order_number: &'a str,
    pub(crate) amount: i64,
    pub(crate) currency: &'a str,
    pub(crate) exponent: u8,
    pub(crate) capture: &'a str,
    pub(crate) description: Option<&'a str>,
    pub(crate) return_url: Option<&'a str>,
    pub(crate) cancel_url: Option<&'a str>,
    pub(crate) webhook_url: Option<&'a str>,
    pub(crate) off_session: bool,
}

#[derive(Serialize)]
pub(crate) struct Capture<'a> {
    pub(crate) amount: i64,
    pub(crate) currency: &'a str,
    pub(crate) r#final: bool,
}

#[derive(Serialize)]
pub(crate) struct Cancel<'a> {
    pub(crate) reason: Option<&'a str>,
}

#[derive(Serialize)]
pub(crate) struct StartRefund<'a> {
    pub(crate) merchant_refund_id: &'a str,
    pub(crate) amount: i64,
    pub(crate) currency: &'a str,
    pub(crate) reason: Option<&'a str>,
}

/// A payment, in an answer or in an event. Totals are cumulative.
#[derive(Debug, Deserialize)]
pub(crate) struct Payment {
    pub(crate) id: String,
    pub(crate) merchant_payment_id: String,
    pub(crate) status: Status,
    pub(crate) currency: String,
    pub(crate) exponent: u8,
    pub(crate) authorized: i64,
    pub(crate) captured: i64,
    pub(crate) refunded: i64,
    pub(crate) canceled: i64,
    pub(crate) redirect_url: Option<String>,
    pub(crate) decline_code: Option<String>,
    #[serde(default)]
    pub(crate) captures: Vec<CaptureMade>,
    #[serde(default)]
    pub(crate) refunds: Vec<Refund>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CaptureMade {
    pub(crate) id: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Refund {
    pub(crate) id: String,
    pub(crate) merchant_refund_id: Option<String>,
    pub(crate) amount: i64,
    pub(crate) status: RefundState,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    ActionRequired,
    Authorized,
    PartiallyCaptured,
    Captured,
    Canceled,
    Failed,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefundState {
    Succeeded,
    Failed,
}

impl Status {
    pub(crate) fn contract(self) -> PaymentStatus {
        match self {
            Self::ActionRequired => PaymentStatus::ActionRequired,
            Self::Authorized => PaymentStatus::Authorized,
            Self::PartiallyCaptured => PaymentStatus::PartiallyCaptured,
            Self::Captured => PaymentStatus::Captured,
            Self::Canceled => PaymentStatus::Canceled,
            Self::Failed => PaymentStatus::Failed,
        }
    }
}

impl Payment {
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            currency: Some(self.currency.clone()),
            authorized: Some(self.authorized),
            captured: Some(self.captured),
            refunded: Some(self.refunded),
            canceled: Some(self.canceled),
        }
    }

    pub(crate) fn money(&self, minor: i64) -> Money {
        Money {
            minor,
            currency: self.currency.clone(),
            exponent: self.exponent,
        }
    }

    pub(crate) fn result(&self, raw: Option<String>) -> PaymentResult {
        PaymentResult {
            reference: Some(self.id.clone()),
            totals: self.totals(),
            next_action: self.redirect_url.clone().map(NextAction::redirect_to),
            raw,
            ..PaymentResult::new(self.status.contract())
        }
    }

    pub(crate) fn snapshot(&self, raw: Option<String>) -> Snapshot {
        Snapshot {
            refunds: self
                .refunds
                .iter()
                .map(|refund| refund.result(&self.money(refund.amount), None))
                .collect(),
            payment: self.result(raw),
        }
    }
}

impl Refund {
    /// `unit` lends its currency; the amount is the bank's.
    pub(crate) fn result(&self, unit: &Money, raw: Option<String>) -> RefundResult {
        RefundResult {
            refund_id: self.merchant_refund_id.clone(),
            status: self.status.contract(),
            reference: Some(self.id.clone()),
            amount: Some(Money {
                minor: self.amount,
                ..unit.clone()
            }),
            raw,
        }
    }
}

impl RefundState {
    pub(crate) fn contract(self) -> RefundStatus {
        match self {
            Self::Succeeded => RefundStatus::Succeeded,
            Self::Failed => RefundStatus::Failed,
        }
    }
}

#[cfg(test)]
pub(crate) const SAMPLE: &str = r#"{
    "id": "bp_1", "merchant_payment_id": "pay_1", "status": "partially_captured", "amount": 5000,
    "currency": "EUR", "exponent": 2, "authorized": 5000, "captured": 3000, "refunded": 1000,
    "canceled": 0, "redirect_url": null, "decline_code": null,
    "captures": [{"id": "cp_1", "amount": 3000}],
    "refunds": [{"id": "rf_1", "merchant_refund_id": "ref_1", "amount": 1000, "status": "succeeded"}]
}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payment_becomes_a_snapshot() {
        let payment: Payment = serde_json::from_str(SAMPLE).unwrap();
        let snapshot = payment.snapshot(None);
        assert_eq!(snapshot.payment.status, PaymentStatus::PartiallyCaptured);
        assert_eq!(snapshot.payment.reference.as_deref(), Some("bp_1"));
        assert_eq!(snapshot.payment.totals.captured, Some(3000));
        assert_eq!(snapshot.payment.next_action, None);
        let [refund] = snapshot.refunds.as_slice() else {
            panic!("one refund expected");
        };
        assert_eq!(refund.refund_id.as_deref(), Some("ref_1"));
        assert_eq!(refund.amount, Some(payment.money(1000)));
    }

    #[test]
    fn an_open_payment_sends_the_customer_to_the_page() {
        let open = SAMPLE.replace("partially_captured", "action_required").replace(
            r#""redirect_url": null"#,
            r#""redirect_url": "http://bank/pay/bp_1""#,
        );
        let payment: Payment = serde_json::from_str(&open).unwrap();
        let result = payment.result(None);
        assert_eq!(result.status, PaymentStatus::ActionRequired);
        assert_eq!(
            result.next_action,
            Some(NextAction::redirect_to("http://bank/pay/bp_1"))
        );
    }
}
