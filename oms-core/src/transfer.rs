//! A whole shop from SQLite to PostgreSQL, or back.

use futures_util::TryStreamExt;

use crate::actor::Actor;
use crate::db::transfer::{self, Plan, Row, Table, Tally};
use crate::db::{SchemaVersion, Tx};
use crate::error::{Error, Result};
use crate::oms::Oms;
use crate::verify::violations;

/// Rows of one statement.
const BATCH_ROWS: usize = 1_000;
/// Bytes of one statement, unless a single row has more.
const BATCH_BYTES: usize = 4 << 20;

/// What a copy is at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyStep {
    /// What is there is held against the rules, before and after.
    Verifying,
    /// Rows of this table were written.
    Copying {
        /// The table.
        table: String,
        /// How many of its rows are written.
        rows: u64,
        /// How many it has.
        of: u64,
    },
    /// The rows of this table were read again and compared.
    Compared {
        /// The table.
        table: String,
        /// How many rows it has.
        rows: u64,
    },
}

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Every table with the number of its rows, in the order in which they were filled.
    pub tables: Vec<(String, u64)>,
    /// Every counter with the number that it gave last.
    pub counters: Vec<(String, i64)>,
}

impl Oms {
    /// Copies everything into another database of the other kind, whose schema is there and which holds nothing. While
    /// it runs nobody else can write to either. Everything is one transaction of the target: whenever it is
    /// interrupted, the target stays empty. Before that commits, every row was read again and compared, and both sides
    /// passed [`Oms::verify`]. Administrators only.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when a side is in use, the schema of one is not the newest, the target is not empty, or
    /// the source breaks a rule. After [`Error::Overloaded`] it is not known whether the copy was kept: look. A side that
    /// falls silent ends it so within about half a minute, however long the copy may take otherwise.
    pub async fn copy_to(
        &self,
        actor: &Actor,
        target: &Self,
        mut progress: impl FnMut(CopyStep) + Send,
    ) -> Result<Copied> {
        actor.require_admin()?;
        newest("source database", self.schema_version().await?)?;
        newest("target database", target.schema_version().await?)?;
        let copying = async {
            let mut from = self.db().alone().await?;
            let mut to = target.db().alone().await?;
            let plan = Plan::of(&mut from, &mut to).await?;
            let copied = copy(&mut from, &mut to, &plan, &mut progress).await?;
            to.commit().await?;
            // Nothing was written there.
            drop(from.rollback().await);
            Ok(copied)
        };
        let copying = target.db().while_it_answers(copying);
        self.db().while_it_answers(copying).await
    }
}

fn newest(what: &'static str, version: SchemaVersion) -> Result<()> {
    if version.is_newest() {
        return Ok(());
    }
    Err(Error::InvalidState {
        what,
        state: format!("at version {} of the schema", version.applied),
        detail: "bring both to the newest one that this program knows",
    })
}

async fn copy(
    from: &mut Tx,
    to: &mut Tx,
    plan: &Plan,
    progress: &mut (impl FnMut(CopyStep) + Send),
) -> Result<Copied> {
    for table in &plan.tables {
        if !transfer::is_empty(to, table).await? {
            return Err(Error::InvalidState {
                what: "target database",
                state: "not empty".into(),
                detail: "copy into a fresh one",
            });
        }
    }
    progress(CopyStep::Verifying);
    faultless("source database", from).await?;
    let mut tallies = Vec::with_capacity(plan.tables.len());
    for table in &plan.tables {
        tallies.push(fill(from, to, table, progress).await?);
    }
    let mut counters = Vec::with_capacity(plan.counters.len());
    for name in &plan.counters {
        let last = transfer::counter(from, name).await?;
        transfer::set_counter(to, name, last).await?;
        counters.push((name.clone(), last));
    }
    for (table, sent) in plan.tables.iter().zip(&tallies) {
        compare(to, table, sent).await?;
        progress(CopyStep::Compared {
            table: table.name.clone(),
            rows: sent.rows,
        });
    }
    progress(CopyStep::Verifying);
    faultless("copy", to).await?;
    let names = plan.tables.iter().map(|table| table.name.clone());
    Ok(Copied {
        tables: names.zip(tallies.iter().map(|tally| tally.rows)).collect(),
        counters,
    })
}

/// Writes a table as it is read: only a batch is in memory at a time.
async fn fill(
    from: &mut Tx,
    to: &mut Tx,
    table: &Table,
    progress: &mut (impl FnMut(CopyStep) + Send),
) -> Result<Tally> {
    let of = transfer::count(from, table).await?;
    let mut tally = Tally::default();
    let mut tell = |rows| {
        let table = table.name.clone();
        progress(CopyStep::Copying { table, rows, of });
    };
    tell(0);
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut rows = transfer::read(from, table);
    while let Some(row) = rows.try_next().await? {
        tally.add(table, &row)?;
        bytes += size(&row);
        batch.push(row);
        if batch.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
            bytes = 0;
            transfer::write(to, table, std::mem::take(&mut batch)).await?;
            tell(tally.rows);
        }
    }
    if !batch.is_empty() {
        transfer::write(to, table, batch).await?;
        tell(tally.rows);
    }
    Ok(tally)
}

fn size(row: &Row) -> usize {
    row.iter().flatten().map(String::len).sum()
}

async fn compare(to: &mut Tx, table: &Table, sent: &Tally) -> Result<()> {
    let mut arrived = Tally::default();
    let mut rows = transfer::read(to, table);
    while let Some(row) = rows.try_next().await? {
        arrived.add(table, &row)?;
    }
    if arrived == *sent {
        return Ok(());
    }
    Err(Error::Internal(format!(
        "{} is not the same in the copy: {} rows were read and {} arrived",
        table.name, sent.rows, arrived.rows
    )))
}

async fn faultless(what: &'static str, tx: &mut Tx) -> Result<()> {
    let found = violations(tx).await?;
    let Some(first) = found.first() else {
        return Ok(());
    };
    Err(Error::InvalidState {
        what,
        state: format!("broken in {} places, such as: {first}", found.len()),
        detail: "`oms-server verify` lists them all",
    })
}
