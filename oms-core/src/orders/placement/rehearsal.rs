//! A batch that only needs to be decided, for `benches/pure.rs`.

use std::collections::HashMap;

use super::decide::{Draft, Offer, judge};
use crate::id::{BusinessId, UserId, VariantId};
use crate::money::{Currency, Money};
use crate::orders::model::NewLine;
use crate::time::Timestamp;

const SKUS: usize = 100;

/// Orders of three lines each and what is on sale; every third order wants something that is sold out.
#[derive(Debug, Clone)]
pub struct Rehearsal {
    drafts: Vec<Draft>,
    offers: HashMap<String, Offer>,
}

impl Rehearsal {
    /// A batch of so many orders.
    #[expect(
        clippy::expect_used,
        reason = "a currency and prices that are known to be right"
    )]
    pub fn of(orders: usize) -> Self {
        let now = Timestamp::from_millis(0);
        let euro: Currency = "EUR".parse().expect("EUR is a currency");
        let offers = (0..SKUS).map(|n| {
            let offer = Offer {
                variant: VariantId::new(now),
                business: BusinessId::new(now),
                name: "A thing on sale".into(),
                price: Money::new(1_299, euro).expect("it is a price"),
                available: if n == 0 { 0 } else { 1_000_000 },
            };
            (format!("SKU-{n}"), offer)
        });
        let drafts = (0..orders).map(|n| {
            let last = if n % 3 == 2 {
                0
            } else {
                1 + (3 * n + 2) % (SKUS - 1)
            };
            let wanted = [1 + (3 * n) % (SKUS - 1), 1 + (3 * n + 1) % (SKUS - 1), last];
            Draft {
                user: UserId::new(now),
                lines: wanted
                    .map(|sku| NewLine {
                        sku: format!("SKU-{sku}"),
                        quantity: 2,
                    })
                    .into(),
                shipping_address: None,
                note: None,
            }
        });
        Self {
            drafts: drafts.collect(),
            offers: offers.collect(),
        }
    }

    /// Judges them in the order in which they came. How many fit.
    pub fn decide(&mut self) -> usize {
        let judged = self.drafts.iter().map(|draft| judge(draft, &mut self.offers));
        judged.filter(Result::is_ok).count()
    }
}
