//! What the gateway tells by itself.

use std::time::Duration;

use oms_core::orders::OrderState;
use oms_core::payments::{
    Attention, Change, Decision, GatewayEvent, InboxStatus, PaymentStatus, RefundStatus, WebhookError,
    WebhookOutcome,
};
use oms_core::testing::{Ask, Fake};
use oms_core::{Error, PageRequest};

use super::{PRICE, accepted, each_shop};

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
