//! A shop in which everything has happened: orders in every state, payments and refunds of every kind, jobs that wait
//! and one that died, webhooks, pictures, people who are signed in.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use oms_core::catalog::{Media, NewBusiness, NewProduct};
use oms_core::inventory::Adjust;
use oms_core::orders::{CancelOrder, FulfillOrder, FulfillmentLine, Order, PlaceOrder};
use oms_core::payments::{
    Account, CaptureMode, CapturePayment, Change, GatewayEvent, Payment, RefundPayment, StartPayment,
    WebhookOutcome,
};
use oms_core::testing::{Ask, CapturedMails, Fake, FakeGateway, ManualClock};
use oms_core::users::{Register, User};
use oms_core::{Actor, Money, Oms, OrderId, Roles, Timestamp};

/// 2026-01-01, so that no test depends on the day it runs.
const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

pub(crate) const PASSWORD: &str = "a mug of tea";

pub(crate) struct Shop {
    pub(crate) oms: Oms,
    bank: FakeGateway,
    clock: ManualClock,
    mails: CapturedMails,
    ann: Actor,
}

impl Shop {
    /// Opens what is in the database. `ann` shops there when she is known already.
    pub(crate) async fn open(url: &str) -> Self {
        let (bank, clock, mails) = (
            FakeGateway::new("fake"),
            ManualClock::at(START),
            CapturedMails::default(),
        );
        let builder = Oms::builder(url)
            .clock(clock.clone())
            .mailer(mails.clone())
            .gateway(bank.clone());
        let oms = builder
            .account(Account::new("fake", "fake"))
            .connect()
            .await
            .unwrap();
        oms.migrate().await.unwrap();
        let ann = match oms.users().find(&Actor::System, "ann").await {
            Ok(user) => user.actor(),
            Err(_) => customer(&oms, "ann").await.actor(),
        };
        Self {
            oms,
            bank,
            clock,
            mails,
            ann,
        }
    }

    /// A shop in which everything has happened. Boxed: it is a long story, and so would be every future that tells it.
    pub(crate) fn make(url: &str) -> Pin<Box<impl Future<Output = Self>>> {
        Box::pin(async move {
            let shop = Self::open(url).await;
            shop.live().await;
            shop
        })
    }

    async fn live(&self) {
        self.stock().await;
        let users = self.oms.users();
        users.log_in(&Actor::Anonymous, "ann", PASSWORD).await.unwrap();
        self.die_of_a_refused_mail().await;
        // What has expired first, before time stands still for the others.
        self.order("expired").await;
        self.pass(3600).await;
        Box::pin(self.deliver_and_return()).await;
        Box::pin(self.pay_in_every_way()).await;
        self.order("waiting").await;
        let command = Register {
            username: "bob".into(),
            email: "bob@example.com".into(),
            password: PASSWORD.into(),
        };
        // His mail waits: no worker runs any more.
        users.register(&Actor::Anonymous, command).await.unwrap();
    }

    async fn stock(&self) {
        let seller = customer(&self.oms, "seller").await.actor();
        let picture = Media {
            name: "00ff.png".into(),
            content_type: "image/png".into(),
            bytes: 68,
        };
        let picture = self.oms.catalog().register_media(&seller, picture).await.unwrap();
        let business = NewBusiness::named("Ünïcode & \"quotes\"\n' 🫖");
        let business = self
            .oms
            .catalog()
            .create_business(&seller, business)
            .await
            .unwrap();
        let new = NewProduct {
            images: vec![picture.name],
            ..NewProduct::new(business.id, "Mug", "MUG", eur(1_000))
        };
        self.oms.catalog().create_product(&seller, new).await.unwrap();
        let delivery = Adjust::new("delivery".parse().unwrap(), "MUG", 1_000, "first delivery");
        self.oms.inventory().adjust(&seller, delivery).await.unwrap();
    }

    /// Orders that leave in parts, are canceled, and are refunded in part.
    async fn deliver_and_return(&self) {
        let sent = self.paid("fulfilled").await;
        self.send(sent.id, "sent", 2).await;
        let half = self.paid("half-sent").await;
        self.send(half.id, "half", 1).await;
        let paid = self.order("refunded").await;
        let payment = self.pay(&paid, "refunded").await;
        let refund = RefundPayment {
            idempotency_key: "refund".parse().unwrap(),
            amount: Some(eur(700)),
            reason: Some("scratched".into()),
        };
        self.oms
            .payments()
            .refund(&Actor::System, payment.id, refund)
            .await
            .unwrap();
        let unwanted = self.order("canceled").await;
        self.cancel(unwanted.id, "canceled").await;
        let regretted = self.paid("canceled-paid").await;
        self.cancel(regretted.id, "canceled-paid").await;
    }

    /// Payments in every state that an operator may meet.
    async fn pay_in_every_way(&self) {
        let held = self.order("authorized").await;
        let manual = StartPayment {
            capture: CaptureMode::Manual,
            ..StartPayment::new("authorized".parse().unwrap(), "fake")
        };
        let payments = self.oms.payments();
        let payment = payments.start(&self.ann, held.id, manual).await.unwrap().value;
        let part = CapturePayment {
            idempotency_key: "part".parse().unwrap(),
            amount: Some(eur(500)),
            final_capture: Some(false),
        };
        payments.capture(&Actor::System, payment.id, part).await.unwrap();
        for (name, fake) in [
            ("declined", Fake::Decline),
            ("unknown", Fake::LoseAnswer),
            ("at-the-bank", Fake::Redirect),
            ("wrong-sum", Fake::Charge(1)),
        ] {
            let order = self.order(name).await;
            self.bank.plan(Ask::Start, fake);
            self.pay(&order, name).await;
        }
        let told = self.order("told").await;
        self.bank.plan(Ask::Start, Fake::Redirect);
        let payment = self.pay(&told, "told").await;
        self.bank.pay(payment.id);
        let event = self.bank.event(payment.id).unwrap();
        self.hear(&[event]).await;
        let stranger = GatewayEvent {
            id: "stranger".into(),
            kind: "payment".into(),
            occurred_at: None,
            reference: Some("of nobody".into()),
            payment: None,
            change: Change::NeedsSync,
        };
        self.hear(&[stranger]).await;
    }

    async fn die_of_a_refused_mail(&self) {
        let command = Register {
            username: "nobody".into(),
            email: "nobody@example.com".into(),
            password: PASSWORD.into(),
        };
        self.mails
            .fail_next(oms_core::mail::MailError::Permanent("no such mailbox".into()));
        self.oms
            .users()
            .register(&Actor::Anonymous, command)
            .await
            .unwrap();
        self.oms.worker().drain().await.unwrap();
    }

    /// Two mugs.
    pub(crate) async fn order(&self, key: &str) -> Order {
        let command = PlaceOrder {
            note: Some(format!("{key}: leave it at the door, \"please\"")),
            ..PlaceOrder::new(key.parse().unwrap(), [("MUG", 2)])
        };
        self.oms.orders().place(&self.ann, command).await.unwrap().value
    }

    pub(crate) async fn paid(&self, key: &str) -> Order {
        let order = self.order(key).await;
        self.pay(&order, key).await;
        self.oms.orders().get(&self.ann, order.id).await.unwrap()
    }

    async fn pay(&self, order: &Order, key: &str) -> Payment {
        let command = StartPayment::new(format!("pay-{key}").parse().unwrap(), "fake");
        let started = self.oms.payments().start(&self.ann, order.id, command).await;
        started.unwrap().value
    }

    async fn send(&self, order: OrderId, key: &str, quantity: i64) {
        let line = FulfillmentLine {
            sku: "MUG".into(),
            quantity,
        };
        let command = FulfillOrder {
            idempotency_key: key.parse().unwrap(),
            lines: Some(vec![line]),
            tracking: Some("1Z".into()),
            expected_version: None,
        };
        self.oms
            .orders()
            .fulfill(&Actor::System, order, command)
            .await
            .unwrap();
    }

    async fn cancel(&self, order: OrderId, key: &str) {
        let command = CancelOrder {
            idempotency_key: format!("cancel-{key}").parse().unwrap(),
            reason: Some("changed my mind".into()),
            expected_version: None,
        };
        self.oms
            .orders()
            .cancel(&Actor::System, order, command)
            .await
            .unwrap();
        self.oms.worker().drain().await.unwrap();
    }

    async fn hear(&self, events: &[GatewayEvent]) {
        let delivery = self.bank.delivery(self.oms.now(), events);
        let heard = self
            .oms
            .payments()
            .receive_webhook("fake", delivery)
            .await
            .unwrap();
        assert!(matches!(heard, WebhookOutcome::Accepted(_)), "{heard:?}");
    }

    async fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.oms.worker().drain().await.unwrap();
    }

    /// Every state of an order is there.
    pub(crate) async fn states(&self) -> BTreeSet<String> {
        let page = oms_core::PageRequest::default();
        let filter = oms_core::orders::OrderFilter::default();
        let orders = self
            .oms
            .orders()
            .list(&Actor::System, &filter, &page)
            .await
            .unwrap();
        orders
            .data
            .iter()
            .map(|order| order.state.as_str().to_owned())
            .collect()
    }
}

/// With a proven address.
async fn customer(oms: &Oms, name: &str) -> User {
    let users = oms.users();
    let command = Register {
        username: name.into(),
        email: format!("{name}@example.com"),
        password: PASSWORD.into(),
    };
    let user = users.create_admin(&Actor::System, command).await.unwrap();
    users
        .set_roles(&Actor::System, user.id, Roles::NONE)
        .await
        .unwrap()
}

fn eur(minor: i64) -> Money {
    Money::new(minor, "EUR".parse().unwrap()).unwrap()
}
