//! How payments hold orders, and let them go.

use std::cell::RefCell;
use std::time::Duration;

use oms_core::orders::{Order, OrderState};
use oms_core::payments::{Account, GatewayError, PaymentStatus, StartPayment};
use oms_core::testing::{Ask, Fake, FakeGateway};
use oms_core::{Actor, Error, OmsBuilder};

use crate::orders::order as cart;
use crate::support::{TestOms, each_db_with};

/// A shop whose only account would hold an order for ever, as bank transfers do.
async fn patient(story: impl AsyncFn(TestOms, FakeGateway, Actor, Order)) {
    let bank = RefCell::new(FakeGateway::new("fake"));
    let setup = |builder: OmsBuilder| {
        let fresh = FakeGateway::new("fake");
        bank.replace(fresh.clone());
        let mut account = Account::new("fake", "fake");
        account.order_hold = None;
        builder.gateway(fresh).account(account)
    };
    each_db_with(setup, async |t| {
        t.seller_with("mug", 500, 10).await;
        let buyer = t.user("ann").await;
        let order = t
            .oms
            .orders()
            .place(&buyer, cart("k", &[("mug", 1)]))
            .await
            .unwrap()
            .value;
        let bank = bank.borrow().clone();
        story(t, bank, buyer, order).await;
    })
    .await;
}

fn start(key: &str) -> StartPayment {
    StartPayment::new(key.parse().unwrap(), "fake")
}

#[tokio::test]
async fn a_payment_under_way_holds_its_order_for_ever_if_the_account_says_so() {
    patient(async |t, bank, buyer, order| {
        bank.plan(Ask::Start, Fake::Redirect);
        t.oms
            .payments()
            .start(&buyer, order.id, start("p"))
            .await
            .unwrap();
        t.clock.advance(Duration::from_secs(400 * 24 * 3600));
        assert_eq!(t.oms.orders().expire_due().await.unwrap(), 0);
        assert_eq!(t.stock("mug").await, (10, 1));
    })
    .await;
}

#[tokio::test]
async fn a_payment_that_failed_holds_nothing_for_ever() {
    for fault in [
        Fake::Decline,
        Fake::Fail(GatewayError::Unavailable("closed".into())),
    ] {
        patient(async |t, bank, buyer, order| {
            bank.plan(Ask::Start, fault.clone());
            match t.oms.payments().start(&buyer, order.id, start("p")).await {
                Ok(payment) => assert_eq!(payment.value.status, PaymentStatus::Failed),
                Err(error) => assert!(matches!(error, Error::Gateway { .. }), "{error}"),
            }
            t.clock.advance(Duration::from_secs(29 * 60));
            assert_eq!(
                t.oms.orders().expire_due().await.unwrap(),
                0,
                "there is time for another try"
            );
            t.clock.advance(Duration::from_secs(2 * 60));
            assert_eq!(t.oms.orders().expire_due().await.unwrap(), 1);
            assert_eq!(t.stock("mug").await, (10, 0));
            let expired = t.oms.orders().get(&buyer, order.id).await.unwrap();
            assert_eq!(expired.state, OrderState::Expired);
            t.verify().await;
        })
        .await;
    }
}
