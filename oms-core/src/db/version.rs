use super::{Db, run};
use crate::error::Result;

/// Which schema a database has, and which one this program brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaVersion {
    /// The newest migration that the database has seen; 0 when it has seen none.
    pub applied: i64,
    /// The newest migration that this program knows.
    pub known: i64,
}

impl SchemaVersion {
    /// Whether nothing is left to migrate, and nothing is there that this program does not know.
    pub const fn is_newest(&self) -> bool {
        self.applied == self.known
    }
}

impl Db {
    pub(crate) async fn schema_version(&self) -> Result<SchemaVersion> {
        let migrations = self.migrator();
        let known = migrations.iter().map(|migration| migration.version).max();
        let mut tx = self.read().await?;
        // Each database has a catalog of its own.
        let there = tx.pick(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = '_oms_migrations'",
            "SELECT count(*) FROM pg_class WHERE oid = to_regclass('_oms_migrations')",
        );
        let there: i64 = run!(&mut tx, |conn| {
            sqlx::query_scalar(there).fetch_one(conn).await
        })?;
        let applied: Option<i64> = match there {
            0 => None,
            _ => run!(&mut tx, |conn| {
                sqlx::query_scalar("SELECT max(version) FROM _oms_migrations WHERE success")
                    .fetch_one(conn)
                    .await
            })?,
        };
        tx.rollback().await?;
        Ok(SchemaVersion {
            applied: applied.unwrap_or(0),
            known: known.unwrap_or(0),
        })
    }
}
