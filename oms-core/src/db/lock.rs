use uuid::Uuid;

use super::Tx;
#[cfg(feature = "postgres")]
use super::limited;
use crate::error::Result;

/// The tables whose rows are locked, in the one order in which a transaction may lock them:
/// idempotency keys (by inserting them), webhook inbox, orders, payments (with their captures and refunds), stock, jobs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Table {
    Inbox,
    Payment,
    Stock,
}

#[cfg(feature = "postgres")]
macro_rules! texts {
    ($table:literal, $key:literal) => {
        (
            concat!(
                "SELECT 1 FROM ",
                $table,
                " WHERE ",
                $key,
                " = $1 FOR NO KEY UPDATE"
            ),
            concat!(
                "SELECT 1 FROM ",
                $table,
                " WHERE ",
                $key,
                " = ANY($1) ORDER BY ",
                $key,
                " FOR NO KEY UPDATE"
            ),
        )
    };
}

/// The end of a query by id that locks what it reads until the transaction ends, which is a round trip less than to
/// [`lock`] it before. Several rows are sorted by id, as there.
pub(crate) fn row_lock(tx: &Tx) -> &'static str {
    tx.pick("", " FOR NO KEY UPDATE")
}

/// Locks rows until the transaction ends, sorted by id, so that two transactions cannot wait for each other.
/// Rows that are not there are no error. On SQLite the write transaction is the lock.
///
/// `FOR NO KEY UPDATE`: rows that refer to these by foreign key may still come in.
pub(crate) async fn lock(tx: &mut Tx, table: Table, ids: &[Uuid]) -> Result<()> {
    match tx {
        #[cfg(feature = "sqlite")]
        Tx::Sqlite(_) => {}
        #[cfg(feature = "postgres")]
        Tx::Postgres(tx) => {
            let (one, several) = match table {
                Table::Inbox => texts!("oms_webhook_inbox", "id"),
                Table::Payment => texts!("oms_payment", "id"),
                Table::Stock => texts!("oms_stock", "variant_id"),
            };
            // PostgreSQL would plan a text with an array anew each time.
            match ids {
                [id] => limited!(tx, |conn| sqlx::query(one).bind(id).execute(conn).await)?,
                _ => limited!(tx, |conn| sqlx::query(several).bind(ids).execute(conn).await)?,
            };
        }
    }
    let _ = (table, ids);
    Ok(())
}
