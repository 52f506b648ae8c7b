//! Flat combining: of those who come at one moment one does the work of all. Nobody waits for others to come: who is alone
//! does its own at once, and who comes while others are at work waits until it has the floor, or its answer.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::error::{Error, Result};

/// Who is at work for so long may wait for something that the others do not need: the next one begins beside it.
const SLOW: Duration = Duration::from_millis(100);

/// Where work waits.
#[derive(Debug)]
pub(crate) struct Combining<T> {
    waiting: Mutex<VecDeque<T>>,
    floor: Semaphore,
    /// The most that is done together.
    together: usize,
    capacity: usize,
}

impl<T> Combining<T> {
    /// So many may be at work at once.
    pub(crate) fn new(at_once: usize, together: usize, capacity: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            floor: Semaphore::new(at_once),
            together,
            capacity,
        }
    }

    /// Waits until somebody has done `item` and has sent its answer: perhaps the caller itself, by `work`, which may do
    /// that of others, too. So this must not be dropped before its end. [`Error::Overloaded`] at once when too much
    /// waits, and when the work was dropped without an answer.
    pub(crate) async fn take_part<A, W: Future<Output = ()>>(
        &self,
        item: T,
        mut answer: oneshot::Receiver<Result<A>>,
        work: impl Fn(Vec<T>) -> W,
    ) -> Result<A> {
        {
            let mut waiting = self.waiting();
            if waiting.len() >= self.capacity {
                return Err(Error::overloaded());
            }
            waiting.push_back(item);
        }
        let answer = loop {
            let floor = tokio::select! {
                biased;
                answer = &mut answer => break answer,
                floor = self.floor.acquire() => floor,
            };
            let items = self.next();
            if items.is_empty() {
                // Somebody has ours in hand.
                drop(floor);
                break answer.await;
            }
            let mut working = pin!(work(items));
            if timeout(SLOW, &mut working).await.is_err() {
                drop(floor);
                working.await;
            }
        };
        answer.unwrap_or_else(|_| Err(Error::overloaded()))
    }

    fn next(&self) -> Vec<T> {
        let mut waiting = self.waiting();
        let count = waiting.len().min(self.together);
        waiting.drain(..count).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::join_all;
    use shuttle::future::spawn;

    use super::*;
    use crate::interleave::{below, dawdle, explore};

    type Item = (usize, oneshot::Sender<Result<usize>>);

    /// Who waits for something that the others do not need keeps them waiting for a moment only.
    #[tokio::test]
    async fn who_is_slow_gives_the_floor_away() {
        let crowd: Combining<Item> = Combining::new(1, 2, 10);
        let (done, waits) = oneshot::channel::<()>();
        let waits = Mutex::new(Some(waits));
        let call = async |number| {
            let (reply, answer) = oneshot::channel();
            let work = |items: Vec<Item>| {
                let waits = waits.lock().unwrap().take();
                async move {
                    // The first one, until the second one is done.
                    if let Some(waits) = waits {
                        waits.await.unwrap();
                    }
                    for (number, reply) in items {
                        reply.send(Ok(number)).unwrap();
                    }
                }
            };
            crowd.take_part((number, reply), answer, work).await
        };
        let second = async {
            tokio::task::yield_now().await;
            let answer = call(2).await;
            done.send(()).unwrap();
            answer
        };
        let (first, second) = tokio::join!(call(1), second);
        assert_eq!((first.unwrap(), second.unwrap()), (1, 2));
    }

    /// In every order of events that a scheduler finds.
    #[test]
    fn everybody_is_answered_once() {
        explore(500, async || {
            let (at_once, capacity) = (1 + below(2), 2 + below(4));
            let crowd: Arc<Combining<Item>> = Arc::new(Combining::new(at_once, 2, capacity));
            let busy = Arc::new(Mutex::new(0));
            let callers = (0..5).map(|number| {
                let (crowd, busy) = (Arc::clone(&crowd), Arc::clone(&busy));
                spawn(async move {
                    let mut refused = 0;
                    for _ in 0..2 {
                        dawdle(2).await;
                        let (reply, answer) = oneshot::channel();
                        let busy = &busy;
                        let work = |items: Vec<Item>| async move {
                            assert!((1..=2).contains(&items.len()));
                            *busy.lock().unwrap() += 1;
                            assert!(*busy.lock().unwrap() <= at_once);
                            dawdle(2).await;
                            *busy.lock().unwrap() -= 1;
                            for (number, reply) in items {
                                reply.send(Ok(number)).unwrap();
                            }
                        };
                        match crowd.take_part((number, reply), answer, work).await {
                            Ok(answer) => assert_eq!(answer, number),
                            Err(_) => refused += 1,
                        }
                    }
                    refused
                })
            });
            let mut refused = 0;
            for done in join_all(callers.collect::<Vec<_>>()).await {
                refused += done.unwrap();
            }
            assert!(refused == 0 || capacity < 5);
            assert!(crowd.next().is_empty());
        });
    }
}
