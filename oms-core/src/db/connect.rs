use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::Migrator;

use super::Db;
use crate::error::{Error, Result};

/// How long a caller waits for a connection before it is told to come back.
const ACQUIRE: Duration = Duration::from_secs(5);

/// Our own table, so that a host program's migrations on the same database do not collide.
const MIGRATIONS_TABLE: &str = "_oms_migrations";

impl Db {
    /// Opens `sqlite://..` or `postgres://..`. `max_connections` bounds the PostgreSQL pool and the SQLite readers.
    pub(crate) async fn connect(url: &str, max_connections: u32) -> Result<Self> {
        match url.split(':').next() {
            #[cfg(feature = "sqlite")]
            Some("sqlite") => sqlite(url, max_connections).await,
            #[cfg(feature = "postgres")]
            Some("postgres" | "postgresql") => postgres(url, max_connections).await,
            _ => Err(Error::Internal(
                "the database URL must begin with sqlite:// or postgres://, and that feature must be on"
                    .into(),
            )),
        }
    }

    /// Brings the schema up to date. Does nothing when it is; on PostgreSQL several processes may call it at once.
    pub(crate) async fn migrate(&self) -> Result<()> {
        let migrator = self.migrator();
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite { writer, .. } => migrator.run(writer).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => migrator.run(pool).await,
        }
        .map_err(|e| Error::Internal(format!("migration: {e}")))
    }

    pub(super) fn migrator(&self) -> Migrator {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite { .. } => own(sqlx::migrate!("migrations/sqlite")),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => own(sqlx::migrate!("migrations/postgres")),
        }
    }
}

fn own(mut migrator: Migrator) -> Migrator {
    migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
    migrator
}

#[cfg(feature = "sqlite")]
async fn sqlite(url: &str, readers: u32) -> Result<Db> {
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

    if url.contains(":memory:") || url.contains("mode=memory") {
        return Err(Error::Internal(
            "SQLite in memory has no WAL; give a file (a temporary one for tests)".into(),
        ));
    }
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|e| Error::Internal(format!("database URL: {e}")))?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // Durable before the reply: WAL with NORMAL may lose the last commits on a power loss.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(ACQUIRE)
        .pragma("temp_store", "memory")
        .statement_cache_capacity(256);
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options.clone())
        .await?;
    let reader = SqlitePoolOptions::new()
        .max_connections(readers.max(1))
        .acquire_timeout(ACQUIRE)
        .max_lifetime(None)
        .connect_lazy_with(options.pragma("query_only", "on"));
    Ok(Db::Sqlite { writer, reader })
}

#[cfg(feature = "postgres")]
async fn postgres(url: &str, max_connections: u32) -> Result<Db> {
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

    let options = PgConnectOptions::from_str(url)
        .map_err(|e| Error::Internal(format!("database URL: {e}")))?
        .application_name("oms")
        .statement_cache_capacity(256)
        // A statement, a wait for a row or an idle transaction that is this old is a fault, not work.
        .options([
            ("statement_timeout", "10s"),
            ("lock_timeout", "4s"),
            ("idle_in_transaction_session_timeout", "15s"),
            ("timezone", "UTC"),
        ]);
    let pool = PgPoolOptions::new()
        .max_connections(max_connections.max(4))
        .acquire_timeout(ACQUIRE)
        .connect_with(options)
        .await?;
    Ok(Db::Postgres(pool))
}
