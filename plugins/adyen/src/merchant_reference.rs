//! The reference that Adyen keeps with a payment and repeats, signed, in every notification: our payment id and, as a
//! notification is read without the payment at hand, what it needs to be understood: `pay_01h455vb4pex5vsknk084sn02q.al`.

use oms_plugin_sdk::CaptureMode;
use std::fmt;

/// How the customer pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// One attempt with the payment data of the browser: a refusal is final.
    Payment,
    /// A page of Adyen's, where the customer may try again after a refusal.
    Link,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MerchantReference {
    pub(crate) payment_id: String,
    pub(crate) capture: CaptureMode,
    pub(crate) flow: Flow,
}

impl MerchantReference {
    pub(crate) fn new(payment_id: &str, capture: CaptureMode, flow: Flow) -> Self {
        Self {
            payment_id: payment_id.to_owned(),
            capture,
            flow,
        }
    }

    /// None for references that somebody else made: other systems may use the same merchant account.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (payment_id, flags) = text.split_once('.')?;
        let (capture, flow) = match flags {
            "a" => (CaptureMode::Automatic, Flow::Payment),
            "al" => (CaptureMode::Automatic, Flow::Link),
            "m" => (CaptureMode::Manual, Flow::Payment),
            "ml" => (CaptureMode::Manual, Flow::Link),
            _ => return None,
        };
        payment_id
            .starts_with("pay_")
            .then(|| Self::new(payment_id, capture, flow))
    }
}

impl fmt::Display for MerchantReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capture = match self.capture {
            CaptureMode::Automatic => "a",
            CaptureMode::Manual => "m",
        };
        let flow = match self.flow {
            Flow::Payment => "",
            Flow::Link => "l",
        };
        write!(f, "{}.{capture}{flow}", self.payment_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for capture in [CaptureMode::Automatic, CaptureMode::Manual] {
            for flow in [Flow::Payment, Flow::Link] {
                let reference = MerchantReference::new("pay_1", capture, flow);
                assert_eq!(MerchantReference::parse(&reference.to_string()), Some(reference));
            }
        }
        for foreign in [
            "",
            "pay_1",
            "pay_1.",
            "pay_1.x",
            "order-7.a",
            "TestPayment-1407325143704",
        ] {
            assert_eq!(MerchantReference::parse(foreign), None, "{foreign}");
        }
    }
}
