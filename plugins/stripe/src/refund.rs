//! Stripe's refunds.

use oms_plugin_sdk::{PaymentError, RefundResult, RefundStatus};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::currency::Units;
use crate::intent::{Intent, tag, text};

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Refund {
    pub(crate) id: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) status: Option<String>,
    pub(crate) payment_intent: Option<String>,
    pub(crate) balance_transaction: Option<Value>,
    pub(crate) failure_balance_transaction: Option<Value>,
    #[serde(default)]
    pub(crate) metadata: Option<Map<String, Value>>,
}

/// One page of a list.
#[derive(Debug, Deserialize)]
pub(crate) struct Page<T> {
    pub(crate) data: Vec<T>,
    #[serde(default)]
    pub(crate) has_more: bool,
}

impl Refund {
    /// Our id of the refund, if it is one of ours.
    pub(crate) fn refund_id(&self) -> Option<&str> {
        text(self.metadata.as_ref()?, tag::REFUND)
    }

    pub(crate) fn payment_id(&self) -> Option<&str> {
        text(self.metadata.as_ref()?, tag::PAYMENT)
    }

    pub(crate) fn standing(&self) -> RefundStatus {
        match self.status.as_deref() {
            Some("succeeded") => RefundStatus::Succeeded,
            // The money had left the merchant's balance and is back in it.
            Some("failed")
                if self
                    .failure_balance_transaction
                    .as_ref()
                    .is_some_and(|it| !it.is_null()) =>
            {
                RefundStatus::Reversed
            }
            Some("failed" | "canceled") => RefundStatus::Failed,
            _ => RefundStatus::Pending,
        }
    }

    /// Whether this is what a partial capture gave up, which Stripe may write down as a refund: no money moved for it.
    pub(crate) fn is_release(&self, intent: &Intent) -> bool {
        if self.refund_id().is_some() {
            return false;
        }
        let moved = self.balance_transaction.as_ref().is_some_and(|it| !it.is_null());
        let rest = intent.amount_received.map(|received| intent.amount - received);
        self.payment_intent.as_deref() != Some(intent.id.as_str())
            || (intent.is_manual() && !moved && rest == Some(self.amount))
    }

    pub(crate) fn result(&self, units: &Units) -> Result<RefundResult, PaymentError> {
        Ok(RefundResult {
            refund_id: self.refund_id().map(str::to_owned),
            status: self.standing(),
            reference: Some(self.id.clone()),
            amount: Some(units.money(self.amount)?),
            raw: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent;

    fn refund(more: &str) -> Refund {
        let text = format!(r#"{{"id":"re_1","amount":499,"currency":"eur"{more}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn every_status_has_its_meaning() {
        for (more, expected) in [
            ("", RefundStatus::Pending),
            (r#","status":"pending""#, RefundStatus::Pending),
            (r#","status":"requires_action""#, RefundStatus::Pending),
            (r#","status":"succeeded""#, RefundStatus::Succeeded),
            (r#","status":"canceled""#, RefundStatus::Failed),
            (r#","status":"failed""#, RefundStatus::Failed),
            (
                r#","status":"failed","failure_balance_transaction":null"#,
                RefundStatus::Failed,
            ),
            (
                r#","status":"failed","failure_balance_transaction":"txn_1""#,
                RefundStatus::Reversed,
            ),
        ] {
            assert_eq!(refund(more).standing(), expected, "{more}");
        }
    }

    #[test]
    fn what_a_partial_capture_gives_up_is_no_refund() {
        let part = intent::sample(
            "succeeded",
            r#","amount_received":1500,"capture_method":"manual""#,
        );
        let release = r#","payment_intent":"pi_1","balance_transaction":null"#;
        assert!(refund(release).is_release(&part));
        assert!(refund("").is_release(&part));
        let moved = r#","payment_intent":"pi_1","balance_transaction":"txn_1""#;
        assert!(!refund(moved).is_release(&part));
        let ours = r#","payment_intent":"pi_1","metadata":{"oms_refund":"ref_1"}"#;
        assert!(!refund(ours).is_release(&part));
        assert!(!refund(release).is_release(&intent::sample("succeeded", r#","amount_received":1500"#)));
    }

    #[test]
    fn a_refund_names_ours() {
        let ours = refund(r#","status":"succeeded","metadata":{"oms_refund":"ref_1","oms_payment":"pay_1"}"#);
        let units = Units::of("EUR", 2).unwrap();
        let result = ours.result(&units).unwrap();
        assert_eq!(result.refund_id.as_deref(), Some("ref_1"));
        assert_eq!(result.amount.unwrap().minor, 499);
        assert_eq!(ours.payment_id(), Some("pay_1"));
        assert_eq!(refund(r#","metadata":null"#).refund_id(), None);
    }
}
