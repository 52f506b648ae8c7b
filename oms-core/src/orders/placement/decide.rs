//! The decision of a batch: a pure function of what is wanted and what there is.

use std::collections::{BTreeMap, HashMap};

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

/// The net effect of the sales of a batch: each variant once, since an UPDATE .. FROM applies only one of two rows for the
/// same target.
pub(super) fn net<'a>(sales: impl IntoIterator<Item = &'a Sale>) -> BTreeMap<VariantId, i64> {
    let mut net = BTreeMap::new();
    for line in sales.into_iter().flat_map(|sale| &sale.lines) {
        *net.entry(line.offer.variant).or_default() += line.quantity;
    }
    net
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
    use crate::orders::PlaceOrder;
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

    /// What is on sale to begin with: price, currency, units. One more SKU is known to nobody.
    const SKUS: usize = 5;

    #[derive(Debug, PartialEq, Eq)]
    enum Verdict {
        Fits(i64),
        Unknown,
        Mixed,
        Short,
        TooMuch,
    }

    /// One order against the stock as it is, by adding up: no lines, no batch, no offers.
    fn alone(order: &[(usize, i64)], shop: &[(i64, &str, i64)], left: &mut [i64]) -> Verdict {
        let mut wanted = BTreeMap::new();
        for (sku, units) in order {
            *wanted.entry(*sku).or_insert(0) += units;
        }
        let worth = |(sku, units): (&usize, &i64)| i128::from(shop[*sku].0) * i128::from(*units);
        let most = i128::from(Money::MAX);
        let known: BTreeMap<_, _> = wanted.clone().into_iter().filter(|w| w.0 < SKUS).collect();
        let total: i128 = known.iter().map(worth).sum();
        let currencies: std::collections::BTreeSet<_> = known.keys().map(|sku| shop[*sku].1).collect();
        if known.iter().map(worth).any(|worth| worth > most) {
            Verdict::TooMuch
        } else if known.len() < wanted.len() {
            Verdict::Unknown
        } else if currencies.len() > 1 {
            Verdict::Mixed
        } else if total > most {
            Verdict::TooMuch
        } else if wanted.iter().any(|(sku, units)| left[*sku] < *units) {
            Verdict::Short
        } else {
            wanted.iter().for_each(|(sku, units)| left[*sku] -= units);
            Verdict::Fits(i64::try_from(total).unwrap())
        }
    }

    /// Through the front door, where lines of the same SKU are added up.
    fn handed_in(order: &[(usize, i64)], number: usize) -> Draft {
        let lines = order.iter().map(|(sku, units)| NewLine {
            sku: format!("sku-{sku}"),
            quantity: *units,
        });
        let command = PlaceOrder {
            idempotency_key: format!("key-{number}").parse().unwrap(),
            lines: lines.collect(),
            shipping_address: None,
            note: None,
        };
        crate::orders::checked(UserId::new(Timestamp::from_millis(0)), command).unwrap()
    }

    fn verdict(judged: &Result<Sale>) -> Verdict {
        match judged {
            Ok(sale) => Verdict::Fits(sale.total.minor()),
            Err(Error::UnknownSku(_)) => Verdict::Unknown,
            Err(Error::MixedCurrencies(_)) => Verdict::Mixed,
            Err(Error::OutOfStock(_)) => Verdict::Short,
            Err(Error::Invalid(_)) => Verdict::TooMuch,
            Err(other) => panic!("{other:?}"),
        }
    }

    fn on_sale() -> impl Strategy<Value = (i64, &'static str, i64)> {
        let price = prop_oneof![4 => 0i64..1_000, 1 => Money::MAX / 3..=Money::MAX];
        (price, prop_oneof![4 => Just("EUR"), 1 => Just("USD")], 0i64..25)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Against the obvious model: stock as plain numbers, each order alone, in the order of arrival.
        #[test]
        fn a_batch_is_its_orders_one_after_the_other(
            shop in prop::collection::vec(on_sale(), SKUS),
            // Now and then the unknown SKU; the same one twice or more; and every other order a second time.
            orders in prop::collection::vec(
                prop::collection::vec((prop_oneof![9 => 0..SKUS, 1 => Just(SKUS)], 1i64..8), 1..5), 0..40),
            again in prop::collection::vec(0usize..40, 0..10),
        ) {
            let mut orders = orders;
            for number in again {
                orders.extend(orders.get(number).cloned());
            }
            let offers = shop.iter().enumerate();
            let offers = offers.map(|(n, (price, currency, units))| (format!("sku-{n}"), offer(*price, currency, *units)));
            let before: HashMap<String, Offer> = offers.collect();
            let mut after = before.clone();
            let mut left: Vec<i64> = shop.iter().map(|on_sale| on_sale.2).collect();
            let mut sales = Vec::new();
            for (number, order) in orders.iter().enumerate() {
                let judged = judge(&handed_in(order, number), &mut after);
                prop_assert_eq!(verdict(&judged), alone(order, &shop, &mut left), "order {}", number);
                for (sku, units) in left.iter().enumerate() {
                    prop_assert_eq!(after[&format!("sku-{sku}")].available, *units, "after order {}", number);
                    prop_assert!(*units >= 0);
                }
                sales.extend(judged.ok());
            }
            let mut net = net(&sales);
            for (sku, offer) in &before {
                let taken = offer.available - after[sku].available;
                prop_assert_eq!(net.remove(&offer.variant).unwrap_or(0), taken);
            }
            prop_assert!(net.is_empty(), "variants that nobody knows");
        }
    }
}
