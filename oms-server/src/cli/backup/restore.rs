//! A backup in the place of the database.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use oms_core::{Actor, Clock, Oms, SystemClock};
use sqlx::{Connection, SqliteConnection};

use super::{Contents, Draft, check, media, postgres};
use crate::config::Config;
use crate::sqlite_file::{self, Claim, beside, sync_folder_of};
use crate::{secrets, setup};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The backup
    file: PathBuf,
    /// Also bring back pictures that are missing, from this folder
    #[arg(long, value_name = "FOLDER")]
    media: Option<PathBuf>,
    /// Replace a database that is not empty; the old one is kept beside it
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(config: &Config, options: &Options) -> Result<ExitCode> {
    let Some(database) = sqlite_file::path(&config.database_url)? else {
        let line = postgres::restore(&config.database_url, &options.file, SystemClock.now())?;
        return super::elsewhere(
            "PostgreSQL is restored by its own programs, into a fresh database while no server runs",
            &line,
        );
    };
    setup::make_data_dir(config)?;
    // From here to the end no program of ours can open the database.
    let _claim = Claim::alone(&database)?;
    let old = Old::take(&database, options.force).await?;
    let draft = Draft(beside(&database, ".restoring"));
    let contents = prepare(&options.file, &draft).await?;
    let owner = Owner::of_database(&database)?;
    // Before the database is replaced: what fails here has changed nothing. A picture that is there too early harms
    // nobody, since its name says what it is.
    let (pictures, missing) = match &options.media {
        Some(folder) => (
            Some(media::bring_back(config, &draft.0, folder, &owner).await?),
            Some(0),
        ),
        None => (None, missing(config, &draft.0).await),
    };
    owner.take_over(&draft.0)?;
    let kept = replace(&database, &draft.0, &old)?;
    // From here on the database is another one, whatever else happens: that is told first.
    let reported = report(options, &database, contents, kept, pictures, missing)?;
    sync_folder_of(&database)
        .context("the database was replaced, but may be the old one after a power failure")?;
    if let Old::Held(conn) = old
        && let Err(e) = conn.close().await
    {
        // It only ends its transaction in a file that has another name now.
        tracing::warn!(error = %e, "the database that was replaced could not be closed");
    }
    Ok(reported)
}

/// None when the store does not say: it is no reason not to restore.
async fn missing(config: &Config, draft: &Path) -> Option<usize> {
    match media::missing(config, draft).await {
        Ok(missing) => Some(missing),
        Err(e) => {
            super::super::say(format_args!(
                "oms-server: whether pictures are missing is not known: {e:#}"
            ));
            None
        }
    }
}

/// Whose the restored files are to be: root may restore, but the server has to open them.
pub(super) struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    /// Of the database that is there, or else of its folder.
    fn of_database(database: &Path) -> Result<Self> {
        let folder = match database.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let found = fs::metadata(database).or_else(|_| fs::metadata(folder));
        let found = found.with_context(|| format!("cannot read {}", folder.display()))?;
        Ok(Self {
            user: found.uid(),
            group: found.gid(),
        })
    }

    /// Makes it theirs when it is root's. What anybody else makes is their own, as it has always been.
    pub(super) fn take_over(&self, path: &Path) -> Result<()> {
        let is = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        if is.uid() != 0 || (is.uid(), is.gid()) == (self.user, self.group) {
            return Ok(());
        }
        std::os::unix::fs::chown(path, Some(self.user), Some(self.group))
            .with_context(|| format!("cannot give {} to the owner of the database", path.display()))
    }
}

/// The database that is about to be replaced.
enum Old {
    None,
    /// Whole, and locked for as long as this lives: programs that know nothing of our lock file cannot write to it.
    Held(Box<SqliteConnection>),
    /// SQLite cannot read it: the reason why somebody restores.
    Broken,
}

impl Old {
    async fn take(database: &Path, force: bool) -> Result<Self> {
        if !database.exists() {
            return Ok(Self::None);
        }
        match hold(database).await {
            Ok((conn, filled)) => {
                if let Some(table) = filled.first()
                    && !force
                {
                    let count = filled.len();
                    bail!(
                        "{} is not empty ({table} and {} other tables): --force replaces it",
                        database.display(),
                        count - 1
                    );
                }
                Ok(Self::Held(Box::new(conn)))
            }
            Err(e) if is_busy(&e) => bail!("{} is in use by another program", database.display()),
            Err(e) if force => {
                super::super::say(format_args!(
                    "oms-server: the database that is replaced cannot be read: {e}"
                ));
                Ok(Self::Broken)
            }
            Err(e) => Err(e).with_context(|| {
                format!(
                    "{} cannot be read; --force replaces it all the same",
                    database.display()
                )
            }),
        }
    }
}

/// Leaving the write-ahead log is possible for the only connection alone, and puts all of it into the one file.
async fn hold(database: &Path) -> sqlx::Result<(SqliteConnection, Vec<String>)> {
    let mut conn = sqlite_file::connect(database).await?;
    for pragma in ["PRAGMA busy_timeout = 0", "PRAGMA journal_mode = DELETE"] {
        sqlx::query(pragma).fetch_all(&mut conn).await?;
    }
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut conn).await?;
    let filled = sqlite_file::filled_tables(&mut conn).await?;
    Ok((conn, filled))
}

/// SQLITE_BUSY and SQLITE_LOCKED, without what their extended codes add.
fn is_busy(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(e) = error else {
        return false;
    };
    let code = e.code().and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

/// A copy of the backup that holds what it promises: whole, ours, with the schema of this program, every rule kept.
async fn prepare(file: &Path, draft: &Draft) -> Result<Contents> {
    let journal = beside(file, "-wal");
    if journal.metadata().is_ok_and(|journal| journal.len() > 0) {
        bail!(
            "{} has a journal beside it: it is a database in use, not a backup",
            file.display()
        );
    }
    let copy = &draft.0;
    for ending in ["", "-journal", "-wal", "-shm"] {
        // What a killed restore has left; nobody else restores now.
        let _ = fs::remove_file(beside(copy, ending));
    }
    secrets::write_private(copy, &[])?;
    fs::copy(file, copy).with_context(|| format!("cannot copy {}", file.display()))?;
    fs::set_permissions(copy, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let contents = check(copy)
        .await
        .with_context(|| format!("{} is refused", file.display()))?;
    let verified = upgrade_and_verify(copy).await;
    verified.with_context(|| format!("{} is refused", file.display()))?;
    let mut conn = sqlite_file::connect(copy).await?;
    sqlx::query("PRAGMA journal_mode = DELETE")
        .fetch_all(&mut conn)
        .await?;
    conn.close().await?;
    File::open(copy)?.sync_all()?;
    Ok(contents)
}

async fn upgrade_and_verify(copy: &Path) -> Result<()> {
    let oms = Oms::builder(format!("sqlite://{}", copy.display()))
        .connect()
        .await?;
    let version = oms.schema_version().await?;
    if version.applied > version.known {
        let (theirs, ours) = (version.applied, version.known);
        bail!(
            "its schema has version {theirs}, and this program knows {ours}: restore it with the program that wrote it"
        );
    }
    oms.migrate().await?;
    let violations = oms.verify(&Actor::System).await?;
    oms.shutdown().await;
    match violations.first() {
        Some(first) => bail!("it breaks {} rules, such as: {first}", violations.len()),
        None => Ok(()),
    }
}

/// One rename: before it the old database is there, after it the new one. Returns where the old one is.
fn replace(database: &Path, draft: &Path, old: &Old) -> Result<Option<PathBuf>> {
    let now = SystemClock.now().as_secs();
    let kept = beside(database, &format!(".replaced-{now}"));
    if !matches!(old, Old::None) {
        fs::hard_link(database, &kept).with_context(|| format!("cannot make {}", kept.display()))?;
    }
    if matches!(old, Old::Broken) {
        // Its journal would be taken for the new one's.
        for ending in ["-wal", "-journal", "-shm"] {
            let journal = beside(database, ending);
            if journal.exists() {
                fs::rename(&journal, beside(&kept, ending))?;
            }
        }
    }
    fs::rename(draft, database).with_context(|| format!("cannot write {}", database.display()))?;
    Ok((!matches!(old, Old::None)).then_some(kept))
}

fn report(
    options: &Options,
    database: &Path,
    contents: Contents,
    kept: Option<PathBuf>,
    pictures: Option<media::Saved>,
    missing: Option<usize>,
) -> Result<ExitCode> {
    let Contents {
        users,
        orders,
        payments,
        ..
    } = contents;
    if options.json {
        let result = serde_json::json!({"database": database, "users": users, "orders": orders, "payments": payments,
            "replaced": kept, "pictures_restored": pictures.map(|saved| saved.copied), "pictures_missing": missing});
        return super::super::print(&format!("{result}\n"));
    }
    let mut text = format!(
        "{}: {users} users, {orders} orders, {payments} payments\n",
        database.display()
    );
    if let Some(kept) = kept {
        text += &format!("the database that was there is {}\n", kept.display());
    }
    if let Some(saved) = pictures {
        text += &format!(
            "{} pictures brought back, {} were there\n",
            saved.copied, saved.present
        );
    }
    if let Some(missing) = missing.filter(|missing| *missing > 0) {
        text += &format!("{missing} pictures are missing: give --media FOLDER\n");
    }
    super::super::print(&text)
}
