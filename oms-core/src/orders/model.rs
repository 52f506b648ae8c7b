//! Orders as the library keeps them, and what may happen to them.

use serde::{Deserialize, Serialize};

use crate::error::{Check, Error, Result};
use crate::id::{BusinessId, FulfillmentId, OrderId, UserId, VariantId};
use crate::idempotency::IdempotencyKey;
use crate::money::{Currency, Money};
use crate::text;
use crate::time::Timestamp;

/// Where an order stands.
///
/// ```text
/// awaiting_payment -> paid -> partially_fulfilled -> fulfilled
/// awaiting_payment -> canceled | expired
/// paid -> canceled (with refund)      partially_fulfilled -> fulfilled (the rest canceled and refunded)
/// expired -> paid (late payment, stock allocated again)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the diagram says it")]
pub enum OrderState {
    AwaitingPayment,
    Paid,
    PartiallyFulfilled,
    Fulfilled,
    Canceled,
    Expired,
}

/// What may happen to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Transition {
    Pay,
    Cancel,
    Expire,
    /// Units went out; whether any are left to go.
    Fulfill {
        all: bool,
    },
}

impl OrderState {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::AwaitingPayment,
        Self::Paid,
        Self::PartiallyFulfilled,
        Self::Fulfilled,
        Self::Canceled,
        Self::Expired,
    ];

    /// Its spelling in the API and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingPayment => "awaiting_payment",
            Self::Paid => "paid",
            Self::PartiallyFulfilled => "partially_fulfilled",
            Self::Fulfilled => "fulfilled",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
        }
    }

    /// Reads the spelling of [`OrderState::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// The state after `transition`, or why there is none.
    pub(crate) fn after(self, transition: Transition) -> Result<Self> {
        use OrderState::{AwaitingPayment, Canceled, Expired, Fulfilled, Paid, PartiallyFulfilled};
        let detail = match (self, transition) {
            (AwaitingPayment | Expired, Transition::Pay) => return Ok(Paid),
            (AwaitingPayment | Paid, Transition::Cancel) => return Ok(Canceled),
            // What has shipped cannot be canceled: the rest is, and so nothing is left to ship.
            (PartiallyFulfilled, Transition::Cancel) => return Ok(Fulfilled),
            (AwaitingPayment, Transition::Expire) => return Ok(Expired),
            (Paid | PartiallyFulfilled, Transition::Fulfill { all: true }) => return Ok(Fulfilled),
            (Paid | PartiallyFulfilled, Transition::Fulfill { all: false }) => {
                return Ok(PartiallyFulfilled);
            }
            (_, Transition::Pay) => "it cannot be paid any more",
            (_, Transition::Cancel) => "it cannot be canceled any more",
            (_, Transition::Expire) => "only an unpaid order expires",
            (_, Transition::Fulfill { .. }) => "only a paid order is fulfilled",
        };
        Err(Error::InvalidState {
            what: "order",
            state: self.as_str().into(),
            detail,
        })
    }
}

/// Where the money of an order stands, over all its payments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentState {
    /// No money and none to be expected.
    Unpaid,
    /// A payment is under way.
    Pending,
    /// Money is held, none captured.
    Authorized,
    /// Captured.
    Paid,
    /// A part went back.
    PartiallyRefunded,
    /// All went back.
    Refunded,
}

impl PaymentState {
    /// Its spelling in the API and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unpaid => "unpaid",
            Self::Pending => "pending",
            Self::Authorized => "authorized",
            Self::Paid => "paid",
            Self::PartiallyRefunded => "partially_refunded",
            Self::Refunded => "refunded",
        }
    }

    /// Reads the spelling of [`PaymentState::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Unpaid,
            Self::Pending,
            Self::Authorized,
            Self::Paid,
            Self::PartiallyRefunded,
            Self::Refunded,
        ]
        .into_iter()
        .find(|s| s.as_str() == text)
    }
}

/// A postal address as the customer wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Address {
    pub name: String,
    pub line1: String,
    pub line2: Option<String>,
    pub city: String,
    pub region: Option<String>,
    pub postal_code: Option<String>,
    /// ISO 3166-1, two capital letters.
    pub country: String,
}

impl Address {
    pub(crate) fn check(&self, at: &str, check: &mut Check) {
        let mut field = |name: &str, value: &str, max| {
            check.take(&format!("{at}/{name}"), text::check(value, max));
        };
        field("name", &self.name, 200);
        field("line1", &self.line1, 200);
        field("city", &self.city, 100);
        for (name, value, max) in [
            ("line2", &self.line2, 200),
            ("region", &self.region, 100),
            ("postal_code", &self.postal_code, 20),
        ] {
            if let Some(value) = value {
                field(name, value, max);
            }
        }
        let country = self.country.len() == 2 && self.country.bytes().all(|b| b.is_ascii_uppercase());
        check.that(
            country,
            &format!("{at}/country"),
            "must be a country code of two capital letters, such as NO",
        );
    }
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Order {
    pub id: OrderId,
    /// Counts up with gaps; what people read to each other.
    pub number: i64,
    /// None for a guest.
    pub user: Option<UserId>,
    /// Copied when the order was placed.
    pub email: String,
    pub shipping_address: Option<Address>,
    pub billing_address: Option<Address>,
    pub note: Option<String>,
    pub currency: Currency,
    pub subtotal: Money,
    pub discount: Money,
    pub shipping: Money,
    pub tax: Money,
    pub total: Money,
    pub state: OrderState,
    pub payment_state: PaymentState,
    /// When it expires if it is not paid; none for never.
    pub expires_at: Option<Timestamp>,
    pub external_ref: Option<String>,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub lines: Vec<OrderLine>,
}

/// A line of an order: what was sold, at the name and price of that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct OrderLine {
    pub variant: VariantId,
    pub business: BusinessId,
    pub sku: String,
    pub name: String,
    pub unit_price: Money,
    pub quantity: i64,
    pub fulfilled: i64,
    pub canceled: i64,
    pub returned: i64,
    pub discount: Money,
    pub tax: Money,
    pub total: Money,
}

impl OrderLine {
    /// Units that are neither shipped nor canceled.
    pub fn open(&self) -> i64 {
        self.quantity - self.fulfilled - self.canceled
    }
}

/// An entry of an order's timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineEntry {
    /// The order's version that it made.
    pub version: i64,
    /// Such as `placed`, `paid`, `expired`.
    pub kind: String,
    /// Who: `usr_..`, `gateway:mock`, `system`.
    pub actor: String,
    /// Facts.
    pub data: serde_json::Value,
    /// When.
    pub at: Timestamp,
}

/// A fulfilment: what went out together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Fulfillment {
    pub id: FulfillmentId,
    pub order: OrderId,
    pub tracking: Option<String>,
    /// SKU and units.
    pub lines: Vec<FulfillmentLine>,
    pub created_at: Timestamp,
}

/// Units of one SKU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct FulfillmentLine {
    pub sku: String,
    pub quantity: i64,
}

/// Place an order for the acting user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceOrder {
    /// Makes a retry safe; required.
    pub idempotency_key: IdempotencyKey,
    /// 1 to [`PlaceOrder::MAX_LINES`] lines; lines of the same SKU are added up.
    pub lines: Vec<NewLine>,
    /// Where to.
    pub shipping_address: Option<Address>,
    /// The customer's remark, at most 1,000 characters.
    pub note: Option<String>,
}

/// A line to order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewLine {
    /// The SKU, case-sensitive.
    pub sku: String,
    /// 1 to [`NewLine::MAX_QUANTITY`] units.
    pub quantity: i64,
}

impl PlaceOrder {
    /// The most lines of one order.
    pub const MAX_LINES: usize = 500;

    /// SKUs and units, without an address or a note.
    pub fn new<'a>(idempotency_key: IdempotencyKey, lines: impl IntoIterator<Item = (&'a str, i64)>) -> Self {
        let lines = lines.into_iter().map(|(sku, quantity)| NewLine {
            sku: sku.into(),
            quantity,
        });
        Self {
            idempotency_key,
            lines: lines.collect(),
            shipping_address: None,
            note: None,
        }
    }
}

impl NewLine {
    /// The most units of one line.
    pub const MAX_QUANTITY: i64 = 1_000_000;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_transition() {
        use OrderState::{AwaitingPayment, Canceled, Expired, Fulfilled, Paid, PartiallyFulfilled};
        let (all, some) = (
            Transition::Fulfill { all: true },
            Transition::Fulfill { all: false },
        );
        let table = [
            // state, pay, cancel, expire, ship some, ship all
            (
                AwaitingPayment,
                Some(Paid),
                Some(Canceled),
                Some(Expired),
                None,
                None,
            ),
            (
                Paid,
                None,
                Some(Canceled),
                None,
                Some(PartiallyFulfilled),
                Some(Fulfilled),
            ),
            (
                PartiallyFulfilled,
                None,
                Some(Fulfilled),
                None,
                Some(PartiallyFulfilled),
                Some(Fulfilled),
            ),
            (Fulfilled, None, None, None, None, None),
            (Canceled, None, None, None, None, None),
            (Expired, Some(Paid), None, None, None, None),
        ];
        for (state, pay, cancel, expire, ship_some, ship_all) in table {
            let after = |t| state.after(t).ok();
            assert_eq!(
                [
                    after(Transition::Pay),
                    after(Transition::Cancel),
                    after(Transition::Expire),
                    after(some),
                    after(all)
                ],
                [pay, cancel, expire, ship_some, ship_all],
                "{state:?}"
            );
        }
        assert_eq!(table.map(|row| row.0), OrderState::ALL);
    }

    #[test]
    fn spellings_come_back() {
        for state in OrderState::ALL {
            assert_eq!(OrderState::parse(state.as_str()), Some(state));
        }
    }
}
