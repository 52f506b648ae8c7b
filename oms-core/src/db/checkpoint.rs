//! SQLite's log is written back into the file beside the writer, by a connection of its own.
//!
//! By itself SQLite does that within a commit, when the log has become long enough, and everybody whose order is in that
//! batch or behind it waits until the file is synchronised as well. Only the end of it has to be the writer's: it begins
//! the log anew when all of it is written back, which under load nobody beside it ever sees. So its own limit remains,
//! and then finds little left to do.

use std::time::Duration;

use sqlx::SqlitePool;
use tokio::sync::watch;
use tokio::time::sleep;

/// After a commit the log is looked at, at most so often.
const PAUSE: Duration = Duration::from_millis(20);

/// So many pages are worth the synchronisation of the file: what changes often is written back once for all of them.
const WORTH_IT: i64 = 1_000;

/// Until the writer is gone or `pool` is closed. `committed` tells that there may be more in the log.
pub(super) async fn keep_writing_back(pool: SqlitePool, mut committed: watch::Receiver<()>) {
    while committed.changed().await.is_ok() {
        sleep(PAUSE).await;
        match write_back(&pool).await {
            Ok(()) => {}
            Err(sqlx::Error::PoolClosed) => return,
            // Nothing is lost: it stands in the log, and the writer will try it too, and tell.
            Err(error) => tracing::debug!(%error, "the log of changes was not written back"),
        }
    }
}

async fn write_back(pool: &SqlitePool) -> sqlx::Result<()> {
    let (pages, done) = in_log(pool).await?;
    if pages - done >= WORTH_IT {
        // Waits for nobody, and keeps nobody waiting.
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(pool)
            .await?;
    }
    Ok(())
}

/// Pages in the log, and how many of them are written back. Libraries before SQLite 3.51 do not only look: they write
/// back at once.
async fn in_log(pool: &SqlitePool) -> sqlx::Result<(i64, i64)> {
    let (_, pages, done): (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(NOOP)")
        .fetch_one(pool)
        .await?;
    Ok((pages, done))
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::db::{Db, run};

    /// Far fewer pages than the writer waits for.
    #[tokio::test]
    async fn what_is_in_the_log_comes_into_the_file_without_the_writer() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("log.db").display());
        let db = Db::connect(&url, 1).await.unwrap();
        for sql in [
            "CREATE TABLE page (text TEXT)",
            "INSERT INTO page WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
             SELECT hex(zeroblob(2000)) FROM n",
        ] {
            let mut tx = db.write().await.unwrap();
            run!(&mut tx, |conn| sqlx::query(sql).execute(conn).await.map(drop)).unwrap();
            tx.commit().await.unwrap();
        }
        let looking = SqlitePool::connect(&url).await.unwrap();
        let written_back = async {
            loop {
                let (pages, done) = in_log(&looking).await.unwrap();
                if pages >= WORTH_IT && pages == done {
                    return;
                }
                sleep(PAUSE).await;
            }
        };
        timeout(Duration::from_secs(10), written_back).await.unwrap();
        looking.close().await;

        let started = Instant::now();
        db.close().await;
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "it keeps the file open"
        );
        assert!(
            !folder.path().join("log.db-wal").exists(),
            "somebody has it open still"
        );
    }
}
