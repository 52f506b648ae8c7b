//! Money and payments that nobody waits for any more: something or somebody has to look after them.

use std::time::Duration;

use oms_core::orders::OrderState;
use oms_core::payments::{
    Account, Attention, CancelRequest, CaptureRequest, Change, CompleteRequest, Decision, Delivery,
    GatewayError, GatewayInfo, GatewayStatus, OperationStatus, Payment, PaymentGateway, PaymentReport,
    PaymentStatus, Proof, Received, RefundReport, RefundRequest, RefundStatus, Snapshot, StartRequest,
    SyncRequest, WebhookError,
};
use oms_core::testing::{Ask, Fake, FakeGateway};
use oms_core::{Actor, Error};

use super::{PRICE, Shop, accepted, each_shop, each_shop_with, eur};
use crate::support::raw;

const DAY: u64 = 24 * 3600 + 1;

fn reviewed(payment: &Payment, why: &str) -> bool {
    matches!(&payment.attention, Some(Attention::NeedsReview(reason)) if reason.contains(why))
}

async fn sql(s: &Shop, statement: &'static str) {
    raw!(s.t, |conn| sqlx::query(statement).execute(conn).await.map(drop)).unwrap();
}

/// Live jobs that ask about payments.
async fn looks(s: &Shop) -> i64 {
    let count = "SELECT COUNT(*) FROM oms_job WHERE kind = 'reconcile_payment'";
    raw!(s.t, |conn| sqlx::query_scalar(count).fetch_one(conn).await).unwrap()
}

async fn hint(s: &Shop, payment: &Payment) {
    let hint = s.bank.hint(&[payment.reference.as_deref().unwrap()]);
    assert!(accepted(
        &s.payments().receive_webhook("fake", hint).await.unwrap()
    ));
}

async fn decide(s: &Shop, payment: &Payment, decision: Decision) -> Payment {
    s.payments()
        .review(&s.operator, payment.id, decision)
        .await
        .unwrap()
}

async fn dispute(s: &Shop, payment: &Payment) {
    let known = s.bank.payment(payment.id).unwrap();
    let opened = Change::Dispute {
        reference: "dp_1".into(),
        opened: true,
        won: None,
        reason: None,
    };
    let event = s.bank.event_of(&known, "dispute", opened);
    assert!(accepted(&s.deliver(&[event]).await));
}

#[tokio::test]
async fn a_refused_refund_of_a_canceled_order_is_for_a_person() {
    each_shop(async |s| {
        let payment = s.start("k").await;
        s.bank.plan(Ask::Refund, Fake::Decline);
        s.cancel_order().await;
        s.pass(0).await;
        assert!(reviewed(&s.payment(&payment).await, "a refund was refused"));
        s.t.verify().await;
        sql(
            &s,
            "UPDATE oms_payment SET attention = NULL, attention_reason = NULL",
        )
        .await;
        let broken = s.oms().verify(&Actor::System).await.unwrap();
        assert!(broken.len() == 1 && broken[0].contains("canceled"), "{broken:?}");
        sql(
            &s,
            "UPDATE oms_payment SET attention = 'needs_review', attention_reason = 'by hand'",
        )
        .await;
        let kept = decide(&s, &payment, Decision::Sync).await;
        assert!(reviewed(&kept, "gone"), "nothing has changed");
        decide(&s, &payment, Decision::Refund).await;
        s.pass(0).await;
        let back = s.payment(&payment).await;
        assert_eq!((back.refunded, back.attention), (PRICE, None));
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_refund_that_fails_late_or_comes_back_is_for_a_person() {
    each_shop(async |s| {
        let payment = s.start("k").await;
        s.bank.plan(Ask::Refund, Fake::Pend);
        s.cancel_order().await;
        s.pass(0).await;
        let refund = s.payment(&payment).await.refunds[0].clone();
        assert_eq!(refund.status, OperationStatus::Pending);
        s.bank
            .change(payment.id, |p| p.refunds[0].status = RefundStatus::Failed);
        let event = s.bank.refund_event(payment.id, refund.id).unwrap();
        assert!(accepted(&s.deliver(&[event]).await));
        assert!(reviewed(&s.payment(&payment).await, "a refund was refused"));
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_capture_that_nobody_asked_for_is_for_a_person() {
    each_shop(async |s| {
        let payment = s.authorized().await;
        s.bank.change(payment.id, |p| p.take(2_000, true));
        assert!(accepted(&s.deliver(&[s.event(&payment)]).await));
        let review = s.payment(&payment).await;
        assert!(reviewed(&review, "2000"), "{review:?}");
        assert_eq!(s.order().await.state, OrderState::AwaitingPayment);
        let taken = decide(&s, &payment, Decision::Accept).await;
        assert_eq!((taken.captured, taken.attention), (2_000, None));
        assert_eq!(s.order().await.state, OrderState::Paid);
        // What was accepted stays accepted.
        assert!(accepted(&s.deliver(&[s.event(&payment)]).await));
        assert_eq!(s.payment(&payment).await.attention, None);
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_last_capture_may_be_a_part() {
    each_shop(async |s| {
        let payment = s.authorized().await;
        let part = s.capture(&payment, "c", 2_000, true).await.unwrap();
        assert_eq!((part.status, part.attention), (PaymentStatus::Captured, None));
        assert!(accepted(&s.deliver(&[s.event(&payment)]).await));
        assert_eq!(s.payment(&payment).await.attention, None);
        assert_eq!(s.order().await.state, OrderState::Paid);
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn nothing_is_captured_for_an_order_that_is_gone() {
    each_shop(async |s| {
        let payment = s.authorized().await;
        s.cancel_order().await;
        let refused = s.capture(&payment, "c", 2_000, false).await;
        assert!(
            matches!(refused, Err(Error::InvalidState { what: "order", .. })),
            "{refused:?}"
        );
        assert_eq!(s.bank.charged(), 0);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_captured_after_a_refund() {
    each_shop(async |s| {
        let payment = s.authorized().await;
        s.capture(&payment, "c1", 2_000, false).await.unwrap();
        s.refund(&payment, "r", Some(500)).await.unwrap();
        let refused = s.capture(&payment, "c2", 3_000, true).await;
        assert!(
            matches!(refused, Err(Error::InvalidState { what: "payment", .. })),
            "{refused:?}"
        );
        assert_eq!(s.bank.charged(), 2_000);
    })
    .await;
}

#[tokio::test]
async fn hints_do_not_use_up_the_schedule() {
    each_shop(async |s| {
        s.bank.plan(Ask::Start, Fake::Pend);
        let payment = s.start("k").await;
        for _ in 0..15 {
            hint(&s, &payment).await;
            s.pass(0).await;
        }
        let healthy = s.payment(&payment).await;
        assert_eq!((healthy.shown_status(), healthy.sync_tries), ("pending", 0));
        assert_eq!((looks(&s).await, s.bank.calls(Ask::Sync)), (1, 15));
        s.pass(31).await;
        assert_eq!(s.payment(&payment).await.sync_tries, 1);
        assert_eq!((looks(&s).await, s.bank.calls(Ask::Sync)), (1, 16));
        // While the scheduled look is under way, one more follows it, however many ask for it, and only once.
        let until = s.oms().now() + Duration::from_secs(1_000_000_000);
        raw!(s.t, |conn| {
            sqlx::query("UPDATE oms_job SET leased_until = $1 WHERE kind = 'reconcile_payment'")
                .bind(until)
                .execute(conn)
                .await
                .map(drop)
        })
        .unwrap();
        for _ in 0..3 {
            hint(&s, &payment).await;
        }
        assert_eq!(looks(&s).await, 2);
        s.pass(0).await;
        assert_eq!((looks(&s).await, s.bank.calls(Ask::Sync)), (1, 17));
        // Nor does one that came while both were under way stay behind.
        hint(&s, &payment).await;
        raw!(s.t, |conn| {
            sqlx::query("UPDATE oms_job SET leased_until = $1 WHERE kind = 'reconcile_payment'")
                .bind(until)
                .execute(conn)
                .await
                .map(drop)
        })
        .unwrap();
        hint(&s, &payment).await;
        assert_eq!(looks(&s).await, 3);
        s.pass(0).await;
        assert_eq!((looks(&s).await, s.bank.calls(Ask::Sync)), (1, 18));
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_payment_that_leaves_review_is_given_up_with_its_order() {
    each_shop(async |s| {
        let payment = s.redirected().await;
        dispute(&s, &payment).await;
        s.cancel_order().await;
        s.pass(0).await;
        assert_eq!(s.bank.calls(Ask::Cancel), 0);
        decide(&s, &payment, Decision::Sync).await;
        s.pass(0).await;
        assert_eq!(s.payment(&payment).await.shown_status(), "canceled");
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_is_away_is_asked_to_cancel_until_it_does() {
    each_shop(async |s| {
        let payment = s.redirected().await;
        for _ in 0..3 {
            let away = GatewayError::Unavailable("down".into());
            s.bank.plan(Ask::Cancel, Fake::Fail(away));
        }
        s.cancel_order().await;
        for seconds in [0, 31, 121, 601] {
            assert_eq!(s.payment(&payment).await.shown_status(), "action_required");
            s.pass(seconds).await;
        }
        assert_eq!(s.payment(&payment).await.shown_status(), "canceled");
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_given_up_is_for_a_person() {
    each_shop(async |s| {
        let payment = s.redirected().await;
        for _ in 0..40 {
            let never = GatewayError::Unsupported("cancel".into());
            s.bank.plan(Ask::Cancel, Fake::Fail(never));
        }
        s.cancel_order().await;
        for _ in 0..13 {
            s.pass(DAY).await;
        }
        assert!(reviewed(&s.payment(&payment).await, "does not say"));
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn without_its_adapter_a_payment_ends_with_a_person() {
    each_shop(async |s| {
        let payment = s.redirected().await;
        sql(&s, "UPDATE oms_payment SET plugin_digest = 'gone'").await;
        s.cancel_order().await;
        for _ in 0..13 {
            s.pass(DAY).await;
        }
        assert!(reviewed(&s.payment(&payment).await, "does not say"));
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn without_its_adapter_a_refund_ends_with_a_person() {
    each_shop(async |s| {
        let payment = s.start("k").await;
        sql(&s, "UPDATE oms_payment SET plugin_digest = 'gone'").await;
        s.cancel_order().await;
        for _ in 0..13 {
            s.pass(DAY).await;
        }
        assert!(reviewed(&s.payment(&payment).await, "refund could not be sent"));
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_new_operation_begins_a_new_schedule() {
    each_shop(async |s| {
        let payment = s.start("k").await;
        sql(&s, "UPDATE oms_payment SET sync_tries = 10").await;
        s.bank.plan(Ask::Refund, Fake::Pend);
        s.refund(&payment, "r", Some(500)).await.unwrap();
        assert_eq!(s.payment(&payment).await.sync_tries, 0);
    })
    .await;
}

#[tokio::test]
async fn a_late_payment_beside_an_open_one() {
    each_shop(async |s| {
        let first = s.authorized().await;
        let key = |text: &str| text.parse().unwrap();
        let gone = s.payments().cancel(&s.buyer, first.id, key("x")).await.unwrap();
        assert_eq!(gone.value.status, PaymentStatus::Canceled);
        let second = s.redirected().await;
        s.bank.change(first.id, |p| {
            p.status = GatewayStatus::PartiallyCaptured;
            p.captured = 2_000;
        });
        assert!(accepted(&s.deliver(&[s.event(&first)]).await));
        assert!(reviewed(&s.payment(&first).await, "another payment"));
        s.payments().cancel(&s.buyer, second.id, key("y")).await.unwrap();
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn whatever_is_not_settled_is_asked_about() {
    each_shop(async |s| {
        let payment = s.start("k").await;
        s.bank.plan(Ask::Refund, Fake::Pend);
        s.refund(&payment, "r", Some(500)).await.unwrap();
        sql(&s, "DELETE FROM oms_job WHERE kind = 'reconcile_payment'").await;
        s.bank
            .change(payment.id, |p| p.refunds[0].status = RefundStatus::Succeeded);
        s.pass(180).await;
        s.pass(31).await;
        assert_eq!(s.payment(&payment).await.refunded, 500);
        assert_eq!(s.payment(&payment).await.refunds[0].amount, eur(500));
    })
    .await;
}

#[tokio::test]
async fn an_old_key_is_not_sent_again_blindly() {
    each_shop(async |s| {
        let payment = s.start("k").await;
        s.bank.plan(Ask::Refund, Fake::LoseAnswer);
        s.refund(&payment, "r1", Some(1_000)).await.unwrap();
        s.pass(7_200).await;
        let known = s.payment(&payment).await;
        assert_eq!((known.refunded, known.attention), (1_000, None));
        assert_eq!(
            s.bank.calls(Ask::Refund),
            1,
            "a gateway may have forgotten the key"
        );
        // What it does not show is sent.
        s.bank.plan(Ask::Refund, Fake::LoseRequest);
        s.refund(&payment, "r2", Some(500)).await.unwrap();
        s.pass(7_200).await;
        assert_eq!(s.payment(&payment).await.refunded, 1_500);
        assert_eq!(s.bank.calls(Ask::Refund), 3);
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_second_payment_that_cannot_be_sent_back_is_for_a_person() {
    each_shop(async |s| {
        let first = s.authorized().await;
        let key = "x".parse().unwrap();
        s.payments().cancel(&s.buyer, first.id, key).await.unwrap();
        assert_eq!(s.start("second").await.status, PaymentStatus::Captured);
        s.bank.change(first.id, |p| p.take(PRICE, true));
        s.bank.plan(Ask::Refund, Fake::Decline);
        assert!(accepted(&s.deliver(&[s.event(&first)]).await));
        s.pass(0).await;
        assert!(reviewed(&s.payment(&first).await, "a refund was refused"));
        assert_eq!(s.order().await.state, OrderState::Paid);
        s.t.verify().await;
    })
    .await;
}

/// An adapter whose gateway can do all but cancel.
struct NeverCancels {
    bank: FakeGateway,
    info: GatewayInfo,
}

impl NeverCancels {
    fn new(bank: FakeGateway) -> Self {
        let mut info = bank.info().clone();
        info.features.cancel = false;
        Self { bank, info }
    }
}

#[async_trait::async_trait]
impl PaymentGateway for NeverCancels {
    fn info(&self) -> &GatewayInfo {
        &self.info
    }

    async fn start(&self, account: &Account, request: StartRequest) -> Result<PaymentReport, GatewayError> {
        self.bank.start(account, request).await
    }

    async fn complete(
        &self,
        account: &Account,
        request: CompleteRequest,
    ) -> Result<PaymentReport, GatewayError> {
        self.bank.complete(account, request).await
    }

    async fn capture(
        &self,
        account: &Account,
        request: CaptureRequest,
    ) -> Result<PaymentReport, GatewayError> {
        self.bank.capture(account, request).await
    }

    async fn cancel(&self, _: &Account, _: CancelRequest) -> Result<PaymentReport, GatewayError> {
        panic!("nobody may ask for this")
    }

    async fn refund(&self, account: &Account, request: RefundRequest) -> Result<RefundReport, GatewayError> {
        self.bank.refund(account, request).await
    }

    async fn sync(&self, account: &Account, request: SyncRequest) -> Result<Snapshot, GatewayError> {
        self.bank.sync(account, request).await
    }

    async fn receive(
        &self,
        account: &Account,
        proof: Proof,
        delivery: Delivery,
    ) -> Result<Received, WebhookError> {
        self.bank.receive(account, proof, delivery).await
    }
}

#[tokio::test]
async fn a_gateway_that_cannot_cancel_is_watched() {
    each_shop_with(NeverCancels::new, async |s| {
        let payment = s.redirected().await;
        s.cancel_order().await;
        s.pass(0).await;
        // The customer pays for the order that is gone.
        s.bank.pay(payment.id);
        s.pass(31).await;
        let back = s.payment(&payment).await;
        assert_eq!((back.captured, back.refunded), (PRICE, PRICE));
        s.t.verify().await;
    })
    .await;
    each_shop_with(NeverCancels::new, async |s| {
        let payment = s.redirected().await;
        s.cancel_order().await;
        for _ in 0..13 {
            s.pass(DAY).await;
        }
        assert!(reviewed(&s.payment(&payment).await, "does not say"));
        s.t.verify().await;
    })
    .await;
}
