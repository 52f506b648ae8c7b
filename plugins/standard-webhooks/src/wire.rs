//! Payments and refunds in the gateway's JSON, read by the pointers of the settings.

use crate::settings::Settings;
use oms_plugin_sdk::{
    Money, NextAction, PaymentResult, PaymentStatus, RefundResult, RefundStatus, Snapshot, Totals,
};
use serde_json::Value;

/// Why a value cannot be read.
pub(crate) type Read<T> = Result<T, String>;

/// A value with the settings that explain it.
pub(crate) struct View<'a> {
    settings: &'a Settings,
    value: &'a Value,
    exponent: u8,
}

impl<'a> View<'a> {
    /// What a pointer of the settings leads to; null counts as absent.
    pub(crate) fn find(settings: &Settings, value: &'a Value, name: &str) -> Option<&'a Value> {
        value
            .pointer(settings.pointer(name)?)
            .filter(|found| !found.is_null())
    }

    pub(crate) fn new(settings: &'a Settings, value: &'a Value, exponent: u8) -> Self {
        Self {
            settings,
            value,
            exponent,
        }
    }

    /// Another value in the same currency.
    pub(crate) fn of<'b>(&self, settings: &'b Settings, value: &'b Value) -> View<'b> {
        View::new(settings, value, self.exponent)
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        Self::find(self.settings, self.value, name)
    }

    /// Gateways name things with texts and with numbers.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.get(name)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn required(&self, name: &str) -> Read<String> {
        let pointer = self.settings.pointer(name).unwrap_or_default();
        self.text(name)
            .ok_or_else(|| format!("there is no text at {pointer:?} (`{name}`)"))
    }

    fn amount(&self, name: &str) -> Read<Option<i64>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let minor = match (value, self.settings.decimal_amounts) {
            (Value::Number(number), false) => number.as_i64(),
            (Value::String(text), true) => Money::minor_of(text, self.exponent),
            (Value::Number(number), true) => Money::minor_of(&number.to_string(), self.exponent),
            _ => None,
        };
        match minor {
            Some(minor) => Ok(Some(minor)),
            None => Err(format!("{value} is no amount (`{name}`)")),
        }
    }

    pub(crate) fn currency(&self) -> Option<String> {
        self.text("field-currency").map(|code| code.to_ascii_uppercase())
    }

    pub(crate) fn status(&self) -> Read<PaymentStatus> {
        let word = self.required("field-status")?;
        let unknown = || format!("no setting explains the payment's status {word:?}");
        self.settings.payment_status(&word).ok_or_else(unknown)
    }

    pub(crate) fn totals(&self) -> Read<Totals> {
        Ok(Totals {
            currency: self.currency(),
            authorized: self.amount("field-authorized")?,
            captured: self.amount("field-captured")?,
            refunded: self.amount("field-refunded")?,
            canceled: self.amount("field-canceled")?,
        })
    }

    pub(crate) fn payment(&self) -> Read<PaymentResult> {
        let status = self.status()?;
        Ok(PaymentResult {
            reference: Some(self.required("field-reference")?),
            totals: self.totals()?,
            next_action: match status {
                PaymentStatus::ActionRequired => self.text("field-redirect").map(NextAction::redirect_to),
                _ => None,
            },
            ..PaymentResult::new(status)
        })
    }

    pub(crate) fn snapshot(&self) -> Read<Snapshot> {
        let payment = self.payment()?;
        let refunds = match self.get("field-refunds") {
            Some(Value::Array(refunds)) => refunds.as_slice(),
            _ => &[],
        };
        let currency = payment.totals.currency.clone();
        let read = |refund| View::new(self.settings, refund, self.exponent).refund(currency.as_deref());
        Ok(Snapshot {
            refunds: refunds.iter().map(read).collect::<Read<_>>()?,
            payment,
        })
    }

    pub(crate) fn refund_status(&self) -> Read<RefundStatus> {
        let word = self.required("refund-status")?;
        let unknown = || format!("no setting explains the refund's status {word:?}");
        self.settings.refund_status(&word).ok_or_else(unknown)
    }

    pub(crate) fn refund_amount(&self, currency: Option<&str>) -> Read<Option<Money>> {
        let minor = self.amount("refund-amount")?;
        Ok(minor.zip(currency).map(|(minor, currency)| Money {
            minor,
            currency: currency.to_owned(),
            exponent: self.exponent,
        }))
    }

    pub(crate) fn refund(&self, currency: Option<&str>) -> Read<RefundResult> {
        Ok(RefundResult {
            refund_id: self.text("refund-id"),
            status: self.refund_status()?,
            reference: Some(self.required("refund-reference")?),
            amount: self.refund_amount(currency)?,
            raw: None,
        })
    }
}

#[cfg(test)]
pub(crate) const SAMPLE: &str = r#"{
    "id": "bp_1", "merchant_payment_id": "pay_1", "status": "partially_captured", "currency": "EUR", "authorized": 5000,
    "captured": 3000, "refunded": 1000, "canceled": 0, "redirect_url": null,
    "refunds": [{"id": "rf_1", "merchant_refund_id": "ref_1", "amount": 1000, "status": "succeeded"}]
}"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;
    use serde_json::json;

    #[test]
    fn a_payment_becomes_a_snapshot() {
        let (settings, value) = (settings(&[]).unwrap(), serde_json::from_str(SAMPLE).unwrap());
        let snapshot = View::new(&settings, &value, 2).snapshot().unwrap();
        assert_eq!(snapshot.payment.status, PaymentStatus::PartiallyCaptured);
        assert_eq!(
            (snapshot.payment.totals.captured, snapshot.payment.totals.canceled),
            (Some(3_000), None)
        );
        let [refund] = snapshot.refunds.as_slice() else {
            panic!("one refund expected");
        };
        assert_eq!(
            (refund.refund_id.as_deref(), refund.status),
            (Some("ref_1"), RefundStatus::Succeeded)
        );
        assert_eq!(refund.amount.as_ref().map(|amount| amount.minor), Some(1_000));
    }

    #[test]
    fn another_gateways_shape() {
        let settings = settings(&[
            ("amounts", "decimal"),
            ("field-reference", "/payment/no"),
            ("field-status", "/payment/state"),
            ("field-currency", "/payment/sum/cur"),
            ("field-captured", "/payment/sum/paid"),
            ("word-captured", "SETTLED"),
        ])
        .unwrap();
        let value =
            json!({"payment": {"no": 77, "state": "SETTLED", "sum": {"cur": "eur", "paid": "19.90"}}});
        let payment = View::new(&settings, &value, 2).payment().unwrap();
        assert_eq!(
            (payment.status, payment.reference.as_deref()),
            (PaymentStatus::Captured, Some("77"))
        );
        assert_eq!(
            (payment.totals.captured, payment.totals.currency.as_deref()),
            (Some(1_990), Some("EUR"))
        );
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let settings = settings(&[]).unwrap();
        let read = |value: Value| View::new(&settings, &value, 2).payment().unwrap_err();
        assert!(read(json!({"status": "captured"})).contains("field-reference"));
        assert!(read(json!({"id": "a"})).contains("field-status"));
        assert!(read(json!({"id": "a", "status": "odd"})).contains("odd"));
        assert!(
            read(json!({"id": "a", "status": "captured", "captured": "19.99"})).contains("field-captured")
        );
        assert!(read(json!({"id": "a", "status": "captured", "captured": 19.99})).contains("field-captured"));
    }
}
