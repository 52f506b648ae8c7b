//! Redis, for several servers and workers side by side: a bell for jobs and limits that are counted together.
//!
//! It never holds truth and may vanish at any moment. One task keeps the connection: whoever asks gets it or is told at
//! once that Redis is away, and what fails or takes longer than [`PATIENCE`] turns Redis off for everybody until that
//! task has reached it again. So a Redis that is dead, frozen or full costs the requests of one moment that much time, and
//! the others none.

mod doorbell;
mod limiter;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use oms_core::payments::Secret;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisResult};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use doorbell::Bell;

/// The most that anybody waits for an answer.
const PATIENCE: Duration = Duration::from_millis(50);
/// The most that a connection may take, with its greeting.
const CONNECT: Duration = Duration::from_secs(1);
/// How often a connection that nobody uses is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Between two attempts to reach it: the first time, and at the most.
const AWAY_FIRST: Duration = Duration::from_millis(100);
const AWAY_LONGEST: Duration = Duration::from_secs(2);
/// A connection that held this long was a good one: the next pause is a short one again.
const STEADY: Duration = Duration::from_secs(10);

/// Every key begins with it, so that an access list can grant just these.
const PREFIX: &str = "oms:";

/// A handle; cloning is cheap. Its tasks end with the last clone.
#[derive(Clone)]
pub struct Redis {
    link: Arc<Link>,
    bell: Bell,
    _tasks: Arc<DropGuard>,
}

/// The connection, while there is one that works.
struct Link {
    client: Client,
    live: watch::Sender<Option<Live>>,
}

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    /// Which connection it is: a failure of an earlier one says nothing about this one.
    number: u64,
}

/// Whether an address can be used, without using it. The message does not repeat it: it may hold a password.
pub(crate) fn check_url(url: &str) -> Result<(), &'static str> {
    if ["rediss:", "valkeys:"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
    {
        return Err("TLS is not built in: use redis:// in a private network, or a tunnel");
    }
    let expected = "must be an address such as redis://:password@host:6379/0 or unix:///run/redis.sock";
    Client::open(url).map(drop).map_err(|_| expected)
}

impl Redis {
    /// Begins to reach it, in tasks of their own; nothing waits for it.
    pub fn start(url: &Secret) -> Result<Self> {
        let cannot = "REDIS_URL cannot be used";
        let info = url.reveal().into_connection_info().ok().context(cannot)?;
        // One small question at a time must not wait for others to fill a packet.
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let client = Client::open(info.set_tcp_settings(tcp)).ok().context(cannot)?;
        let stop = CancellationToken::new();
        let link = Arc::new(Link {
            client,
            live: watch::Sender::new(None),
        });
        let bell = Bell::start(&link, &stop);
        tokio::spawn(stop.clone().run_until_cancelled_owned(keep(Arc::clone(&link))));
        Ok(Self {
            link,
            bell,
            _tasks: Arc::new(stop.drop_guard()),
        })
    }

    /// Whether it works, as far as is known: at the latest after a few seconds.
    pub fn is_up(&self) -> bool {
        self.link.live.borrow().is_some()
    }

    /// Wakes workers of other processes.
    pub fn doorbell(&self) -> impl oms_core::jobs::Doorbell + use<> {
        self.bell.clone()
    }
}

impl Link {
    /// Says something and waits for the answer. None when Redis is away or turns out to be.
    async fn ask<T, F>(&self, talk: impl FnOnce(MultiplexedConnection) -> F) -> Option<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let live = self.live.borrow().clone()?;
        let number = live.number;
        match patiently(talk(live.connection)).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.fail(number, &error);
                None
            }
        }
    }

    fn fail(&self, number: u64, error: &str) {
        let was_live = self.live.send_if_modified(|live| {
            let ours = live.as_ref().is_some_and(|live| live.number == number);
            if ours {
                *live = None;
            }
            ours
        });
        // Many requests may find out at once; the first one tells.
        if was_live {
            metrics::gauge!("oms_redis_up").set(0.0);
            tracing::warn!(
                error,
                "Redis cannot be used: limits are counted by each process, and jobs wait until workers look"
            );
        }
    }

    async fn connect(&self, response_timeout: Option<Duration>) -> Result<MultiplexedConnection, String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(response_timeout);
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        connecting.await.map_err(|e| e.to_string())
    }
}

/// Keeps a connection that works in `live`, for ever.
async fn keep(link: Arc<Link>) {
    let (mut number, mut pause) = (0, AWAY_FIRST);
    // What follows from a failure is said when it happens, and from this one only at the start.
    let mut told = false;
    loop {
        match reach(&link).await {
            Ok(connection) => {
                number += 1;
                told = true;
                tracing::info!("Redis can be used");
                metrics::gauge!("oms_redis_up").set(1.0);
                link.live.send_replace(Some(Live { connection, number }));
                let since = tokio::time::Instant::now();
                watch_over(&link, number).await;
                if since.elapsed() > STEADY {
                    pause = AWAY_FIRST;
                }
            }
            Err(error) if !told => {
                told = true;
                metrics::gauge!("oms_redis_up").set(0.0);
                tracing::warn!(
                    error,
                    "Redis cannot be reached: limits are counted by each process, and jobs wait until workers look"
                );
            }
            Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(AWAY_LONGEST);
    }
}

/// A connection over which something was written: a Redis that is full, still loads or is a replica takes connections
/// and answers.
async fn reach(link: &Link) -> Result<MultiplexedConnection, String> {
    let connection = link.connect(Some(PATIENCE)).await?;
    patiently(write(connection.clone())).await?;
    Ok(connection)
}

/// Until this connection has failed, whoever found out.
async fn watch_over(link: &Link, number: u64) {
    let mut changes = link.live.subscribe();
    while link.live.borrow().is_some() {
        // Whatever ends the wait, the connection is looked at.
        if timeout(LOOK, changes.changed()).await.is_err() {
            link.ask(write).await;
        }
    }
    tracing::debug!(number, "a connection to Redis was given up");
}

async fn write(mut connection: MultiplexedConnection) -> RedisResult<()> {
    let mut command = redis::cmd("SET");
    command.arg(format!("{PREFIX}probe")).arg(1).arg("EX").arg(60);
    command.query_async(&mut connection).await
}

async fn patiently<T>(talk: impl Future<Output = RedisResult<T>>) -> Result<T, String> {
    match timeout(PATIENCE, talk).await {
        Ok(answer) => answer.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no answer within {} ms", PATIENCE.as_millis())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_never_repeated() {
        for good in [
            "redis://localhost",
            "redis://:geheim@localhost:6380/3",
            "unix:///run/redis.sock",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for wrong in [
            "localhost:6379",
            "http://:geheim@localhost",
            "redis://:geheim@localhost/x",
            "redis://:geheim@localhost:port",
            "rediss://:geheim@localhost",
            "redis://",
        ] {
            let error = check_url(wrong).unwrap_err();
            assert!(!error.contains("geheim"), "{error}");
        }
    }
}
