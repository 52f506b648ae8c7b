use std::str::FromStr;
#[cfg(feature = "sqlite")]
use std::time::Duration;

use super::Db;
use crate::error::{Error, Result};

/// How long a caller waits for SQLite's writer, or a reader, before it is told to come back.
#[cfg(feature = "sqlite")]
const ACQUIRE: Duration = Duration::from_secs(5);

/// Two for workers, one for who asks, one for probes and one for an order that is placed alone.
#[cfg(feature = "postgres")]
const ROUTINE_CONNECTIONS: u32 = 5;
/// One for the batch that is placed, one for the next one.
#[cfg(feature = "postgres")]
const PLACING_CONNECTIONS: u32 = 2;

/// How statements that come again and again are planned. PostgreSQL would plan those with arrays anew each time, which
/// takes as long as running them for one order. A plan that is kept must be one that stays good when the tables grow:
/// a look into an index for each row, and never a walk over a table that was small, or was never analysed, at the time.
#[cfg(feature = "postgres")]
const ROUTINE: [(&str, &str); 10] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_material", "off"),
    // What remains to be compared is how many rows are read.
    ("seq_page_cost", "0"),
    ("random_page_cost", "0"),
    ("cpu_operator_cost", "0"),
    // What is switched off counts as very dear, and what is dear would be compiled.
    ("jit", "off"),
];

impl Db {
    /// Opens `sqlite://..` or `postgres://..`. `max_connections` bounds the PostgreSQL pool, without the few connections
    /// of [`Db::routine`], and the SQLite readers.
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
}

#[cfg(feature = "sqlite")]
async fn sqlite(url: &str, readers: u32) -> Result<Db> {
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
    use tokio::sync::watch;

    use super::checkpoint::keep_writing_back;

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
    let writing = options
        .clone()
        // 64 MiB: what a batch touches, above all indexes of random keys, is read from the file once.
        .pragma("cache_size", "-65536")
        // 64 MB: more than is in the log at a time while it is written back beside.
        .pragma("wal_autocheckpoint", "16000");
    let (commits, committed) = watch::channel(());
    let writer = SqlitePoolOptions::new()
        .after_release(move |connection, _| {
            commits.send_replace(());
            Box::pin(has_ended(connection))
        })
        // A file does not hang up, and each question is a way to the connection's thread and back.
        .test_before_acquire(false)
        .max_connections(1)
        .acquire_timeout(ACQUIRE)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(writing);
    // The change of a new file to WAL does not wait for others that do the same: SQLite refuses it at once.
    let first = &writer;
    super::patiently(ACQUIRE, || async move { Ok(first.acquire().await.map(drop)?) }).await?;
    let checkpointer = SqlitePoolOptions::new()
        .test_before_acquire(false)
        .max_connections(1)
        .acquire_timeout(ACQUIRE)
        .connect_lazy_with(options.clone());
    tokio::spawn(keep_writing_back(checkpointer.clone(), committed));
    let reader = SqlitePoolOptions::new()
        .after_release(|connection, _| Box::pin(has_ended(connection)))
        // A file does not hang up, and each question is a way to the connection's thread and back.
        .test_before_acquire(false)
        .max_connections(readers.max(1))
        .acquire_timeout(ACQUIRE)
        .max_lifetime(None)
        .connect_lazy_with(options.pragma("query_only", "on"));
    Ok(Db::Sqlite {
        writer,
        reader,
        checkpointer,
    })
}

/// Whether a connection may be used again. A full disk makes SQLite end the transaction by itself, of which the driver
/// learns nothing: from then on it would begin save points of a transaction that is none.
#[cfg(feature = "sqlite")]
async fn has_ended(connection: &mut sqlx::SqliteConnection) -> sqlx::Result<bool> {
    use sqlx::Connection;

    if !connection.is_in_transaction() {
        return Ok(true);
    }
    // A rollback that was left to the background runs first.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

#[cfg(feature = "postgres")]
async fn postgres(url: &str, max_connections: u32) -> Result<Db> {
    use sqlx::postgres::PgConnectOptions;

    use super::pool::Pool;

    let options = PgConnectOptions::from_str(url)
        .map_err(|e| Error::Internal(format!("database URL: {e}")))?
        .application_name("oms")
        .statement_cache_capacity(256)
        // A statement, a wait for a row or an idle transaction that is this old is a fault, not work. They are short
        // because locks of a client that vanished are free only after them.
        .options([
            ("statement_timeout", "4s"),
            ("lock_timeout", "3s"),
            ("idle_in_transaction_session_timeout", "5s"),
            ("timezone", "UTC"),
            // A client whose machine is gone keeps its backend for two minutes and not for two hours.
            ("tcp_keepalives_idle", "60"),
            ("tcp_keepalives_interval", "20"),
            ("tcp_keepalives_count", "3"),
        ]);
    // As the database says it: "overloaded" would tell little about a wrong address.
    let pool = Pool::open(options.clone(), max_connections.max(4)).await;
    let routine = options.clone().options(ROUTINE);
    Ok(Db::Postgres {
        pool: pool.map_err(Error::Database)?,
        routine: Pool::new(routine.clone(), ROUTINE_CONNECTIONS),
        placing: Pool::new(routine, PLACING_CONNECTIONS),
    })
}
