//! Bringing the schema up to date, from any number of processes at once and safe against a kill at any moment.

use std::time::Duration;

use sqlx::migrate::Migrator;

use super::{Db, Tx, run};
use crate::error::{Error, Result};

/// Our own table, so that a host program's migrations on the same database do not collide.
const TABLE: &str = "_oms_migrations";

/// How long one process waits for another that migrates the same SQLite file.
#[cfg(feature = "sqlite")]
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a migration waits for a lock at a time, and the shop with it.
#[cfg(feature = "postgres")]
const LOCK: &str = "2s";
#[cfg(feature = "postgres")]
const PAUSE: Duration = Duration::from_secs(1);
/// How long a migration tries in all.
#[cfg(feature = "postgres")]
const LOCKED: Duration = Duration::from_secs(3600);

/// How long the server may take to answer a new connection.
#[cfg(feature = "postgres")]
const CONNECT: Duration = Duration::from_secs(10);

impl Db {
    /// Brings the schema up to date. Does nothing when it is. Several processes may call it at once: one works, the
    /// others wait and find it done. A migration and its entry in the table are one commit.
    pub(crate) async fn migrate(&self) -> Result<()> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite { writer, .. } => super::patiently(PATIENCE, || on_sqlite(writer)).await,
            #[cfg(feature = "postgres")]
            Self::Postgres { pool, .. } => self.while_it_answers(on_postgres(pool)).await,
        }
    }

    /// Every migration that this program knows.
    pub(super) fn migrator(&self) -> Migrator {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite { .. } => sqlite(),
            #[cfg(feature = "postgres")]
            Self::Postgres { .. } => postgres(),
        }
    }
}

// `run_direct` and not `run`: with a connection in place of a pool, futures that hold `run` are not `Send` for the
// compiler.

/// All that is new in one transaction, which takes the write lock before it looks: whoever comes second waits there.
#[cfg(feature = "sqlite")]
async fn on_sqlite(writer: &sqlx::SqlitePool) -> Result<()> {
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
    sqlite()
        .run_direct(None, &mut *tx, false)
        .await
        .map_err(|e| failed(&e))?;
    Ok(tx.commit().await?)
}

/// On a connection of its own, which holds an advisory lock until it is closed, whatever happens. A migration of a large
/// table takes its time, but it waits for its lock in small parts: everybody who comes after it would wait with it, as
/// long as somebody's backup reads the table.
#[cfg(feature = "postgres")]
async fn on_postgres(pool: &super::pool::Pool) -> Result<()> {
    use sqlx::{ConnectOptions, Connection};

    let options = pool.options().clone().options([
        ("statement_timeout", "0"),
        ("lock_timeout", LOCK),
        ("idle_in_transaction_session_timeout", "0"),
    ]);
    let connecting = tokio::time::timeout(CONNECT, options.connect()).await;
    let mut connection = connecting.map_err(|_| sqlx::Error::PoolTimedOut)??;
    let migrator = postgres();
    let since = tokio::time::Instant::now();
    loop {
        match migrator.run_direct(None, &mut connection, false).await {
            Ok(()) => return Ok(connection.close().await?),
            Err(e) if waited_in_vain(&e) && since.elapsed() < LOCKED => {
                tracing::info!("others use what the migration changes, or migrate: trying again");
                // Whoever waits behind a migration that waits gets its turn now.
                tokio::time::sleep(PAUSE).await;
            }
            Err(e) => return Err(failed(&e)),
        }
    }
}

/// An error unless every migration that this program knows was applied. A newer schema is none: while programs are
/// replaced one by one, those of the last version go on.
pub(crate) async fn check_schema(tx: &mut Tx) -> Result<()> {
    let applied: Vec<i64> = run!(tx, |conn| {
        sqlx::query_scalar("SELECT version FROM _oms_migrations WHERE success")
            .fetch_all(conn)
            .await
    })?;
    let known = match tx {
        #[cfg(feature = "sqlite")]
        Tx::Sqlite(_) => sqlite(),
        #[cfg(feature = "postgres")]
        Tx::Postgres(_) => postgres(),
    };
    match known.iter().find(|one| !applied.contains(&one.version)) {
        Some(missing) => Err(Error::Internal(format!(
            "the schema is older than the program: migration {} ({}) is missing",
            missing.version, missing.description
        ))),
        None => Ok(()),
    }
}

#[cfg(feature = "sqlite")]
fn sqlite() -> Migrator {
    own(sqlx::migrate!("migrations/sqlite"))
}

#[cfg(feature = "postgres")]
fn postgres() -> Migrator {
    own(sqlx::migrate!("migrations/postgres"))
}

fn own(mut migrator: Migrator) -> Migrator {
    migrator.dangerous_set_table_name(TABLE);
    migrator
}

#[cfg(feature = "postgres")]
fn waited_in_vain(error: &sqlx::migrate::MigrateError) -> bool {
    use sqlx::migrate::MigrateError::{Execute, ExecuteMigration};

    let (Execute(e) | ExecuteMigration(e, _)) = error else {
        return false;
    };
    let code = e.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.as_deref() == Some("55P03")
}

fn failed(error: &sqlx::migrate::MigrateError) -> Error {
    Error::Internal(format!("migration: {error}"))
}
