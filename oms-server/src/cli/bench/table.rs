//! The results, and the one table that shows them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::shop::{Database, Measured, Mix};

/// Who places the orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// One transaction for each order, through the same driver.
    Baseline,
    /// The same by PostgreSQL's own load generator.
    Pgbench,
    InProcess,
    Http,
}

/// One cell: a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) database: Database,
    pub(super) mix: Mix,
    pub(super) who: Who,
    pub(super) clients: usize,
}

/// What every cell gave, in all rounds.
#[derive(Default)]
pub(super) struct Results(BTreeMap<Cell, Vec<Measured>>);

/// The number of clients whose `pgbench` is the yardstick for all.
pub(super) const YARDSTICK: usize = 32;

impl Results {
    pub(super) fn add(&mut self, cell: Cell, measured: Measured) {
        self.0.entry(cell).or_default().push(measured);
    }

    /// What a cell gave in each round.
    pub(super) fn rounds(&self, cell: Cell) -> &[Measured] {
        self.0.get(&cell).map_or(&[], Vec::as_slice)
    }

    /// The median of all rounds by orders per second.
    fn median(&self, cell: Cell) -> Option<&Measured> {
        let mut rounds: Vec<&Measured> = self.0.get(&cell)?.iter().collect();
        rounds.sort_by(|a, b| a.load.per_second.total_cmp(&b.load.per_second));
        rounds.get(rounds.len() / 2).copied()
    }

    /// How many times as many orders as in another cell.
    fn ratio(&self, cell: Cell, other: Cell) -> String {
        match (self.median(cell), self.median(other)) {
            (Some(this), Some(other)) if other.load.per_second > 0.0 => {
                format!("{:.2}x", this.load.per_second / other.load.per_second)
            }
            _ => "-".into(),
        }
    }

    /// Columns padded to equal width.
    pub(super) fn table(&self) -> String {
        let head = [
            "database",
            "SKUs",
            "orders placed by",
            "clients",
            "orders/s",
            "p50 ms",
            "p99 ms",
            "mean batch",
            "to baseline",
            "to pgbench -c 32",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        for &cell in self.0.keys() {
            let Some(Measured { load, batch }) = self.median(cell) else {
                continue;
            };
            let baseline = Cell {
                who: Who::Baseline,
                ..cell
            };
            let yardstick = Cell {
                who: Who::Pgbench,
                clients: YARDSTICK,
                ..cell
            };
            rows.push([
                cell.database.name().into(),
                cell.mix.name().into(),
                cell.who.name().into(),
                cell.clients.to_string(),
                format!("{:.0}", load.per_second),
                millis(load.p50),
                millis(load.p99),
                format!("{batch:.1}"),
                self.ratio(cell, baseline),
                self.ratio(cell, yardstick),
            ]);
        }
        align(&rows)
    }
}

impl Who {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Baseline => "one transaction each (sqlx)",
            Self::Pgbench => "one transaction each (pgbench)",
            Self::InProcess => "oms in process",
            Self::Http => "oms over HTTP",
        }
    }
}

fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

/// Markdown that is readable as it stands: text to the left, the columns of figures from the fourth on to the right.
fn align<const N: usize>(rows: &[[String; N]]) -> String {
    const TEXTS: usize = 3;
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            // Writing to a String cannot fail.
            let _ = match column < TEXTS {
                true => write!(text, "| {cell:<width$} "),
                false => write!(text, "| {cell:>width$} "),
            };
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.into_iter().enumerate() {
                let end = if column < TEXTS { '-' } else { ':' };
                let _ = write!(text, "|{}{end}", "-".repeat(width + 1));
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::load::Load;
    use super::*;

    fn cell(who: Who, clients: usize) -> Cell {
        Cell {
            database: Database::Postgres,
            mix: Mix::Hot,
            who,
            clients,
        }
    }

    fn measured(per_second: f64) -> Measured {
        let load = Load {
            per_second,
            p50: Duration::from_micros(1_500),
            p99: Duration::from_millis(2),
            p999: Duration::from_millis(2),
            max: Duration::from_millis(2),
            acknowledged: 1,
        };
        Measured { load, batch: 1.0 }
    }

    #[test]
    fn the_median_round_is_shown_beside_its_baseline() {
        let mut results = Results::default();
        for per_second in [300.0, 90.0, 100.0] {
            results.add(cell(Who::Baseline, 64), measured(per_second));
        }
        results.add(cell(Who::InProcess, 64), measured(1_234.0));
        let table = results.table();
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split('|').map(str::trim).collect())
            .collect();
        assert_eq!(lines[2][5..11], ["100", "1.50", "2.00", "1.0", "1.00x", "-"]);
        assert_eq!(lines[3][5..11], ["1234", "1.50", "2.00", "1.0", "12.34x", "-"]);
        let widths: Vec<usize> = table.lines().map(str::len).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
    }
}
