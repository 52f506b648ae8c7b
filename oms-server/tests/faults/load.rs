//! Customers who order and look at their orders all the time, and write down every answer.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::common::api::{Answer, Api};
use crate::common::database::{PASSWORD, PRICES, People};

/// After so long the client of a browser or of another shop is gone.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long somebody waits before the same key is sent again: less than the server asks for, to press it.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Load {
    clients: JoinSet<Told>,
    stop: CancellationToken,
}

/// What the clients were told.
#[derive(Default)]
pub(crate) struct Told {
    /// Key and id of each order that was acknowledged.
    pub(crate) orders: BTreeMap<String, String>,
    /// When orders were acknowledged.
    good: Vec<Instant>,
    requests: usize,
    later: usize,
    replayed: usize,
    slowest: Duration,
    /// What must not happen.
    wrong: Vec<String>,
}

impl Load {
    pub(crate) async fn begin(base: &str, people: &People) -> Self {
        let stop = CancellationToken::new();
        let mut clients = JoinSet::new();
        let names = people.customers.iter();
        let apis = futures_util::future::join_all(names.map(|name| Api::log_in(base, name, PASSWORD))).await;
        for (number, api) in apis.into_iter().enumerate() {
            clients.spawn(shop(api, number, stop.clone()));
        }
        Self { clients, stop }
    }

    /// Everybody finishes what they have begun; nobody may have been told anything but yes and later.
    pub(crate) async fn end(self) -> Told {
        self.stop.cancel();
        let all = self.clients.join_all().await;
        let told = all.into_iter().fold(Told::default(), Told::and);
        let first: Vec<_> = told.wrong.iter().take(5).collect();
        assert!(
            told.wrong.is_empty(),
            "{} wrong answers: {first:#?}",
            told.wrong.len()
        );
        assert!(told.slowest < DEADLINE, "an answer took {:?}", told.slowest);
        told
    }
}

async fn shop(api: Api, number: usize, stop: CancellationToken) -> Told {
    let mut told = Told::default();
    let (sku, _) = PRICES[number % PRICES.len()];
    let mut count = 0;
    while !stop.is_cancelled() {
        count += 1;
        let key = format!("{number}-{count}");
        let body = json!({"lines": [{"sku": sku, "quantity": 1}], "note": key});
        loop {
            let answer = api.try_post("/v1/orders", Some(&key), &body).await;
            if let Some(order) = told.note(201, answer) {
                told.good.push(Instant::now());
                told.orders.insert(key, order["id"].as_str().unwrap().into());
                break;
            }
            if told.wrong.len() > 5 {
                return told;
            }
            tokio::time::sleep(PAUSE).await;
        }
        if count % 2 == 0 {
            let answer = api.try_get("/v1/orders?limit=5").await;
            told.note(200, answer);
        }
    }
    told
}

impl Told {
    /// The body, if it is the answer that was hoped for.
    fn note(&mut self, hoped: u16, answer: reqwest::Result<Answer>) -> Option<Value> {
        self.requests += 1;
        match answer {
            Ok(answer) => {
                self.slowest = self.slowest.max(answer.took);
                match answer.status {
                    status if status == hoped => {
                        self.replayed += usize::from(answer.replayed);
                        return Some(answer.body);
                    }
                    503 if answer.says_later => self.later += 1,
                    status => self.wrong.push(format!("{status} {}", answer.body)),
                }
            }
            Err(e) => self.wrong.push(format!("{e:?}")),
        }
        None
    }

    fn and(mut self, other: Self) -> Self {
        self.orders.extend(other.orders);
        self.good.extend(other.good);
        self.requests += other.requests;
        self.later += other.later;
        self.replayed += other.replayed;
        self.slowest = self.slowest.max(other.slowest);
        self.wrong.extend(other.wrong);
        self
    }

    /// From this moment to the next order that was acknowledged.
    pub(crate) fn recovery(&self, back: Instant) -> Duration {
        let next = self.good.iter().filter(|at| **at > back).min();
        next.map_or(Duration::MAX, |at| *at - back)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests, {} of them 503, slowest answer {} ms; {} orders acknowledged, {} of them after a lost answer",
            self.requests,
            self.later,
            self.slowest.as_millis(),
            self.orders.len(),
            self.replayed
        )
    }
}
