//! The library called directly, as a program does that embeds it.

use anyhow::Result;
use oms_core::orders::{NewLine, PlaceOrder};
use oms_core::{Actor, Oms, Roles};

use super::load::{Answer, Caller};
use super::shop::{Shop, Wishes, address};

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
        let order = PlaceOrder {
            idempotency_key: self.wishes.key().parse()?,
            lines: vec![NewLine {
                sku: self.wishes.sku(),
                quantity: 1,
            }],
            shipping_address: Some(address()),
            note: None,
        };
        let placed = self.oms.orders().place(&self.actor, order).await?;
        anyhow::ensure!(!placed.replayed, "order {} was placed before", placed.value.id);
        Ok(Answer::Done)
    }
}
