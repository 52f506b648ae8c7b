//! The bank's payments: what they hold, and the pure transitions between their states.
//!
//! ```text
//! action_required --approve--> captured (capture automatic) | authorized (capture manual)
//! action_required --decline--> failed              action_required --cancel--> canceled
//! authorized ------capture---> partially_captured | captured      --cancel--> canceled
//! partially_captured -capture-> partially_captured | captured     --cancel--> captured (rest released)
//! partially_captured, captured --refund--> the same state, `refunded` grows
//! ```
//! Everything else is refused and changes nothing.

use super::faults::Fault;
use serde::{Deserialize, Serialize};

/// A thousand million of most major units: no shop gets there, and no sum of two overflows.
pub(super) const MAX_AMOUNT: i64 = 100_000_000_000;

/// Amounts are minor units of `currency`, totals are cumulative.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Payment {
    pub(super) id: String,
    pub(super) merchant_payment_id: String,
    pub(super) order_number: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) exponent: u8,
    pub(super) capture: CaptureMode,
    pub(super) description: Option<String>,
    pub(super) return_url: Option<String>,
    pub(super) cancel_url: Option<String>,
    pub(super) webhook_url: Option<String>,
    pub(super) status: Status,
    pub(super) authorized: i64,
    pub(super) captured: i64,
    pub(super) refunded: i64,
    pub(super) canceled: i64,
    pub(super) decline_code: Option<String>,
    pub(super) three_d_secure: bool,
    pub(super) fault: Option<Fault>,
    pub(super) captures: Vec<Capture>,
    pub(super) refunds: Vec<Refund>,
    pub(super) created_at_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CaptureMode {
    Automatic,
    Manual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    ActionRequired,
    Authorized,
    PartiallyCaptured,
    Captured,
    Canceled,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Capture {
    pub(super) id: String,
    pub(super) amount: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Refund {
    pub(super) id: String,
    pub(super) merchant_refund_id: String,
    pub(super) amount: i64,
    pub(super) reason: Option<String>,
    pub(super) status: RefundStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RefundStatus {
    Succeeded,
    Failed,
}

/// What the merchant is told by webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventKind {
    Authorized,
    PartiallyCaptured,
    Captured,
    Canceled,
    Failed,
    RefundSucceeded,
    RefundFailed,
}

/// Why a transition did not take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The payment is in a state that has no such transition.
    InvalidState(Status),
    /// Asked for more than is left.
    TooMuch { asked: i64, left: i64 },
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ActionRequired => "action_required",
            Self::Authorized => "authorized",
            Self::PartiallyCaptured => "partially_captured",
            Self::Captured => "captured",
            Self::Canceled => "canceled",
            Self::Failed => "failed",
        }
    }
}

impl EventKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Authorized => "payment.authorized",
            Self::PartiallyCaptured => "payment.partially_captured",
            Self::Captured => "payment.captured",
            Self::Canceled => "payment.canceled",
            Self::Failed => "payment.failed",
            Self::RefundSucceeded => "refund.succeeded",
            Self::RefundFailed => "refund.failed",
        }
    }
}

impl Payment {
    /// Authorized and not yet captured or released.
    pub(super) fn capturable(&self) -> i64 {
        self.authorized - self.captured - self.canceled
    }

    /// The customer agreed. With automatic capture the money moves at once, which is told as two
    /// events, as most gateways do.
    pub(super) fn approve(&mut self, capture_id: String) -> Result<Vec<Told>, Refusal> {
        self.require(&[Status::ActionRequired])?;
        self.authorized = self.amount;
        self.status = Status::Authorized;
        let mut told = vec![self.tell(EventKind::Authorized)];
        if self.capture == CaptureMode::Automatic {
            told.extend(self.capture(capture_id, self.amount, true)?);
        }
        Ok(told)
    }

    /// The customer, or the customer's bank, said no.
    pub(super) fn decline(&mut self, code: &str) -> Result<Vec<Told>, Refusal> {
        self.require(&[Status::ActionRequired])?;
        self.status = Status::Failed;
        self.decline_code = Some(code.to_owned());
        Ok(vec![self.tell(EventKind::Failed)])
    }

    /// Takes a part or all of what was authorized; a final capture releases the rest.
    pub(super) fn capture(&mut self, id: String, amount: i64, last: bool) -> Result<Vec<Told>, Refusal> {
        self.require(&[Status::Authorized, Status::PartiallyCaptured])?;
        let left = self.capturable();
        if amount > left {
            return Err(Refusal::TooMuch { asked: amount, left });
        }
        self.captured += amount;
        self.captures.push(Capture { id, amount });
        if last {
            self.canceled += self.capturable();
        }
        let (status, event) = if self.capturable() == 0 {
            (Status::Captured, EventKind::Captured)
        } else {
            (Status::PartiallyCaptured, EventKind::PartiallyCaptured)
        };
        self.status = status;
        Ok(vec![self.tell(event)])
    }

    /// Gives up what has not been captured.
    pub(super) fn cancel(&mut self) -> Result<Vec<Told>, Refusal> {
        self.require(&[
            Status::ActionRequired,
            Status::Authorized,
            Status::PartiallyCaptured,
        ])?;
        self.canceled += self.capturable();
        let (status, event) = if self.captured > 0 {
            (Status::Captured, EventKind::Captured)
        } else {
            (Status::Canceled, EventKind::Canceled)
        };
        self.status = status;
        Ok(vec![self.tell(event)])
    }

    /// Gives captured money back. A refund that fails is kept, and gives nothing back.
    pub(super) fn refund(&mut self, refund: Refund) -> Result<Vec<Told>, Refusal> {
        self.require(&[Status::PartiallyCaptured, Status::Captured])?;
        let left = self.captured - self.refunded;
        if refund.amount > left {
            return Err(Refusal::TooMuch {
                asked: refund.amount,
                left,
            });
        }
        let event = match refund.status {
            RefundStatus::Succeeded => {
                self.refunded += refund.amount;
                EventKind::RefundSucceeded
            }
            RefundStatus::Failed => EventKind::RefundFailed,
        };
        self.refunds.push(refund.clone());
        Ok(vec![Told {
            refund: Some(refund),
            ..self.tell(event)
        }])
    }

    fn require(&self, allowed: &[Status]) -> Result<(), Refusal> {
        if allowed.contains(&self.status) {
            Ok(())
        } else {
            Err(Refusal::InvalidState(self.status))
        }
    }

    fn tell(&self, kind: EventKind) -> Told {
        Told {
            kind,
            payment: self.clone(),
            refund: None,
        }
    }
}

/// One thing that happened, with the payment as it stood right after.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Told {
    pub(super) kind: EventKind,
    pub(super) payment: Payment,
    pub(super) refund: Option<Refund>,
}

#[cfg(test)]
pub(super) fn sample(capture: CaptureMode, amount: i64) -> Payment {
    Payment {
        id: "bp_1".into(),
        merchant_payment_id: "pay_1".into(),
        order_number: "1001".into(),
        amount,
        currency: "EUR".into(),
        exponent: 2,
        capture,
        description: None,
        return_url: None,
        cancel_url: None,
        webhook_url: Some("http://127.0.0.1:9/hook".into()),
        status: Status::ActionRequired,
        authorized: 0,
        captured: 0,
        refunded: 0,
        canceled: 0,
        decline_code: None,
        three_d_secure: false,
        fault: None,
        captures: Vec::new(),
        refunds: Vec::new(),
        created_at_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Status::{ActionRequired, Authorized, Canceled, Captured, Failed, PartiallyCaptured};

    fn in_state(status: Status) -> Payment {
        let mut payment = sample(CaptureMode::Manual, 1000);
        match status {
            ActionRequired => {}
            Failed => drop(payment.decline("card_declined").unwrap()),
            Canceled => drop(payment.cancel().unwrap()),
            Authorized => drop(payment.approve("cp".into()).unwrap()),
            PartiallyCaptured => {
                payment.approve("cp".into()).unwrap();
                payment.capture("cp".into(), 400, false).unwrap();
            }
            Captured => {
                payment.approve("cp".into()).unwrap();
                payment.capture("cp".into(), 1000, false).unwrap();
            }
        }
        assert_eq!(payment.status, status);
        payment
    }

    fn refund(amount: i64, status: RefundStatus) -> Refund {
        Refund {
            id: "rf_1".into(),
            merchant_refund_id: "ref_1".into(),
            amount,
            reason: None,
            status,
        }
    }

    /// What each operation with a small amount leads to from each state; none = refused.
    #[test]
    fn every_state_and_operation() {
        type Row = (Status, [Option<Status>; 5]);
        // approve, decline, capture 300, cancel, refund 300
        let table: [Row; 6] = [
            (
                ActionRequired,
                [Some(Authorized), Some(Failed), None, Some(Canceled), None],
            ),
            (
                Authorized,
                [None, None, Some(PartiallyCaptured), Some(Canceled), None],
            ),
            (
                PartiallyCaptured,
                [
                    None,
                    None,
                    Some(PartiallyCaptured),
                    Some(Captured),
                    Some(PartiallyCaptured),
                ],
            ),
            (Captured, [None, None, None, None, Some(Captured)]),
            (Canceled, [None; 5]),
            (Failed, [None; 5]),
        ];
        for (state, expected) in table {
            for (operation, expected) in expected.into_iter().enumerate() {
                let before = in_state(state);
                let mut after = before.clone();
                let result = match operation {
                    0 => after.approve("cp".into()),
                    1 => after.decline("card_declined"),
                    2 => after.capture("cp".into(), 300, false),
                    3 => after.cancel(),
                    _ => after.refund(refund(300, RefundStatus::Succeeded)),
                };
                match expected {
                    Some(status) => assert_eq!(after.status, status, "{state:?} {operation}"),
                    None => {
                        assert_eq!(result, Err(Refusal::InvalidState(state)), "{operation}");
                        assert_eq!(after, before, "a refusal changes nothing");
                    }
                }
            }
        }
    }

    #[test]
    fn automatic_capture_tells_both_steps() {
        let mut payment = sample(CaptureMode::Automatic, 1000);
        let told = payment.approve("cp_1".into()).unwrap();
        let kinds: Vec<_> = told.iter().map(|told| told.kind).collect();
        assert_eq!(kinds, [EventKind::Authorized, EventKind::Captured]);
        assert_eq!(told[0].payment.captured, 0, "each event shows its own moment");
        assert_eq!((payment.captured, payment.capturable()), (1000, 0));
    }

    #[test]
    fn a_final_capture_releases_the_rest() {
        let mut payment = in_state(PartiallyCaptured);
        payment.capture("cp_2".into(), 100, true).unwrap();
        assert_eq!(payment.status, Captured);
        assert_eq!((payment.captured, payment.canceled), (500, 500));
    }

    #[test]
    fn nothing_beyond_what_is_left() {
        let mut payment = in_state(PartiallyCaptured);
        let too_much = |asked, left| Err(Refusal::TooMuch { asked, left });
        assert_eq!(payment.capture("cp".into(), 601, true), too_much(601, 600));
        assert_eq!(
            payment.refund(refund(401, RefundStatus::Succeeded)),
            too_much(401, 400)
        );
        payment.refund(refund(400, RefundStatus::Failed)).unwrap();
        assert_eq!(payment.refunded, 0, "a failed refund gives nothing back");
        payment.refund(refund(400, RefundStatus::Succeeded)).unwrap();
        assert_eq!(payment.refund(refund(1, RefundStatus::Succeeded)), too_much(1, 0));
        assert_eq!(payment.refunds.len(), 2);
    }
}
