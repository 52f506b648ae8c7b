//! Amounts as Adyen counts them: minor units, but not those of ISO 4217 for every currency.

use oms_plugin_sdk::{Detail, Money, PaymentError};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Amount {
    pub(crate) value: i64,
    pub(crate) currency: String,
}

/// By how many decimal places Adyen's minor units are finer than those of ISO 4217.
fn finer(currency: &str) -> i32 {
    match currency {
        "CLP" | "ISK" => 2,
        "CVE" | "IDR" => -2,
        _ => 0,
    }
}

pub(crate) fn to_adyen(money: &Money) -> Result<Amount, PaymentError> {
    let value = scale(money.minor, finer(&money.currency)).ok_or_else(|| {
        let message = format!("Adyen has no fractions of {}", money.currency);
        PaymentError::invalid_request(Detail::new("amount", message))
    })?;
    Ok(Amount {
        value,
        currency: money.currency.clone(),
    })
}

impl Amount {
    /// Minor units of ISO 4217; none when there is no such amount.
    pub(crate) fn minor(&self) -> Option<i64> {
        scale(self.value, -finer(&self.currency))
    }
}

fn scale(amount: i64, places: i32) -> Option<i64> {
    let factor = 10_i64.pow(places.unsigned_abs());
    match places {
        0.. => amount.checked_mul(factor),
        _ => (amount % factor == 0).then_some(amount / factor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adyens_minor_units() {
        for (currency, exponent, minor, value) in [
            ("EUR", 2, 1_999, Some(1_999)),
            ("JPY", 0, 1_999, Some(1_999)),
            ("KWD", 3, 1_999, Some(1_999)),
            ("ISK", 0, 1_999, Some(199_900)),
            ("CLP", 0, 5, Some(500)),
            ("IDR", 2, 1_000_000, Some(10_000)),
            ("IDR", 2, 1_000_001, None),
            ("ISK", 0, i64::MAX, None),
        ] {
            let money = Money {
                minor,
                currency: currency.into(),
                exponent,
            };
            let sent = to_adyen(&money).ok();
            assert_eq!(
                sent.as_ref().map(|amount| amount.value),
                value,
                "{minor} {currency}"
            );
            if let Some(amount) = sent {
                assert_eq!(amount.minor(), Some(minor), "{minor} {currency}");
            }
        }
    }
}
