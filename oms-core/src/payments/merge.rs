//! The one rule by which a payment follows its gateway. Answers, syncs and events all come through [`merge`].
//!
//! It is monotone: totals only rise and a status only moves on along [`rank`], so that events may come twice and in
//! any order. What breaks a rule is not believed: the gateway is asked, and when its answer breaks it too, a person.

use super::gateway::{CaptureMode, Decline, GatewayEvent, Metadata, NextAction, PaymentReport, Totals};
use super::model::{Attention, OperationStatus, Payment, PaymentStatus};
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
    // An operation may move on to another object of the gateway; an event cannot take a payment over.
    if news.reference.is_some() && (after.reference.is_none() || news.source != Source::Event) {
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
        Some(told @ 1..)
            if told < amount
                && news.status == Some(PaymentStatus::Captured)
                && payment.capture == CaptureMode::Automatic =>
        {
            differs("captured", told)
        }
        _ => None,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{OrderId, PaymentId};
    use crate::money::Money;

    const AMOUNT: i64 = 5_000;
    const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);

    fn payment(capture: CaptureMode) -> Payment {
        Payment {
            id: PaymentId::new(NOW),
            order: OrderId::new(NOW),
            account: "fake".into(),
            plugin_id: "fake".into(),
            plugin_version: "1".into(),
            plugin_digest: None,
            test_mode: true,
            amount: Money::new(AMOUNT, "EUR".parse().unwrap()).unwrap(),
            capture,
            status: PaymentStatus::Created,
            attention: None,
            reference: None,
            authorized: 0,
            captured: 0,
            refunded: 0,
            canceled: 0,
            decline_code: None,
            decline_message: None,
            next_action: None,
            state: None,
            method: Vec::new(),
            return_url: None,
            expires_at: None,
            sync_tries: 0,
            version: 1,
            created_at: NOW,
            updated_at: NOW,
            refunds: Vec::new(),
            captures: Vec::new(),
        }
    }

    fn news(source: Source, status: PaymentStatus, authorized: i64, captured: i64) -> News {
        News {
            status: Some(status),
            totals: Totals {
                currency: Some("EUR".into()),
                authorized: Some(authorized),
                captured: Some(captured),
                ..Totals::default()
            },
            ..News::empty(source)
        }
    }

    /// The status of a payment that stood at `before` with these totals, after an event.
    fn after(before: PaymentStatus, captured: i64, told: PaymentStatus, told_captured: i64) -> Merge {
        let mut payment = payment(CaptureMode::Manual);
        payment.status = before;
        payment.authorized = AMOUNT;
        payment.captured = captured;
        merge(&payment, &news(Source::Event, told, AMOUNT, told_captured))
    }

    #[test]
    fn every_status_and_event() {
        use PaymentStatus::{
            ActionRequired, Authorized, Canceled, Captured, Failed, PartiallyCaptured, Pending,
        };
        let told = [
            (Pending, 0),
            (ActionRequired, 0),
            (Authorized, 0),
            (PartiallyCaptured, 2_000),
            (Captured, AMOUNT),
            (Canceled, 0),
            (Failed, 0),
        ];
        // before, captured before, and after each of these
        let table = [
            (
                Pending,
                0,
                [
                    Pending,
                    ActionRequired,
                    Authorized,
                    PartiallyCaptured,
                    Captured,
                    Canceled,
                    Failed,
                ],
            ),
            (
                ActionRequired,
                0,
                [
                    ActionRequired,
                    ActionRequired,
                    Authorized,
                    PartiallyCaptured,
                    Captured,
                    Canceled,
                    Failed,
                ],
            ),
            (
                Authorized,
                0,
                [
                    Authorized,
                    Authorized,
                    Authorized,
                    PartiallyCaptured,
                    Captured,
                    Canceled,
                    Failed,
                ],
            ),
            (
                PartiallyCaptured,
                2_000,
                [
                    PartiallyCaptured,
                    PartiallyCaptured,
                    PartiallyCaptured,
                    PartiallyCaptured,
                    Captured,
                    PartiallyCaptured,
                    PartiallyCaptured,
                ],
            ),
            (Captured, AMOUNT, [Captured; 7]),
            // Money that came after all counts more than the word that none would.
            (
                Canceled,
                0,
                [
                    Canceled,
                    Canceled,
                    Canceled,
                    PartiallyCaptured,
                    Captured,
                    Canceled,
                    Canceled,
                ],
            ),
            (
                Failed,
                0,
                [
                    Failed,
                    Failed,
                    Failed,
                    PartiallyCaptured,
                    Captured,
                    Canceled,
                    Failed,
                ],
            ),
        ];
        for (before, captured, expected) in table {
            for ((told, told_captured), expected) in told.into_iter().zip(expected) {
                let merged = after(before, captured, told, told_captured);
                assert_eq!(merged.payment.status, expected, "{before:?}, then {told:?}");
                assert!(
                    !merged.ask && merged.payment.attention.is_none(),
                    "{before:?}, then {told:?}"
                );
            }
        }
    }

    #[test]
    fn who_was_asked_knows_which_step_comes_next() {
        let mut payment = payment(CaptureMode::Automatic);
        payment.status = PaymentStatus::ActionRequired;
        let told = |source| {
            merge(&payment, &news(source, PaymentStatus::Pending, 0, 0))
                .payment
                .status
        };
        assert_eq!(told(Source::Answer), PaymentStatus::Pending);
        assert_eq!(told(Source::Sync), PaymentStatus::Pending);
        assert_eq!(told(Source::Event), PaymentStatus::ActionRequired);
    }

    #[test]
    fn another_amount_or_currency_is_for_a_person() {
        let payment = payment(CaptureMode::Automatic);
        let usd = News {
            totals: Totals {
                currency: Some("USD".into()),
                ..Totals::default()
            },
            ..news(Source::Event, PaymentStatus::Captured, AMOUNT, AMOUNT)
        };
        let cases = [
            news(Source::Event, PaymentStatus::Captured, AMOUNT + 1, AMOUNT + 1),
            news(Source::Sync, PaymentStatus::Captured, AMOUNT, AMOUNT - 1),
            news(Source::Answer, PaymentStatus::Authorized, AMOUNT - 1, 0),
            usd,
        ];
        for case in cases {
            let merged = merge(&payment, &case);
            assert!(
                matches!(merged.payment.attention, Some(Attention::NeedsReview(_))),
                "{case:?}"
            );
            assert_eq!(
                (merged.payment.captured, merged.payment.status),
                (0, PaymentStatus::Created)
            );
            let accepted = merge(
                &payment,
                &News {
                    accepted: true,
                    ..case.clone()
                },
            )
            .payment;
            let currency_fits = case.totals.currency.as_deref() == Some("EUR");
            assert_eq!(accepted.attention.is_none(), currency_fits, "{case:?}");
        }
    }

    #[test]
    fn nonsense_is_asked_about_and_then_reviewed() {
        let payment = payment(CaptureMode::Manual);
        let totals = |refunded| Totals {
            refunded: Some(refunded),
            ..Totals::default()
        };
        let cases = [
            (Some(PaymentStatus::PartiallyCaptured), Totals::default()),
            (None, totals(1)),
            (None, totals(-1)),
        ];
        for (status, totals) in cases {
            let told = |source| News {
                status,
                totals: totals.clone(),
                ..News::empty(source)
            };
            let event = merge(&payment, &told(Source::Event));
            assert!(event.ask && event.payment == payment, "{totals:?}");
            let sync = merge(&payment, &told(Source::Sync));
            assert!(!sync.ask && matches!(sync.payment.attention, Some(Attention::NeedsReview(_))));
        }
    }

    #[test]
    fn what_is_not_said_is_what_was_asked_for() {
        let silent = |status| News {
            status: Some(status),
            ..News::empty(Source::Answer)
        };
        let captured = merge(&payment(CaptureMode::Automatic), &silent(PaymentStatus::Captured)).payment;
        assert_eq!((captured.authorized, captured.captured), (AMOUNT, AMOUNT));
        let authorized = merge(&payment(CaptureMode::Manual), &silent(PaymentStatus::Authorized)).payment;
        assert_eq!((authorized.authorized, authorized.captured), (AMOUNT, 0));
    }

    fn any_status() -> impl Strategy<Value = PaymentStatus> {
        proptest::sample::select(PaymentStatus::ALL.to_vec())
    }

    fn any_news() -> impl Strategy<Value = News> {
        let source = proptest::sample::select(vec![Source::Answer, Source::Sync, Source::Event]);
        let total = || proptest::option::of(-1..=AMOUNT + 1);
        let totals = (total(), total(), total(), total());
        (source, proptest::option::of(any_status()), totals, any::<bool>()).prop_map(
            |(source, status, (authorized, captured, refunded, canceled), accepted)| News {
                status,
                totals: Totals {
                    currency: None,
                    authorized,
                    captured,
                    refunded,
                    canceled,
                },
                accepted,
                ..News::empty(source)
            },
        )
    }

    /// What one payment goes through at a gateway, and an order in which its events arrive, some of them twice.
    fn any_history() -> impl Strategy<Value = (Vec<News>, Vec<usize>)> {
        let end = proptest::sample::select(vec![
            PaymentStatus::Captured,
            PaymentStatus::Canceled,
            PaymentStatus::Failed,
        ]);
        (end, 0..AMOUNT, any::<bool>()).prop_flat_map(|(end, part, canceled_late)| {
            let event = |status, authorized, captured| news(Source::Event, status, authorized, captured);
            let mut events = vec![
                event(PaymentStatus::Pending, 0, 0),
                event(PaymentStatus::ActionRequired, 0, 0),
                event(PaymentStatus::Authorized, AMOUNT, 0),
            ];
            if end == PaymentStatus::Captured {
                if canceled_late {
                    events.push(event(PaymentStatus::Canceled, AMOUNT, 0));
                }
                if part > 0 {
                    events.push(event(PaymentStatus::PartiallyCaptured, AMOUNT, part));
                }
                events.push(event(end, AMOUNT, AMOUNT));
            } else {
                events.push(event(end, AMOUNT, 0));
            }
            let all: Vec<_> = (0..events.len()).collect();
            let twice = proptest::collection::vec(0..events.len(), 0..4);
            let arrivals = twice.prop_flat_map(move |twice| {
                let mut arrivals = all.clone();
                arrivals.extend(twice);
                Just(arrivals).prop_shuffle()
            });
            (Just(events), arrivals)
        })
    }

    proptest! {
        #[test]
        fn totals_never_fall_and_the_books_stay_right(all in proptest::collection::vec(any_news(), 1..12), manual: bool) {
            let capture = if manual { CaptureMode::Manual } else { CaptureMode::Automatic };
            let mut now = payment(capture);
            for news in all {
                let next = merge(&now, &news).payment;
                prop_assert!(next.captured >= now.captured && next.authorized >= now.authorized);
                prop_assert!(next.refunded == now.refunded && next.canceled >= now.canceled);
                prop_assert!(next.captured <= next.authorized);
                prop_assert!(next.captured == 0 || rank(next.status) >= rank(PaymentStatus::PartiallyCaptured));
                prop_assert!(rank(now.status) <= rank(PaymentStatus::ActionRequired) || rank(next.status) >= rank(now.status));
                now = next;
            }
        }

        #[test]
        fn events_may_come_in_any_order((events, arrivals) in any_history()) {
            let play = |order: &mut dyn Iterator<Item = usize>| {
                order.fold(payment(CaptureMode::Manual), |p, i| merge(&p, &events[i]).payment)
            };
            let told = |p: Payment| (p.status, p.authorized, p.captured, p.attention);
            let straight = told(play(&mut (0..events.len())));
            prop_assert_eq!(told(play(&mut arrivals.into_iter())), straight);
        }
    }
}
