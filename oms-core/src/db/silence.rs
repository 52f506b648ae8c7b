//! Telling work that takes long from a database that has gone silent.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Db, run};
use crate::error::{Error, Result};

/// How long nothing may be heard of a database before it counts as gone.
const SILENCE: Duration = Duration::from_secs(20);
/// How often it is asked.
const PAUSE: Duration = Duration::from_secs(3);

impl Db {
    /// Runs work whose statements may take as long as they like, such as a migration. It is given up when the database
    /// cannot be reached beside it for about half a minute; what became of it is then not known.
    pub(crate) async fn while_it_answers<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let work = Box::pin(work);
        tokio::select! {
            done = work => done,
            () = self.falls_silent() => {
                tracing::warn!("the database has not answered for {} s: giving up", SILENCE.as_secs());
                Err(Error::overloaded())
            }
        }
    }

    async fn falls_silent(&self) {
        #[cfg(feature = "sqlite")]
        if let Self::Sqlite { .. } = self {
            // A file does not go away in silence.
            return std::future::pending().await;
        }
        let mut heard = Instant::now();
        while heard.elapsed() < SILENCE {
            sleep(PAUSE).await;
            if self.answers().await.is_ok() {
                heard = Instant::now();
            }
        }
    }

    async fn answers(&self) -> Result<()> {
        let mut tx = self.routine_read().await?;
        run!(&mut tx, |conn| sqlx::query("SELECT 1")
            .execute(conn)
            .await
            .map(drop))?;
        tx.rollback().await
    }
}
