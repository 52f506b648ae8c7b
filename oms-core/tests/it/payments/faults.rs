//! What goes wrong between us and the gateway.

use std::time::Duration;

use oms_core::Error;
use oms_core::orders::OrderState;
use oms_core::payments::{Attention, GatewayError, OperationStatus, Payment, PaymentStatus, RefundStatus};
use oms_core::testing::{Ask, Fake};

use super::{PRICE, Shop, accepted, each_shop, start};
use crate::support::raw;

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
