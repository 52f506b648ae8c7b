//! Stock: what there is, what is promised to orders, and every change of both.

use serde::{Deserialize, Serialize};

use crate::error::{Check, Error, Result};
use crate::id::{MovementId, OrderId, VariantId};
use crate::idempotency::IdempotencyKey;
use crate::text;
use crate::time::Timestamp;

/// The stock of a variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockLevel {
    /// The variant's SKU.
    pub sku: String,
    /// The variant, which the stock belongs to.
    pub variant: VariantId,
    /// Units in the house.
    pub on_hand: i64,
    /// Units of these that open orders have.
    pub allocated: i64,
    /// Counts every change.
    pub version: i64,
}

/// Why stock changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Units came in.
    Receive,
    /// Units were counted, lost or broken.
    Adjust,
    /// An order took units.
    Allocate,
    /// An order gave its units back.
    Release,
    /// Units of an order went out.
    Ship,
    /// Units of an order came back.
    Restock,
}

/// Change the units on hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjust {
    /// Whose.
    pub sku: String,
    /// Units more, or less when negative; not 0, at most [`Adjust::MAX`] either way.
    pub delta: i64,
    /// For those who read the movements; at most 500 characters.
    pub reason: String,
    /// Makes a retry safe.
    pub idempotency_key: IdempotencyKey,
}

/// A change of stock. The sum of all is the stock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Movement {
    pub id: MovementId,
    pub delta_on_hand: i64,
    pub delta_allocated: i64,
    pub cause: Cause,
    /// The order that it belongs to, if any.
    pub order: Option<OrderId>,
    /// Who: `usr_..`, `gateway:mock`, `system`.
    pub actor: String,
    pub reason: Option<String>,
    pub at: Timestamp,
}

impl StockLevel {
    /// Units that can be ordered.
    pub const fn available(&self) -> i64 {
        self.on_hand - self.allocated
    }

    /// Whether the stock may change so.
    pub(super) fn adjusted(&self, delta: i64) -> Result<()> {
        let on_hand = self.on_hand.checked_add(delta);
        if on_hand.is_some_and(|n| n >= self.allocated) {
            return Ok(());
        }
        Err(Error::InvalidState {
            what: "stock",
            state: format!("{} on hand, {} allocated", self.on_hand, self.allocated),
            detail: "units on hand may not fall below those that orders have; cancel orders first or adjust by less",
        })
    }
}

impl Adjust {
    /// So many units more, or less when negative.
    pub fn new(
        idempotency_key: IdempotencyKey,
        sku: impl Into<String>,
        delta: i64,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            sku: sku.into(),
            delta,
            reason: reason.into(),
            idempotency_key,
        }
    }

    /// The most units of one adjustment.
    pub const MAX: i64 = 1_000_000_000;

    pub(super) fn check(&self) -> Result<()> {
        let mut check = Check::default();
        let delta = self.delta != 0 && (-Self::MAX..=Self::MAX).contains(&self.delta);
        check.that(
            delta,
            "/delta",
            "must be between -1000000000 and 1000000000, and not 0",
        );
        check.take("/reason", text::check(&self.reason, 500));
        check.done()
    }

    pub(super) const fn cause(&self) -> Cause {
        if self.delta > 0 {
            Cause::Receive
        } else {
            Cause::Adjust
        }
    }
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Receive,
        Self::Adjust,
        Self::Allocate,
        Self::Release,
        Self::Ship,
        Self::Restock,
    ];

    /// Its spelling in the API and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Adjust => "adjust",
            Self::Allocate => "allocate",
            Self::Release => "release",
            Self::Ship => "ship",
            Self::Restock => "restock",
        }
    }

    /// Reads the spelling of [`Cause::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_come_back() {
        for cause in Cause::ALL {
            assert_eq!(Cause::parse(cause.as_str()), Some(cause));
        }
    }

    #[test]
    fn promised_units_stay() {
        let level = StockLevel {
            sku: "A".into(),
            variant: VariantId::new(Timestamp::from_millis(0)),
            on_hand: 5,
            allocated: 3,
            version: 1,
        };
        assert!(level.adjusted(-2).is_ok());
        let refusal = level.adjusted(-3).unwrap_err().to_string();
        assert!(
            refusal.starts_with("stock is 5 on hand, 3 allocated: "),
            "{refusal}"
        );
        assert!(level.adjusted(i64::MAX).is_err());
    }
}
