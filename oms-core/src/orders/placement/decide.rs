//! The decision of a batch: a pure function of what is wanted and what there is.

use std::collections::HashMap;

use crate::error::{Error, Result, Shortage};
use crate::id::{BusinessId, UserId, VariantId};
use crate::money::Money;
use crate::orders::model::{Address, NewLine};

/// An order that was checked and waits for its batch. Each SKU stands once.
#[derive(Debug, Clone)]
pub(in crate::orders) struct Draft {
    pub(in crate::orders) user: UserId,
    pub(in crate::orders) lines: Vec<NewLine>,
    pub(in crate::orders) shipping_address: Option<Address>,
    pub(in crate::orders) note: Option<String>,
}

/// What is on sale under a SKU, with what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) variant: VariantId,
    pub(super) business: BusinessId,
    pub(super) name: String,
    pub(super) price: Money,
    pub(super) available: i64,
}

/// An order that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sale {
    pub(super) lines: Vec<SoldLine>,
    pub(super) total: Money,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SoldLine {
    pub(super) sku: String,
    pub(super) offer: Offer,
    pub(super) quantity: i64,
    pub(super) total: Money,
}

/// Judges one order and takes its units from `offers`. It fits whole or is refused whole.
///
/// Calling it for one order after the other, in the order in which they came, means the same as one transaction each.
pub(super) fn judge(draft: &Draft, offers: &mut HashMap<String, Offer>) -> Result<Sale> {
    let sale = fits(draft, offers)?;
    for line in &sale.lines {
        if let Some(offer) = offers.get_mut(&line.sku) {
            offer.available -= line.quantity;
        }
    }
    Ok(sale)
}

fn fits(draft: &Draft, offers: &HashMap<String, Offer>) -> Result<Sale> {
    let mut lines = Vec::with_capacity(draft.lines.len());
    let (mut unknown, mut short) = (Vec::new(), Vec::new());
    for (index, wanted) in draft.lines.iter().enumerate() {
        let Some(offer) = offers.get(&wanted.sku) else {
            unknown.push((index, wanted.sku.clone()));
            continue;
        };
        if offer.available < wanted.quantity {
            short.push(Shortage {
                line: index,
                sku: wanted.sku.clone(),
                wanted: wanted.quantity,
                available: offer.available,
            });
        }
        let total = offer
            .price
            .times(wanted.quantity)
            .ok_or_else(|| too_much(index))?;
        let (sku, quantity) = (wanted.sku.clone(), wanted.quantity);
        lines.push(SoldLine {
            sku,
            offer: offer.clone(),
            quantity,
            total,
        });
    }
    if !unknown.is_empty() {
        return Err(Error::UnknownSku(unknown));
    }
    let total = sum(&lines)?;
    if !short.is_empty() {
        return Err(Error::OutOfStock(short));
    }
    Ok(Sale { lines, total })
}

fn sum(lines: &[SoldLine]) -> Result<Money> {
    let Some(first) = lines.first() else {
        return Err(Error::invalid("/lines", "must not be empty"));
    };
    let currency = first.total.currency();
    if let Some(other) = lines.iter().map(|l| l.total.currency()).find(|c| *c != currency) {
        return Err(Error::MixedCurrencies(format!("{currency} and {other}")));
    }
    lines
        .iter()
        .enumerate()
        .try_fold(Money::zero(currency), |total, (index, line)| {
            total.checked_add(line.total).ok_or_else(|| too_much(index))
        })
}

fn too_much(line: usize) -> Error {
    Error::invalid(
        format!("/lines/{line}/quantity"),
        "makes the total larger than 2^53 - 1 minor units",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Timestamp;

    fn offer(price: i64, currency: &str, available: i64) -> Offer {
        let now = Timestamp::from_millis(0);
        Offer {
            variant: VariantId::new(now),
            business: BusinessId::new(now),
            name: "thing".into(),
            price: Money::new(price, currency.parse().unwrap()).unwrap(),
            available,
        }
    }

    fn draft(lines: &[(&str, i64)]) -> Draft {
        let lines = lines.iter().map(|(sku, quantity)| NewLine {
            sku: (*sku).into(),
            quantity: *quantity,
        });
        Draft {
            user: UserId::new(Timestamp::from_millis(0)),
            lines: lines.collect(),
            shipping_address: None,
            note: None,
        }
    }

    fn shop() -> HashMap<String, Offer> {
        [
            ("a", offer(100, "EUR", 5)),
            ("b", offer(250, "EUR", 1)),
            ("c", offer(1, "USD", 9)),
        ]
        .map(|(sku, offer)| (sku.to_owned(), offer))
        .into()
    }

    #[test]
    fn whole_or_not_at_all() {
        let mut offers = shop();
        let sale = judge(&draft(&[("a", 2), ("b", 1)]), &mut offers).unwrap();
        assert_eq!(sale.total.minor(), 450);
        let refused = judge(&draft(&[("a", 2), ("b", 1)]), &mut offers).unwrap_err();
        assert!(
            matches!(refused, Error::OutOfStock(s) if s.len() == 1 && s[0].sku == "b" && s[0].available == 0)
        );
        assert_eq!(offers["a"].available, 3, "a refused order takes nothing");
    }

    #[test]
    fn refusals_name_their_lines() {
        let mut offers = shop();
        let unknown = judge(&draft(&[("a", 1), ("x", 1), ("y", 1)]), &mut offers).unwrap_err();
        assert!(matches!(unknown, Error::UnknownSku(s) if s == [(1, "x".into()), (2, "y".into())]));
        let mixed = judge(&draft(&[("a", 1), ("c", 1)]), &mut offers).unwrap_err();
        assert!(matches!(mixed, Error::MixedCurrencies(_)));
        offers.insert("gold".into(), offer(Money::MAX, "EUR", 10));
        let much = judge(&draft(&[("gold", 2)]), &mut offers).unwrap_err();
        assert!(matches!(much, Error::Invalid(v) if v[0].pointer == "/lines/0/quantity"));
    }

    proptest! {
        /// Against the obvious model: stock as plain numbers, one order at a time.
        #[test]
        fn a_batch_is_its_orders_one_after_the_other(
            stock in prop::collection::vec(0i64..20, 4),
            orders in prop::collection::vec(prop::collection::btree_map(0usize..5, 1i64..8, 1..4), 0..40),
        ) {
            let mut offers: HashMap<String, Offer> =
                stock.iter().enumerate().map(|(i, n)| (i.to_string(), offer(7, "EUR", *n))).collect();
            let mut model = stock.clone();
            for order in &orders {
                let lines: Vec<_> = order.iter().map(|(i, n)| (i.to_string(), *n)).collect();
                let lines: Vec<_> = lines.iter().map(|(sku, n)| (sku.as_str(), *n)).collect();
                let expected = order.iter().all(|(i, n)| model.get(*i).is_some_and(|left| left >= n));
                if expected {
                    order.iter().for_each(|(i, n)| model[*i] -= n);
                }
                prop_assert_eq!(judge(&draft(&lines), &mut offers).is_ok(), expected);
            }
            for (i, left) in model.iter().enumerate() {
                prop_assert_eq!(offers[&i.to_string()].available, *left);
                prop_assert!(*left >= 0);
            }
        }
    }
}
