//! Step 3 of an operation: what its answer or its error means for the rows.

use uuid::Uuid;

use super::gateway::{Decline, GatewayError, GatewayStatus, PaymentReport, RefundReport};
use super::locked::{Locked, run_refund};
use super::merge::{News, Source};
use super::model::{OperationStatus, Payment, PaymentStatus};
use super::operation::Ended;
use super::reconcile;
use super::store::attempts::{Attempt, Operation, Progress};
use crate::error::{Error, Result};
use crate::id::AttemptId;

fn end(locked: &mut Locked, id: AttemptId, status: Progress, reference: Option<String>) {
    if let Some(attempt) = locked.attempt(id) {
        attempt.status = status;
        attempt.reference = reference;
        attempt.error = None;
    }
}

/// Takes an answer about the payment in.
pub(super) fn answered(locked: &mut Locked, attempt: &Attempt, report: &PaymentReport) {
    end(
        locked,
        attempt.id,
        report.status.into(),
        report.operation_reference.clone(),
    );
    let mut news = News::report(Source::Answer, report);
    if let Some(id) = attempt.capture {
        let captured = locked.payment.captured;
        let Some(capture) = locked.capture(id) else {
            return;
        };
        let took = matches!(
            report.status,
            GatewayStatus::Captured | GatewayStatus::PartiallyCaptured
        );
        capture.reference.clone_from(&report.operation_reference);
        match capture.status {
            // An event may have told it already.
            OperationStatus::Succeeded => {
                news.totals.captured = news.totals.captured.or(Some(captured));
            }
            _ if took => {
                let sum = captured + capture.amount.minor();
                news.totals.captured = news.totals.captured.or(Some(sum));
                capture.status = OperationStatus::Pending;
            }
            _ => capture.status = OperationStatus::Pending,
        }
    }
    locked.hear(&news);
}

/// Takes an answer about a refund in.
pub(super) fn refund_answered(locked: &mut Locked, attempt: &Attempt, report: &RefundReport) {
    if let Some(refund) = attempt.refund {
        locked.refund_told(refund, report);
    }
    end(locked, attempt.id, Progress::Succeeded, report.reference.clone());
}

/// What an error says about what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// A final no, which is the result of the operation.
    No,
    /// It did not happen and will not as it was sent; `ask`: our picture of the payment is not the gateway's.
    Refused { ask: bool },
    /// It did not happen but may, later.
    NotNow,
    /// It may have happened.
    Unknown,
}

fn meaning(operation: Operation, doubtful: bool, error: &GatewayError) -> Meaning {
    use GatewayError as E;
    let final_no = matches!(operation, Operation::Start | Operation::Refund);
    match error {
        E::Declined(_) => Meaning::No,
        E::Indeterminate(_) | E::Internal(_) => Meaning::Unknown,
        _ if doubtful => Meaning::Unknown,
        E::NotFound(_) | E::InvalidState(_) if operation == Operation::Start => Meaning::Unknown,
        E::NotFound(_) | E::InvalidState(_) if final_no => Meaning::No,
        E::NotFound(_) | E::InvalidState(_) => Meaning::Refused { ask: true },
        E::InvalidRequest(_) | E::Unsupported(_) if final_no => Meaning::No,
        E::InvalidRequest(_) | E::Unsupported(_) => Meaning::Refused { ask: false },
        E::NotAuthenticated(_) | E::RateLimited(_) | E::Unavailable(_) | E::Misconfigured(_) => {
            Meaning::NotNow
        }
    }
}

/// Takes an error in. Returns the client's key when nothing happened, so that it becomes free.
pub(super) fn refused(locked: &mut Locked, attempt: &Attempt, error: &GatewayError) -> Option<Uuid> {
    let meaning = meaning(attempt.operation, attempt.memo.doubtful, error);
    let status = match meaning {
        Meaning::No => Progress::Declined,
        Meaning::Refused { .. } | Meaning::NotNow => Progress::Failed,
        Meaning::Unknown => Progress::Unknown,
    };
    if let Some(attempt) = locked.attempt(attempt.id) {
        attempt.status = status;
        attempt.error = Some(error.clone());
        attempt.memo.doubtful |= status == Progress::Unknown;
    }
    match meaning {
        Meaning::Refused { ask: true } => locked.ask = true,
        // Its schedule begins, once: not anew with every try that tells nothing either.
        // A cancellation that we repeat by ourselves is a part of the schedule.
        Meaning::Unknown if attempt.operation == Operation::Cancel && attempt.memo.claim.is_none() => {}
        Meaning::Unknown if !attempt.memo.doubtful => locked.payment.sync_tries = 0,
        Meaning::No | Meaning::Refused { ask: false } | Meaning::NotNow | Meaning::Unknown => {}
    }
    let part = match meaning {
        Meaning::No | Meaning::Refused { .. } | Meaning::NotNow => OperationStatus::Failed,
        Meaning::Unknown => OperationStatus::Unknown,
    };
    match attempt.operation {
        Operation::Start | Operation::Complete if meaning == Meaning::No => {
            locked.hear(&News::declined(&decline(error)));
        }
        // Only while nothing else was heard of it: an event that outran this answer knows better.
        Operation::Start if meaning == Meaning::NotNow && locked.payment.status == PaymentStatus::Created => {
            locked.hear(&News::declined(&decline(error)));
        }
        Operation::Start | Operation::Complete | Operation::Cancel => {}
        Operation::Capture => set_capture(locked, attempt, part),
        Operation::Refund if meaning == Meaning::NotNow => refund_later(locked, attempt),
        Operation::Refund => set_refund(locked, attempt, part),
    }
    let nothing_happened = status == Progress::Failed && attempt.operation != Operation::Refund;
    nothing_happened.then_some(attempt.memo.claim).flatten()
}

fn decline(error: &GatewayError) -> Decline {
    let code = match error {
        GatewayError::Declined(decline) => return decline.clone(),
        GatewayError::InvalidRequest(_) => "invalid_request",
        GatewayError::Unsupported(_) => "unsupported",
        _ => "gateway_unavailable",
    };
    Decline {
        code: code.into(),
        message: error.to_string(),
    }
}

fn set_capture(locked: &mut Locked, attempt: &Attempt, status: OperationStatus) {
    let now = locked.now;
    let capture = attempt.capture.and_then(|id| locked.capture(id));
    if let Some(capture) = capture.filter(|c| c.status.is_unsettled()) {
        capture.status = status;
        capture.updated_at = now;
    }
}

fn set_refund(locked: &mut Locked, attempt: &Attempt, status: OperationStatus) {
    let now = locked.now;
    let refund = attempt.refund.and_then(|id| locked.refund(id));
    if let Some(refund) = refund.filter(|r| r.status.is_unsettled()) {
        refund.status = status;
        refund.updated_at = now;
    }
}

/// A refund is a promise: it stays, and is tried again under the same key until the schedule ends.
fn refund_later(locked: &mut Locked, attempt: &Attempt) {
    let Some(refund) = attempt.refund else {
        return;
    };
    match reconcile::delay(attempt.tries - 1) {
        Some(delay) => locked.enqueue(run_refund(refund, locked.now + delay)),
        None => {
            set_refund(locked, attempt, OperationStatus::Failed);
            locked.need_review("a refund could not be sent: the gateway is not available");
        }
    }
}

impl Ended {
    /// The payment, or why the operation did not happen. A decline is a result, not an error.
    pub(super) fn payment(self) -> Result<Payment> {
        let Some(error) = self
            .attempt
            .error
            .filter(|_| self.attempt.status == Progress::Failed)
        else {
            return Ok(self.payment);
        };
        match meaning(self.attempt.operation, false, &error) {
            Meaning::NotNow => Err(Error::gateway(self.payment.account, error)),
            Meaning::Refused { ask: false } if self.attempt.operation == Operation::Complete => {
                Err(Error::invalid("/params", error.to_string()))
            }
            Meaning::Refused { .. } => Err(Error::InvalidState {
                what: "payment",
                state: self.payment.shown_status().into(),
                detail: "the gateway does not allow this",
            }),
            Meaning::No | Meaning::Unknown => Ok(self.payment),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_meaning_for_every_operation() {
        use GatewayError as E;
        use Meaning::{No, NotNow, Refused, Unknown};
        let text = || "why".to_owned();
        let decline = Decline {
            code: text(),
            message: text(),
        };
        let (ask, plain) = (Refused { ask: true }, Refused { ask: false });
        // error, and its meaning for: start, complete, capture, cancel, refund; and after a try that may have happened
        let table = [
            (E::Declined(decline), [No; 5], No),
            (E::InvalidRequest(text()), [No, plain, plain, plain, No], Unknown),
            (E::InvalidState(text()), [Unknown, ask, ask, ask, No], Unknown),
            (E::NotFound(text()), [Unknown, ask, ask, ask, No], Unknown),
            (E::Unsupported(text()), [No, plain, plain, plain, No], Unknown),
            (E::NotAuthenticated(text()), [NotNow; 5], Unknown),
            (E::RateLimited(None), [NotNow; 5], Unknown),
            (E::Unavailable(text()), [NotNow; 5], Unknown),
            (E::Misconfigured(text()), [NotNow; 5], Unknown),
            (E::Indeterminate(text()), [Unknown; 5], Unknown),
            (E::Internal(text()), [Unknown; 5], Unknown),
        ];
        for (error, expected, doubtful) in table {
            for (operation, expected) in Operation::ALL.into_iter().zip(expected) {
                assert_eq!(
                    meaning(operation, false, &error),
                    expected,
                    "{operation:?}: {error}"
                );
                assert_eq!(
                    meaning(operation, true, &error),
                    doubtful,
                    "{operation:?} again: {error}"
                );
            }
        }
    }
}
