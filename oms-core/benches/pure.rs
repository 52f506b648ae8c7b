//! What an order costs before and after the database: the decision, money, the text form of ids, cursors.
//!
//! `cargo bench -p oms-core --all-features --bench pure`
#![expect(clippy::unwrap_used, reason = "benches may panic")]

use divan::{Bencher, black_box};
use oms_core::testing::pure::{Rehearsal, cursor_of, read_cursor};
use oms_core::{Currency, Money, OrderId, Timestamp};

fn main() {
    divan::main();
}

/// A whole batch of orders with three lines each, every third order sold out in its last line.
#[divan::bench(args = [1, 32, 128])]
fn placement_decision(bencher: Bencher<'_, '_>, orders: usize) {
    let batch = Rehearsal::of(orders);
    bencher
        .counter(divan::counter::ItemsCount::new(orders))
        .with_inputs(|| batch.clone())
        .bench_local_refs(|batch| black_box(batch.decide()));
}

mod money {
    use super::*;

    fn euro() -> Currency {
        "EUR".parse().unwrap()
    }

    #[divan::bench]
    fn line_total(bencher: Bencher<'_, '_>) {
        let price = Money::new(1_299, euro()).unwrap();
        bencher.bench(|| black_box(price).times(black_box(3)));
    }

    #[divan::bench]
    fn sum_of_15(bencher: Bencher<'_, '_>) {
        let lines = [Money::new(1_299, euro()).unwrap(); 15];
        bencher.bench(|| {
            let zero = Money::zero(black_box(&lines)[0].currency());
            lines.iter().try_fold(zero, |sum, line| sum.checked_add(*line))
        });
    }

    #[divan::bench]
    fn to_text(bencher: Bencher<'_, '_>) {
        let price = Money::new(1_299, euro()).unwrap();
        bencher.bench(|| black_box(price).to_string());
    }

    #[divan::bench]
    fn read_currency() -> Result<Currency, String> {
        black_box("EUR").parse()
    }
}

mod id {
    use super::*;

    #[divan::bench]
    fn new() -> OrderId {
        OrderId::new(black_box(Timestamp::from_millis(1_767_225_600_000)))
    }

    #[divan::bench]
    fn to_text(bencher: Bencher<'_, '_>) {
        let id = OrderId::new(Timestamp::from_millis(1_767_225_600_000));
        bencher.bench(|| black_box(id).to_string());
    }

    #[divan::bench]
    fn from_text(bencher: Bencher<'_, '_>) {
        let text = OrderId::new(Timestamp::from_millis(1_767_225_600_000)).to_string();
        bencher.bench(|| black_box(&text).parse::<OrderId>());
    }
}

mod cursor {
    use super::*;

    #[divan::bench]
    fn to_text(bencher: Bencher<'_, '_>) {
        let id = OrderId::new(Timestamp::from_millis(1_767_225_600_000));
        bencher.bench(|| cursor_of(black_box(id)));
    }

    #[divan::bench]
    fn from_text(bencher: Bencher<'_, '_>) {
        let cursor = cursor_of(OrderId::new(Timestamp::from_millis(1_767_225_600_000)));
        bencher
            .with_inputs(|| cursor.clone())
            .bench_values(|cursor| read_cursor(cursor).unwrap());
    }
}
