//! A plugin that fails again and again is left alone: nothing is claimed, jobs wait, and others go on.

use std::time::Duration;

use oms_core::payments::{Account, Delivery, GatewayError, Payment, StartPayment, WebhookOutcome, Work};
use oms_core::plugins::{BreakerState, PluginInfo};
use oms_core::{Actor, Error, OmsBuilder, OrderId};

use super::guests::{cached, hostile_account, hostile_dir};
use crate::orders::order as cart;
use crate::support::{START, TestOms, each_db_with, raw};

/// Seconds after the start between which the plugin of the account `bad` is broken.
const OUTAGE: (u64, u64) = (20, 3_600);

fn account(name: &str, behaviour: &str) -> Account {
    let mut account = hostile_account(behaviour);
    account.name = name.into();
    account
}

fn setup(builder: OmsBuilder) -> OmsBuilder {
    let mut bad = account("bad", "count");
    for (setting, seconds) in [("fails-from", OUTAGE.0), ("fails-until", OUTAGE.1)] {
        let at = START + Duration::from_secs(seconds);
        bad.config.insert(setting.into(), at.as_millis().to_string());
    }
    cached(builder)
        .account(bad)
        .account(account("good", "count"))
        .account(account("junk", "panic"))
}

struct Shop<'a> {
    t: &'a TestOms,
    buyer: Actor,
}

impl Shop<'_> {
    async fn order(&self, key: &str) -> OrderId {
        let placed = self
            .t
            .oms
            .orders()
            .place(&self.buyer, cart(key, &[("mug", 1)]))
            .await;
        placed.unwrap().value.id
    }

    async fn start(&self, order: OrderId, account: &str) -> Result<Payment, Error> {
        let command = StartPayment {
            idempotency_key: "start".parse().unwrap(),
            account: account.into(),
            return_url: None,
            capture: Default::default(),
            instrument: None,
            instrument_data: Vec::new(),
            customer_ip: None,
        };
        let started = self.t.oms.payments().start(&self.buyer, order, command).await;
        started.map(|outcome| outcome.value)
    }

    async fn payments(&self, order: OrderId) -> usize {
        self.t
            .oms
            .payments()
            .of_order(&self.buyer, order)
            .await
            .unwrap()
            .len()
    }

    async fn at(&self, seconds: u64) {
        let passed = self.t.oms.now().since(START);
        self.t.clock.advance(Duration::from_secs(seconds) - passed);
    }

    async fn plugin(&self) -> PluginInfo {
        let mut list = self.t.oms.plugins().list(&Actor::System).await.unwrap();
        assert_eq!(list.len(), 1);
        list.remove(0)
    }

    fn is_open(&self, account: &str, work: Work) -> bool {
        let all = self.t.oms.plugins().left_alone(&self.t.operator()).unwrap();
        assert_eq!(all.len(), 6, "three accounts, two kinds of work");
        all.contains(&(account.into(), work, true))
    }

    /// How often the schedule has looked at a payment.
    async fn looks(&self, payment: &Payment) -> i64 {
        raw!(self.t, |conn| {
            sqlx::query_scalar("SELECT sync_tries FROM oms_payment WHERE id = $1")
                .bind(payment.id)
                .fetch_one(conn)
                .await
        })
        .unwrap()
    }

    /// Five starts that the broken plugin ruins.
    async fn ruin(&self, round: &str) {
        for n in 0..5 {
            let order = self.order(&format!("{round}-{n}")).await;
            let refused = self.start(order, "bad").await.unwrap_err();
            let Error::Gateway {
                source: GatewayError::Unavailable(why),
                ..
            } = refused
            else {
                panic!("{refused:?}");
            };
            assert!(why.contains("it is broken for a while"), "{why}");
        }
    }
}

async fn open(t: &TestOms) -> Shop<'_> {
    t.oms
        .plugins()
        .load_dir(&Actor::System, &hostile_dir())
        .await
        .unwrap();
    t.seller_with("mug", 5_000, 100).await;
    Shop {
        buyer: t.user("ann").await,
        t,
    }
}

/// Seconds to wait, out of the refusal of a plugin that is left alone.
fn left_alone(refused: Result<Payment, Error>) -> u64 {
    match refused {
        Err(Error::Gateway {
            source: GatewayError::Unavailable(why),
            retry_after,
            ..
        }) if why.contains("is left alone") => retry_after.as_secs(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nothing_is_claimed_while_a_plugin_is_left_alone() {
    each_db_with(setup, async |t| {
        let s = open(&t).await;
        s.at(OUTAGE.0).await;
        s.ruin("first").await;
        let order = s.order("patient").await;
        assert_eq!(left_alone(s.start(order, "bad").await), 5);
        assert_eq!(s.payments(order).await, 0, "nothing was written");
        assert!(s.is_open("bad", Work::Operation) && !s.is_open("bad", Work::Webhook));
        let plugin = s.plugin().await;
        let [health] = plugin.health.as_slice() else {
            panic!("{plugin:?}");
        };
        assert_eq!(
            (health.account.as_str(), health.state, health.failures),
            ("bad", BreakerState::Open, 5)
        );
        assert!(
            health.failure.contains("it is broken for a while"),
            "{}",
            health.failure
        );
        // Another merchant at the same plugin is served.
        let other = s.order("other").await;
        assert!(s.start(other, "good").await.is_ok());

        // One tries, in vain: the pause is twice as long.
        s.at(OUTAGE.0 + 5).await;
        let refused = s.start(order, "bad").await.unwrap_err();
        assert!(refused.to_string().contains("it is broken"), "{refused}");
        let order = s.order("more-patient").await;
        assert_eq!(left_alone(s.start(order, "bad").await), 10);

        // It is repaired, and the next one that tries finds out, with the same key.
        s.at(OUTAGE.1).await;
        assert_eq!(s.plugin().await.health[0].state, BreakerState::HalfOpen);
        let order = s.order("late").await;
        assert!(s.start(order, "bad").await.is_ok());
        let healed = s.plugin().await.health.remove(0);
        assert_eq!((healed.state, healed.failures), (BreakerState::Closed, 0));
        assert!(!s.is_open("bad", Work::Operation));
    })
    .await;
}

#[tokio::test]
async fn jobs_wait_without_counting_it() {
    each_db_with(setup, async |t| {
        let s = open(&t).await;
        let order = s.order("early").await;
        let payment = s.start(order, "bad").await.unwrap();
        assert_eq!(s.plugin().await.open_payments, 1);
        // The first look at it falls into a pause: 30 s after the start.
        s.at(28).await;
        s.ruin("second").await;
        s.at(31).await;
        t.oms.worker().drain().await.unwrap();
        assert_eq!(s.looks(&payment).await, 0, "nobody looked");
        s.at(62).await;
        t.oms.worker().drain().await.unwrap();
        assert_eq!(s.looks(&payment).await, 1, "after the pause one did");
    })
    .await;
}

#[tokio::test]
async fn webhooks_that_make_it_trap_keep_no_payment_waiting() {
    each_db_with(setup, async |t| {
        let s = open(&t).await;
        let send = async |account: &str| {
            let delivery = Delivery {
                method: "POST".into(),
                url: String::new(),
                query: String::new(),
                headers: Vec::new(),
                body: b"junk".to_vec(),
                received_at: t.oms.now(),
                remote_ip: None,
                tolerance_seconds: 1,
            };
            match t.oms.payments().receive_webhook(account, delivery).await.unwrap() {
                WebhookOutcome::Unavailable(why) => why,
                other => panic!("{other:?}"),
            }
        };
        for _ in 0..5 {
            let why = send("junk").await;
            assert!(why.contains("it broke"), "{why}");
        }
        let why = send("junk").await;
        assert!(why.contains("is left alone"), "the gateway sends it again: {why}");
        assert!(s.is_open("junk", Work::Webhook) && !s.is_open("junk", Work::Operation));
        let order = s.order("one").await;
        let refused = s.start(order, "junk").await.unwrap_err();
        assert!(
            refused.to_string().contains("it broke"),
            "the payment was tried: {refused}"
        );
    })
    .await;
}
