//! Events of many payments that come in at one moment share transactions, and nothing else.

use oms_core::orders::OrderState;
use oms_core::payments::{Attention, Change, GatewayEvent, InboxStatus, Payment, PaymentStatus};
use oms_core::testing::{Ask, Fake};
use oms_core::{OrderId, PageRequest, PaymentId};

use super::{Shop, accepted, each_shop, start};
use crate::orders::order as cart;
use crate::support::raw;

/// Orders whose customers are on the gateway's page.
async fn waiting(s: &Shop, names: &[&str]) -> Vec<Payment> {
    let mut payments = Vec::new();
    for name in names {
        s.bank.plan(Ask::Start, Fake::Redirect);
        let order = s.oms().orders().place(&s.buyer, cart(name, &[("mug", 1)])).await;
        let started = s
            .payments()
            .start(&s.buyer, order.unwrap().value.id, start(name))
            .await;
        payments.push(started.unwrap().value);
    }
    payments
}

fn paid(s: &Shop, payment: &Payment) -> GatewayEvent {
    s.bank.pay(payment.id);
    s.event(payment)
}

async fn state(s: &Shop, order: OrderId) -> OrderState {
    s.oms().orders().get(&s.buyer, order).await.unwrap().state
}

/// Each event in a delivery of its own, all at once.
async fn deliver_at_once(s: &Shop, events: &[GatewayEvent]) {
    let calls: Vec<_> = events
        .iter()
        .map(|event| {
            let delivery = s.bank.delivery(s.oms().now(), std::slice::from_ref(event));
            let oms = s.oms().clone();
            tokio::spawn(async move { oms.payments().receive_webhook("fake", delivery).await })
        })
        .collect();
    for call in calls {
        assert!(accepted(&call.await.unwrap().unwrap()));
    }
}

#[tokio::test]
async fn events_at_once_have_the_effect_of_each() {
    each_shop(async |s| {
        // These expire, and nobody hears of their cancelation: they take their stock again when they are paid.
        let late = waiting(&s, &["late-1", "late-2"]).await;
        s.bank.plan(Ask::Cancel, Fake::LoseRequest);
        s.bank.plan(Ask::Cancel, Fake::LoseRequest);
        s.pass(31 * 60).await;
        for payment in &late {
            assert_eq!(state(&s, payment.order).await, OrderState::Expired);
        }
        let plain = waiting(&s, &["plain-1", "plain-2", "plain-3"]).await;
        let [twice, wrong] = &waiting(&s, &["twice", "wrong"]).await[..] else {
            panic!()
        };
        let (early, full) = (s.event(twice), paid(&s, twice));
        s.bank.change(wrong.id, |p| p.amount = 100);
        let stranger = GatewayEvent {
            reference: None,
            payment: Some(PaymentId::new(s.oms().now())),
            ..s.event(twice)
        };
        let known = s.bank.payment(wrong.id).unwrap();
        let mut events = vec![
            early,
            full.clone(),
            full,
            paid(&s, wrong),
            stranger,
            s.bank.event_of(&known, "customer.updated", Change::Irrelevant),
        ];
        events.extend(plain.iter().chain(&late).map(|payment| paid(&s, payment)));
        deliver_at_once(&s, &events).await;

        for payment in plain.iter().chain([twice]).chain(&late) {
            assert_eq!(s.payment(payment).await.status, PaymentStatus::Captured);
            assert_eq!(state(&s, payment.order).await, OrderState::Paid);
        }
        assert!(matches!(
            s.payment(wrong).await.attention,
            Some(Attention::NeedsReview(_))
        ));
        assert_eq!(state(&s, wrong.order).await, OrderState::AwaitingPayment);
        let counts = [
            InboxStatus::Applied,
            InboxStatus::Unmatched,
            InboxStatus::Irrelevant,
            InboxStatus::Failed,
        ];
        let mut found = Vec::new();
        for status in counts {
            found.push(s.inbox(status).await);
        }
        assert_eq!(found, [8, 1, 1, 0]);
        let mails: i64 = raw!(s.t, |conn| {
            sqlx::query_scalar("SELECT COUNT(*) FROM oms_job WHERE CAST(payload AS TEXT) LIKE '%order_paid%'")
                .fetch_one(conn)
                .await
        })
        .unwrap();
        assert_eq!(mails, 6, "one for each order that was paid");
        s.t.verify().await;
    })
    .await;
}

#[tokio::test]
async fn one_that_cannot_be_applied_is_kept_and_harms_nobody() {
    each_shop(async |s| {
        let payments = waiting(&s, &["a", "b", "c", "d"]).await;
        let next_action = async |value: Option<serde_json::Value>| {
            raw!(s.t, |conn| {
                sqlx::query("UPDATE oms_payment SET next_action = $2 WHERE id = $1")
                    .bind(payments[2].id)
                    .bind(value.map(sqlx::types::Json))
                    .execute(conn)
                    .await
                    .map(drop)
            })
            .unwrap();
        };
        next_action(Some(serde_json::json!({ "nobody": "can read this" }))).await;
        let events: Vec<_> = payments.iter().map(|payment| paid(&s, payment)).collect();
        deliver_at_once(&s, &events).await;
        assert_eq!(s.inbox(InboxStatus::Applied).await, 3);
        assert_eq!(s.inbox(InboxStatus::Failed).await, 1);
        for (n, payment) in payments.iter().enumerate() {
            let expected = if n == 2 {
                OrderState::AwaitingPayment
            } else {
                OrderState::Paid
            };
            assert_eq!(state(&s, payment.order).await, expected);
        }
        // Mended, and replayed by an operator.
        next_action(None).await;
        let (api, page) = (s.payments(), PageRequest::default());
        let failed = api.inbox(&s.operator, &page, Some(InboxStatus::Failed));
        let entry = failed.await.unwrap().data.remove(0);
        let replayed = s.payments().replay(&s.operator, entry.id).await.unwrap();
        assert_eq!(replayed.status, InboxStatus::Applied);
        assert_eq!(state(&s, payments[2].order).await, OrderState::Paid);
        s.t.verify().await;
    })
    .await;
}
