//! Payments: the operations, what goes wrong between us and the gateway, and what it tells by itself.

use std::cell::RefCell;
use std::pin::Pin;
use std::time::Duration;

use oms_core::orders::{CancelOrder, Order, OrderState};
use oms_core::payments::{
    Account, Capture, CaptureMode, CapturePayment, GatewayEvent, InboxStatus, OperationStatus, Payment,
    PaymentGateway, PaymentStatus, Payments, Refund, RefundPayment, StartPayment, WebhookOutcome,
};
use oms_core::testing::{Ask, Fake, FakeGateway};
use oms_core::{Actor, Error, Money, Oms, OmsBuilder, PageRequest};

use crate::orders::order as cart;
use crate::support::{TestOms, each_db_with};

mod faults;
mod leftovers;
mod together;
mod webhooks;

const PRICE: i64 = 5_000;

/// A shop with a gateway, and an order that waits for its payment.
struct Shop {
    t: TestOms,
    bank: FakeGateway,
    buyer: Actor,
    operator: Actor,
    order: Order,
}

/// Boxed: the stories are long, and so are their futures.
fn each_shop(story: impl AsyncFn(Shop)) -> Pin<Box<impl Future<Output = ()>>> {
    each_shop_with(|bank| bank, story)
}

/// As [`each_shop`], with an adapter around the gateway.
fn each_shop_with<G: PaymentGateway>(
    adapter: impl Fn(FakeGateway) -> G,
    story: impl AsyncFn(Shop),
) -> Pin<Box<impl Future<Output = ()>>> {
    Box::pin(async move {
        let bank = RefCell::new(FakeGateway::new("fake"));
        let setup = |builder: OmsBuilder| {
            let fresh = FakeGateway::new("fake");
            bank.replace(fresh.clone());
            builder
                .gateway(adapter(fresh))
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
    })
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

    async fn refund(&self, payment: &Payment, key: &str, minor: Option<i64>) -> Result<Refund, Error> {
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
        let failed = |c: &&Capture| c.status == OperationStatus::Failed;
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
        let booked = |c: &Capture| c.status == OperationStatus::Succeeded && c.reference.is_some();
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
