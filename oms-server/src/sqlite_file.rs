//! The file of an SQLite database: where it is, who uses it, and whether it is whole.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};

/// Where the database is; none when it is no SQLite database.
pub(crate) fn path(database_url: &str) -> Result<Option<PathBuf>> {
    if !database_url.starts_with("sqlite:") {
        return Ok(None);
    }
    let options = SqliteConnectOptions::from_str(database_url).context("the address of the database")?;
    Ok(Some(options.get_filename().to_owned()))
}

/// The same path with more at its end.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Says that this process uses the database, or that nobody else may, until it is dropped or the process ends. SQLite's
/// own locks cannot tell this: they would let a server start while its file is being replaced.
#[derive(Debug)]
pub(crate) struct Claim {
    _file: File,
}

impl Claim {
    /// Together with others.
    pub(crate) fn shared(database: &Path) -> Result<Self> {
        let file = lock_file(database)?;
        let taken = file.try_lock_shared();
        Self::of(
            file,
            taken,
            database,
            "is being restored or moved: try again when that is done",
        )
    }

    /// Alone.
    pub(crate) fn alone(database: &Path) -> Result<Self> {
        let file = lock_file(database)?;
        let taken = file.try_lock();
        Self::of(
            file,
            taken,
            database,
            "is in use: stop every server, worker and command that uses it",
        )
    }

    fn of(file: File, taken: Result<(), TryLockError>, database: &Path, refused: &str) -> Result<Self> {
        match taken {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => bail!("{} {refused}", database.display()),
            Err(TryLockError::Error(e)) => {
                Err(e).with_context(|| format!("cannot lock {}", database.display()))
            }
        }
    }
}

/// It stays when it is not used: removing it while another waits for it would make two locks.
fn lock_file(database: &Path) -> Result<File> {
    let path = beside(database, ".lock");
    // To read it is enough, so that a command of root does not lock the server's user out.
    let opened = match File::open(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let mut options = OpenOptions::new();
            options
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .open(&path)
        }
        opened => opened,
    };
    opened.with_context(|| format!("cannot open {}", path.display()))
}

/// A connection of its own, past the library. A file that is not there is an error.
pub(crate) async fn connect(path: &Path) -> sqlx::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false);
    options.busy_timeout(Duration::from_secs(5)).connect().await
}

/// What SQLite itself finds wrong: a line for each damage, none for a file that is whole.
pub(crate) async fn damages(conn: &mut SqliteConnection) -> sqlx::Result<Vec<String>> {
    let mut found: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check(20)")
        .fetch_all(&mut *conn)
        .await?;
    found.retain(|line| line != "ok");
    let sql = "SELECT \"table\" || ' has a row that refers to nothing in ' || parent FROM pragma_foreign_key_check LIMIT 20";
    found.extend(sqlx::query_scalar::<_, String>(sql).fetch_all(conn).await?);
    Ok(found)
}

/// Tables of ours that hold rows.
pub(crate) async fn filled_tables(conn: &mut SqliteConnection) -> sqlx::Result<Vec<String>> {
    let sql = "SELECT name FROM sqlite_schema
               WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT IN ('_oms_migrations', 'oms_counter')";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *conn).await?;
    let mut filled = Vec::new();
    for table in tables {
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT 1 FROM \"{}\" LIMIT 1",
            table.replace('"', "\"\"")
        ));
        if sqlx::query(sql).fetch_optional(&mut *conn).await?.is_some() {
            filled.push(table);
        }
    }
    Ok(filled)
}

/// Makes names in this folder durable.
pub(crate) fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("cannot write {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_together_or_one_alone() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("oms.db");
        let first = Claim::shared(&database).unwrap();
        let second = Claim::shared(&database).unwrap();
        assert!(
            Claim::alone(&database)
                .unwrap_err()
                .to_string()
                .contains("in use")
        );
        drop((first, second));
        let alone = Claim::alone(&database).unwrap();
        assert!(Claim::shared(&database).is_err());
        drop(alone);
        Claim::shared(&database).unwrap();
    }

    #[test]
    fn the_file_is_found_in_the_address() {
        let found = |url| path(url).unwrap();
        assert_eq!(
            found("sqlite:///data/oms.db?mode=rwc"),
            Some("/data/oms.db".into())
        );
        assert_eq!(found("sqlite://shop.db"), Some("shop.db".into()));
        assert_eq!(found("postgres://oms@db/oms"), None);
        assert_eq!(beside(Path::new("a/b.db"), ".lock"), Path::new("a/b.db.lock"));
    }
}
