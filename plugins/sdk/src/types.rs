//! Conveniences on the contract's records, so that a plugin writes only what it knows.

use crate::{Change, Event, Outcome, Verified};
use crate::{Money, NextAction, PaymentResult, PaymentStatus, Redirect, RedirectMethod, Totals};

impl PaymentResult {
    /// A result of which only the status is known; fill in the rest with `..`.
    pub fn new(status: PaymentStatus) -> Self {
        Self {
            status,
            reference: None,
            operation_reference: None,
            totals: Totals::default(),
            next_action: None,
            expires_at_ms: None,
            state: None,
            method: Vec::new(),
            raw: None,
        }
    }
}

impl Default for Totals {
    /// The gateway does not say.
    fn default() -> Self {
        Self {
            currency: None,
            authorized: None,
            captured: None,
            refunded: None,
            canceled: None,
        }
    }
}

impl NextAction {
    /// Sends the customer to a page with a plain link.
    pub fn redirect_to(url: impl Into<String>) -> Self {
        Self::Redirect(Redirect {
            url: url.into(),
            method: RedirectMethod::Get,
            form_fields: Vec::new(),
        })
    }
}

impl Money {
    /// The amount as gateways with decimal strings want it: `12.99`, `1299` for a currency without
    /// minor units, `-0.05`.
    pub fn decimal(&self) -> String {
        let digits = usize::from(self.exponent);
        let sign = if self.minor < 0 { "-" } else { "" };
        let magnitude = self.minor.unsigned_abs().to_string();
        if digits == 0 {
            return format!("{sign}{magnitude}");
        }
        let padded = format!("{magnitude:0>width$}", width = digits + 1);
        let (whole, fraction) = padded.split_at(padded.len() - digits);
        format!("{sign}{whole}.{fraction}")
    }

    /// Minor units of an amount that a gateway writes as a decimal, such as `12.99`, in a currency with this many
    /// digits after the point. None when it has other digits than zero beyond them, or is no number.
    pub fn minor_of(text: &str, exponent: u8) -> Option<i64> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !plain(whole) || !plain(fraction) {
            return None;
        }
        let places = usize::from(exponent);
        let (kept, beyond) = fraction.split_at(fraction.len().min(places));
        if beyond.bytes().any(|digit| digit != b'0') {
            return None;
        }
        let minor: i64 = format!("{whole}{kept:0<places$}").parse().ok()?;
        Some(sign * minor)
    }
}

impl Outcome {
    /// The usual outcome: one event, verified, answered with the host's default reply.
    pub fn event(event: Event, signed_at_ms: Option<u64>) -> Self {
        Self::Verified(Verified {
            events: vec![event],
            signed_at_ms,
            replay_key: None,
            reply: None,
        })
    }
}

impl Event {
    /// An event of which only the identity is known; fill in the rest with `..`.
    pub fn new(id: impl Into<String>, kind: impl Into<String>, change: Change) -> Self {
        Self {
            id: id.into(),
            kind: kind.into(),
            occurred_at_ms: None,
            reference: None,
            payment_id: None,
            change,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_become_decimals() {
        let decimal = |minor, exponent| {
            Money {
                minor,
                currency: "XXX".into(),
                exponent,
            }
            .decimal()
        };
        assert_eq!(decimal(1299, 2), "12.99");
        assert_eq!(decimal(5, 2), "0.05");
        assert_eq!(decimal(-5, 2), "-0.05");
        assert_eq!(decimal(1299, 0), "1299");
        assert_eq!(decimal(0, 3), "0.000");
        assert_eq!(decimal(i64::MIN, 2), "-92233720368547758.08");
    }

    #[test]
    fn decimals_become_amounts() {
        for (text, exponent, minor) in [
            ("12.99", 2, Some(1299)),
            ("12.9", 2, Some(1290)),
            ("12", 2, Some(1200)),
            ("0.05", 2, Some(5)),
            ("-0.05", 2, Some(-5)),
            ("1299", 0, Some(1299)),
            ("1299.00", 0, Some(1299)),
            ("1.2345", 3, None),
            ("1.5", 0, None),
            ("1.", 2, None),
            (".5", 2, None),
            ("1,5", 2, None),
            ("+1", 2, None),
            ("1e3", 2, None),
            ("", 2, None),
            ("99999999999999999999", 2, None),
        ] {
            assert_eq!(Money::minor_of(text, exponent), minor, "{text} {exponent}");
        }
    }
}
