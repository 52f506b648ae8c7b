//! Amounts as Stripe writes them.
//!
//! Stripe counts in minor units too, but not always in those of ISO 4217
//! (<https://docs.stripe.com/currencies#zero-decimal>, `#three-decimal`, `#special-cases`):
//!
//! - Sixteen currencies have no decimals, among them MGA, to which ISO gives two.
//! - ISK and UGX have no decimals any more, but are written as if they had two, which must be `00`.
//! - BHD, JOD, KWD, OMR and TND have three, of which the last must be `0`.
//! - HUF and TWD are charged with two decimals as usual. Only payouts, which no shop makes, take whole units.

use oms_plugin_sdk::{Detail, Money, PaymentError};

/// UGX stands in Stripe's list as well, but its special case overrides that.
const NO_DECIMALS: &[&str] = &[
    "BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF",
];
const WHOLE_UNITS_WITH_TWO_DECIMALS: &[&str] = &["ISK", "UGX"];
const THREE_DECIMALS: &[&str] = &["BHD", "JOD", "KWD", "OMR", "TND"];

/// A currency in our units and in Stripe's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Units {
    code: String,
    /// Digits after the decimal point, by ISO 4217.
    ours: u8,
    stripes: u8,
    /// What Stripe's amounts must be a multiple of.
    step: i64,
}

impl Units {
    pub(crate) fn of(code: &str, ours: u8) -> Result<Self, String> {
        let code = code.to_ascii_uppercase();
        let is_in = |list: &[&str]| list.contains(&code.as_str());
        let (stripes, step) = if is_in(NO_DECIMALS) {
            (0, 1)
        } else if is_in(WHOLE_UNITS_WITH_TWO_DECIMALS) {
            (2, 100)
        } else if is_in(THREE_DECIMALS) {
            (3, 10)
        } else if ours <= 2 {
            (2, 1)
        } else {
            // Nobody says how Stripe would write it, and a guess is wrong by a factor of ten.
            return Err(format!("Stripe does not say how it counts {code}"));
        };
        Ok(Self {
            code,
            ours,
            stripes,
            step,
        })
    }

    pub(crate) fn of_money(money: &Money) -> Result<Self, PaymentError> {
        Self::of(&money.currency, money.exponent)
            .map_err(|why| PaymentError::invalid_request(Detail::new("currency", why)))
    }

    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    /// Our amount for Stripe. What it cannot be asked for exactly is refused: nothing is rounded.
    pub(crate) fn write(&self, minor: i64) -> Result<i64, PaymentError> {
        rescale(minor, self.ours, self.stripes)
            .filter(|amount| amount % self.step == 0)
            .ok_or_else(|| {
                let smallest = rescale(self.step, self.stripes, self.ours).unwrap_or(1);
                let why = format!(
                    "Stripe takes {} only in steps of {smallest} minor units, not {minor}",
                    self.code
                );
                PaymentError::invalid_request(Detail::new("amount_not_representable", why))
            })
    }

    /// Stripe's amount in our units.
    pub(crate) fn read(&self, amount: i64) -> Result<i64, PaymentError> {
        rescale(amount, self.stripes, self.ours).ok_or_else(|| {
            PaymentError::internal(format!(
                "Stripe's amount {amount} in {} is no number of minor units",
                self.code
            ))
        })
    }

    pub(crate) fn money(&self, amount: i64) -> Result<Money, PaymentError> {
        Ok(Money {
            minor: self.read(amount)?,
            currency: self.code.clone(),
            exponent: self.ours,
        })
    }
}

/// None when it would have to be rounded, or does not fit.
fn rescale(amount: i64, from: u8, to: u8) -> Option<i64> {
    let factor = 10_i64.checked_pow(u32::from(from.abs_diff(to)))?;
    if to >= from {
        amount.checked_mul(factor)
    } else {
        (amount % factor == 0).then(|| amount / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(code: &str, ours: u8) -> Units {
        Units::of(code, ours).unwrap()
    }

    #[test]
    fn amounts_are_written_as_stripe_wants_them() {
        // currency, its exponent by ISO 4217, our amount, Stripe's
        for (code, ours, minor, amount) in [
            ("EUR", 2, 1_999, 1_999),
            ("usd", 2, 1_000, 1_000),
            ("JPY", 0, 500, 500),
            ("KRW", 0, 500, 500),
            ("MGA", 2, 500, 5),
            ("UGX", 0, 5, 500),
            ("ISK", 0, 5, 500),
            ("KWD", 3, 5_120, 5_120),
            ("TND", 3, 10, 10),
            ("HUF", 2, 1_045, 1_045),
            ("TWD", 2, 80_045, 80_045),
        ] {
            assert_eq!(units(code, ours).write(minor), Ok(amount), "{code}");
            assert_eq!(units(code, ours).read(amount), Ok(minor), "{code}");
        }
    }

    #[test]
    fn nothing_is_rounded() {
        let refused = |code, ours, minor| {
            matches!(
                units(code, ours).write(minor),
                Err(PaymentError::InvalidRequest(detail)) if detail.code == "amount_not_representable"
            )
        };
        assert!(refused("KWD", 3, 5_124));
        assert!(refused("MGA", 2, 501));
        assert!(refused("ISK", 0, i64::MAX));
        // Charged before Stripe refused fractions.
        assert!(units("ISK", 0).read(4_010).is_err());
    }

    #[test]
    fn a_currency_that_stripe_does_not_describe_is_refused() {
        for (code, ours) in [("IQD", 3), ("LYD", 3), ("CLF", 4)] {
            assert!(Units::of(code, ours).is_err(), "{code}");
        }
    }
}
