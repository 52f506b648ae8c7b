//! What copying a shop from one database to the other needs to know of both. All of it is read from their schemas, so
//! that no table, no column and no counter can be forgotten.

mod kind;
mod rows;
mod schema;

use sqlx::{AssertSqlSafe, PgConnection, SqliteConnection};

pub(crate) use rows::{Row, Tally, count, is_empty, read, write};
pub(crate) use schema::{Plan, Table};

use super::{Db, Tx, run};
use crate::error::{Error, Result};

impl Db {
    /// A transaction beside which nobody writes until it ends, however long it takes. On PostgreSQL others can still
    /// read.
    pub(crate) async fn alone(&self) -> Result<Tx> {
        let pool = match self {
            Self::Sqlite { .. } => return self.write().await,
            Self::Postgres { pool, .. } => pool,
        };
        let mut tx = pool.begin("BEGIN").await?;
        tx.take_your_time().await?;
        let tables = schema::postgres_tables(&mut tx).await?;
        if !tables.is_empty() {
            let sql = format!("LOCK TABLE {} IN EXCLUSIVE MODE NOWAIT", tables.join(", "));
            sqlx::query(AssertSqlSafe(sql))
                .execute(&mut *tx)
                .await
                .map_err(in_use)?;
        }
        Ok(Tx::Postgres(tx))
    }
}

/// The number that was given out last.
pub(crate) async fn counter(tx: &mut Tx, name: &str) -> Result<i64> {
    let value = match tx {
        Tx::Sqlite(tx) => {
            let query = sqlx::query_scalar("SELECT value FROM oms_counter WHERE name = $1").bind(name);
            query.fetch_one(&mut **tx).await?
        }
        // A sequence that was never asked holds the first number that it will give.
        Tx::Postgres(tx) => {
            let sql = format!("SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END FROM oms_{name}");
            sqlx::query_scalar(AssertSqlSafe(sql))
                .fetch_one(&mut **tx)
                .await?
        }
    };
    Ok(value)
}

/// Makes the other database go on where this one stopped.
pub(crate) async fn set_counter(tx: &mut Tx, name: &str, last: i64) -> Result<()> {
    match tx {
        Tx::Sqlite(tx) => {
            let query = sqlx::query("UPDATE oms_counter SET value = $2 WHERE name = $1").bind(name);
            query.bind(last).execute(&mut **tx).await?;
        }
        // Not undone by a rollback: a number is skipped then, which sequences may do at any time.
        Tx::Postgres(tx) => {
            let query = sqlx::query("SELECT setval($1::regclass, $2)").bind(format!("oms_{name}"));
            query.bind(last).execute(&mut **tx).await?;
        }
    }
    Ok(())
}

/// The two ends of a copy, whichever way it goes.
fn sides<'a>(one: &'a mut Tx, other: &'a mut Tx) -> Result<(&'a mut SqliteConnection, &'a mut PgConnection)> {
    match (one, other) {
        (Tx::Sqlite(sqlite), Tx::Postgres(postgres)) | (Tx::Postgres(postgres), Tx::Sqlite(sqlite)) => {
            Ok((sqlite, postgres))
        }
        _ => Err(Error::invalid(
            "/to",
            "must be the other kind of database: back up and restore to stay with one",
        )),
    }
}

fn in_use(error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::Database(e) if e.code().as_deref() == Some("55P03") => Error::InvalidState {
            what: "database",
            state: "in use".into(),
            detail: "stop every server and worker that uses it",
        },
        _ => error.into(),
    }
}
