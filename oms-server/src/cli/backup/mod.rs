//! A copy of the whole database while the server runs.

mod media;
mod postgres;
pub(super) mod restore;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use sqlx::SqliteConnection;

use crate::config::Config;
use crate::secrets;
use crate::sqlite_file::{self, beside, sync_folder_of};

/// Nothing was done here: what to run instead was printed.
const NOT_HERE: u8 = 3;

#[derive(clap::Args)]
pub(super) struct Options {
    /// The file to write
    file: PathBuf,
    /// Also copy pictures that are not there yet into this folder
    #[arg(long, value_name = "FOLDER")]
    media: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What a backup holds, as people count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Contents {
    users: i64,
    orders: i64,
    payments: i64,
    pictures: i64,
}

pub(super) async fn run(config: &Config, options: &Options) -> Result<ExitCode> {
    let Some(database) = sqlite_file::path(&config.database_url)? else {
        let line = postgres::dump(&config.database_url, &options.file)?;
        return elsewhere("a backup of PostgreSQL is made by its own program", &line);
    };
    let (draft, contents) = draft(&database, &options.file, options.force).await?;
    // Before the backup has its name: once it is there it is whole, pictures included.
    let copied = match &options.media {
        Some(folder) => Some(media::save(config, &draft.0, folder).await?),
        None => None,
    };
    let bytes = publish(&draft.0, &options.file, options.force)?;
    report(config, options, contents, bytes, copied)
}

/// Says what to run, and by the exit status that it was not done.
fn elsewhere(why: &str, line: &str) -> Result<ExitCode> {
    super::say(format_args!(
        "oms-server: {why}; nothing was done. Run what is printed; the password comes from PGPASSWORD or ~/.pgpass"
    ));
    super::print(&format!("{line}\n"))?;
    Ok(ExitCode::from(NOT_HERE))
}

/// A copy under another name that was checked. Then it is made durable, then it gets its name: there is never half a
/// backup.
async fn draft(database: &Path, file: &Path, force: bool) -> Result<(Draft, Contents)> {
    if !database.exists() {
        bail!("there is no database {}", database.display());
    }
    if file.exists() {
        if same(database, file) {
            bail!("{} is the database itself", file.display());
        }
        if !force {
            bail!("{} is there already: --force replaces it", file.display());
        }
    }
    let draft = Draft(beside(file, &format!(".draft-{}", secrets::random_text(6)?)));
    // Made before SQLite writes it, so that nobody else can ever read it: it holds what customers wrote.
    secrets::write_private(&draft.0, &[])?;
    copy(database, &draft.0).await?;
    let contents = check(&draft.0).await?;
    Ok((draft, contents))
}

/// One read transaction: writers go on meanwhile, and the copy is of one moment.
async fn copy(database: &Path, draft: &Path) -> Result<()> {
    let target = draft.to_str().context("the file's name is no text")?;
    let mut conn = sqlite_file::connect(database)
        .await
        .context("cannot open the database")?;
    sqlx::query("VACUUM INTO $1")
        .bind(target)
        .execute(&mut conn)
        .await
        .context("cannot copy the database")?;
    sqlx::Connection::close(conn).await?;
    Ok(())
}

/// A backup that nobody has read is none.
async fn check(file: &Path) -> Result<Contents> {
    let mut conn = sqlite_file::connect(file).await.context("cannot open the copy")?;
    let damages = sqlite_file::damages(&mut conn)
        .await
        .context("cannot check the copy")?;
    if let Some(first) = damages.first() {
        bail!("the copy is damaged, and so may be the database: {first}");
    }
    let contents = contents(&mut conn).await.context("this is no database of oms")?;
    sqlx::Connection::close(conn).await?;
    Ok(contents)
}

async fn contents(conn: &mut SqliteConnection) -> sqlx::Result<Contents> {
    let (users, orders, payments, pictures) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM oms_user), (SELECT count(*) FROM oms_order),
                (SELECT count(*) FROM oms_payment), (SELECT count(*) FROM oms_media)",
    )
    .fetch_one(conn)
    .await?;
    Ok(Contents {
        users,
        orders,
        payments,
        pictures,
    })
}

/// Returns how many bytes it has.
fn publish(draft: &Path, file: &Path, force: bool) -> Result<u64> {
    let cannot = || format!("cannot write {}", file.display());
    let written = File::open(draft)?;
    // SQLite does not do this for `VACUUM INTO`.
    written.sync_all().with_context(cannot)?;
    let bytes = written.metadata()?.len();
    let published = match force {
        true => std::fs::rename(draft, file),
        // A link, not a rename: it fails when another has made the file meanwhile.
        false => std::fs::hard_link(draft, file),
    };
    published.with_context(cannot)?;
    sync_folder_of(file)?;
    Ok(bytes)
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn report(
    config: &Config,
    options: &Options,
    contents: Contents,
    bytes: u64,
    copied: Option<media::Saved>,
) -> Result<ExitCode> {
    let Contents {
        users,
        orders,
        payments,
        pictures,
    } = contents;
    if options.json {
        let pictures_copied = copied.map(|saved| saved.copied);
        let result = serde_json::json!({"file": options.file, "bytes": bytes, "users": users, "orders": orders,
            "payments": payments, "pictures": pictures, "pictures_copied": pictures_copied});
        return super::print(&format!("{result}\n"));
    }
    let file = options.file.display();
    let mut text = format!("{file}: {bytes} bytes, {users} users, {orders} orders, {payments} payments\n");
    match (copied, &options.media) {
        (Some(saved), Some(folder)) => {
            let media::Saved { copied, present } = saved;
            text += &format!(
                "{}: {copied} pictures copied, {present} were there\n",
                folder.display()
            );
        }
        _ if pictures > 0 => {
            let place = config.media.place();
            text += &format!("{pictures} pictures are not in it: give --media FOLDER, or copy {place}\n");
        }
        _ => {}
    }
    super::print(&text)
}

/// Removed when it is dropped, whatever came of it.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        for ending in ["", "-journal", "-wal", "-shm"] {
            // Most are not there: after a rename none is.
            let _ = std::fs::remove_file(beside(&self.0, ending));
        }
    }
}
