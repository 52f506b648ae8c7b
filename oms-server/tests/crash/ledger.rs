//! What the clients intended, written down before they sent it, and what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::common::api::Answer;
use crate::common::database::PRICES;

/// SKU and quantity.
pub(crate) type Cart = BTreeMap<String, i64>;

/// Everything under one lock: what is measured here is not the test.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Entries>);

#[derive(Default)]
pub(crate) struct Entries {
    /// By key, which is the order's note as well.
    pub(crate) orders: BTreeMap<String, Entry>,
    /// Names of users who registered.
    pub(crate) registered: BTreeSet<String>,
    retried: u32,
    /// Answers that a kill had kept from the client.
    replayed: u32,
    repeated: u32,
    restart: Option<Instant>,
    first_orders: Vec<Duration>,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) cart: Cart,
    pub(crate) acknowledged: Option<Acknowledged>,
    /// The customer asked for it, and was told that it is done.
    pub(crate) cancel: Option<bool>,
    /// A payment was started, and the bank said whether it took the money.
    pub(crate) payment: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) id: String,
    pub(crate) number: i64,
    pub(crate) total: i64,
}

pub(crate) fn total(cart: &Cart) -> i64 {
    let price = |sku: &str| PRICES.iter().find(|(name, _)| *name == sku).unwrap().1;
    cart.iter().map(|(sku, quantity)| price(sku) * quantity).sum()
}

impl Ledger {
    pub(crate) fn intend(&self, key: &str, cart: &Cart) {
        let entry = Entry {
            cart: cart.clone(),
            acknowledged: None,
            cancel: None,
            payment: None,
        };
        let before = self.0.lock().unwrap().orders.insert(key.into(), entry);
        assert!(before.is_none(), "the test used the key {key} twice");
    }

    /// An order was answered with 201.
    pub(crate) fn acknowledge(&self, key: &str, answer: &Answer) -> Acknowledged {
        let told = Acknowledged {
            id: answer.body["id"].as_str().unwrap().into(),
            number: answer.body["number"].as_i64().unwrap(),
            total: answer.body["total"]["amount"].as_i64().unwrap(),
        };
        let mut entries = self.0.lock().unwrap();
        assert!(
            answer.sends > 1 || !answer.replayed,
            "{key} was new and answered as a replay"
        );
        entries.retried += u32::from(answer.sends > 1);
        entries.replayed += u32::from(answer.replayed);
        if let Some(at) = entries.restart.take_if(|at| *at < answer.sent) {
            entries.first_orders.push(at.elapsed());
        }
        entries.orders.get_mut(key).unwrap().acknowledged = Some(told.clone());
        told
    }

    /// A key that had been answered was sent again after a restart.
    pub(crate) fn repeated(&self, key: &str, answer: &Answer) {
        let mut entries = self.0.lock().unwrap();
        entries.repeated += 1;
        let known = entries.orders[key].acknowledged.as_ref().unwrap();
        assert!(
            answer.replayed,
            "{key} had made {} and was placed anew: {:#}",
            known.id, answer.body
        );
        assert_eq!(answer.body["id"], known.id.as_str());
    }

    pub(crate) fn cancel(&self, key: &str, done: bool) {
        self.0.lock().unwrap().orders.get_mut(key).unwrap().cancel = Some(done);
    }

    pub(crate) fn payment(&self, key: &str, approved: bool) {
        self.0.lock().unwrap().orders.get_mut(key).unwrap().payment = Some(approved);
    }

    pub(crate) fn register(&self, name: &str) {
        self.0.lock().unwrap().registered.insert(name.into());
    }

    /// The next acknowledged order ends an outage.
    pub(crate) fn restarted(&self) {
        self.0.lock().unwrap().restart = Some(Instant::now());
    }

    pub(crate) fn read(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.0.lock().unwrap()
    }

    pub(crate) fn figures(&self, kills: usize) -> String {
        let mut entries = self.0.lock().unwrap();
        entries.first_orders.sort_unstable();
        let ms = |d: Option<&Duration>| d.map_or(0, Duration::as_millis);
        let firsts = &entries.first_orders;
        let count = |of: fn(&Entry) -> bool| entries.orders.values().filter(|e| of(e)).count();
        format!(
            "{kills} kills, {} orders acknowledged, {} canceled, {} paid, {} users registered; \
             {} keys retried, of which {} had made their order before the kill; {} answered keys sent again; \
             first 201 after a restart: median {} ms, longest {} ms",
            count(|e| e.acknowledged.is_some()),
            count(|e| e.cancel == Some(true)),
            count(|e| e.payment == Some(true)),
            entries.registered.len(),
            entries.retried,
            entries.replayed,
            entries.repeated,
            ms(firsts.get(firsts.len() / 2)),
            ms(firsts.last()),
        )
    }
}
