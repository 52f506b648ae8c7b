//! Connections to PostgreSQL.
//!
//! A pool of our own: that of sqlx 0.9 loses a slot for ever when a connection dies in silence (its issue 4349), asks
//! each connection for a sign of life before and after every use, and lets any number of callers wait. Here `BEGIN` is
//! the sign of life, every wait ends, and only a connection that is known to be in order is used again. Giving one up
//! waits for nothing: its socket is closed, which is the rollback. Reads that need no transaction have none, so that
//! under load each costs its own round trips alone.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::CLOSE;
use crate::error::connection_lost;

/// From asking for a transaction until it has begun; then the caller is told to come back.
const ACQUIRE: Duration = Duration::from_secs(3);
/// How long a connection that lay idle may take to answer `BEGIN` before it counts as dead.
const SIGN_OF_LIFE: Duration = Duration::from_millis(1500);
/// A connection that was in use so short a time ago is taken for alive by those who only look.
const WARM: Duration = Duration::from_millis(100);
/// How long a statement may take. A little more than the server's own limit, so that it ends here only when the server
/// does not answer at all.
const STATEMENT: Duration = Duration::from_millis(4500);
/// The same for whoever reads the whole database.
const LONG_STATEMENT: Duration = Duration::from_secs(3600);
const ROLLBACK: Duration = Duration::from_secs(1);
/// Callers that may wait for each connection. More are told to come back at once.
const WAITING: usize = 16;
/// A server that is away is asked again after so long, and then less and less often.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_LAST: Duration = Duration::from_millis(250);
const LONGEST_IDLE: Duration = Duration::from_secs(10 * 60);
/// Backends grow with what they have seen.
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 60);

/// A bounded set of connections. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    options: PgConnectOptions,
    size: u32,
    /// One for each connection that may be in use.
    slots: Arc<Semaphore>,
    /// One for each caller that may wait for a slot.
    places: Semaphore,
    /// The last one used stands at the end and is taken first.
    idle: Mutex<VecDeque<Idle>>,
    closed: AtomicBool,
}

struct Idle {
    connection: PgConnection,
    born: Instant,
    since: Instant,
}

/// A transaction. Dropping it rolls back in the background; one whose last statement was cut off is closed at once.
pub(crate) struct PgTx {
    /// None once it has ended.
    held: Option<Held>,
    /// False when it only looks: each statement stands by itself, and there is nothing to roll back.
    begun: bool,
    /// How long each statement may take.
    limit: Duration,
    /// A statement was sent, and its answer was not read to its end.
    busy: bool,
}

struct Held {
    connection: PgConnection,
    born: Instant,
    pool: Pool,
    /// After the pool's things: free when the connection is back or closed.
    _slot: OwnedSemaphorePermit,
}

impl Pool {
    /// Opens the first connection at once, so that a wrong address or password shows.
    pub(crate) async fn open(options: PgConnectOptions, size: u32) -> sqlx::Result<Self> {
        let pool = Self::new(options, size);
        pool.begin("BEGIN").await?.rollback().await;
        Ok(pool)
    }

    /// Opens connections when they are wanted.
    pub(crate) fn new(options: PgConnectOptions, size: u32) -> Self {
        let slots = usize::try_from(size).unwrap_or(Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            options,
            size,
            slots: Arc::new(Semaphore::new(slots)),
            places: Semaphore::new(slots.saturating_mul(WAITING).min(Semaphore::MAX_PERMITS)),
            idle: Mutex::default(),
            closed: AtomicBool::new(false),
        }))
    }

    /// How its connections are made.
    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.0.options
    }

    /// Connections that may be open.
    pub(crate) fn most(&self) -> u32 {
        self.0.size
    }

    /// Connections that are open, in use or not.
    pub(crate) fn size(&self) -> u32 {
        let free = u32::try_from(self.0.slots.available_permits()).unwrap_or(u32::MAX);
        let idle = u32::try_from(self.num_idle()).unwrap_or(u32::MAX);
        self.0.size.saturating_sub(free).saturating_add(idle)
    }

    /// Connections that are open and not in use.
    pub(crate) fn num_idle(&self) -> usize {
        self.0.idle().len()
    }

    /// Begins a transaction with this statement. Errors: none could be begun in time, or too many wait already.
    pub(crate) async fn begin(&self, statement: &'static str) -> sqlx::Result<PgTx> {
        self.start(Some(statement)).await
    }

    /// As [`Pool::begin`], for statements that only read and need no common transaction. A connection that was in use
    /// a moment ago costs no round trip here; if it has died since then, the first statement fails.
    pub(crate) async fn look(&self) -> sqlx::Result<PgTx> {
        self.start(None).await
    }

    async fn start(&self, begin: Option<&'static str>) -> sqlx::Result<PgTx> {
        let until = Instant::now() + ACQUIRE;
        timeout_at(until, self.start_until(begin, until))
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn start_until(&self, begin: Option<&'static str>, until: Instant) -> sqlx::Result<PgTx> {
        let slot = self.slot().await?;
        let begun = begin.is_some();
        while let Some(mut idle) = self.0.take_idle() {
            if !begun && idle.since.elapsed() < WARM {
                return Ok(self.hold(idle.connection, idle.born, slot, begun));
            }
            let sign = idle.connection.execute(begin.unwrap_or("SELECT 1"));
            match timeout(SIGN_OF_LIFE, sign).await {
                Ok(Ok(_)) => return Ok(self.hold(idle.connection, idle.born, slot, begun)),
                // What ended this one has probably ended the others. Nothing is lost with them. An error of another
                // kind is that of a session in a state which a new one does not share.
                Ok(Err(_)) | Err(_) => self.0.forget_idle(),
            }
        }
        let mut connection = self.connect(until).await?;
        if let Some(begin) = begin {
            connection.execute(begin).await?;
        }
        Ok(self.hold(connection, Instant::now(), slot, begun))
    }

    async fn slot(&self) -> sqlx::Result<OwnedSemaphorePermit> {
        let slots = self.0.slots.clone();
        let slot = match slots.clone().try_acquire_owned() {
            Err(TryAcquireError::NoPermits) => {
                let _place = self
                    .0
                    .places
                    .try_acquire()
                    .map_err(|_| sqlx::Error::PoolTimedOut)?;
                slots.acquire_owned().await.ok()
            }
            taken => taken.ok(),
        };
        slot.filter(|_| !self.0.closed.load(Ordering::Acquire))
            .ok_or(sqlx::Error::PoolClosed)
    }

    /// Insists while the server is away: a restart that takes a moment fails nobody.
    async fn connect(&self, until: Instant) -> sqlx::Result<PgConnection> {
        let mut pause = RETRY_FIRST;
        loop {
            match self.0.options.connect().await {
                // When there is no time left, the caller learns why.
                Err(e) if connection_lost(&e) && Instant::now() + pause < until => sleep(pause).await,
                done => return done,
            }
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    fn hold(&self, connection: PgConnection, born: Instant, slot: OwnedSemaphorePermit, begun: bool) -> PgTx {
        let held = Held {
            connection,
            born,
            pool: self.clone(),
            _slot: slot,
        };
        PgTx {
            held: Some(held),
            begun,
            limit: STATEMENT,
            busy: false,
        }
    }

    /// Begins nothing more, waits a while for what is under way, and takes leave of the server.
    pub(crate) async fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        let all = timeout(CLOSE, self.0.slots.acquire_many(self.0.size)).await;
        if all.is_err() {
            tracing::warn!("a transaction did not end in time and is cut off");
        }
        self.0.slots.close();
        let idle = std::mem::take(&mut *self.0.idle());
        // All at once: of a server that is silent none would hear. It finds out by itself if this does not reach it.
        let leaving = idle
            .into_iter()
            .map(|idle| timeout(ROLLBACK, idle.connection.close()));
        drop(join_all(leaving).await);
    }
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        // Nothing that holds the lock can leave the list half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_idle(&self) -> Option<Idle> {
        self.idle().pop_back()
    }

    fn forget_idle(&self) {
        let gone = std::mem::take(&mut *self.idle());
        if !gone.is_empty() {
            tracing::info!(connections = gone.len(), "closing idle connections: one was dead");
        }
    }
}

impl Held {
    /// The transaction has ended: the next caller may use its connection.
    fn give_back(self) {
        let now = Instant::now();
        if now - self.born > LONGEST_LIFE || self.pool.0.closed.load(Ordering::Acquire) {
            return;
        }
        let mut idle = self.pool.0.idle();
        idle.push_back(Idle {
            connection: self.connection,
            born: self.born,
            since: now,
        });
        // Those at the front were needed only when more was going on.
        while idle.front().is_some_and(|idle| now - idle.since > LONGEST_IDLE) {
            idle.pop_front();
        }
    }

    async fn roll_back(mut self) {
        if let Ok(Ok(_)) = timeout(ROLLBACK, self.connection.execute("ROLLBACK")).await {
            self.give_back();
        }
    }
}

impl PgTx {
    /// Gives every statement as long as it takes to read a whole database.
    pub(crate) async fn take_your_time(&mut self) -> sqlx::Result<()> {
        let lift = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";
        let until = self.enter();
        let answer = timeout_at(until, self.execute(lift)).await;
        self.leave(answer)?;
        self.limit = LONG_STATEMENT;
        Ok(())
    }

    /// A statement begins; when its answer must be there. See `limited!`.
    pub(crate) fn enter(&mut self) -> Instant {
        self.busy = true;
        Instant::now() + self.limit
    }

    /// A statement has ended, or its time has.
    pub(crate) fn leave<T>(&mut self, answer: Result<sqlx::Result<T>, Elapsed>) -> sqlx::Result<T> {
        let answer = answer.unwrap_or_else(|_| {
            // What has silenced this connection has probably silenced the idle ones.
            if let Some(held) = &self.held {
                held.pool.0.forget_idle();
            }
            let silent = io::Error::new(io::ErrorKind::TimedOut, "the server did not answer in time");
            Err(sqlx::Error::Io(silent))
        });
        // A connection that broke is as little use as one that still owes an answer.
        self.busy = answer.as_ref().is_err_and(connection_lost);
        if let (true, false, Some(held)) = (self.busy, self.begun, &self.held) {
            // Nobody had asked this one for a sign of life, and nobody would ask the others.
            held.pool.0.forget_idle();
        }
        answer
    }

    /// An error leaves open whether it was kept, if it is one of the connection.
    pub(crate) async fn commit(mut self) -> sqlx::Result<()> {
        let until = self.enter();
        let answer = timeout_at(until, self.execute("COMMIT")).await;
        let committed = self.leave(answer).map(drop);
        if !self.busy
            && let Some(held) = self.held.take()
        {
            match &committed {
                Ok(()) => held.give_back(),
                // A commit that was canceled in time leaves the session in a transaction that has failed.
                Err(_) => held.roll_back().await,
            }
        }
        committed
    }

    /// Cannot fail: a connection that does not answer is closed, which undoes everything as well.
    pub(crate) async fn rollback(mut self) {
        if !self.busy
            && let Some(held) = self.held.take()
        {
            if self.begun {
                held.roll_back().await;
            } else {
                held.give_back();
            }
        }
    }
}

impl Drop for PgTx {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else {
            return;
        };
        // What is dropped in the middle of a statement or outside of the runtime is closed.
        match (self.busy, Handle::try_current()) {
            (false, Ok(_)) if !self.begun => held.give_back(),
            (false, Ok(runtime)) => drop(runtime.spawn(held.roll_back())),
            _ => {}
        }
    }
}

impl Deref for PgTx {
    type Target = PgConnection;

    #[expect(
        clippy::expect_used,
        reason = "it is taken only by what consumes or drops the transaction"
    )]
    fn deref(&self) -> &PgConnection {
        &self.held.as_ref().expect("the transaction has ended").connection
    }
}

impl DerefMut for PgTx {
    #[expect(
        clippy::expect_used,
        reason = "it is taken only by what consumes or drops the transaction"
    )]
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.held.as_mut().expect("the transaction has ended").connection
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PgTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgTx")
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}
