//! The queue in every order of events that a scheduler finds. The database is a map here; everything else is the code
//! that runs in production.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex as Plain, MutexGuard};

use futures_util::future::{Either, join_all, select};
use shuttle::future::{JoinHandle, spawn};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::decide::{Offer, judge};
use super::*;
use crate::actor::Actor;
use crate::id::{BusinessId, UserId, VariantId};
use crate::interleave::{below, dawdle, explore};
use crate::orders::model::NewLine;

/// An order that breaks every batch it is in.
const POISON: &str = "poison";

/// What a database keeps.
#[derive(Clone)]
struct Memory {
    kept: Arc<Plain<Kept>>,
    /// How many may write at once.
    writers: usize,
    free: Arc<Semaphore>,
}

struct Kept {
    offers: HashMap<String, Offer>,
    /// Keys, with the fingerprint and the order of each.
    made: HashMap<Uuid, (Vec<u8>, OrderId)>,
    units: i64,
    /// Orders and lines of every batch.
    batches: Vec<(usize, usize)>,
    /// One of so many batches finds the database away.
    away: Option<usize>,
    /// Orders that were in such a batch.
    turned_away: HashSet<Uuid>,
}

const STOCK: i64 = 7;

impl Memory {
    fn new(writers: usize, away: Option<usize>) -> Self {
        let nobody = Uuid::nil();
        let mug = Offer {
            variant: VariantId::from_uuid(nobody),
            business: BusinessId::from_uuid(nobody),
            name: "Mug".into(),
            price: crate::Money::new(1_299, "EUR".parse().unwrap()).unwrap(),
            available: STOCK,
        };
        let kept = Arc::new(Plain::new(Kept {
            offers: [("MUG".to_owned(), mug)].into(),
            made: HashMap::new(),
            units: 0,
            batches: Vec::new(),
            away,
            turned_away: HashSet::new(),
        }));
        let free = Arc::new(Semaphore::new(writers));
        Self { kept, writers, free }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }
}

impl Kept {
    /// What one transaction does for one order.
    fn place(&mut self, ticket: &Ticket) -> Result<Placed> {
        if let Some((fingerprint, id)) = self.made.get(&ticket.claim.id) {
            let id = ticket.claim.judge(fingerprint, id.uuid())?;
            return Ok(Placed::Replay(OrderId::from_uuid(id)));
        }
        let sale = judge(&ticket.draft, &mut self.offers)?;
        self.units += sale.lines.iter().map(|line| line.quantity).sum::<i64>();
        let id = OrderId::from_uuid(Uuid::from_u128(self.made.len() as u128));
        let fingerprint = ticket.claim.fingerprint.clone();
        self.made.insert(ticket.claim.id, (fingerprint, id));
        // For the caller an order is an order, whether this call made it or another one.
        Ok(Placed::Replay(id))
    }
}

impl Placer for Memory {
    type Begun = OwnedSemaphorePermit;

    async fn begin(&self) -> Result<Self::Begun> {
        dawdle(2).await;
        Ok(Arc::clone(&self.free).acquire_owned().await.unwrap())
    }

    fn begins_early(&self) -> bool {
        self.writers > 1
    }

    async fn place_together(&self, _: Self::Begun, batch: &[Ticket]) -> Result<Vec<Result<Placed>>> {
        assert!(!batch.is_empty());
        let keys: HashSet<Uuid> = batch.iter().map(|ticket| ticket.claim.id).collect();
        assert_eq!(keys.len(), batch.len(), "a batch holds a key twice");
        let lines = batch.iter().map(|ticket| ticket.draft.lines.len());
        self.kept().batches.push((batch.len(), lines.sum()));
        dawdle(2).await;
        if batch
            .iter()
            .any(|ticket| ticket.draft.note.as_deref() == Some(POISON))
        {
            return Err(Error::Internal(POISON.into()));
        }
        let away = self.kept().away;
        if away.is_some_and(|one_of| below(one_of) == 0) {
            self.kept().turned_away.extend(keys);
            return Err(Error::overloaded());
        }
        let placed = {
            let mut kept = self.kept();
            batch.iter().map(|ticket| kept.place(ticket)).collect()
        };
        dawdle(2).await;
        Ok(placed)
    }
}

/// Both ways in.
#[derive(Clone)]
struct Ways {
    queue: Queue,
    direct: Arc<Direct<Memory>>,
}

fn queue(tickets: mpsc::Sender<Ticket>) -> Queue {
    Queue {
        tickets,
        direct: None,
        tasks: TaskTracker::new(),
    }
}

/// The ways in, and the combiners at work.
fn open(
    memory: &Memory,
    capacity: usize,
    combiners: usize,
    stop: &CancellationToken,
) -> (Ways, Vec<JoinHandle<()>>) {
    let (tickets, waiting) = mpsc::channel(capacity);
    let (waiting, floor) = (Arc::new(Mutex::new(waiting)), Floor::default());
    let direct = Arc::new(Direct::new(memory.clone(), &floor, stop));
    let work = (0..combiners).map(|_| {
        let combiner = Combiner {
            placer: memory.clone(),
            waiting: Arc::clone(&waiting),
            floor: Arc::clone(&floor),
        };
        spawn(combiner.keep_running(stop.clone()))
    });
    let queue = queue(tickets);
    (Ways { queue, direct }, work.collect())
}

fn claim(key: &str, draft: &Draft) -> Claim {
    let key = key.parse().unwrap();
    Claim::new(&Actor::System, "place_order", "", &key, &draft.lines).unwrap()
}

fn draft(units: i64, note: Option<&str>) -> Draft {
    let line = NewLine {
        sku: "MUG".into(),
        quantity: units,
    };
    Draft {
        user: UserId::from_uuid(Uuid::nil()),
        lines: vec![line],
        shipping_address: None,
        note: note.map(Into::into),
    }
}

type Answer = oneshot::Receiver<Result<Placed>>;

fn ticket(claim: Claim, draft: Draft) -> (Ticket, Answer) {
    let (reply, answer) = oneshot::channel();
    let ticket = Ticket {
        claim,
        draft,
        reply,
        span: Span::none(),
    };
    (ticket, answer)
}

/// Hands an order in without a limit of time, as [`Queue::place`] does. Nothing when the queue is full or closed.
fn hand_in(ways: &Ways, claim: Claim, draft: Draft) -> Option<Answer> {
    let (ticket, answer) = ticket(claim, draft);
    if let Some(alone) = ways.direct.alone(&ways.queue.tickets) {
        let direct = Arc::clone(&ways.direct);
        spawn(async move { direct.place(ticket, alone).await });
        return Some(answer);
    }
    ways.queue.tickets.try_send(ticket).ok().map(|()| answer)
}

/// Customers who share keys, an order that breaks batches, a database that goes away and a server that is stopped at any
/// moment: whoever got in is answered, and told the truth.
#[test]
fn every_order_that_got_in_is_answered() {
    explore(1_000, async || {
        // One combiner and the direct way, which share a writer; or two and the direct way, with one each.
        let writers = [1, 3][below(2)];
        let memory = Memory::new(writers, (below(2) == 0).then_some(4));
        let stop = CancellationToken::new();
        let (ways, work) = open(&memory, 3, writers.min(2), &stop);
        let customers = (0..4).map(|_| {
            let (ways, memory) = (ways.clone(), memory.clone());
            spawn(async move {
                for _ in 0..2 {
                    dawdle(2).await;
                    order(&ways, &memory, below(4)).await;
                }
            })
        });
        let customers: Vec<_> = customers.collect();
        // Either the server stops, or everybody who may order goes away.
        if below(2) == 0 {
            dawdle(20).await;
            stop.cancel();
        }
        let gone = ways.queue.filled();
        assert!(gone.0 <= gone.1);
        drop(ways);
        for done in join_all(customers).await.into_iter().chain(join_all(work).await) {
            done.unwrap();
        }
        let kept = memory.kept();
        assert_eq!(kept.offers["MUG"].available, STOCK - kept.units);
        assert!(kept.units <= STOCK, "oversold");
    });
}

/// Orders under one of four keys; the last is poison, the third asks for more than there is.
async fn order(ways: &Ways, memory: &Memory, number: usize) {
    let draft = match number {
        3 => draft(1, Some(POISON)),
        2 => draft(STOCK + 1, None),
        _ => draft(3, None),
    };
    let claim = claim(&format!("key-{number}"), &draft);
    let id = claim.id;
    let Some(answer) = hand_in(ways, claim, draft) else {
        return;
    };
    let answer = answer.await.expect("an order got in and was never answered");
    let kept = memory.kept();
    let was_away = kept.turned_away.contains(&id);
    match (number, answer) {
        (0 | 1, Ok(Placed::Replay(order))) => {
            assert_eq!(kept.made[&id].1, order, "one key has two orders");
        }
        (2, Err(Error::OutOfStock(_))) => {}
        (3, Err(Error::Internal(_))) => {}
        (_, Err(Error::Overloaded { .. })) => assert!(was_away, "told to come back for nothing"),
        (_, other) => panic!("order {number}: {other:?}"),
    }
}

/// Callers lose patience at any moment and come back with their keys: each key has one order in the end, and each of
/// those who stayed is told of it.
#[test]
fn whoever_went_away_finds_the_order_by_its_key() {
    explore(1_000, async || {
        let memory = Memory::new(3, None);
        let stop = CancellationToken::new();
        let (ways, work) = open(&memory, 16, 2, &stop);
        let customers = (0..3).map(|number| {
            let (queue, memory) = (ways.queue.clone(), memory.clone());
            spawn(async move {
                let draft = draft(2, None);
                let claim = claim(&format!("key-{number}"), &draft);
                let id = claim.id;
                for _ in 0..below(3) {
                    let (first, patience) = (queue.place(claim.clone(), draft.clone()), dawdle(6));
                    if let Either::Left((answer, _)) = select(pin!(first), pin!(patience)).await {
                        told(&memory, id, &answer);
                    }
                }
                told(&memory, id, &queue.place(claim, draft).await);
            })
        });
        for done in join_all(customers.collect::<Vec<_>>()).await {
            done.unwrap();
        }
        stop.cancel();
        for done in join_all(work).await {
            done.unwrap();
        }
        let kept = memory.kept();
        assert_eq!((kept.made.len(), kept.units), (3, 6));
    });
}

fn told(memory: &Memory, id: Uuid, answer: &Result<Placed>) {
    let Ok(Placed::Replay(order)) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(memory.kept().made[&id].1, *order);
}

/// More waits than fits into a batch: batches are as large as they may be and not larger, and stopping leaves nothing
/// behind.
#[test]
fn batches_keep_their_limits() {
    explore(20, async || {
        let many_lines = below(2) == 0;
        let memory = Memory::new(3, None);
        let stop = CancellationToken::new();
        let (tickets, waiting) = mpsc::channel(400);
        let queue = queue(tickets);
        let answers: Vec<Answer> = (0..400)
            .map(|n| {
                let mut draft = draft(1, None);
                if many_lines {
                    let unknown = (0..200).map(|n| NewLine {
                        sku: format!("UNKNOWN-{n}"),
                        quantity: 1,
                    });
                    draft.lines.extend(unknown.take(below(200)));
                }
                let claim = claim(&format!("key-{}", n % 300), &draft);
                let (ticket, answer) = ticket(claim, draft);
                queue.tickets.try_send(ticket).unwrap();
                answer
            })
            .collect();
        let late = draft(1, None);
        let (late, _) = ticket(claim("late", &late), late);
        assert!(queue.tickets.try_send(late).is_err(), "the queue is full");
        let (waiting, floor) = (Arc::new(Mutex::new(waiting)), Arc::default());
        let work: Vec<_> = (0..2)
            .map(|_| {
                let combiner = Combiner {
                    placer: memory.clone(),
                    waiting: Arc::clone(&waiting),
                    floor: Arc::clone(&floor),
                };
                spawn(combiner.keep_running(stop.clone()))
            })
            .collect();
        dawdle(8).await;
        stop.cancel();
        for done in join_all(work).await {
            done.unwrap();
        }
        for mut answer in answers {
            let answer = answer.try_recv().expect("the combiners ended without an answer");
            // What the map found wrong is a panic, which the combiners outlive.
            assert!(!matches!(answer, Err(Error::Internal(_))), "{answer:?}");
        }
        let batches = memory.kept().batches.clone();
        let (orders, lines) = (batches.iter().map(|b| b.0), batches.iter().map(|b| b.1));
        let (orders, lines) = (orders.max().unwrap(), lines.max().unwrap());
        assert!(
            orders <= MAX_ORDERS && lines < MAX_LINES + 200,
            "{orders} orders, {lines} lines"
        );
        match many_lines {
            true => assert!(lines > MAX_LINES - 200, "{lines} lines are the most"),
            false => assert_eq!(orders, MAX_ORDERS),
        }
    });
}
