//! A shop from SQLite to PostgreSQL, or back.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use oms_core::{Actor, Copied, CopyStep, ErrorKind, Oms};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::time::timeout;

use super::table;
use crate::config::Config;
use crate::sqlite_file::{self, Claim};

/// How long PostgreSQL may take to be reached, and to say who uses it.
const REACHED: Duration = Duration::from_secs(15);

/// How long the server that was just stopped, or an earlier try that was killed, may take to leave PostgreSQL.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(super) struct Options {
    /// The database that has the shop
    #[arg(long, value_name = "URL")]
    from: String,
    /// The database that gets it: of the other kind, and empty
    #[arg(long, value_name = "URL")]
    to: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, options: &Options) -> Result<ExitCode> {
    let is_sqlite = |url: &str| url.starts_with("sqlite:");
    if is_sqlite(&options.from) == is_sqlite(&options.to) {
        bail!(
            "--from and --to are of one kind: `oms-server backup` and `restore` copy a database to its own kind"
        );
    }
    let _claims = (
        claim(&options.from, true).await?,
        claim(&options.to, false).await?,
    );
    let source = open(&options.from).await.context("--from")?;
    let target = open(&options.to).await.context("--to")?;
    let copied = copy(&source, &target).await;
    target.shutdown().await;
    source.shutdown().await;
    report(config, &copied?, options.json)
}

/// Nobody else may use either of them.
async fn claim(url: &str, must_exist: bool) -> Result<Option<Claim>> {
    if let Some(path) = sqlite_file::path(url)? {
        if must_exist && !path.exists() {
            bail!("there is no database {}", path.display());
        }
        return Claim::alone(&path).map(Some);
    }
    let options = PgConnectOptions::from_str(url)
        .ok()
        .context("this is no address of a database")?;
    timeout(REACHED, nobody_else(options))
        .await
        .context("PostgreSQL does not answer")??;
    Ok(None)
}

async fn nobody_else(options: PgConnectOptions) -> Result<()> {
    let mut conn = options
        .application_name("oms-server migrate-data")
        .connect()
        .await
        .context("cannot open PostgreSQL")?;
    let since = Instant::now();
    loop {
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'oms' AND pid <> pg_backend_pid()";
        let others: i64 = sqlx::query_scalar(sql).fetch_one(&mut conn).await?;
        if others == 0 {
            return Ok(conn.close().await?);
        }
        if since.elapsed() > PATIENCE {
            bail!("PostgreSQL is in use by {others} connections of servers or workers: stop them");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// With the newest schema, on both sides.
async fn open(url: &str) -> Result<Oms> {
    let oms = Oms::builder(url)
        .connect()
        .await
        .context("cannot open the database")?;
    oms.migrate()
        .await
        .context("cannot bring the schema up to date")?;
    Ok(oms)
}

async fn copy(source: &Oms, target: &Oms) -> Result<Copied> {
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("{msg:32} [{bar:40}] {human_pos}/{human_len} {elapsed}")?
            .progress_chars("=> "),
    );
    let progress = |step: CopyStep| match step {
        CopyStep::Copying { table, rows, of } => {
            bar.set_length(of);
            bar.set_position(rows);
            bar.set_message(table);
        }
        CopyStep::Compared { table, rows } => {
            bar.set_length(rows);
            bar.set_position(rows);
            bar.set_message(format!("compared {table}"));
        }
        _ => bar.set_message("verifying"),
    };
    let copied = source.copy_to(&Actor::System, target, progress).await;
    bar.finish_and_clear();
    copied.map_err(|e| {
        let what = match e.kind() {
            ErrorKind::Overloaded => {
                "the connection broke: look into the target before you go on with either database"
            }
            _ => "nothing was copied",
        };
        anyhow::Error::new(e).context(what)
    })
}

fn report(config: &Config, copied: &Copied, json: bool) -> Result<ExitCode> {
    if json {
        let tables: serde_json::Map<_, _> = copied
            .tables
            .iter()
            .map(|(name, rows)| (name.clone(), (*rows).into()))
            .collect();
        let counters: serde_json::Map<_, _> = copied
            .counters
            .iter()
            .map(|(name, last)| (name.clone(), (*last).into()))
            .collect();
        let result = serde_json::json!({"tables": tables, "counters": counters});
        return super::print(&format!("{result}\n"));
    }
    let rows: Vec<_> = copied
        .tables
        .iter()
        .map(|(name, rows)| [name.clone(), rows.to_string()])
        .collect();
    let mut text = table::table(["table", "rows"], &rows);
    for (name, last) in &copied.counters {
        text += &format!("{name} goes on after {last}\n");
    }
    let place = config.media.place();
    text += &format!(
        "Every row was read again and compared, and both sides passed verify.\n\
         Now set DATABASE_URL. Pictures stay where they are: {place}. Keep the old database, unused.\n"
    );
    super::print(&text)
}
