//! Amounts as PayPal writes them: decimals in texts, without a fraction for three currencies.

use oms_plugin_sdk::{Detail, Money, PaymentError};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Amount {
    pub(crate) currency_code: String,
    pub(crate) value: String,
}

/// What PayPal takes.
pub(crate) const CURRENCIES: [&str; 24] = [
    "AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "ILS", "JPY", "MXN", "MYR",
    "NOK", "NZD", "PHP", "PLN", "SEK", "SGD", "THB", "TWD", "USD",
];

/// Decimal places that PayPal allows; ISO 4217 has two for the first two of these.
fn places(currency: &str, exponent: u8) -> u8 {
    match currency {
        "HUF" | "TWD" | "JPY" => 0,
        _ => exponent,
    }
}

pub(crate) fn to_paypal(money: &Money) -> Result<Amount, PaymentError> {
    let value = if places(&money.currency, money.exponent) == money.exponent {
        money.decimal()
    } else {
        let decimal = money.decimal();
        let (whole, fraction) = decimal.split_once('.').unwrap_or((&decimal, ""));
        if fraction.bytes().any(|digit| digit != b'0') {
            let why = format!("PayPal takes no fractions of {}", money.currency);
            return Err(PaymentError::invalid_request(Detail::new("amount", why)));
        }
        whole.to_owned()
    };
    Ok(Amount {
        currency_code: money.currency.clone(),
        value,
    })
}

impl Amount {
    /// With the exponent of ISO 4217; none when it is no amount of that currency.
    pub(crate) fn money(&self, exponent: u8) -> Option<Money> {
        let minor = Money::minor_of(&self.value, exponent)?;
        Some(Money {
            minor,
            currency: self.currency_code.clone(),
            exponent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_go_and_come_back() {
        for (currency, exponent, minor, value) in [
            ("EUR", 2, 1_999, Some("19.99")),
            ("JPY", 0, 1_999, Some("1999")),
            ("HUF", 2, 199_900, Some("1999")),
            ("TWD", 2, 5, None),
        ] {
            let money = Money {
                minor,
                currency: currency.into(),
                exponent,
            };
            let sent = to_paypal(&money).ok();
            assert_eq!(
                sent.as_ref().map(|amount| amount.value.as_str()),
                value,
                "{minor} {currency}"
            );
            if let Some(amount) = sent {
                assert_eq!(amount.money(exponent), Some(money));
            }
        }
    }
}
