//! Sixteen clients who order, cancel, pay and register, and who do not give up when the server is away.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::common::Random;
use crate::common::api::Api;
use crate::common::database::{PASSWORD, PRICES, People};
use crate::ledger::{Acknowledged, Cart, Ledger, total};

/// Everybody at work.
pub(crate) struct Traffic {
    clients: JoinSet<Vec<Unsure>>,
    stop: CancellationToken,
}

/// Payments whose customers were not told where to pay, since the server died while it asked the bank.
pub(crate) struct Open(Vec<Unsure>);

struct Unsure {
    api: Api,
    ledger: Arc<Ledger>,
    key: String,
    payment: String,
}

struct Client {
    number: usize,
    api: Api,
    ledger: Arc<Ledger>,
    random: Random,
    stop: CancellationToken,
    /// The last key that was answered.
    last: Option<(String, Value)>,
    count: u32,
}

/// An order that was acknowledged.
#[derive(Clone)]
struct Placed {
    key: String,
    id: String,
}

impl Traffic {
    pub(crate) async fn begin(
        base: &str,
        people: &People,
        ledger: &Arc<Ledger>,
        random: &mut Random,
    ) -> Self {
        let stop = CancellationToken::new();
        let mut clients = JoinSet::new();
        let logged_in = people
            .customers
            .iter()
            .map(|name| Api::log_in(base, name, PASSWORD));
        let apis = futures_util::future::join_all(logged_in).await;
        for (number, api) in apis.into_iter().enumerate() {
            let client = Client {
                number,
                api,
                ledger: ledger.clone(),
                random: random.fork(),
                stop: stop.clone(),
                last: None,
                count: 0,
            };
            clients.spawn(client.run());
        }
        Self { clients, stop }
    }

    /// Lets everybody finish what they have begun.
    pub(crate) async fn end(self) -> Open {
        self.stop.cancel();
        Open(self.clients.join_all().await.into_iter().flatten().collect())
    }
}

impl Open {
    /// By now the server has found out by itself where to pay.
    pub(crate) async fn finish(self) {
        for unsure in self.0 {
            let payment = unsure.api.get(&format!("/v1/payments/{}", unsure.payment)).await;
            let payment = payment.expect(200);
            let url = payment["next_action"]["url"].as_str();
            let url =
                url.unwrap_or_else(|| panic!("nobody says where to pay for {}: {payment:#}", unsure.key));
            unsure.api.approve(url).await.expect(200);
            unsure.ledger.payment(&unsure.key, true);
        }
    }
}

impl Client {
    async fn run(mut self) -> Vec<Unsure> {
        // Beside the orders: a payment whose call was killed makes its customer wait.
        let mut payments = JoinSet::new();
        while !self.stop.is_cancelled() {
            let placed = self.order().await;
            match self.random.below(32) {
                0..=3 => cancel(&self.api, &self.ledger, &placed).await,
                4..=6 => drop(payments.spawn(pay(self.api.clone(), self.ledger.clone(), placed))),
                7 => drop(payments.spawn(begin_and_cancel(self.api.clone(), self.ledger.clone(), placed))),
                8 => self.register().await,
                _ => {}
            }
        }
        payments.join_all().await.into_iter().flatten().collect()
    }

    async fn order(&mut self) -> Placed {
        self.count += 1;
        let key = format!("order-{}-{}", self.number, self.count);
        let cart = self.cart();
        let lines: Vec<_> = cart
            .iter()
            .map(|(sku, n)| json!({"sku": sku, "quantity": n}))
            .collect();
        let body = json!({"lines": lines, "note": key});
        self.ledger.intend(&key, &cart);
        let answer = self.api.post("/v1/orders", Some(&key), &body).await;
        assert_eq!(answer.status, 201, "{key}: {:#}", answer.body);
        let Acknowledged { id, total: told, .. } = self.ledger.acknowledge(&key, &answer);
        assert_eq!(told, total(&cart), "{key}: {:#}", answer.body);
        let outage = answer.sends > 1;
        let last = self.last.replace((key.clone(), body));
        if let Some((key, body)) = last.filter(|_| outage) {
            let again = self.api.post("/v1/orders", Some(&key), &body).await;
            assert_eq!(again.status, 201, "{key}: {:#}", again.body);
            self.ledger.repeated(&key, &again);
        }
        Placed { key, id }
    }

    fn cart(&mut self) -> Cart {
        let count = 1 + self.random.below(3);
        let mut line = || {
            let (sku, _) = PRICES[usize::try_from(self.random.below(4)).unwrap()];
            (sku.to_owned(), 1 + i64::try_from(self.random.below(3)).unwrap())
        };
        (0..count).map(|_| line()).collect()
    }

    /// Registering has no key: the name, which is unique, tells a retry that it had worked.
    async fn register(&mut self) {
        let name = format!("new-{}-{}", self.number, self.count);
        let email = format!("{name}@example.com");
        let body = json!({"username": name, "email": email, "password": PASSWORD});
        self.ledger.register(&name);
        let answer = self.api.post("/v1/users", None, &body).await;
        let known = answer.status == 409 && answer.body["code"] == "duplicate" && answer.sends > 1;
        assert!(answer.status == 201 || known, "{name}: {answer:?}");
    }
}

async fn cancel(api: &Api, ledger: &Ledger, placed: &Placed) {
    ledger.cancel(&placed.key, false);
    let key = format!("cancel-{}", placed.key);
    let path = format!("/v1/orders/{}/cancel", placed.id);
    let order = api.post(&path, Some(&key), &json!({})).await.expect(200);
    assert_eq!(order["status"], "canceled", "{order:#}");
    ledger.cancel(&placed.key, true);
}

/// Pays at the bank, or says that it could not because nobody told where.
async fn pay(api: Api, ledger: Arc<Ledger>, placed: Placed) -> Option<Unsure> {
    let payment = begin(&api, &ledger, &placed).await;
    if let Some(url) = payment["next_action"]["url"].as_str() {
        api.approve(url).await.expect(200);
        ledger.payment(&placed.key, true);
        return None;
    }
    let status = payment["status"].as_str().unwrap();
    assert!(["created", "unknown"].contains(&status), "{payment:#}");
    Some(Unsure {
        payment: payment["id"].as_str().unwrap().into(),
        key: placed.key,
        api,
        ledger,
    })
}

/// Changes their mind with the bank's page open: the bank must be told.
async fn begin_and_cancel(api: Api, ledger: Arc<Ledger>, placed: Placed) -> Option<Unsure> {
    begin(&api, &ledger, &placed).await;
    cancel(&api, &ledger, &placed).await;
    None
}

async fn begin(api: &Api, ledger: &Ledger, placed: &Placed) -> Value {
    ledger.payment(&placed.key, false);
    let key = format!("pay-{}", placed.key);
    let path = format!("/v1/orders/{}/payments", placed.id);
    api.post(&path, Some(&key), &json!({"account": "mock"}))
        .await
        .expect(201)
}
