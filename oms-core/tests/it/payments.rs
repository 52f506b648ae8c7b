//! Payments: the operations, what goes wrong between us and the gateway, and what it tells by itself.

use std::cell::RefCell;
use std::time::Duration;

use oms_core::orders::{CancelOrder, Order, OrderState};
use oms_core::payments::{
    Account, Attention, CaptureMode, CapturePayment, Change, Decision, GatewayError, GatewayEvent,
    InboxStatus, OperationStatus, Payment, PaymentStatus, Payments, RefundPayment, RefundStatus,
    StartPayment, WebhookError, WebhookOutcome,
};
use oms_core::testing::{Ask, Fake, FakeGateway};
use oms_core::{Actor, Error, Money, Oms, PageRequest};

use crate::orders::order as cart;
use crate::support::{TestOms, each_db_with, raw};

const PRICE: i64 = 5_000;

/// A shop with a gateway, and an order that waits for its payment.
struct Shop {
    t: TestOms,
    bank: FakeGateway,
    buyer: Actor,
    operator: Actor,
    order: Order,
}

async fn each_shop(story: impl AsyncFn(Shop)) {
    let bank = RefCell::new(FakeGateway::new("fake"));
    let setup = |builder: oms_core::OmsBuilder| {
        let fresh = FakeGateway::new("fake");
        bank.replace(fresh.clone());
        builder
            .gateway(fresh)
            .account(Account::new("fake", "fake"))
            .account(Account::new("lost", "nowhere"))
            .public_url("https://shop.example")
    };
    each_db_with(setup, async |t| {
        t.seller_with("mug", PRICE, 10).await;
        let buyer = t.user("ann").await;
        let order = t.oms.orders().place(&buyer, cart("order", &[("mug", 1)])).await;
        let (operator, bank) = (t.operator(), bank.borrow().clone());
        story(Shop {
            order: order.unwrap().value,
            t,
            bank,
            buyer,
            operator,
        })
        .await;
    })
    .await;
}

fn start(key: &str) -> StartPayment {
    StartPayment {
        idempotency_key: key.parse().unwrap(),
        account: "fake".into(),
        return_url: Some("https://shop.example/thanks".into()),
        capture: CaptureMode::Automatic,
        instrument: None,
        instrument_data: Vec::new(),
        customer_ip: None,
    }
}

fn eur(minor: i64) -> Money {
    Money::new(minor, "EUR".parse().unwrap()).unwrap()
}

impl Shop {
    fn oms(&self) -> &Oms {
        &self.t.oms
    }

    fn payments(&self) -> Payments<'_> {
        self.t.oms.payments()
    }

    async fn start(&self, key: &str) -> Payment {
        self.try_start(key).await.unwrap()
    }

    async fn try_start(&self, key: &str) -> Result<Payment, Error> {
        let started = self
            .payments()
            .start(&self.buyer, self.order.id, start(key))
            .await;
        started.map(|outcome| outcome.value)
    }

    /// A payment whose customer is on the gateway's page.
    async fn redirected(&self) -> Payment {
        self.bank.plan(Ask::Start, Fake::Redirect);
        let payment = self.start("redirect").await;
        assert_eq!(payment.status, PaymentStatus::ActionRequired);
        payment
    }

    async fn authorized(&self) -> Payment {
        let command = StartPayment {
            capture: CaptureMode::Manual,
            ..start("manual")
        };
        let started = self.payments().start(&self.buyer, self.order.id, command).await;
        started.unwrap().value
    }

    async fn payment(&self, payment: &Payment) -> Payment {
        self.payments().get(&self.buyer, payment.id).await.unwrap()
    }

    async fn order(&self) -> Order {
        self.oms().orders().get(&self.buyer, self.order.id).await.unwrap()
    }

    async fn capture(&self, payment: &Payment, key: &str, minor: i64, last: bool) -> Result<Payment, Error> {
        let command = CapturePayment {
            idempotency_key: key.parse().unwrap(),
            amount: Some(eur(minor)),
            final_capture: Some(last),
        };
        let captured = self.payments().capture(&self.operator, payment.id, command).await;
        captured.map(|outcome| outcome.value)
    }

    async fn refund(
        &self,
        payment: &Payment,
        key: &str,
        minor: Option<i64>,
    ) -> Result<oms_core::payments::Refund, Error> {
        let command = RefundPayment {
            idempotency_key: key.parse().unwrap(),
            amount: minor.map(eur),
            reason: Some("scratched".into()),
        };
        let refunded = self.payments().refund(&self.operator, payment.id, command).await;
        refunded.map(|outcome| outcome.value)
    }

    async fn cancel_order(&self) {
        let command = CancelOrder {
            idempotency_key: "cancel-order".parse().unwrap(),
            reason: None,
            expected_version: None,
        };
        self.oms()
            .orders()
            .cancel(&self.operator, self.order.id, command)
            .await
            .unwrap();
    }

    async fn deliver(&self, events: &[GatewayEvent]) -> WebhookOutcome {
        let delivery = self.bank.delivery(self.oms().now(), events);
        self.payments().receive_webhook("fake", delivery).await.unwrap()
    }

    /// The event that tells how the payment stands at the gateway now.
    fn event(&self, payment: &Payment) -> GatewayEvent {
        self.bank.event(payment.id).unwrap()
    }

    async fn pass(&self, seconds: u64) {
        self.t.clock.advance(Duration::from_secs(seconds));
        self.oms().worker().drain().await.unwrap();
    }

    async fn kinds(&self) -> Vec<String> {
        let timeline = self
            .oms()
            .orders()
            .timeline(&Actor::System, self.order.id)
            .await
            .unwrap();
        timeline.into_iter().map(|entry| entry.kind).collect()
    }

    async fn inbox(&self, status: InboxStatus) -> usize {
        let page = PageRequest::default();
        let inbox = self.payments().inbox(&self.operator, &page, Some(status)).await;
        inbox.unwrap().data.len()
    }

    async fn in_review(&self) -> Vec<Payment> {
        let page = PageRequest::default();
        let list = self.payments().needing_review(&self.operator, &page).await;
        list.unwrap().data
    }
}

fn accepted(outcome: &WebhookOutcome) -> bool {
    matches!(outcome, WebhookOutcome::Accepted(_))
}

#[tokio::test]
async fn a_payment_pays_its_order() {
    each_shop(async |s| {
        let payment = s.start("k").await;
        assert_eq!(payment.status, PaymentStatus::Captured);
        assert_eq!((payment.amount, payment.captured), (eur(PRICE), PRICE));
        assert_eq!(s.order().await.state, OrderState::Paid);
        assert_eq!(
            s.payment(&payment).await,
            payment,
            "what was answered is what is stored"
        );
        let of_order = s.payments().of_order(&s.buyer, s.order.id).await.unwrap();
        assert_eq!(of_order, [payment]);
        assert_eq!(s.bank.charged(), PRICE);
        let again = s.try_start("other").await;
        assert!(matches!(again, Err(Error::InvalidState { what: "order", .. })));
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn one_key_is_one_payment() {
    each_shop(async |s| {
        s.bank.plan(Ask::Start, Fake::Slow(Duration::from_millis(300)));
        let calls = (0..10).map(|_| {
            let (oms, buyer, order) = (s.oms().clone(), s.buyer.clone(), s.order.id);
            tokio::spawn(async move { oms.payments().start(&buyer, order, start("k")).await })
        });
        let calls: Vec<_> = calls.collect();
        let mut fresh = 0;
        let mut ids = Vec::new();
        for call in calls {
            let outcome = call.await.unwrap().unwrap();
            assert_eq!(outcome.value.status, PaymentStatus::Captured);
            fresh += usize::from(!outcome.replayed);
            ids.push(outcome.value.id);
        }
        ids.dedup();
        assert_eq!((fresh, ids.len(), s.bank.calls(Ask::Start)), (1, 1, 1));
        let other = StartPayment {
            capture: CaptureMode::Manual,
            ..start("k")
        };
        let reused = s.payments().start(&s.buyer, s.order.id, other).await;
        assert!(matches!(reused, Err(Error::IdempotencyKeyReused)));
    })
    .await;
}

#[tokio::test]
async fn an_order_has_one_open_payment() {
    each_shop(async |s| {
        for _ in 0..5 {
            s.bank.plan(Ask::Start, Fake::Redirect);
        }
        let calls: Vec<_> = (0..5)
            .map(|i| {
                let (oms, buyer, order) = (s.oms().clone(), s.buyer.clone(), s.order.id);
                tokio::spawn(
                    async move { oms.payments().start(&buyer, order, start(&format!("k{i}"))).await },
                )
            })
            .collect();
        let mut started = Vec::new();
        let mut refused = Vec::new();
        for call in calls {
            match call.await.unwrap() {
                Ok(outcome) => started.push(outcome.value.id),
                Err(Error::PaymentInProgress(id)) => refused.push(id),
                Err(e) => panic!("{e}"),
            }
        }
        assert_eq!(
            (started.len(), refused.len(), s.bank.calls(Ask::Start)),
            (1, 4, 1)
        );
        assert!(refused.iter().all(|id| *id == started[0]));
    })
    .await;
}

#[tokio::test]
async fn the_caller_may_go_away() {
    each_shop(async |s| {
        s.bank.plan(Ask::Start, Fake::Slow(Duration::from_millis(400)));
        let gone = tokio::time::timeout(Duration::from_millis(200), s.start("k")).await;
        assert!(gone.is_err(), "the caller lost its patience");
        let again = s
            .payments()
            .start(&s.buyer, s.order.id, start("k"))
            .await
            .unwrap();
        assert!(again.replayed);
        assert_eq!(again.value.status, PaymentStatus::Captured);
        assert_eq!((s.bank.calls(Ask::Start), s.bank.charged()), (1, PRICE));
    })
    .await;
}

#[tokio::test]
async fn a_decline_is_a_result_and_leaves_room_for_another() {
    each_shop(async |s| {
        s.bank.plan(Ask::Start, Fake::Decline);
        let declined = s.start("k1").await;
        assert_eq!(declined.status, PaymentStatus::Failed);
        assert_eq!(declined.decline_code.as_deref(), Some("card_declined"));
        let replayed = s
            .payments()
            .start(&s.buyer, s.order.id, start("k1"))
            .await
            .unwrap();
        assert!(replayed.replayed && replayed.value.id == declined.id);
        assert_eq!(s.order().await.state, OrderState::AwaitingPayment);
        assert_eq!(s.start("k2").await.status, PaymentStatus::Captured);
        assert_eq!(s.order().await.state, OrderState::Paid);
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_is_away_frees_the_key() {
    each_shop(async |s| {
        for away in [
            GatewayError::Unavailable("down".into()),
            GatewayError::RateLimited(Some(3)),
        ] {
            s.bank.plan(Ask::Start, Fake::Fail(away.clone()));
            let refused = s.try_start("k").await.unwrap_err();
            assert!(matches!(refused, Error::Gateway { source, .. } if source == away));
        }
        let payment = s.start("k").await;
        assert_eq!(payment.status, PaymentStatus::Captured);
        let all = s.payments().of_order(&s.buyer, s.order.id).await.unwrap();
        assert_eq!(all.len(), 3, "each try is on record");
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_started_is_refused() {
    each_shop(async |s| {
        let payments = s.payments();
        let with = |account: &str, url: Option<&str>| StartPayment {
            account: account.into(),
            return_url: url.map(Into::into),
            ..start("k")
        };
        let unknown = payments.start(&s.buyer, s.order.id, with("nobody", None)).await;
        assert!(matches!(unknown, Err(Error::Invalid(v)) if v[0].pointer == "/account"));
        let script = payments
            .start(&s.buyer, s.order.id, with("fake", Some("javascript:x")))
            .await;
        assert!(matches!(script, Err(Error::Invalid(v)) if v[0].pointer == "/return_url"));
        let lost = payments.start(&s.buyer, s.order.id, with("lost", None)).await;
        assert!(matches!(lost, Err(Error::Gateway { .. })));
        let stranger = s.t.user("eve").await;
        let foreign = payments.start(&stranger, s.order.id, start("k")).await;
        assert!(matches!(foreign, Err(Error::NotFound("order"))));
        let nobody = payments.start(&Actor::Anonymous, s.order.id, start("k")).await;
        assert!(matches!(nobody, Err(Error::Unauthorized)));
        assert_eq!(s.bank.calls(Ask::Start), 0);

        let payment = s.start("k").await;
        assert!(matches!(
            payments.get(&stranger, payment.id).await,
            Err(Error::NotFound("payment"))
        ));
        assert!(matches!(
            payments.of_order(&stranger, s.order.id).await,
            Err(Error::NotFound("order"))
        ));
        assert!(matches!(
            payments.sync(&s.buyer, payment.id).await,
            Err(Error::Forbidden(_))
        ));
        assert!(matches!(
            payments.inbox(&s.buyer, &PageRequest::default(), None).await,
            Err(Error::Forbidden(_))
        ));
        let refund = RefundPayment {
            idempotency_key: "r".parse().unwrap(),
            amount: None,
            reason: None,
        };
        assert!(matches!(
            payments.refund(&s.buyer, payment.id, refund).await,
            Err(Error::Forbidden(_))
        ));
    })
    .await;
}

#[tokio::test]
async fn the_customer_comes_back() {
    each_shop(async |s| {
        let payment = s.redirected().await;
        assert!(payment.next_action.is_some());
        let stranger = s.t.user("eve").await;
        let foreign = s.payments().complete(&stranger, payment.id, Vec::new()).await;
        assert!(matches!(foreign, Err(Error::NotFound("payment"))));
        let params = vec![("ok".to_owned(), "1".to_owned())];
        let done = s.payments().complete(&s.buyer, payment.id, params).await.unwrap();
        assert_eq!((done.status, done.next_action), (PaymentStatus::Captured, None));
        let twice = s
            .payments()
            .complete(&s.buyer, payment.id, Vec::new())
            .await
            .unwrap();
        assert_eq!(twice.status, PaymentStatus::Captured);
        assert_eq!(
            (s.bank.calls(Ask::Complete), s.order().await.state),
            (1, OrderState::Paid)
        );
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn captures_in_parts() {
    each_shop(async |s| {
        let payment = s.authorized().await;
        assert_eq!(
            (payment.status, payment.capturable()),
            (PaymentStatus::Authorized, PRICE)
        );
        assert_eq!(s.order().await.state, OrderState::AwaitingPayment);
        let by_buyer = CapturePayment {
            idempotency_key: "b".parse().unwrap(),
            amount: None,
            final_capture: None,
        };
        let refused = s.payments().capture(&s.buyer, payment.id, by_buyer).await;
        assert!(matches!(refused, Err(Error::Forbidden(_))));
        for minor in [0, PRICE + 1] {
            let refused = s.capture(&payment, "c0", minor, false).await;
            assert!(matches!(refused, Err(Error::Invalid(v)) if v[0].pointer == "/amount"));
        }
        let part = s.capture(&payment, "c1", 2_000, false).await.unwrap();
        assert_eq!(
            (part.status, part.captured),
            (PaymentStatus::PartiallyCaptured, 2_000)
        );
        let again = s.capture(&payment, "c1", 2_000, false).await.unwrap();
        assert_eq!((again.captured, s.bank.calls(Ask::Capture)), (2_000, 1));
        s.bank.plan(Ask::Capture, Fake::Decline);
        let declined = s.capture(&payment, "c2", 1_000, false).await.unwrap();
        let failed = |c: &&oms_core::payments::Capture| c.status == OperationStatus::Failed;
        let failed: Vec<_> = declined
            .captures
            .iter()
            .filter(failed)
            .map(|c| c.amount)
            .collect();
        assert_eq!((declined.captured, failed), (2_000, vec![eur(1_000)]));
        let all = s.capture(&payment, "c3", 3_000, true).await.unwrap();
        assert_eq!(
            (all.status, all.captured, all.captures.len()),
            (PaymentStatus::Captured, PRICE, 3)
        );
        let booked =
            |c: &oms_core::payments::Capture| c.status == OperationStatus::Succeeded && c.reference.is_some();
        assert_eq!(all.captures.iter().filter(|c| booked(c)).count(), 2);
        assert_eq!(
            (s.order().await.state, s.bank.charged()),
            (OrderState::Paid, PRICE)
        );
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_capture_whose_answer_is_lost_is_found_out() {
    each_shop(async |s| {
        let payment = s.authorized().await;
        for (fake, seen) in [(Fake::LoseRequest, 0), (Fake::LoseAnswer, 2_000)] {
            s.bank.plan(Ask::Capture, fake.clone());
            let unknown = s
                .capture(&payment, &format!("{fake:?}"), 2_000, false)
                .await
                .unwrap();
            assert_eq!(unknown.shown_status(), "unknown");
            let meanwhile = s.capture(&payment, "other", 100, false).await;
            assert!(matches!(
                meanwhile,
                Err(Error::InvalidState { what: "payment", .. })
            ));
            s.pass(31).await;
            s.pass(121).await;
            let known = s.payment(&payment).await;
            assert_eq!((known.captured, known.attention), (seen, None));
        }
        let states: Vec<_> = s
            .payment(&payment)
            .await
            .captures
            .iter()
            .map(|c| c.status)
            .collect();
        assert_eq!(
            states,
            [OperationStatus::Failed, OperationStatus::Succeeded],
            "minutes apart"
        );
        assert_eq!(s.bank.charged(), 2_000);
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn refunds_never_pass_what_was_captured() {
    each_shop(async |s| {
        let payment = s.start("k").await;
        let part = s.refund(&payment, "r1", Some(2_000)).await.unwrap();
        assert_eq!(
            (part.status, part.amount),
            (OperationStatus::Succeeded, eur(2_000))
        );
        let again = s.refund(&payment, "r1", Some(2_000)).await.unwrap();
        assert_eq!((again.id, s.bank.calls(Ask::Refund)), (part.id, 1));
        let over = s.refund(&payment, "r2", Some(3_001)).await;
        assert!(matches!(over, Err(Error::Invalid(v)) if v[0].pointer == "/amount"));
        let calls: Vec<_> = (0..4)
            .map(|i| {
                let (oms, operator, id) = (s.oms().clone(), s.operator.clone(), payment.id);
                let command = RefundPayment {
                    idempotency_key: format!("p{i}").parse().unwrap(),
                    amount: Some(eur(1_000)),
                    reason: None,
                };
                tokio::spawn(async move { oms.payments().refund(&operator, id, command).await })
            })
            .collect();
        let mut done = 0;
        for call in calls {
            done += usize::from(call.await.unwrap().is_ok());
        }
        assert_eq!(done, 3);
        let nothing_left = s.refund(&payment, "r3", None).await;
        assert!(matches!(nothing_left, Err(Error::InvalidState { .. })));
        assert_eq!(s.payment(&payment).await.refunded, PRICE);
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_refund_is_a_promise() {
    each_shop(async |s| {
        let payment = s.start("k").await;
        // The gateway is away, and still is at the second try: sent later, by itself.
        for _ in 0..2 {
            let away = GatewayError::Unavailable("down".into());
            s.bank.plan(Ask::Refund, Fake::Fail(away));
        }
        let later = s.refund(&payment, "r1", Some(1_000)).await.unwrap();
        assert_eq!(later.status, OperationStatus::Pending);
        s.pass(31).await;
        assert_eq!(s.payment(&payment).await.refunded, 0);
        s.pass(121).await;
        assert_eq!(s.payment(&payment).await.refunded, 1_000);
        // The answer is lost: the same key again, so that it is sent once.
        s.bank.plan(Ask::Refund, Fake::LoseAnswer);
        let unknown = s.refund(&payment, "r2", Some(1_000)).await.unwrap();
        assert_eq!(unknown.status, OperationStatus::Unknown);
        assert_eq!(s.payment(&payment).await.attention, Some(Attention::Unknown));
        s.pass(31).await;
        let known = s.payment(&payment).await;
        assert_eq!((known.refunded, known.attention), (2_000, None));
        // Accepted: the outcome comes by webhook.
        s.bank.plan(Ask::Refund, Fake::Pend);
        let pending = s.refund(&payment, "r3", Some(500)).await.unwrap();
        assert_eq!(pending.status, OperationStatus::Pending);
        s.bank
            .change(payment.id, |p| p.refunds[2].status = RefundStatus::Succeeded);
        let event = s.bank.refund_event(payment.id, pending.id).unwrap();
        assert!(accepted(&s.deliver(&[event]).await));
        assert_eq!(s.payment(&payment).await.refunded, 2_500);
        // A final no.
        s.bank.plan(Ask::Refund, Fake::Decline);
        let declined = s.refund(&payment, "r4", Some(500)).await.unwrap();
        assert_eq!(declined.status, OperationStatus::Failed);
        let sent: i64 = s
            .bank
            .payment(payment.id)
            .unwrap()
            .refunds
            .iter()
            .map(|r| r.amount)
            .sum();
        assert_eq!((sent, s.payment(&payment).await.refunded), (2_500, 2_500));
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_lost_answer_charges_once() {
    each_shop(async |s| {
        s.bank.plan(Ask::Start, Fake::LoseAnswer);
        let unknown = s.start("k").await;
        assert_eq!((unknown.shown_status(), unknown.is_open()), ("unknown", true));
        let replayed = s
            .payments()
            .start(&s.buyer, s.order.id, start("k"))
            .await
            .unwrap();
        assert!(replayed.replayed && replayed.value.attention == Some(Attention::Unknown));
        assert!(matches!(
            s.try_start("other").await,
            Err(Error::PaymentInProgress(_))
        ));
        s.pass(29).await;
        assert_eq!(
            s.payment(&unknown).await.shown_status(),
            "unknown",
            "not before its time"
        );
        s.pass(2).await;
        let known = s.payment(&unknown).await;
        assert_eq!((known.shown_status(), known.captured), ("captured", PRICE));
        assert_eq!((s.bank.charged(), s.bank.calls(Ask::Start)), (PRICE, 2));
        assert_eq!(s.order().await.state, OrderState::Paid);
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_lost_request_is_sent_again_or_given_up() {
    each_shop(async |s| {
        s.bank.plan(Ask::Start, Fake::LoseRequest);
        // A refusal proves nothing while an earlier try may have happened.
        s.bank
            .plan(Ask::Start, Fake::Fail(GatewayError::Unavailable("down".into())));
        let payment = s.start("k").await;
        s.pass(31).await;
        assert_eq!(s.payment(&payment).await.shown_status(), "unknown");
        s.cancel_order().await;
        s.pass(121).await;
        let gone = s.payment(&payment).await;
        assert_eq!(
            (gone.shown_status(), gone.decline_code.as_deref()),
            ("failed", Some("never_started"))
        );
        s.pass(31).await;
        assert_eq!((s.bank.charged(), s.bank.calls(Ask::Cancel)), (0, 0));
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn nobody_knows_for_a_week() {
    each_shop(async |s| {
        for _ in 0..20 {
            s.bank.plan(Ask::Start, Fake::LoseRequest);
            s.bank.plan(Ask::Sync, Fake::LoseRequest);
        }
        let payment = s.start("k").await;
        for _ in 0..12 {
            s.pass(24 * 3600 + 1).await;
        }
        let review = s.payment(&payment).await;
        assert!(
            matches!(review.attention, Some(Attention::NeedsReview(_))),
            "{review:?}"
        );
        assert_eq!(s.in_review().await.len(), 1);
        assert_eq!(s.bank.charged(), 0);
    })
    .await;
}

/// Puts the only attempt back between its two transactions, as a crash after the call leaves it.
async fn forget_the_answer(s: &Shop, payment: &Payment) {
    raw!(s.t, |conn| {
        sqlx::query(
            "UPDATE oms_payment_attempt SET status = 'in_flight', request = $2 WHERE payment_id = $1",
        )
        .bind(payment.id)
        .bind(sqlx::types::Json(serde_json::json!({
            "claim": null, "doubtful": false, "params": [], "reason": null,
            "start": { "order_number": 1001, "instrument": null, "instrument_data": [],
                "customer": { "id": null, "email": null, "phone": null, "ip": null, "billing": null,
                    "shipping": null },
                "webhook_url": null },
        })))
        .execute(&mut *conn)
        .await
        .unwrap();
        sqlx::query(
            "UPDATE oms_payment SET status = 'created', reference = NULL, next_action = NULL WHERE id = $1",
        )
        .bind(payment.id)
        .execute(&mut *conn)
        .await
        .unwrap();
    });
}

#[tokio::test]
async fn a_crash_between_the_steps_is_rescued() {
    each_shop(async |s| {
        let payment = s.redirected().await;
        forget_the_answer(&s, &payment).await;
        s.pass(60).await;
        assert_eq!(
            s.payment(&payment).await.shown_status(),
            "created",
            "it may still be on its way"
        );
        s.pass(180).await;
        s.pass(31).await;
        let found = s.payment(&payment).await;
        assert_eq!(
            (found.shown_status(), found.reference),
            ("action_required", payment.reference)
        );
        assert_eq!(s.bank.calls(Ask::Start), 2, "sent again under the same key");
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn webhooks_come_twice_and_in_any_order() {
    each_shop(async |s| {
        let payment = s.redirected().await;
        let early = s.event(&payment);
        s.bank.pay(payment.id);
        let paid = s.event(&payment);
        assert!(accepted(&s.deliver(std::slice::from_ref(&paid)).await));
        assert_eq!(s.order().await.state, OrderState::Paid);
        let (order, stored) = (s.order().await, s.payment(&payment).await);
        // Twice, an older one, and all of them together.
        for events in [
            &[paid.clone()][..],
            std::slice::from_ref(&early),
            &[early.clone(), paid],
        ] {
            assert!(accepted(&s.deliver(events).await));
        }
        assert_eq!((s.order().await, s.payment(&payment).await), (order, stored));
        assert_eq!(s.inbox(InboxStatus::Applied).await, 2);
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn webhooks_at_once_have_one_effect() {
    each_shop(async |s| {
        let payment = s.redirected().await;
        s.bank.pay(payment.id);
        let delivery = s.bank.delivery(s.oms().now(), &[s.event(&payment)]);
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let (oms, delivery) = (s.oms().clone(), delivery.clone());
                tokio::spawn(async move { oms.payments().receive_webhook("fake", delivery).await })
            })
            .collect();
        for call in calls {
            assert!(accepted(&call.await.unwrap().unwrap()));
        }
        assert_eq!(s.inbox(InboxStatus::Applied).await, 1);
        assert_eq!(s.kinds().await.iter().filter(|k| *k == "paid").count(), 1);
    })
    .await;
}

#[tokio::test]
async fn webhooks_that_are_not_right_are_refused() {
    each_shop(async |s| {
        let payment = s.redirected().await;
        s.bank.pay(payment.id);
        let (now, events) = (s.oms().now(), [s.event(&payment)]);
        let receive = async |delivery| s.payments().receive_webhook("fake", delivery).await.unwrap();
        let mut tampered = s.bank.delivery(now, &events);
        tampered.body[10] ^= 1;
        assert_eq!(
            receive(tampered).await,
            WebhookOutcome::Refused(WebhookError::BadSignature)
        );
        let mut unsigned = s.bank.delivery(now, &events);
        unsigned.headers.clear();
        let refused = receive(unsigned).await;
        assert!(matches!(
            refused,
            WebhookOutcome::Refused(WebhookError::MissingSignature(_))
        ));
        let far = Duration::from_secs(301);
        for time in [now - far, now + far] {
            let mut old = s.bank.delivery(time, &events);
            // What the caller says of time and tolerance does not count.
            (old.received_at, old.tolerance_seconds) = (time, u32::MAX);
            assert_eq!(receive(old).await, WebhookOutcome::Refused(WebhookError::Stale));
        }
        let near = s.bank.delivery(now - Duration::from_secs(299), &[]);
        assert!(accepted(&receive(near).await));
        let unknown = s
            .payments()
            .receive_webhook("nobody", s.bank.delivery(now, &events))
            .await;
        assert!(matches!(unknown, Err(Error::NotFound(_))));
        let away = s
            .payments()
            .receive_webhook("lost", s.bank.delivery(now, &events))
            .await;
        assert!(matches!(away, Ok(WebhookOutcome::Unavailable(_))));
        let challenge = receive(s.bank.handshake("echo")).await;
        assert!(matches!(challenge, WebhookOutcome::Challenge(reply) if reply.body == b"echo"));
        assert_eq!(s.payment(&payment).await.status, PaymentStatus::ActionRequired);
        for status in [InboxStatus::Applied, InboxStatus::Unmatched, InboxStatus::Failed] {
            assert_eq!(s.inbox(status).await, 0);
        }
        // An unsigned hint is believed in nothing: the gateway is asked.
        let hint = s.bank.hint(&[payment.reference.as_deref().unwrap(), "fp_99"]);
        assert!(accepted(&receive(hint).await));
        assert_eq!(s.payment(&payment).await.status, PaymentStatus::ActionRequired);
        s.pass(0).await;
        assert_eq!(s.payment(&payment).await.status, PaymentStatus::Captured);
    })
    .await;
}

#[tokio::test]
async fn a_wrong_amount_is_for_a_person() {
    each_shop(async |s| {
        let payment = s.redirected().await;
        s.bank.change(payment.id, |p| p.amount = 100);
        s.bank.pay(payment.id);
        assert!(accepted(&s.deliver(&[s.event(&payment)]).await));
        let review = s.payment(&payment).await;
        assert!(matches!(&review.attention, Some(Attention::NeedsReview(why)) if why.contains("100")));
        assert_eq!(
            (review.captured, s.order().await.state),
            (0, OrderState::AwaitingPayment)
        );
        let strict = s
            .payments()
            .review(&s.operator, payment.id, Decision::Sync)
            .await
            .unwrap();
        assert!(
            matches!(strict.attention, Some(Attention::NeedsReview(_))),
            "it is still another amount"
        );
        let by_buyer = s.payments().review(&s.buyer, payment.id, Decision::Accept).await;
        assert!(matches!(by_buyer, Err(Error::Forbidden(_))));
        let refused = s
            .payments()
            .review(&s.operator, payment.id, Decision::Refund)
            .await
            .unwrap();
        assert_eq!((refused.attention, refused.captured), (None, 100));
        s.pass(0).await;
        let back = s.payment(&payment).await;
        assert_eq!(
            (back.refunded, s.order().await.state),
            (100, OrderState::AwaitingPayment)
        );
        let twice = s
            .payments()
            .review(&s.operator, payment.id, Decision::Refund)
            .await;
        assert!(matches!(twice, Err(Error::InvalidState { .. })));
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_wrong_amount_may_be_accepted() {
    each_shop(async |s| {
        s.bank.plan(Ask::Start, Fake::Charge(PRICE + 1));
        let payment = s.start("k").await;
        assert!(matches!(payment.attention, Some(Attention::NeedsReview(_))));
        assert_eq!(s.order().await.state, OrderState::AwaitingPayment);
        let taken = s
            .payments()
            .review(&s.operator, payment.id, Decision::Accept)
            .await
            .unwrap();
        assert_eq!((taken.shown_status(), taken.captured), ("captured", PRICE + 1));
        assert_eq!(s.order().await.state, OrderState::Paid);
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn an_event_may_outrun_its_payment() {
    each_shop(async |s| {
        s.bank.plan(Ask::Start, Fake::LoseAnswer);
        let payment = s.start("k").await;
        // Known to the gateway by a reference that never arrived here.
        assert!(accepted(&s.deliver(&[s.event(&payment)]).await));
        assert_eq!(s.inbox(InboxStatus::Unmatched).await, 1);
        assert_eq!(s.payment(&payment).await.shown_status(), "unknown");
        s.pass(31).await;
        s.pass(121).await;
        assert_eq!(
            (
                s.inbox(InboxStatus::Unmatched).await,
                s.inbox(InboxStatus::Applied).await
            ),
            (0, 1)
        );
        assert_eq!(s.payment(&payment).await.shown_status(), "captured");
        // By our own id it is found at once; another account's gateway may not name it.
        let stray = GatewayEvent {
            reference: None,
            payment: Some(payment.id),
            ..s.event(&payment)
        };
        assert!(accepted(&s.deliver(&[stray]).await));
        assert_eq!(s.inbox(InboxStatus::Applied).await, 2);
        let entry = &s
            .payments()
            .inbox(&s.operator, &PageRequest::default(), None)
            .await
            .unwrap()
            .data[0];
        let replayed = s.payments().replay(&s.operator, entry.id).await.unwrap();
        assert_eq!((replayed.status, replayed.tries), (InboxStatus::Applied, 2));
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn events_of_other_kinds() {
    each_shop(async |s| {
        let payment = s.start("k").await;
        let known = s.bank.payment(payment.id).unwrap();
        let nothing = s.bank.event_of(&known, "customer.updated", Change::Irrelevant);
        assert!(accepted(&s.deliver(&[nothing]).await));
        assert_eq!(s.inbox(InboxStatus::Irrelevant).await, 1);
        // A refund made on the gateway's own pages is learned by asking.
        s.bank.change(payment.id, |p| {
            p.refunds.push(oms_core::testing::FakeRefund {
                refund: oms_core::RefundId::new(oms_core::Timestamp::from_millis(0)),
                reference: "fr_by_hand".into(),
                amount: 700,
                status: RefundStatus::Succeeded,
            });
        });
        let thin = s.bank.event_of(&known, "charge.refunded", Change::NeedsSync);
        assert!(accepted(&s.deliver(&[thin]).await));
        s.pass(0).await;
        let refunded = s.payment(&payment).await;
        assert_eq!((refunded.refunded, refunded.refunds.len()), (700, 1));
        // A dispute needs a person until it is won.
        let dispute = |opened, won| Change::Dispute {
            reference: "dp_1".into(),
            opened,
            won,
            reason: Some("not received".into()),
        };
        let opened = s.bank.event_of(&known, "dispute", dispute(true, None));
        assert!(accepted(&s.deliver(&[opened]).await));
        assert_eq!(s.in_review().await.len(), 1);
        assert_eq!(s.order().await.state, OrderState::Paid);
        let won = s.bank.event_of(&known, "dispute", dispute(false, Some(true)));
        assert!(accepted(&s.deliver(&[won]).await));
        assert_eq!(s.in_review().await.len(), 0);
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_customer_gives_up_and_an_order_too() {
    each_shop(async |s| {
        let payment = s.redirected().await;
        let cancel = |key: &str| key.parse().unwrap();
        let stranger = s.t.user("eve").await;
        let foreign = s.payments().cancel(&stranger, payment.id, cancel("x")).await;
        assert!(matches!(foreign, Err(Error::NotFound("payment"))));
        let canceled = s
            .payments()
            .cancel(&s.buyer, payment.id, cancel("x"))
            .await
            .unwrap();
        assert_eq!(canceled.value.status, PaymentStatus::Canceled);
        let again = s
            .payments()
            .cancel(&s.buyer, payment.id, cancel("x"))
            .await
            .unwrap();
        assert!(again.replayed && s.bank.calls(Ask::Cancel) == 1);
        // The order goes, and its next payment with it.
        s.bank.plan(Ask::Start, Fake::Redirect);
        let second = s.start("second").await;
        s.bank.plan(Ask::Cancel, Fake::LoseAnswer);
        s.cancel_order().await;
        s.pass(0).await;
        assert_eq!(s.payment(&second).await.shown_status(), "unknown");
        s.pass(31).await;
        s.pass(600).await;
        assert_eq!(s.payment(&second).await.shown_status(), "canceled");
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn money_for_a_canceled_order_goes_back() {
    each_shop(async |s| {
        let payment = s.redirected().await;
        // The customer pays in the moment in which the order is canceled.
        s.bank.pay(payment.id);
        s.cancel_order().await;
        s.pass(0).await;
        s.pass(31).await;
        let back = s.payment(&payment).await;
        assert_eq!(
            (back.status, back.captured, back.refunded),
            (PaymentStatus::Captured, PRICE, PRICE)
        );
        assert_eq!(
            (s.bank.calls(Ask::Refund), s.order().await.state),
            (1, OrderState::Canceled)
        );
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_pending_payment_is_asked_about() {
    each_shop(async |s| {
        s.bank.plan(Ask::Start, Fake::Pend);
        let payment = s.start("k").await;
        assert_eq!(payment.status, PaymentStatus::Pending);
        s.pass(31).await;
        assert_eq!(s.payment(&payment).await.status, PaymentStatus::Pending);
        s.bank.pay(payment.id);
        s.pass(121).await;
        assert_eq!(s.payment(&payment).await.status, PaymentStatus::Captured);
        assert_eq!(s.order().await.state, OrderState::Paid);
    })
    .await;
}

#[tokio::test]
async fn money_that_comes_after_the_order_expired() {
    each_shop(async |s| {
        let payment = s.redirected().await;
        // Nobody heard of it: the order expires, and giving the payment up brings it to light.
        s.bank.pay(payment.id);
        s.pass(31 * 60).await;
        s.pass(31).await;
        assert_eq!(s.payment(&payment).await.status, PaymentStatus::Captured);
        assert_eq!(s.order().await.state, OrderState::Paid);
        let kinds = s.kinds().await;
        assert!(
            kinds.contains(&"expired".into()) && kinds.contains(&"paid_late".into()),
            "{kinds:?}"
        );
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_canceled_order_gets_its_money_back() {
    each_shop(async |s| {
        let payment = s.start("k").await;
        s.refund(&payment, "r", Some(1_000)).await.unwrap();
        s.cancel_order().await;
        s.pass(0).await;
        let back = s.payment(&payment).await;
        assert_eq!((back.refunded, back.refunds.len()), (PRICE, 2));
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_payment_waits_for_its_own_adapter() {
    each_shop(async |s| {
        let payment = s.start("k").await;
        raw!(s.t, |conn| {
            sqlx::query("UPDATE oms_payment SET plugin_digest = 'gone' WHERE id = $1")
                .bind(payment.id)
                .execute(conn)
                .await
                .map(drop)
        })
        .unwrap();
        let refused = s.refund(&payment, "r", None).await;
        assert!(matches!(refused, Err(Error::Gateway { .. })));
        assert_eq!(
            (s.bank.calls(Ask::Refund), s.payment(&payment).await.refunds.len()),
            (0, 0)
        );
    })
    .await;
}
