//! Money by bank transfer and in cash: nobody tells of it but an operator.

use oms_core::orders::{CancelOrder, OrderState};
use oms_core::payments::{
    CaptureMode, Decision, MoneyReceived, NextAction, OperationStatus, Payment, PaymentStatus, Refund,
    RefundPayment, RefundSent,
};
use oms_core::{Error, Money, RefundId};
use serde_json::Value;

use super::fakes::{PRICE, Shop, account, each_shop, eur};

fn bank() -> ((), oms_core::payments::Account) {
    let config = [
        ("account-holder", "Shop Ltd"),
        ("iban", "DE89 3704 0044 0532 0130 00"),
    ];
    let mut account = account("manual", &config, &[]);
    account.order_hold = None;
    ((), account)
}

impl Shop {
    async fn came(&self, payment: &Payment, key: &str, amount: Option<Money>) -> Result<Payment, Error> {
        let command = MoneyReceived {
            idempotency_key: key.parse().unwrap(),
            amount,
            note: Some("statement 7, line 3".into()),
        };
        let said = self
            .payments()
            .received(&self.operator, payment.id, command)
            .await;
        said.map(|outcome| outcome.value)
    }

    async fn sent(&self, refund: RefundId, key: &str) -> Result<Refund, Error> {
        let command = RefundSent {
            idempotency_key: key.parse().unwrap(),
            note: None,
        };
        let said = self.payments().refund_sent(&self.operator, refund, command).await;
        said.map(|outcome| outcome.value)
    }
}

#[tokio::test]
async fn a_transfer_pays_its_order() {
    each_shop("manual", bank, async |s, ()| {
        let payment = s.start("k", CaptureMode::Automatic, None).await;
        assert_eq!(payment.status, PaymentStatus::ActionRequired);
        let Some(NextAction::Present { data }) = &payment.next_action else {
            panic!("{:?}", payment.next_action);
        };
        let shown: Value = serde_json::from_str(data).unwrap();
        assert_eq!(
            (shown["amount"].as_str(), shown["iban"].as_str()),
            (Some("50.00"), Some("DE89370400440532013000"))
        );
        assert_eq!(shown["reference"], s.order.number.to_string());
        // Nobody is asked, and nobody is called, however long it takes.
        s.pass(40 * 24 * 3_600).await;
        let waiting = s.payment(&payment).await;
        assert_eq!(
            (waiting.status, waiting.attention),
            (PaymentStatus::ActionRequired, None)
        );
        assert_eq!(s.order_state().await, OrderState::AwaitingPayment);
        // The customer's word is not enough.
        let said = s
            .payments()
            .complete(&s.buyer, payment.id, vec![("paid".into(), "1".into())])
            .await;
        assert!(said.is_err() || said.unwrap().status == PaymentStatus::ActionRequired);
        let command = MoneyReceived {
            idempotency_key: "x".parse().unwrap(),
            amount: None,
            note: None,
        };
        let by_buyer = s.payments().received(&s.buyer, payment.id, command).await;
        assert!(matches!(by_buyer, Err(Error::Forbidden(_))), "{by_buyer:?}");

        let paid = s.came(&payment, "r", None).await.unwrap();
        assert_eq!((paid.status, paid.captured), (PaymentStatus::Captured, PRICE));
        assert_eq!(s.order_state().await, OrderState::Paid);
        let again = s.came(&payment, "r", None).await.unwrap();
        assert_eq!(again.captured, PRICE);
        assert!(matches!(
            s.came(&payment, "r2", None).await,
            Err(Error::InvalidState { .. })
        ));
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn less_money_waits_for_the_rest() {
    each_shop("manual", bank, async |s, ()| {
        let payment = s.start("k", CaptureMode::Automatic, None).await;
        for wrong in [eur(0), Money::new(5, "USD".parse().unwrap()).unwrap()] {
            let refused = s.came(&payment, "w", Some(wrong)).await;
            assert!(matches!(refused, Err(Error::Invalid(v)) if v[0].pointer == "/amount"));
        }
        let part = s.came(&payment, "a", Some(eur(3_000))).await.unwrap();
        assert_eq!((part.shown_status(), part.captured), ("needs_review", 0));
        assert_eq!(s.order_state().await, OrderState::AwaitingPayment);
        // The same line of the statement, told twice.
        s.came(&payment, "a", Some(eur(3_000))).await.unwrap();
        let whole = s.came(&payment, "b", Some(eur(2_000))).await.unwrap();
        assert_eq!((whole.shown_status(), whole.captured), ("captured", PRICE));
        assert_eq!(s.order_state().await, OrderState::Paid);
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_person_takes_what_differs() {
    for (came, decision) in [
        (3_000, Decision::Accept),
        (6_000, Decision::Accept),
        (6_000, Decision::Refund),
    ] {
        each_shop("manual", bank, async |s, ()| {
            let payment = s.start("k", CaptureMode::Automatic, None).await;
            let told = s.came(&payment, "a", Some(eur(came))).await.unwrap();
            assert_eq!(told.shown_status(), "needs_review");
            let decided = s
                .payments()
                .review(&s.operator, payment.id, decision)
                .await
                .unwrap();
            assert_eq!(
                (decided.attention, decided.captured),
                (None, came),
                "{decision:?}"
            );
            if decision == Decision::Accept {
                assert_eq!(s.order_state().await, OrderState::Paid);
            } else {
                s.pass(0).await;
                let back = s.payment(&payment).await;
                assert_eq!(
                    (back.refunds.len(), back.refunds[0].status),
                    (1, OperationStatus::Pending)
                );
                s.sent(back.refunds[0].id, "s").await.unwrap();
                assert_eq!(s.payment(&payment).await.refunded, came);
            }
            s.t.verify().await;
        })
        .await;
    }
}

#[tokio::test]
async fn refunds_are_sent_by_hand_too() {
    each_shop("manual", bank, async |s, ()| {
        let payment = s.start("k", CaptureMode::Automatic, None).await;
        s.came(&payment, "r", Some(eur(PRICE))).await.unwrap();
        let command = RefundPayment {
            idempotency_key: "f".parse().unwrap(),
            amount: Some(eur(2_000)),
            reason: Some("scratched".into()),
        };
        let refund = s
            .payments()
            .refund(&s.operator, payment.id, command)
            .await
            .unwrap()
            .value;
        assert_eq!(refund.status, OperationStatus::Pending);
        assert_eq!(s.payment(&payment).await.refunded, 0, "nobody has sent it yet");
        let sent = s.sent(refund.id, "s").await.unwrap();
        assert_eq!(sent.status, OperationStatus::Succeeded);
        assert_eq!(s.sent(refund.id, "s").await.unwrap(), sent);
        assert!(matches!(
            s.sent(refund.id, "s2").await,
            Err(Error::InvalidState { what: "refund", .. })
        ));
        assert_eq!(s.payment(&payment).await.refunded, 2_000);
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn an_order_is_given_up_and_its_money_comes_late() {
    each_shop("manual", bank, async |s, ()| {
        let payment = s.start("k", CaptureMode::Automatic, None).await;
        let command = CancelOrder {
            idempotency_key: "c".parse().unwrap(),
            reason: None,
            expected_version: None,
        };
        s.t.oms
            .orders()
            .cancel(&s.operator, s.order.id, command)
            .await
            .unwrap();
        s.pass(0).await;
        assert_eq!(s.payment(&payment).await.status, PaymentStatus::Canceled);
        s.came(&payment, "r", None).await.unwrap();
        s.pass(0).await;
        let back = s.payment(&payment).await;
        assert_eq!(
            (back.captured, back.refunds.len()),
            (PRICE, 1),
            "it is to be sent back"
        );
        s.sent(back.refunds[0].id, "s").await.unwrap();
        assert_eq!(s.payment(&payment).await.refunded, PRICE);
        s.t.verify().await;
    })
    .await;
}
