//! Values that many bodies and parameters share: money, ids, pages.

use std::str::FromStr;

use oms_core::{Currency, Error, Money, PageRequest};
use poem_openapi::Object;
use poem_openapi::types::MaybeUndefined;
use serde::Serialize;

use super::error::{ApiError, Result};

/// An amount of money.
#[derive(Debug, Clone, Object, Serialize)]
#[oai(rename = "Money", deny_unknown_fields)]
pub(super) struct MoneyBody {
    /// Minor units: 1299 is 12.99 EUR or 1299 JPY. From 0 to 2^53 - 1.
    pub(super) amount: i64,
    /// ISO 4217, such as EUR.
    pub(super) currency: String,
}

impl From<Money> for MoneyBody {
    fn from(money: Money) -> Self {
        Self {
            amount: money.minor(),
            currency: money.currency().to_string(),
        }
    }
}

impl MoneyBody {
    /// The amount, which stands at `pointer` in the body.
    pub(super) fn read(&self, pointer: &str) -> Result<Money> {
        let currency: Currency = self
            .currency
            .parse()
            .map_err(|detail: String| Error::invalid(format!("{pointer}/currency"), detail))?;
        Money::new(self.amount, currency)
            .map_err(|detail| Error::invalid(format!("{pointer}/amount"), detail).into())
    }
}

/// An id in the path. A text that is no id names nothing.
pub(super) fn id<T: FromStr>(text: &str, what: &str) -> Result<T> {
    text.parse().map_err(|_| ApiError::not_found(what))
}

/// An id in a body or a query.
pub(super) fn id_at<T>(text: &str, pointer: &str) -> Result<T>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|e: T::Err| Error::invalid(pointer, e.to_string()).into())
}

pub(super) const fn page(cursor: Option<String>, limit: Option<u32>) -> PageRequest {
    PageRequest { cursor, limit }
}

/// Left out, cleared or set.
pub(super) fn change(field: MaybeUndefined<String>) -> Option<Option<String>> {
    match field {
        MaybeUndefined::Undefined => None,
        MaybeUndefined::Null => Some(None),
        MaybeUndefined::Value(text) => Some(Some(text)),
    }
}
