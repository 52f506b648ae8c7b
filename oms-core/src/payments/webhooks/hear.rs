//! What a gateway told, taken into a payment.

use crate::db::Tx;
use crate::error::Result;
use crate::payments::gateway::{Change, GatewayEvent, RefundReport};
use crate::payments::locked::Locked;
use crate::payments::merge::News;
use crate::payments::model::{Attention, OperationStatus};
use crate::payments::store::inbox;

/// Takes an event in. `accepted`: an operator saw that its amount differs and takes it.
pub(in crate::payments) fn hear(locked: &mut Locked, event: &GatewayEvent, accepted: bool) {
    match &event.change {
        Change::Payment {
            status,
            totals,
            decline_code,
            operation_reference,
        } => {
            if status.is_none() && decline_code.is_some() {
                capture_failed(locked, operation_reference.as_deref());
            }
            let status = status.map(Into::into);
            let mut news = News::event(event, status, totals, decline_code.as_deref());
            news.accepted = accepted;
            locked.hear(&news);
        }
        Change::Refund {
            refund,
            reference,
            status,
            amount,
        } => {
            let currency = locked.payment.amount.currency();
            if let Some((minor, told)) = amount
                && !told.eq_ignore_ascii_case(currency.code())
            {
                locked.need_review(format!("the gateway reports a refund of {minor} in {told}"));
                return;
            }
            let report = RefundReport {
                refund: *refund,
                status: *status,
                reference: Some(reference.clone()),
                amount: amount.as_ref().map(|(minor, _)| *minor),
            };
            match locked.match_refund(&report) {
                Some(id) => locked.refund_told(id, &report),
                // Made at the gateway, or ahead of our own answer: the gateway tells which.
                None => locked.ask = true,
            }
        }
        Change::Dispute {
            reference,
            opened,
            won,
            reason,
        } => dispute(locked, reference, *opened, *won, reason.as_deref()),
        Change::NeedsSync => locked.ask = true,
        Change::Irrelevant => {}
    }
}

/// A gateway that captures later tells by name which capture came to nothing.
fn capture_failed(locked: &mut Locked, reference: Option<&str>) {
    let now = locked.now;
    let mut captures = locked.payment.captures.iter_mut();
    let Some(capture) = captures.find(|c| reference.is_some() && c.reference.as_deref() == reference) else {
        return;
    };
    match capture.status {
        OperationStatus::Pending | OperationStatus::Unknown => {
            capture.status = OperationStatus::Failed;
            capture.updated_at = now;
        }
        OperationStatus::Succeeded => {
            let amount = capture.amount;
            locked.need_review(format!(
                "the gateway takes a capture of {amount} back that had succeeded"
            ));
        }
        OperationStatus::Failed | OperationStatus::Reversed => {}
    }
}

/// What a gateway that cannot be asked told before, taken as it was by an operator.
pub(in crate::payments) async fn hear_again(tx: &mut Tx, locked: &mut Locked) -> Result<()> {
    for entry in inbox::of_payment(tx, locked.payment.id).await? {
        if matches!(entry.event.change, Change::Payment { .. }) {
            hear(locked, &entry.event, true);
        }
    }
    Ok(())
}

/// An open or lost dispute needs a person; one that was won lifts its own review.
fn dispute(locked: &mut Locked, reference: &str, opened: bool, won: Option<bool>, reason: Option<&str>) {
    let name = format!("dispute {reference}");
    let text = |what: &str| match reason {
        Some(reason) => format!("{name} {what}: {reason}"),
        None => format!("{name} {what}"),
    };
    let of_this = |attention: &Option<Attention>| matches!(attention, Some(Attention::NeedsReview(r)) if r.starts_with(&name));
    match (opened, won) {
        (true, _) => locked.need_review(text("opened")),
        (false, Some(true)) if of_this(&locked.payment.attention) => locked.payment.attention = None,
        (false, Some(true)) => {}
        (false, _) => {
            if of_this(&locked.payment.attention) {
                locked.payment.attention = None;
            }
            locked.need_review(text(if won == Some(false) { "lost" } else { "closed" }));
        }
    }
}
