//! What the bank does wrong on purpose, and what that makes of its webhooks.
//!
//! The table for readers stands in the module above; this is the same table for the program.

use super::model::{CaptureMode, EventKind, Told};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    Decline,
    TimeoutAfterCharge,
    DuplicateWebhooks,
    OutOfOrderWebhooks,
    TamperedWebhooks,
    StaleWebhooks,
    FutureWebhooks,
    WrongAmount,
    SlowAnswers,
    NoWebhooks,
    TimeoutOnChange,
    RefundFails,
}

impl Fault {
    pub(super) const ALL: [Self; 12] = [
        Self::Decline,
        Self::TimeoutAfterCharge,
        Self::DuplicateWebhooks,
        Self::OutOfOrderWebhooks,
        Self::TamperedWebhooks,
        Self::StaleWebhooks,
        Self::FutureWebhooks,
        Self::WrongAmount,
        Self::SlowAnswers,
        Self::NoWebhooks,
        Self::TimeoutOnChange,
        Self::RefundFails,
    ];

    /// A payment of exactly this many minor units shows the fault, in any currency.
    pub(super) fn amount(self) -> i64 {
        match self {
            Self::Decline => 99_901,
            Self::TimeoutAfterCharge => 99_902,
            Self::DuplicateWebhooks => 99_903,
            Self::OutOfOrderWebhooks => 99_904,
            Self::TamperedWebhooks => 99_905,
            Self::StaleWebhooks => 99_906,
            Self::FutureWebhooks => 99_907,
            Self::WrongAmount => 99_908,
            Self::SlowAnswers => 99_909,
            Self::NoWebhooks => 99_910,
            Self::TimeoutOnChange => 99_911,
            Self::RefundFails => 99_912,
        }
    }

    pub(super) fn of_amount(amount: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.amount() == amount)
    }

    /// The name in forms and JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Decline => "decline",
            Self::TimeoutAfterCharge => "timeout_after_charge",
            Self::DuplicateWebhooks => "duplicate_webhooks",
            Self::OutOfOrderWebhooks => "out_of_order_webhooks",
            Self::TamperedWebhooks => "tampered_webhooks",
            Self::StaleWebhooks => "stale_webhooks",
            Self::FutureWebhooks => "future_webhooks",
            Self::WrongAmount => "wrong_amount",
            Self::SlowAnswers => "slow_answers",
            Self::NoWebhooks => "no_webhooks",
            Self::TimeoutOnChange => "timeout_on_change",
            Self::RefundFails => "refund_fails",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Decline => "Approving is answered with a decline: insufficient funds",
            Self::TimeoutAfterCharge => {
                "Starting charges at once, without this page; the answer and all webhooks are lost"
            }
            Self::DuplicateWebhooks => "Every webhook is sent three times",
            Self::OutOfOrderWebhooks => "“authorized” arrives long after “captured”",
            Self::TamperedWebhooks => {
                "Every webhook is first sent with a body changed after signing, then right"
            }
            Self::StaleWebhooks => "Every webhook is first signed ten minutes ago, then right",
            Self::FutureWebhooks => "Every webhook is first signed in ten minutes, then right",
            Self::WrongAmount => "Webhooks tell of one unit less than was paid",
            Self::SlowAnswers => "The bank takes seconds to answer",
            Self::NoWebhooks => "No webhook is ever sent; only asking finds out",
            Self::TimeoutOnChange => {
                "Captures, cancellations and refunds are done; their answers and webhooks are lost"
            }
            Self::RefundFails => "Refunds fail",
        }
    }

    /// Whether it still makes a difference once the customer is on the page.
    pub(super) fn fits_page(self) -> bool {
        self != Self::TimeoutAfterCharge
    }

    /// Whether the merchant is never told of this.
    fn silences(self, told: &Told) -> bool {
        match self {
            Self::NoWebhooks | Self::TimeoutAfterCharge => true,
            // Only what the merchant asked for: the customer's doings on the page are told.
            Self::TimeoutOnChange => match told.kind {
                EventKind::Authorized | EventKind::Failed => false,
                EventKind::Captured => told.payment.capture == CaptureMode::Manual,
                EventKind::PartiallyCaptured
                | EventKind::Canceled
                | EventKind::RefundSucceeded
                | EventKind::RefundFailed => true,
            },
            _ => false,
        }
    }
}

/// One HTTP request to be made to the merchant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    /// The same in every delivery of one event.
    pub(super) message_id: String,
    pub(super) body: String,
    pub(super) after_ms: i64,
    pub(super) flaw: Option<Flaw>,
}

/// What is wrong with a delivery. A flawed one is tried once, whatever the merchant answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(rename_all = "snake_case")]
pub(super) enum Flaw {
    Tampered,
    Stale,
    Future,
}

/// How long the faults take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delays {
    /// Until the right delivery follows a flawed one.
    pub(super) follow_up_ms: i64,
    /// How long out-of-order events are held back.
    pub(super) hold_back_ms: i64,
}

/// The deliveries that tell the merchant of one event.
pub(super) fn plan(told: &Told, message_id: &str, now_ms: i64, delays: Delays) -> Vec<Planned> {
    let fault = told.payment.fault;
    if fault.is_some_and(|fault| fault.silences(told)) {
        return Vec::new();
    }
    let right = Planned {
        message_id: message_id.to_owned(),
        body: body(told, message_id, now_ms, fault == Some(Fault::WrongAmount)),
        after_ms: 0,
        flaw: None,
    };
    let flawed_first = |flaw| {
        let flawed = Planned {
            flaw: Some(flaw),
            ..right.clone()
        };
        let late = Planned {
            after_ms: delays.follow_up_ms,
            ..right.clone()
        };
        vec![flawed, late]
    };
    match fault {
        Some(Fault::DuplicateWebhooks) => vec![right; 3],
        Some(Fault::OutOfOrderWebhooks) if told.kind == EventKind::Authorized => {
            vec![Planned {
                after_ms: delays.hold_back_ms,
                ..right
            }]
        }
        Some(Fault::TamperedWebhooks) => flawed_first(Flaw::Tampered),
        Some(Fault::StaleWebhooks) => flawed_first(Flaw::Stale),
        Some(Fault::FutureWebhooks) => flawed_first(Flaw::Future),
        _ => vec![right],
    }
}

fn body(told: &Told, message_id: &str, now_ms: i64, wrong_amount: bool) -> String {
    let mut payment = told.payment.clone();
    if wrong_amount {
        // One hundred minor units less everywhere, so that the message agrees with itself.
        for total in [
            &mut payment.amount,
            &mut payment.authorized,
            &mut payment.captured,
        ] {
            *total = (*total - 100).max(0);
        }
    }
    let data = match &told.refund {
        Some(refund) => json!({ "payment": payment, "refund": refund }),
        None => json!({ "payment": payment }),
    };
    json!({
        "id": message_id,
        "type": told.kind.as_str(),
        "created_at_ms": now_ms,
        "data": data,
    })
    .to_string()
}

/// The body with one digit of the amount changed: still JSON, no longer what was signed.
pub(super) fn tamper(body: &str) -> String {
    body.replacen("\"amount\":", "\"amount\":1", 1)
}

#[cfg(test)]
mod tests {
    use super::super::model::{Refund, RefundStatus, sample};
    use super::*;
    use serde_json::Value;

    const DELAYS: Delays = Delays {
        follow_up_ms: 1_000,
        hold_back_ms: 3_000,
    };

    fn planned(fault: Fault) -> Vec<Vec<Planned>> {
        let mut payment = sample(CaptureMode::Automatic, fault.amount());
        payment.fault = Fault::of_amount(payment.amount);
        assert_eq!(payment.fault, Some(fault));
        let told = payment.approve("cp_1".into()).unwrap();
        told.iter().map(|told| plan(told, "evt_1", 7, DELAYS)).collect()
    }

    fn shape(planned: &[Planned]) -> Vec<(i64, Option<Flaw>)> {
        planned.iter().map(|one| (one.after_ms, one.flaw)).collect()
    }

    #[test]
    fn names_and_amounts_are_unique() {
        for fault in Fault::ALL {
            assert_eq!(Fault::of_name(fault.name()), Some(fault));
            assert_eq!(Fault::of_amount(fault.amount()), Some(fault));
            let json = serde_json::to_value(fault).unwrap();
            assert_eq!(json, fault.name(), "one spelling in JSON and forms");
        }
        assert_eq!(Fault::of_amount(1299), None);
    }

    #[test]
    fn every_webhook_fault_has_its_plan() {
        let once = vec![(0, None)];
        for (fault, authorized, captured) in [
            (Fault::SlowAnswers, once.clone(), once.clone()),
            (Fault::DuplicateWebhooks, vec![(0, None); 3], vec![(0, None); 3]),
            (Fault::OutOfOrderWebhooks, vec![(3_000, None)], once),
            (Fault::NoWebhooks, vec![], vec![]),
            (Fault::TimeoutAfterCharge, vec![], vec![]),
        ] {
            let plans = planned(fault);
            assert_eq!(shape(&plans[0]), authorized, "{fault:?}");
            assert_eq!(shape(&plans[1]), captured, "{fault:?}");
        }
        for (fault, flaw) in [
            (Fault::TamperedWebhooks, Flaw::Tampered),
            (Fault::StaleWebhooks, Flaw::Stale),
            (Fault::FutureWebhooks, Flaw::Future),
        ] {
            for plan in planned(fault) {
                assert_eq!(shape(&plan), [(0, Some(flaw)), (1_000, None)]);
                assert_eq!(plan[0].body, plan[1].body, "the flaw is added when it is sent");
            }
        }
    }

    #[test]
    fn a_wrong_amount_agrees_with_itself() {
        let plans = planned(Fault::WrongAmount);
        let body: Value = serde_json::from_str(&plans[1][0].body).unwrap();
        let payment = &body["data"]["payment"];
        for total in ["amount", "authorized", "captured"] {
            assert_eq!(payment[total], Fault::WrongAmount.amount() - 100, "{total}");
        }
        assert_eq!(body["type"], "payment.captured");
        assert_eq!(body["created_at_ms"], 7);
    }

    #[test]
    fn a_lost_answer_to_a_refund_loses_its_webhook_too() {
        let mut payment = sample(CaptureMode::Automatic, Fault::TimeoutOnChange.amount());
        payment.fault = Some(Fault::TimeoutOnChange);
        let approved = payment.approve("cp_1".into()).unwrap();
        assert!(
            approved
                .iter()
                .all(|told| !plan(told, "evt", 0, DELAYS).is_empty())
        );
        let refund = Refund {
            id: "rf_1".into(),
            merchant_refund_id: "ref_1".into(),
            amount: 1,
            reason: None,
            status: RefundStatus::Succeeded,
        };
        let refunded = payment.refund(refund).unwrap();
        assert_eq!(refunded[0].kind, EventKind::RefundSucceeded);
        assert!(plan(&refunded[0], "evt", 0, DELAYS).is_empty());
    }

    #[test]
    fn tampering_keeps_the_json_and_changes_the_amount() {
        let body = &planned(Fault::TamperedWebhooks)[0][0].body;
        let changed: Value = serde_json::from_str(&tamper(body)).unwrap();
        let original: Value = serde_json::from_str(body).unwrap();
        assert_ne!(changed, original);
    }
}
