//! The library called directly, as a program does that embeds it.

use anyhow::{Result, ensure};
use oms_core::orders::{NewLine, PlaceOrder};
use oms_core::{Actor, Error, Oms, Roles};

use super::load::{Answer, Caller};
use super::shop::{Shop, UNKNOWN, Wishes, address};

pub(super) struct InProcess {
    oms: Oms,
    actor: Actor,
    wishes: Wishes,
}

impl InProcess {
    pub(super) fn callers(shop: &Shop, oms: &Oms, wishes: Vec<Wishes>) -> Vec<Self> {
        let customers = shop.customers.iter().copied().cycle();
        let callers = customers.zip(wishes).map(|(id, wishes)| Self {
            oms: oms.clone(),
            actor: Actor::User {
                id,
                roles: Roles::NONE,
                verified: true,
            },
            wishes,
        });
        callers.collect()
    }
}

impl Caller for InProcess {
    async fn call(&mut self) -> Result<Answer> {
        let lines = self.wishes.skus().into_iter();
        let order = PlaceOrder {
            idempotency_key: self.wishes.key().parse()?,
            lines: lines.map(|sku| NewLine { sku, quantity: 1 }).collect(),
            shipping_address: Some(address()),
            note: None,
        };
        match self.oms.orders().place(&self.actor, order).await {
            Ok(placed) => {
                ensure!(!placed.replayed, "order {} was placed before", placed.value.id);
                Ok(Answer::Done)
            }
            Err(Error::UnknownSku(lines)) if lines.iter().all(|(_, sku)| sku == UNKNOWN) => {
                Ok(Answer::Judged)
            }
            Err(error) => Err(error.into()),
        }
    }
}
