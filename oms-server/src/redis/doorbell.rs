//! The bell for jobs: a short list in Redis. A ring adds to it and an idle worker takes from it, so that one ring wakes one
//! worker, wherever it is, and a ring that nobody hears is kept for the next one who is idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use oms_core::jobs::Doorbell;
use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Link, PREFIX};

/// Rings within this time are one.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// More rings than anybody has workers would only make them look in vain.
const KEPT: isize = 15;
/// A shop that was closed leaves nothing behind.
const KEPT_FOR: i64 = 60;
/// How long one question waits in Redis for a ring.
const LISTEN: Duration = Duration::from_secs(2);
/// By then its answer is here, or Redis is frozen.
const LATEST: Duration = Duration::from_secs(3);
/// Between two attempts to listen, while Redis is away.
const AWAY: Duration = Duration::from_secs(1);

/// Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Bell(Arc<State>);

#[derive(Default)]
struct State {
    /// A ring is to be sent.
    ring: Notify,
    /// Somebody began to wait.
    wanted: Notify,
    waiting: AtomicUsize,
    /// A ring came for one of those who wait.
    rung: Notify,
}

impl State {
    async fn somebody_waits(&self) {
        while self.waiting.load(Ordering::SeqCst) == 0 {
            self.wanted.notified().await;
        }
    }
}

impl Bell {
    pub(super) fn start(link: &Arc<Link>, stop: &CancellationToken) -> Self {
        let bell = Self(Arc::default());
        let sending = send(Arc::clone(link), Arc::clone(&bell.0));
        let listening = listen(Arc::clone(link), Arc::clone(&bell.0));
        tokio::spawn(stop.clone().run_until_cancelled_owned(sending));
        tokio::spawn(stop.clone().run_until_cancelled_owned(listening));
        bell
    }
}

#[async_trait]
impl Doorbell for Bell {
    fn ring(&self) {
        self.0.ring.notify_one();
    }

    async fn wait(&self) {
        let _waiting = Waiting::begin(&self.0);
        self.0.rung.notified().await;
    }
}

/// Counts somebody who waits, for as long as it lives.
struct Waiting<'a>(&'a State);

impl<'a> Waiting<'a> {
    fn begin(state: &'a State) -> Self {
        state.waiting.fetch_add(1, Ordering::SeqCst);
        state.wanted.notify_one();
        Self(state)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

fn key() -> String {
    format!("{PREFIX}doorbell")
}

async fn send(link: Arc<Link>, state: Arc<State>) {
    loop {
        state.ring.notified().await;
        // When Redis is away the ring is lost, and the next look of a worker finds the job.
        link.ask(async |mut connection| {
            let mut ring = redis::pipe();
            ring.lpush(key(), 1).ltrim(key(), 0, KEPT).expire(key(), KEPT_FOR);
            ring.ignore().query_async::<()>(&mut connection).await
        })
        .await;
        sleep(DEBOUNCE).await;
    }
}

/// Takes rings from the list while somebody waits for one, and at no other time: a ring that is taken for a busy worker
/// would be lost to an idle one elsewhere.
async fn listen(link: Arc<Link>, state: Arc<State>) {
    loop {
        state.somebody_waits().await;
        hear(&link, &state).await;
        sleep(AWAY).await;
    }
}

/// Listens until it fails.
async fn hear(link: &Link, state: &State) -> Option<()> {
    // A connection of its own, since everything behind a question that waits would wait too, and without the limit that
    // the others have: it is here.
    let mut connection = link.connect(None).await.ok()?;
    loop {
        state.somebody_waits().await;
        if timeout(LATEST, take(&mut connection)).await.ok()?? {
            // Whoever waited may have been woken by something else in the meantime.
            match state.waiting.load(Ordering::SeqCst) {
                0 => state.ring.notify_one(),
                _ => state.rung.notify_one(),
            }
        }
    }
}

/// Whether somebody rang before the time was over.
async fn take(connection: &mut MultiplexedConnection) -> Option<bool> {
    let mut command = redis::cmd("BLPOP");
    command.arg(key()).arg(LISTEN.as_secs());
    let taken: Option<(String, String)> = command.query_async(connection).await.ok()?;
    Some(taken.is_some())
}
