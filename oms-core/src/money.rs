//! Money in minor units with its currency, and arithmetic that cannot overflow in silence.

use std::fmt;
use std::str::FromStr;

/// An ISO 4217 currency.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// The three capital letters.
    pub fn code(&self) -> &str {
        // Only letters that were checked by `from_str` come in.
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }

    /// Digits after the decimal point: 2 for EUR, 0 for JPY, 3 for KWD.
    pub fn exponent(&self) -> u8 {
        iso_currency::Currency::from_code(self.code())
            .and_then(iso_currency::Currency::exponent)
            .and_then(|e| u8::try_from(e).ok())
            .unwrap_or(2)
    }
}

impl FromStr for Currency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = iso_currency::Currency::from_code(text).is_some_and(|c| c.exponent().is_some());
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(code) if known => Ok(Self(code)),
            _ => Err("must be the code of an ISO 4217 currency in capital letters, such as EUR".into()),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount in minor units (cents for EUR), never negative and below 2^53, so that every JSON reader gets it exactly.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    minor: i64,
    currency: Currency,
}

impl Money {
    /// The largest amount, 2^53 - 1 minor units.
    pub const MAX: i64 = (1 << 53) - 1;

    /// An amount between 0 and [`Money::MAX`] minor units.
    pub fn new(minor: i64, currency: Currency) -> Result<Self, String> {
        if (0..=Self::MAX).contains(&minor) {
            Ok(Self { minor, currency })
        } else {
            Err(format!("must be between 0 and {} minor units", Self::MAX))
        }
    }

    /// Nothing.
    pub const fn zero(currency: Currency) -> Self {
        Self { minor: 0, currency }
    }

    /// Minor units.
    pub const fn minor(self) -> i64 {
        self.minor
    }

    /// The currency.
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// The sum; `None` when the currencies differ or it passes [`Money::MAX`].
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.same(other).then_some(())?;
        Self::new(self.minor.checked_add(other.minor)?, self.currency).ok()
    }

    /// The difference; `None` when the currencies differ or it would be negative.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.same(other).then_some(())?;
        Self::new(self.minor.checked_sub(other.minor)?, self.currency).ok()
    }

    /// The price of `quantity` units; `None` past [`Money::MAX`].
    pub fn times(self, quantity: i64) -> Option<Self> {
        Self::new(self.minor.checked_mul(quantity)?, self.currency).ok()
    }

    fn same(self, other: Self) -> bool {
        self.currency == other.currency
    }
}

/// As people write it: `12.99 EUR`, `500 JPY`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = usize::from(self.currency.exponent());
        let unit = 10_i64.pow(u32::from(self.currency.exponent()));
        let (whole, part) = (self.minor / unit, self.minor % unit);
        match digits {
            0 => write!(f, "{whole} {}", self.currency),
            _ => write!(f, "{whole}.{part:0digits$} {}", self.currency),
        }
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(minor: i64, code: &str) -> Money {
        Money::new(minor, code.parse().unwrap()).unwrap()
    }

    #[test]
    fn currencies_are_iso() {
        for code in ["eur", "EURO", "", "XXQ", "€"] {
            assert!(code.parse::<Currency>().is_err(), "{code}");
        }
        let exponents = ["EUR", "JPY", "KWD"].map(|c| c.parse::<Currency>().unwrap().exponent());
        assert_eq!(exponents, [2, 0, 3]);
    }

    #[test]
    fn arithmetic_is_checked() {
        assert_eq!(money(1299, "EUR").times(3), Some(money(3897, "EUR")));
        assert_eq!(money(Money::MAX, "EUR").times(2), None);
        assert_eq!(money(Money::MAX, "EUR").times(i64::MAX), None);
        assert_eq!(money(Money::MAX, "EUR").checked_add(money(1, "EUR")), None);
        assert_eq!(money(1, "EUR").checked_add(money(1, "USD")), None);
        assert_eq!(money(1, "EUR").checked_sub(money(2, "EUR")), None);
        assert!(Money::new(-1, "EUR".parse().unwrap()).is_err());
    }

    #[test]
    fn shown_as_people_write_it() {
        assert_eq!(money(1299, "EUR").to_string(), "12.99 EUR");
        assert_eq!(money(5, "EUR").to_string(), "0.05 EUR");
        assert_eq!(money(500, "JPY").to_string(), "500 JPY");
        assert_eq!(money(1, "KWD").to_string(), "0.001 KWD");
    }
}
