//! Placing: set-based group commit.
//!
//! Callers put their orders into a bounded queue. A combiner takes one and begins a transaction; when the batch before is
//! done it takes whatever else waits and places them together. One order is a batch of one, which its caller's runtime
//! places when nobody else is there. There is no timer: alone when idle, larger under load. Each order is atomic, isolated
//! and durable before its reply, as if it had a transaction of its own: the rows it takes stay locked until the commit,
//! the update is guarded, and the table has a CHECK beneath.

mod decide;
mod direct;
#[cfg(test)]
mod interleavings;
#[cfg(feature = "testing")]
mod rehearsal;
#[cfg(test)]
#[cfg(all(feature = "sqlite", feature = "postgres"))]
mod tests;
mod write;

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

pub(super) use decide::Draft;
use direct::Direct;
#[cfg(feature = "testing")]
pub use rehearsal::Rehearsal;

use super::model::Order;
use crate::db::{Commit, Db, Tx};
use crate::error::{Error, Result};
use crate::gather::gather;
use crate::id::OrderId;
use crate::idempotency::Claim;
use crate::panics::{BREATH, contained};
use crate::telemetry;
use crate::time::Clock;

/// The most orders of one batch.
const MAX_ORDERS: usize = 128;
/// A batch with so many lines takes no further order: it has fewer, and those of its last order.
const MAX_LINES: usize = 1_000;

/// A batch that is under way for so long may wait for a row that another one does not need.
const SLOW: Duration = Duration::from_millis(100);

/// How long a caller waits for its answer. Longer than a batch takes to find out that the database is silent.
const PATIENCE: Duration = Duration::from_secs(8);

/// The way in.
#[derive(Clone)]
pub(crate) struct Queue {
    tickets: mpsc::Sender<Ticket>,
    /// None in tests of the queue by itself.
    direct: Option<Arc<Direct<Database>>>,
    tasks: TaskTracker,
}

/// What became of an order.
#[derive(Debug)]
pub(super) enum Placed {
    Fresh(Box<Order>),
    /// The key had made this order before.
    Replay(OrderId),
}

/// An order on its way through the queue.
#[derive(Debug)]
struct Ticket {
    claim: Claim,
    draft: Draft,
    reply: oneshot::Sender<Result<Placed>>,
    /// What the batch is a part of, for each of its callers.
    span: Span,
}

impl Queue {
    /// Starts the combiners. They end when the queue is dropped or `stop` is canceled, after what waits is placed: from
    /// then on only for those who still wait for the answer, so that the end comes soon when the database is away.
    pub(crate) fn start(
        db: &Db,
        clock: &Arc<dyn Clock>,
        expiry: Duration,
        capacity: usize,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let (tickets, waiting) = mpsc::channel(capacity);
        let (waiting, floor) = (Arc::new(Mutex::new(waiting)), Floor::default());
        let placer = |begin| Database {
            db: db.clone(),
            clock: Arc::clone(clock),
            expiry,
            begin,
        };
        let direct = Arc::new(Direct::new(placer(Begin::Here), &floor, stop));
        let combiners = (0..db.writers()).map(|_| {
            let combiner = Combiner {
                placer: placer(Begin::OnTheThread),
                waiting: Arc::clone(&waiting),
                floor: Arc::clone(&floor),
            };
            combiner.keep_running(stop.clone())
        });
        let (all, db) = (join_all(combiners), db.clone());
        on_a_thread(tasks.track_future(async move {
            all.await;
            db.close_placing().await;
        }))?;
        Ok(Self {
            tickets,
            direct: Some(direct),
            tasks: tasks.clone(),
        })
    }

    /// Orders that wait for a batch, and how many may.
    pub(crate) fn filled(&self) -> (usize, usize) {
        let most = self.tickets.max_capacity();
        (most.saturating_sub(self.tickets.capacity()), most)
    }

    /// Waits until the order is durable or refused. Full: [`Error::Overloaded`] at once. A caller that goes away, or has
    /// waited too long, does not cancel its order: the retry finds the key.
    pub(super) async fn place(&self, claim: Claim, draft: Draft) -> Result<Placed> {
        let (reply, answer) = oneshot::channel();
        let ticket = Ticket {
            claim,
            draft,
            reply,
            span: Span::current(),
        };
        if let Some(direct) = &self.direct
            && let Some(alone) = direct.alone(&self.tickets)
        {
            let direct = Arc::clone(direct);
            self.tasks.spawn(async move { direct.place(ticket, alone).await });
        } else {
            self.tickets.try_send(ticket).map_err(|_| {
                telemetry::orders_answered("queue_full", 1);
                Error::overloaded()
            })?;
        }
        // No answer: the combiner is gone or in trouble, and nobody knows how far it came.
        let answer = timeout(PATIENCE, answer).await;
        answer
            .ok()
            .and_then(std::result::Result::ok)
            .unwrap_or_else(|| Err(Error::overloaded()))
    }
}

/// Beside the runtime of the caller: a step of a batch would wait there for its turn among thousands of requests that are
/// turned away, and under the greatest load the fewest orders would be placed.
fn on_a_thread(work: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    if cfg!(test) {
        // Unit tests see and disturb what is done by means of their own thread.
        tokio::spawn(work);
        return Ok(());
    }
    let failed = |e| Error::Internal(format!("orders have no thread to be placed by: {e}"));
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    thread::Builder::new()
        .name("oms-placement".into())
        .spawn(move || runtime.block_on(work))
        .map(drop)
        .map_err(failed)
}

/// Who places a batch. The database, but in tests of what the queue does to its callers.
trait Placer {
    /// An open transaction.
    type Begun: Send;

    fn begin(&self) -> impl Future<Output = Result<Self::Begun>> + Send;

    /// Whether a transaction may be begun while another one is open. Where there is one writer, who waits for it must
    /// have the floor already: the one who has the floor may need it, too.
    fn begins_early(&self) -> bool;

    /// One transaction for all. The results stand in the order of the tickets.
    fn place_together(
        &self,
        begun: Self::Begun,
        batch: &[Ticket],
    ) -> impl Future<Output = Result<Vec<Result<Placed>>>> + Send;
}

/// Takes batches from the queue and places them, one at a time. Several take turns: while one places, the next one has
/// its first ticket and its transaction already.
struct Combiner<P> {
    placer: P,
    waiting: Arc<Mutex<mpsc::Receiver<Ticket>>>,
    floor: Floor,
}

/// Whoever holds it may place a batch; it keeps how many orders the last one had. What comes while one is being placed is
/// better placed together after it than in small pieces beside it, which would mostly wait for its rows.
type Floor = Arc<Mutex<usize>>;
type Held = OwnedMutexGuard<usize>;

impl<P: Placer> Combiner<P> {
    /// A panic drops the orders that were in hand, whose callers are told to come back with their keys; the others are
    /// served on.
    async fn keep_running(self, stop: CancellationToken) {
        let run = async || {
            self.run(&stop).await;
            Ok(())
        };
        while let Err(error) = contained(run()).await {
            tracing::error!(%error, "placing orders begins anew");
            sleep(BREATH).await;
        }
    }

    async fn run(&self, stop: &CancellationToken) {
        // Orders whose key stood in the last batch already: by now they find what it made.
        let mut carried = Vec::new();
        while let Some((mut batch, begun, floor)) = self.next(carried, stop).await {
            // A full one has others waiting behind it.
            let floor = Some(floor).filter(|_| !is_full(&batch));
            if stop.is_cancelled() {
                batch.retain(|ticket| !ticket.reply.is_closed());
            }
            (batch, carried) = part_twins(batch);
            place_held(&self.placer, batch, Some(begun), floor).await;
        }
    }

    /// One ticket, a transaction, the floor, then whatever else waits by then, within the limits. Nothing when the queue
    /// has ended.
    async fn next(
        &self,
        mut batch: Vec<Ticket>,
        stop: &CancellationToken,
    ) -> Option<(Vec<Ticket>, Result<P::Begun>, Held)> {
        let mut waiting = if batch.is_empty() {
            Some(self.waiting.lock().await)
        } else {
            // Another combiner may hold the queue while it waits for a first ticket: ours are here already.
            self.waiting.try_lock().ok()
        };
        if let Some(waiting) = &mut waiting {
            if stop.is_cancelled() {
                // Those who would come again and again would be served for ever.
                waiting.close();
            }
            if batch.is_empty() {
                batch.push(first(waiting, stop).await?);
            }
        }
        let begin = contained(self.placer.begin());
        let floor = Arc::clone(&self.floor).lock_owned();
        let (begun, mut floor) = if self.placer.begins_early() {
            (begin.await, floor.await)
        } else {
            let floor = floor.await;
            (begin.await, floor)
        };
        if let Some(waiting) = &mut waiting {
            gather(waiting, &mut batch, *floor / 2, is_full).await;
        }
        *floor = batch.len();
        Some((batch, begun, floor))
    }
}

/// As [`place`], with the floor until this batch is done, or slow.
async fn place_held<P: Placer>(
    placer: &P,
    batch: Vec<Ticket>,
    begun: Option<Result<P::Begun>>,
    floor: Option<Held>,
) {
    let span = telemetry::batch("orders", batch.iter().map(|ticket| &ticket.span));
    let mut placing = pin!(place(placer, batch, begun).instrument(span));
    if timeout(SLOW, &mut placing).await.is_err() {
        drop(floor);
        placing.await;
    }
}

/// Places the batch, in the transaction that was begun for it if any, and answers every ticket. A batch that fails is
/// split in halves, so that one bad order cannot fail its neighbours.
async fn place<P: Placer>(placer: &P, batch: Vec<Ticket>, mut begun: Option<Result<P::Begun>>) {
    let mut parts = vec![batch];
    while let Some(mut part) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        tracing::trace!(orders = part.len(), "placing a batch");
        let started = Instant::now();
        let placing = async {
            let begun = match begun.take() {
                Some(begun) => begun,
                None => placer.begin().await,
            };
            placer.place_together(begun?, &part).await
        };
        // After a panic in the commit the orders may stand: their halves, and later their callers, find them.
        let placed = contained(placing).await;
        telemetry::batch_placed(part.len(), started.elapsed(), placed.is_ok());
        match placed {
            Ok(results) => {
                count(&results);
                for (ticket, result) in part.into_iter().zip(results) {
                    // The caller may have gone away; its order stands.
                    drop(ticket.reply.send(result));
                }
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, orders = part.len(), "a batch was not placed");
                telemetry::orders_answered("failed", part.len());
                for ticket in part {
                    drop(ticket.reply.send(Err(Error::overloaded())));
                }
            }
            Err(error) if part.len() == 1 => {
                tracing::error!(%error, "an order was not placed");
                telemetry::orders_answered("failed", 1);
                if let Some(ticket) = part.pop() {
                    drop(ticket.reply.send(Err(error)));
                }
            }
            Err(error) => {
                tracing::warn!(%error, orders = part.len(), "a batch failed: trying its halves");
                let second = part.split_off(part.len() / 2);
                parts.extend([second, part]);
            }
        }
    }
}

/// Waits for the first ticket of a batch. Nothing when the queue has ended.
async fn first(waiting: &mut mpsc::Receiver<Ticket>, stop: &CancellationToken) -> Option<Ticket> {
    tokio::select! {
        biased;
        first = waiting.recv() => first,
        () = stop.cancelled() => {
            // Nobody new comes in; what waits is placed.
            waiting.close();
            waiting.recv().await
        }
    }
}

/// Takes no further order.
fn is_full(batch: &[Ticket]) -> bool {
    let lines = || batch.iter().map(|ticket| ticket.draft.lines.len()).sum::<usize>();
    batch.len() >= MAX_ORDERS || lines() >= MAX_LINES
}

struct Database {
    db: Db,
    clock: Arc<dyn Clock>,
    expiry: Duration,
    begin: Begin,
}

/// Which connections are used: a connection to PostgreSQL belongs to the runtime that opened it.
#[derive(Clone, Copy)]
enum Begin {
    Here,
    OnTheThread,
}

impl Placer for Database {
    type Begun = Tx;

    async fn begin(&self) -> Result<Tx> {
        match self.begin {
            Begin::Here => self.db.routine().await,
            Begin::OnTheThread => self.db.placing().await,
        }
    }

    fn begins_early(&self) -> bool {
        self.db.writers() > 1
    }

    async fn place_together(&self, begun: Tx, batch: &[Ticket]) -> Result<Vec<Result<Placed>>> {
        // Twice: a commit whose outcome was lost is looked up by simply running again, since the keys are unique.
        // What was committed then answers as a replay.
        let mut begun = Some(begun);
        for _ in 0..2 {
            let mut tx = match begun.take() {
                Some(tx) => tx,
                None => self.begin().await?,
            };
            let now = self.clock.now();
            let results = match write::batch(&mut tx, batch, now, now + self.expiry).await {
                Ok(results) => results,
                Err(error) => {
                    // A connection that is broken needs no rollback and refuses one.
                    drop(tx.rollback().await);
                    return Err(error);
                }
            };
            match tx.commit_or_unknown().await {
                Commit::Done => return Ok(results),
                Commit::Failed(error) => return Err(error),
                Commit::Unknown => tracing::warn!(
                    orders = batch.len(),
                    "the outcome of a commit is unknown: looking"
                ),
            }
        }
        Err(Error::overloaded())
    }
}

fn count(results: &[Result<Placed>]) {
    let of = |wanted: &str| {
        let named = results.iter().map(|result| match result {
            Ok(Placed::Fresh(_)) => "placed",
            Ok(Placed::Replay(_)) => "replayed",
            Err(_) => "refused",
        });
        named.filter(|name| *name == wanted).count()
    };
    for outcome in ["placed", "replayed", "refused"] {
        telemetry::orders_answered(outcome, of(outcome));
    }
}

/// Keeps the first ticket of each key; the others wait for the next batch, where they find what it made.
fn part_twins(batch: Vec<Ticket>) -> (Vec<Ticket>, Vec<Ticket>) {
    let mut seen = HashSet::new();
    batch.into_iter().partition(|ticket| seen.insert(ticket.claim.id))
}
