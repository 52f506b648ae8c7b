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
    Order,
    Payment,
    Stock,
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
            let sql = match table {
                Table::Inbox => {
                    "SELECT 1 FROM oms_webhook_inbox WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE"
                }
                Table::Order => "SELECT 1 FROM oms_order WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE",
                Table::Payment => {
                    "SELECT 1 FROM oms_payment WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE"
                }
                Table::Stock => {
                    "SELECT 1 FROM oms_stock WHERE variant_id = ANY($1) ORDER BY variant_id FOR NO KEY UPDATE"
                }
            };
            limited!(tx, |conn| sqlx::query(sql).bind(ids).execute(conn).await)?;
        }
    }
    let _ = (table, ids);
    Ok(())
}
