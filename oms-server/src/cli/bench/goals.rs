//! What was to be reached, beside what was: each figure with its yardstick of the same round.

use std::fmt::Write;

use super::shop::{Database, Measured, Mix};
use super::table::{Cell, Results, Who, YARDSTICK};

/// A figure against its yardstick, round by round.
pub(super) struct Goal {
    work: String,
    yardstick: String,
    reach: Reach,
    rounds: Vec<(f64, f64)>,
}

/// What the ratio of figure and yardstick must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Reach {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Default)]
pub(super) struct Goals(Vec<Goal>);

impl Goals {
    /// Adds a round. Both figures have the same unit.
    pub(super) fn add(&mut self, work: &str, figure: f64, yardstick: (&str, f64), reach: Reach) {
        let (name, against) = yardstick;
        let known = self.0.iter_mut().find(|goal| goal.work == work);
        match known {
            Some(goal) => goal.rounds.push((figure, against)),
            None => self.0.push(Goal {
                work: work.to_owned(),
                yardstick: name.to_owned(),
                reach,
                rounds: vec![(figure, against)],
            }),
        }
    }

    /// What the table of orders says, round by round.
    pub(super) fn of_orders(&mut self, results: &Results) {
        use Database::{Postgres, Sqlite};
        use Reach::{AtLeast, AtMost};
        let pgbench = format!("pgbench -c {YARDSTICK}");
        for (who, mix, times) in [
            (Who::InProcess, Mix::Hot, 10.0),
            (Who::Http, Mix::Hot, 8.0),
            (Who::Http, Mix::Uniform, 1.5),
            (Who::Http, Mix::NewOrder, 1.5),
        ] {
            let work = format!(
                "orders/s on PostgreSQL, {}, {}, 64 clients",
                mix.name(),
                who.name()
            );
            let (ours, theirs) = ((Postgres, mix, who, 64), (Postgres, mix, Who::Pgbench, YARDSTICK));
            self.compare(results, &work, ours, (&pgbench, theirs), AtLeast(times), rate);
        }
        for mix in [Mix::Hot, Mix::Uniform] {
            let work = format!(
                "orders/s on SQLite, {}, {}, 64 clients",
                mix.name(),
                Who::InProcess.name()
            );
            let (ours, theirs) = (
                (Sqlite, mix, Who::InProcess, 64),
                (Sqlite, mix, Who::Baseline, 64),
            );
            self.compare(
                results,
                &work,
                ours,
                ("one transaction each", theirs),
                AtLeast(5.0),
                rate,
            );
        }
        for database in [Postgres, Sqlite] {
            let work = format!("p50 ms on {}, hot, in process, 1 client", database.name());
            let (ours, theirs) = (
                (database, Mix::Hot, Who::InProcess, 1),
                (database, Mix::Hot, Who::Baseline, 1),
            );
            self.compare(
                results,
                &work,
                ours,
                ("one transaction each", theirs),
                AtMost(1.1),
                p50,
            );
            for who in [Who::InProcess, Who::Http] {
                let work = format!("p99 ms on {}, hot, {}, 64 clients", database.name(), who.name());
                let cell = (database, Mix::Hot, who, 64);
                for round in results.rounds(cell.into()) {
                    self.add(&work, p99(round), ("its p50", p50(round)), AtMost(4.0));
                }
            }
        }
    }

    fn compare(
        &mut self,
        results: &Results,
        work: &str,
        ours: Place,
        (name, theirs): (&str, Place),
        reach: Reach,
        figure: fn(&Measured) -> f64,
    ) {
        let rounds = results
            .rounds(ours.into())
            .iter()
            .zip(results.rounds(theirs.into()));
        for (ours, theirs) in rounds {
            self.add(work, figure(ours), (name, figure(theirs)), reach);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A Markdown table. Ratios are medians of the rounds' ratios.
    pub(super) fn table(&self) -> String {
        let mut text = String::from(
            "| work | figure | yardstick | figure | ratio | lowest and highest | to reach | |\n\
             |---|---:|---|---:|---:|---|---|---|\n",
        );
        for goal in &self.0 {
            let figures = sorted(goal.rounds.iter().map(|round| round.0));
            let against = sorted(goal.rounds.iter().map(|round| round.1));
            let ratios = sorted(goal.rounds.iter().map(|(figure, yardstick)| figure / yardstick));
            let ratio = median(&ratios);
            let (sign, bound, reached) = match goal.reach {
                Reach::AtLeast(bound) => (">=", bound, ratio >= bound),
                Reach::AtMost(bound) => ("<=", bound, ratio <= bound),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {ratio:.2}x | {:.2}x to {:.2}x | {sign} {bound}x | {} |",
                goal.work,
                figure(median(&figures)),
                goal.yardstick,
                figure(median(&against)),
                ratios.first().copied().unwrap_or(f64::NAN),
                ratios.last().copied().unwrap_or(f64::NAN),
                if reached { "reached" } else { "**missed**" },
            );
        }
        text
    }
}

/// Where a figure of the table stands.
type Place = (Database, Mix, Who, usize);

impl From<Place> for Cell {
    fn from((database, mix, who, clients): Place) -> Self {
        Self {
            database,
            mix,
            who,
            clients,
        }
    }
}

fn rate(measured: &Measured) -> f64 {
    measured.load.per_second
}

fn p50(measured: &Measured) -> f64 {
    measured.load.p50.as_secs_f64() * 1e3
}

fn p99(measured: &Measured) -> f64 {
    measured.load.p99.as_secs_f64() * 1e3
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Three digits and more.
fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_the_ratios_decides() {
        let mut goals = Goals::default();
        for (orders, yardstick) in [(100.0, 10.0), (90.0, 10.0), (10.0, 10.0)] {
            goals.add("hot", orders, ("pgbench", yardstick), Reach::AtLeast(9.0));
        }
        goals.add("latency", 1.3, ("alone", 1.0), Reach::AtMost(1.1));
        let table = goals.table();
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| hot | 90.00 | pgbench | 10.00 | 9.00x | 1.00x to 10.00x | >= 9x | reached |",
                "| latency | 1.30 | alone | 1.00 | 1.30x | 1.30x to 1.30x | <= 1.1x | **missed** |",
            ]
        );
    }
}
