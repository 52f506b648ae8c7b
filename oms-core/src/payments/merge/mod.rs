//! The one rule by which a payment follows its gateway. Answers, syncs and events all come through [`merge`].
//!
//! It is monotone: totals only rise and a status only moves on along [`rank`], so that events may come twice and in
//! any order. What breaks a rule is not believed: the gateway is asked, and when its answer breaks it too, a person.

#[cfg(test)]
mod tests;

use crate::payments::gateway::{
    CaptureMode, Decline, GatewayEvent, Metadata, NextAction, PaymentReport, Totals,
};
use crate::payments::model::{Attention, OperationStatus, Payment, PaymentStatus};
use crate::time::Timestamp;

/// Where news come from, which decides how far they are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The answer to an operation of ours.
    Answer,
    /// The answer to the question where the payment stands.
    Sync,
    /// A webhook: true, but of unknown age.
    Event,
}

/// What a gateway says of a payment.
#[derive(Debug, Clone)]
pub(crate) struct News {
    pub(crate) source: Source,
    pub(crate) status: Option<PaymentStatus>,
    pub(crate) totals: Totals,
    pub(crate) reference: Option<String>,
    pub(crate) next_action: Option<NextAction>,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) state: Option<String>,
    pub(crate) method: Metadata,
    pub(crate) decline: Option<Decline>,
    /// An operator saw that the amount differs and takes it.
    pub(crate) accepted: bool,
    /// It names the payment by our own id.
    pub(crate) by_our_id: bool,
}

/// What became of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Merge {
    pub(crate) payment: Payment,
    /// The news cannot be right as they are, or tell only half: ask the gateway.
    pub(crate) ask: bool,
}

impl News {
    pub(crate) fn empty(source: Source) -> Self {
        Self {
            source,
            status: None,
            totals: Totals::default(),
            reference: None,
            next_action: None,
            expires_at: None,
            state: None,
            method: Metadata::new(),
            decline: None,
            accepted: false,
            by_our_id: false,
        }
    }

    pub(crate) fn report(source: Source, report: &PaymentReport) -> Self {
        Self {
            source,
            status: Some(report.status.into()),
            totals: report.totals.clone(),
            reference: report.reference.clone(),
            next_action: report.next_action.clone(),
            expires_at: report.expires_at,
            state: report.state.clone(),
            method: report.method.clone(),
            decline: report.decline.clone(),
            accepted: false,
            by_our_id: false,
        }
    }

    pub(crate) fn declined(decline: &Decline) -> Self {
        Self {
            status: Some(PaymentStatus::Failed),
            decline: Some(decline.clone()),
            ..Self::empty(Source::Answer)
        }
    }

    pub(crate) fn event(
        event: &GatewayEvent,
        status: Option<PaymentStatus>,
        totals: &Totals,
        decline_code: Option<&str>,
    ) -> Self {
        Self {
            status,
            totals: totals.clone(),
            reference: event.reference.clone(),
            by_our_id: event.payment.is_some(),
            decline: decline_code.map(|code| Decline {
                code: code.into(),
                message: String::new(),
            }),
            ..Self::empty(Source::Event)
        }
    }
}

/// The payment after the news. Refunds and captures are rows of their own and stay as they are.
pub(crate) fn merge(payment: &Payment, news: &News) -> Merge {
    let mut after = payment.clone();
    describe(&mut after, news);
    if let Some(reason) = difference(payment, news) {
        after.attention = Some(Attention::NeedsReview(reason));
        return Merge {
            payment: after,
            ask: false,
        };
    }
    if let Some(reason) = contradiction(payment, news) {
        if news.source == Source::Sync {
            after.attention = Some(Attention::NeedsReview(reason));
        }
        return Merge {
            payment: after,
            ask: news.source != Source::Sync,
        };
    }
    count(&mut after, news);
    after.status = status(payment, news, &after);
    explain(&mut after, news);
    Merge {
        ask: news.source != Source::Sync && foreign_refunds(payment, news) > 0,
        payment: after,
    }
}

/// Minor units that the gateway has refunded beyond all refunds that are known here.
pub(crate) fn foreign_refunds(payment: &Payment, news: &News) -> i64 {
    let known = payment
        .refunds
        .iter()
        .filter(|r| r.status.holds_money() || r.status == OperationStatus::Reversed);
    let known: i64 = known.map(|r| r.amount.minor()).sum();
    news.totals.refunded.map_or(0, |told| (told - known).max(0))
}

/// How far along a payment is. A total order: what is reached is never left for less, and money that was captured
/// counts more than any word that it was not.
const fn rank(status: PaymentStatus) -> u8 {
    match status {
        PaymentStatus::Created => 0,
        PaymentStatus::Pending => 1,
        PaymentStatus::ActionRequired => 2,
        PaymentStatus::Authorized => 3,
        PaymentStatus::Failed => 4,
        PaymentStatus::Canceled => 5,
        PaymentStatus::PartiallyCaptured => 6,
        PaymentStatus::Captured => 7,
    }
}

/// What money and status do not depend on.
fn describe(after: &mut Payment, news: &News) {
    // An operation may move on to another object of the gateway; an event cannot take a payment over, but tell which
    // object the customer's visit to the gateway's page has made.
    let on_page = matches!(
        after.status,
        PaymentStatus::Pending | PaymentStatus::ActionRequired
    );
    let paid = matches!(
        news.status,
        Some(PaymentStatus::Authorized | PaymentStatus::PartiallyCaptured | PaymentStatus::Captured)
    );
    let moves = news.source != Source::Event || (news.by_our_id && on_page && paid);
    if news.reference.is_some() && (after.reference.is_none() || moves) {
        after.reference.clone_from(&news.reference);
    }
    if news.state.is_some() {
        after.state.clone_from(&news.state);
    }
    if !news.method.is_empty() {
        after.method.clone_from(&news.method);
    }
    if news.expires_at.is_some() {
        after.expires_at = news.expires_at;
    }
}

/// Another amount or currency than the one that was asked for: only a person may take that.
fn difference(payment: &Payment, news: &News) -> Option<String> {
    let (totals, amount) = (&news.totals, payment.amount.minor());
    let currency = payment.amount.currency();
    if let Some(told) = &totals.currency
        && !told.eq_ignore_ascii_case(currency.code())
    {
        return Some(format!(
            "the gateway reports {told}, the payment is in {currency}"
        ));
    }
    if news.accepted {
        return None;
    }
    let differs = |what: &str, told: i64| {
        Some(format!(
            "the gateway reports {told} {what} in minor units, the payment is of {amount}"
        ))
    };
    match totals.authorized {
        Some(told) if told > amount => return differs("authorized", told),
        Some(told @ 1..) if told < amount && payment.authorized < amount => {
            return differs("authorized", told);
        }
        _ => {}
    }
    match totals.captured {
        Some(told) if told > amount => differs("captured", told),
        Some(told @ 1..) if told < expected(payment) && news.status == Some(PaymentStatus::Captured) => {
            differs("captured", told)
        }
        _ => None,
    }
}

/// How much is captured at least when the gateway says that nothing more will be: all of it, or the parts that an
/// operator chose. What is known to be captured has been judged before.
fn expected(payment: &Payment) -> i64 {
    if payment.status == PaymentStatus::Captured {
        return 0;
    }
    let asked = payment
        .captures
        .iter()
        .filter(|c| c.status != OperationStatus::Failed);
    match (payment.capture, asked.map(|c| c.amount.minor()).sum()) {
        (CaptureMode::Automatic, _) | (CaptureMode::Manual, 0) => payment.amount.minor(),
        (CaptureMode::Manual, asked) => asked,
    }
}

/// News that cannot be true of any payment, or not of one that stands as this one does.
fn contradiction(payment: &Payment, news: &News) -> Option<String> {
    let totals = &news.totals;
    let all = [
        totals.authorized,
        totals.captured,
        totals.refunded,
        totals.canceled,
    ];
    let captured = payment.captured.max(told_captured(payment, news));
    let reason = if all.into_iter().flatten().any(i64::is_negative) {
        "the gateway reports a negative total"
    } else if matches!((totals.authorized, totals.captured), (Some(a @ 1..), Some(c)) if c > a) {
        "the gateway reports more captured than authorized"
    } else if totals.refunded.is_some_and(|told| told > captured) {
        "the gateway reports more refunded than captured"
    } else if captured == 0
        && matches!(
            news.status,
            Some(PaymentStatus::Captured | PaymentStatus::PartiallyCaptured)
        )
    {
        "the gateway reports a capture but not how much"
    } else {
        return None;
    };
    Some(reason.into())
}

/// What the news say is captured; where they give a status and no total, what must be meant.
fn told_captured(payment: &Payment, news: &News) -> i64 {
    match (news.totals.captured, news.status) {
        (Some(told), _) => told,
        (None, Some(PaymentStatus::Captured)) => {
            let asked = payment
                .captures
                .iter()
                .filter(|c| c.status != OperationStatus::Failed);
            match asked.map(|c| c.amount.minor()).sum() {
                0 => payment.amount.minor(),
                asked => asked,
            }
        }
        _ => 0,
    }
}

fn count(after: &mut Payment, news: &News) {
    let told_authorized = news.totals.authorized.unwrap_or(match news.status {
        Some(PaymentStatus::Authorized) => after.amount.minor(),
        _ => 0,
    });
    after.captured = after.captured.max(told_captured(after, news));
    after.authorized = after.authorized.max(told_authorized).max(after.captured);
    after.canceled = after.canceled.max(news.totals.canceled.unwrap_or(0));
}

fn status(before: &Payment, news: &News, after: &Payment) -> PaymentStatus {
    let undecided = |s| rank(s) <= rank(PaymentStatus::ActionRequired);
    let told = news.status.unwrap_or(before.status);
    // A payment may go back and forth before it is decided. Only who was asked now knows which of these is the last.
    let direct = news.source != Source::Event && undecided(before.status) && undecided(told);
    let status = if direct || rank(told) > rank(before.status) {
        told
    } else {
        before.status
    };
    if after.captured >= after.amount.minor() {
        PaymentStatus::Captured
    } else if after.captured > 0 && rank(status) < rank(PaymentStatus::PartiallyCaptured) {
        PaymentStatus::PartiallyCaptured
    } else {
        status
    }
}

/// What goes with the status.
fn explain(after: &mut Payment, news: &News) {
    if after.status != PaymentStatus::ActionRequired {
        after.next_action = None;
    } else if news.next_action.is_some() {
        after.next_action.clone_from(&news.next_action);
    }
    if after.status != PaymentStatus::Failed {
        after.decline_code = None;
        after.decline_message = None;
    } else if let Some(decline) = &news.decline
        && after.decline_code.is_none()
    {
        after.decline_code = Some(decline.code.clone());
        after.decline_message = Some(decline.message.clone()).filter(|m| !m.is_empty());
    }
}
