//! Two databases behind one SQL text.
//!
//! Every statement is written once with `$1` placeholders and runs on SQLite and on PostgreSQL through [`run!`].
//! The few texts that must differ stand side by side in [`Tx::pick`]. Row locks are written by [`lock`] alone.

#[cfg(feature = "sqlite")]
mod checkpoint;
mod connect;
mod list;
mod lock;
mod migrate;
#[cfg(feature = "postgres")]
mod pool;
#[cfg(feature = "postgres")]
mod silence;
mod version;

#[cfg(all(feature = "sqlite", feature = "postgres"))]
pub(crate) mod transfer;

use std::time::Duration;

#[cfg(feature = "sqlite")]
use sqlx::{Sqlite, SqlitePool, Transaction};

pub(crate) use list::push_list;
pub(crate) use lock::{Table, lock, row_lock};
pub(crate) use migrate::check_schema;
#[cfg(feature = "postgres")]
pub(crate) use pool::PgTx;
pub use version::SchemaVersion;

use crate::error::{Error, Result, connection_lost};
use crate::figures::Connections;
use crate::telemetry;

/// How long closing waits for transactions under way.
const CLOSE: Duration = Duration::from_secs(10);

/// The database behind an [`Oms`](crate::Oms). Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) enum Db {
    #[cfg(feature = "sqlite")]
    Sqlite {
        /// One connection: SQLite has one writer, and a queue for it is fairer than its busy handler.
        writer: SqlitePool,
        reader: SqlitePool,
        /// One connection, which is held here to be closed.
        checkpointer: SqlitePool,
    },
    #[cfg(feature = "postgres")]
    Postgres {
        pool: pool::Pool,
        /// See [`Db::routine`].
        routine: pool::Pool,
        /// See [`Db::placing`].
        placing: pool::Pool,
    },
}

/// An open transaction. Every store function takes one; only services begin and commit.
///
/// Dropping it rolls back, but later: call [`Tx::rollback`] where order matters.
#[derive(Debug)]
pub(crate) enum Tx {
    #[cfg(feature = "sqlite")]
    Sqlite(Transaction<'static, Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres(PgTx),
}

/// Runs one query on whichever connection is behind `$tx`. Use the block form, which rustfmt formats:
/// `run!(tx, |conn| { sqlx::query("..").bind(x).execute(conn).await })`.
///
/// The span says by its place in the source which query it is: values and texts may hold what no trace should.
macro_rules! run {
    ($tx:expr, |$conn:ident| $body:expr) => {
        tracing::Instrument::instrument(
            // In a box: the futures of callers with many statements would be many times as large.
            Box::pin(async {
                match $tx {
                    #[cfg(feature = "sqlite")]
                    $crate::db::Tx::Sqlite(tx) => {
                        let $conn = &mut **tx;
                        $body
                    }
                    #[cfg(feature = "postgres")]
                    $crate::db::Tx::Postgres(tx) => $crate::db::limited!(tx, |$conn| $body),
                }
            }),
            tracing::debug_span!("sql", otel.kind = "client"),
        )
        .await
    };
}
pub(crate) use run;

/// As [`run!`], where the two databases have different texts and `$tx` is the PostgreSQL transaction.
///
/// The time limit is on our side: the limits that the server keeps are no help against a server that has gone silent.
#[cfg(feature = "postgres")]
macro_rules! limited {
    ($tx:ident, |$conn:ident| $body:expr) => {{
        let until = $tx.enter();
        let answer = tokio::time::timeout_at(until, async {
            let $conn = &mut **$tx;
            $body
        })
        .await;
        $tx.leave(answer)
    }};
}
#[cfg(feature = "postgres")]
pub(crate) use limited;

// After the macro that it uses.
#[cfg(test)]
#[cfg(feature = "postgres")]
mod tests;

/// How [`Tx::commit_or_unknown`] ended.
pub(crate) enum Commit {
    Done,
    /// The connection broke while the commit was under way: only a look at the database can tell.
    Unknown,
    Failed(Error),
}

/// What a transaction writes. On PostgreSQL each has connections of its own; SQLite has one writer.
#[derive(Clone, Copy)]
enum Mode {
    Write,
    Routine,
    Placing,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Routine => "routine",
            Self::Placing => "placing",
        }
    }
}

impl Db {
    /// A transaction that writes.
    pub(crate) async fn write(&self) -> Result<Tx> {
        self.begin(Mode::Write).await
    }

    /// A transaction that writes, for what comes again and again with the same few texts: the queue of jobs, and orders that
    /// are placed alone. On PostgreSQL
    /// it has connections of its own, which plan each text once and by indexes only, whatever the tables looked like
    /// then, and which nobody who reads lists can use up.
    pub(crate) async fn routine(&self) -> Result<Tx> {
        self.begin(Mode::Routine).await
    }

    /// As [`Db::routine`], for batches of orders alone: these connections belong to the thread that places them.
    pub(crate) async fn placing(&self) -> Result<Tx> {
        self.begin(Mode::Placing).await
    }

    async fn begin(&self, mode: Mode) -> Result<Tx> {
        let begin = async {
            Ok(match self {
                // Takes the write lock now: a deferred transaction that upgrades later can fail with SQLITE_BUSY.
                #[cfg(feature = "sqlite")]
                Self::Sqlite { writer, .. } => Tx::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
                #[cfg(feature = "postgres")]
                Self::Postgres {
                    pool,
                    routine,
                    placing,
                } => {
                    let pool = match mode {
                        Mode::Write => pool,
                        Mode::Routine => routine,
                        Mode::Placing => placing,
                    };
                    Tx::Postgres(pool.begin("BEGIN").await?)
                }
            })
        };
        telemetry::begun(mode.name(), Box::pin(begin)).await
    }

    /// For the thread that places orders to call before it ends.
    pub(crate) async fn close_placing(&self) {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite { .. } => {}
            #[cfg(feature = "postgres")]
            Self::Postgres { placing, .. } => placing.close().await,
        }
    }

    /// As [`Db::routine`], for what only reads, as [`Db::read`] does: who asks, and whether the database is there.
    pub(crate) async fn routine_read(&self) -> Result<Tx> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite { .. } => self.read().await,
            #[cfg(feature = "postgres")]
            Self::Postgres { routine, .. } => {
                let look = Box::pin(async { Ok(Tx::Postgres(routine.look().await?)) });
                telemetry::begun("routine", look).await
            }
        }
    }

    /// For reading only. On PostgreSQL each statement sees what was committed before it, in a transaction or not: so there
    /// is none, and beginning and ending it cost nothing.
    pub(crate) async fn read(&self) -> Result<Tx> {
        telemetry::begun("read", Box::pin(self.begin_read())).await
    }

    async fn begin_read(&self) -> Result<Tx> {
        Ok(match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite { reader, .. } => Tx::Sqlite(reader.begin().await?),
            #[cfg(feature = "postgres")]
            Self::Postgres { pool, .. } => Tx::Postgres(pool.look().await?),
        })
    }

    /// A transaction that reads one moment of the whole database, however long it takes.
    pub(crate) async fn snapshot(&self) -> Result<Tx> {
        Ok(match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite { reader, .. } => Tx::Sqlite(reader.begin().await?),
            #[cfg(feature = "postgres")]
            Self::Postgres { pool, .. } => {
                let mut tx = pool
                    .begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    .await?;
                tx.take_your_time().await?;
                Tx::Postgres(tx)
            }
        })
    }

    /// How many transactions may usefully write at once from this process.
    pub(crate) fn writers(&self) -> usize {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite { .. } => 1,
            #[cfg(feature = "postgres")]
            Self::Postgres { .. } => 2,
        }
    }

    /// How the pools stand.
    pub(crate) fn connections(&self) -> Vec<Connections> {
        let of = |pool, open: u32, idle, most: u32| Connections {
            pool,
            open: open as usize,
            idle,
            most: most as usize,
        };
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite { writer, reader, .. } => [("writer", writer), ("reader", reader)]
                .map(|(name, pool)| {
                    let most = pool.options().get_max_connections();
                    of(name, pool.size(), pool.num_idle(), most)
                })
                .into(),
            #[cfg(feature = "postgres")]
            Self::Postgres {
                pool,
                routine,
                placing,
            } => [("postgres", pool), ("routine", routine), ("placing", placing)]
                .map(|(name, pool)| of(name, pool.size(), pool.num_idle(), pool.most()))
                .into(),
        }
    }

    /// Waits a while for connections in use and closes all.
    pub(crate) async fn close(&self) {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite {
                writer,
                reader,
                checkpointer,
            } => {
                let closing = async {
                    tokio::join!(reader.close(), checkpointer.close());
                    // By itself, and so the last one, which leaves no log beside the file.
                    writer.close().await;
                };
                if tokio::time::timeout(CLOSE, closing).await.is_err() {
                    tracing::warn!("a transaction did not end in time and is cut off");
                }
            }
            #[cfg(feature = "postgres")]
            Self::Postgres { pool, routine, .. } => {
                tokio::join!(pool.close(), routine.close());
            }
        }
    }
}

impl Tx {
    /// The few statements whose text differs. Keep both texts side by side and say why.
    pub(crate) fn pick(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        let _ = (sqlite, postgres);
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => sqlite,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => postgres,
        }
    }

    /// Makes it durable. An error means that nothing was kept, except [`Error::Overloaded`], after which the outcome
    /// is not known: the caller repeats with its idempotency key.
    pub(crate) async fn commit(self) -> Result<()> {
        match self.commit_or_unknown().await {
            Commit::Done => Ok(()),
            Commit::Unknown => Err(Error::Overloaded {
                retry_after: Duration::from_secs(1),
            }),
            Commit::Failed(e) => Err(e),
        }
    }

    /// As [`Tx::commit`], for callers that can look up what became of it.
    pub(crate) async fn commit_or_unknown(self) -> Commit {
        let commit = async {
            match self {
                #[cfg(feature = "sqlite")]
                Self::Sqlite(tx) => tx.commit().await,
                #[cfg(feature = "postgres")]
                Self::Postgres(tx) => tx.commit().await,
            }
        };
        match telemetry::committed(commit).await {
            Ok(()) => Commit::Done,
            Err(e) if connection_lost(&e) => Commit::Unknown,
            Err(e) => Commit::Failed(e.into()),
        }
    }

    /// Undoes it now.
    pub(crate) async fn rollback(self) -> Result<()> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(tx) => tx.rollback().await?,
            #[cfg(feature = "postgres")]
            Self::Postgres(tx) => tx.rollback().await,
        }
        Ok(())
    }
}

/// Again and again while another process of the same machine holds the file.
#[cfg(feature = "sqlite")]
async fn patiently<F: Future<Output = Result<()>>>(patience: Duration, work: impl Fn() -> F) -> Result<()> {
    let since = tokio::time::Instant::now();
    loop {
        match work().await {
            Err(e) if e.is_retryable() && since.elapsed() < patience => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            done => return done,
        }
    }
}

/// Maps a unique violation to [`Error::Duplicate`]: PostgreSQL names the constraint or index, SQLite `table.column`.
/// `names` pairs both with what the caller is told is taken.
pub(crate) fn on_unique(error: sqlx::Error, names: &[(&str, &str, &'static str)]) -> Error {
    if let sqlx::Error::Database(e) = &error
        && e.is_unique_violation()
    {
        let message = e.message();
        for (constraint, column, what) in names {
            if e.constraint() == Some(constraint) || message.contains(column) {
                return Error::Duplicate(what);
            }
        }
    }
    error.into()
}
