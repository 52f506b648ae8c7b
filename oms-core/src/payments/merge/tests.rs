//! The rule by table, and what holds for every history.

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
    use PaymentStatus::{ActionRequired, Authorized, Canceled, Captured, Failed, PartiallyCaptured, Pending};
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

#[test]
fn an_event_tells_what_the_gateways_page_has_made() {
    let told = |status, by_our_id| News {
        reference: Some("made".into()),
        by_our_id,
        ..news(Source::Event, status, AMOUNT, 0)
    };
    let reference = |before, news: &News| {
        let mut payment = payment(CaptureMode::Manual);
        payment.status = before;
        payment.reference = Some("page".into());
        merge(&payment, news).payment.reference.unwrap()
    };
    use PaymentStatus::{ActionRequired, Authorized, Failed, Pending};
    for before in [ActionRequired, Pending] {
        assert_eq!(reference(before, &told(Authorized, true)), "made");
        assert_eq!(
            reference(before, &told(Authorized, false)),
            "page",
            "of whom is it?"
        );
        assert_eq!(
            reference(before, &told(Failed, true)),
            "page",
            "the customer may try again"
        );
    }
    assert_eq!(reference(Authorized, &told(Authorized, true)), "page");
}
