//! What the figures depend on: the machine, its disk and the databases.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::pgbench;
use super::shop::{Pool, Shop};

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// How long a durable write of one block takes in this folder, and who says so.
pub(super) fn fsync(dir: &Path, quick: bool) -> Result<String> {
    let ours = format!(
        "{:.2} ms for 8 KiB and fdatasync",
        write_and_sync(dir)?.as_secs_f64() * 1e3
    );
    let theirs = match quick {
        true => None,
        false => pg_test_fsync(dir)?,
    };
    Ok(match theirs {
        Some(line) => format!("{ours} (median); pg_test_fsync: {line}"),
        None => format!("{ours} (median); pg_test_fsync was not found or not asked"),
    })
}

fn write_and_sync(dir: &Path) -> Result<Duration> {
    let path = dir.join("fsync-test");
    let file = File::create(&path)?;
    let block = [7; 8192];
    let (begin, mut times) = (Instant::now(), Vec::new());
    while begin.elapsed() < Duration::from_secs(1) {
        let started = Instant::now();
        // In place, as the databases write their logs again and again.
        file.write_all_at(&block, 0)?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    fs::remove_file(path)?;
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("nothing was written")
}

/// Its line for one block with fdatasync, which is what PostgreSQL does on Linux; the rest takes half a minute more.
fn pg_test_fsync(dir: &Path) -> Result<Option<String>> {
    let Some(program) = pgbench::find("pg_test_fsync") else {
        return Ok(None);
    };
    let file = dir.join("pg-test-fsync");
    let mut command = Command::new(program);
    command
        .args(["-s", "1", "-f"])
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn()?;
    let stdout = child
        .stdout
        .take()
        .context("the pipe to pg_test_fsync is missing")?;
    let line = BufReader::new(stdout)
        .lines()
        .map_while(Result::ok)
        .find(|line| line.trim_start().starts_with("fdatasync"));
    // It has said what we asked, or it has ended.
    let _ = child.kill();
    child.wait()?;
    if file.exists() {
        fs::remove_file(file)?;
    }
    Ok(line.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")))
}

/// Version and durability of a database.
pub(super) async fn describe(shop: &Shop) -> Result<String> {
    let one = |sql: &'static str| async move {
        let (text,): (String,) = match &shop.pool {
            Pool::Sqlite(pool) => sqlx::query_as(sql).fetch_one(pool).await?,
            Pool::Postgres(pool) => sqlx::query_as(sql).fetch_one(pool).await?,
        };
        anyhow::Ok(text)
    };
    Ok(match shop.pool {
        // Both connections, ours and the library's, are opened with this setting.
        Pool::Sqlite(_) => format!(
            "SQLite {}, WAL, synchronous=FULL",
            one("SELECT sqlite_version()").await?
        ),
        Pool::Postgres(_) => format!(
            "PostgreSQL {}, fsync={}, synchronous_commit={}",
            one("SHOW server_version").await?,
            one("SHOW fsync").await?,
            one("SHOW synchronous_commit").await?,
        ),
    })
}
