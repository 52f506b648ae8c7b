//! Rows on their way, and what is known of them at both ends.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, ColumnIndex, Decode, Type};

use super::kind::Kind;
use super::schema::{Column, Table};
use super::{Tx, run};
use crate::error::{Error, Result};

/// The values of a row in the order of its table's columns.
pub(crate) type Row = Vec<Option<String>>;

/// How many rows a table has and what is in them, whatever their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) rows: u64,
    /// The sum of every row's digest.
    contents: u128,
}

impl Tally {
    pub(crate) fn add(&mut self, table: &Table, row: &[Option<String>]) -> Result<()> {
        let mut hash = Sha256::new();
        for (column, text) in table.columns.iter().zip(row) {
            let Some(text) = text else {
                hash.update([0]);
                continue;
            };
            // PostgreSQL keeps what a JSON text means, not how it was written.
            let text = match column.kind {
                Kind::Json => meaning(text).map_err(|e| table.corrupt(column, &e))?,
                _ => text.clone(),
            };
            hash.update([1]);
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash.finalize()[..16]);
        self.rows += 1;
        self.contents = self.contents.wrapping_add(u128::from_le_bytes(digest));
        Ok(())
    }
}

impl Table {
    fn corrupt(&self, column: &Column, why: &serde_json::Error) -> Error {
        Error::Internal(format!("{}.{} holds no JSON: {why}", self.name, column.name))
    }

    /// The columns, each as `f` writes it.
    fn list(&self, f: impl Fn(usize, &Column) -> String) -> String {
        let columns = self.columns.iter().enumerate();
        columns
            .map(|(n, column)| f(n, column))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn names(&self) -> String {
        self.list(|_, column| column.quoted())
    }
}

impl Column {
    fn quoted(&self) -> String {
        format!("\"{}\"", self.name)
    }
}

/// All rows, as they come.
pub(crate) fn read<'a>(tx: &'a mut Tx, table: &Table) -> BoxStream<'a, Result<Row>> {
    let name = &table.name;
    match tx {
        Tx::Sqlite(tx) => {
            let columns = table.list(|_, column| column.kind.sqlite_text(&column.quoted()));
            let query = sqlx::query(AssertSqlSafe(format!("SELECT {columns} FROM {name}")));
            query.fetch(&mut **tx).map(|row| texts(&row?)).boxed()
        }
        Tx::Postgres(tx) => {
            let columns = table.list(|_, column| column.kind.postgres_text(&column.quoted()));
            let query = sqlx::query(AssertSqlSafe(format!("SELECT {columns} FROM {name}")));
            query.fetch(&mut **tx).map(|row| texts(&row?)).boxed()
        }
    }
}

fn texts<R: sqlx::Row>(row: &R) -> Result<Row>
where
    usize: ColumnIndex<R>,
    for<'r> Option<String>: Decode<'r, R::Database> + Type<R::Database>,
{
    Ok((0..row.len())
        .map(|n| row.try_get(n))
        .collect::<sqlx::Result<_>>()?)
}

/// Adds rows, all in one statement.
pub(crate) async fn write(tx: &mut Tx, table: &Table, rows: Vec<Row>) -> Result<()> {
    let (name, names, expected) = (&table.name, table.names(), rows.len() as u64);
    let written = match tx {
        // An array of arrays: there is no limit to the number of its values, as there is for arguments.
        Tx::Sqlite(tx) => {
            let values = table.list(|n, column| column.kind.sqlite_value(&format!("(value ->> {n})")));
            let sql = format!("INSERT INTO {name} ({names}) SELECT {values} FROM json_each($1)");
            let query = sqlx::query(AssertSqlSafe(sql)).bind(Value::from(rows).to_string());
            query.execute(&mut **tx).await?.rows_affected()
        }
        Tx::Postgres(tx) => {
            let values = table.list(|n, column| column.kind.postgres_value(&format!("c{n}")));
            let arrays = table.list(|n, _| format!("${}::text[]", n + 1));
            let aliases = table.list(|n, _| format!("c{n}"));
            let sql = format!(
                "INSERT INTO {name} ({names}) SELECT {values} FROM UNNEST({arrays}) AS given ({aliases})"
            );
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for column in turned(rows, table.columns.len()) {
                query = query.bind(column);
            }
            query.execute(&mut **tx).await?.rows_affected()
        }
    };
    if written == expected {
        Ok(())
    } else {
        Err(Error::Internal(format!(
            "{written} of {expected} rows of {name} were written"
        )))
    }
}

/// Columns of rows.
fn turned(rows: Vec<Row>, width: usize) -> Vec<Row> {
    let mut columns = vec![Row::with_capacity(rows.len()); width];
    for row in rows {
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
    }
    columns
}

pub(crate) async fn count(tx: &mut Tx, table: &Table) -> Result<u64> {
    let sql = AssertSqlSafe(format!("SELECT count(*) FROM {}", table.name));
    let rows: i64 = run!(tx, |conn| sqlx::query_scalar(sql).fetch_one(conn).await)?;
    // A count is never negative.
    Ok(rows.unsigned_abs())
}

pub(crate) async fn is_empty(tx: &mut Tx, table: &Table) -> Result<bool> {
    let sql = AssertSqlSafe(format!("SELECT 1 FROM {} LIMIT 1", table.name));
    let row: Option<i32> = run!(tx, |conn| sqlx::query_scalar(sql).fetch_optional(conn).await)?;
    Ok(row.is_none())
}

/// One text for all that mean the same: keys in order, numbers by value.
fn meaning(text: &str) -> serde_json::Result<String> {
    fn plain(value: Value) -> Value {
        match value {
            Value::Number(number) => match number.as_i64() {
                Some(whole) => whole.into(),
                None => number.as_f64().into(),
            },
            Value::Array(items) => items.into_iter().map(plain).collect(),
            Value::Object(members) => members
                .into_iter()
                .map(|(key, value)| (key, plain(value)))
                .collect(),
            other => other,
        }
    }
    Ok(plain(serde_json::from_str(text)?).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_compared_by_its_meaning() {
        let one = meaning(r#"{"b": [1, 2.5], "a": null}"#).unwrap();
        assert_eq!(one, meaning(r#"{"a":null,"b":[1,2.50]}"#).unwrap());
        assert_ne!(one, meaning(r#"{"a":null,"b":[1,2.51]}"#).unwrap());
        assert!(meaning("{").is_err());
    }

    #[test]
    fn rows_become_columns() {
        let text = |text: &str| Some(text.to_owned());
        let rows = vec![vec![text("a"), None], vec![text("b"), text("c")]];
        assert_eq!(
            turned(rows, 2),
            [vec![text("a"), text("b")], vec![None, text("c")]]
        );
    }
}
