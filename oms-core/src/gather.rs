//! How a batch comes together, without a timer.

use tokio::sync::mpsc::Receiver;
use tokio::task::yield_now;

/// How often in a row nobody came before nobody is expected any more. Tasks of several threads wake one another, so that
/// once is too little: with 3, callers that were answered together come back together.
const CALM: u32 = 3;

/// Takes what waits. When that makes fewer than `enough`, callers that were just answered and ask again, and requests that
/// have arrived meanwhile, are let run and are taken as well, as long as some come. Alone it costs microseconds.
///
/// Half of the batch before is enough: callers who work between two orders then come in two crowds, one of which is
/// served while the other works.
pub(crate) async fn gather<T>(
    waiting: &mut Receiver<T>,
    batch: &mut Vec<T>,
    enough: usize,
    is_full: impl Fn(&[T]) -> bool,
) {
    let mut calm = 0;
    while !is_full(batch) {
        match waiting.try_recv() {
            Ok(next) => {
                batch.push(next);
                calm = 0;
            }
            Err(_) if calm == CALM || (1..=batch.len()).contains(&enough) => return,
            Err(_) => {
                calm += 1;
                yield_now().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn those_who_are_about_to_come_are_waited_for() {
        let (sender, mut waiting) = mpsc::channel(100);
        for caller in 0..10 {
            let sender = sender.clone();
            tokio::spawn(async move {
                // One after the other, as each is woken by another thread.
                for _ in 0..=caller {
                    yield_now().await;
                }
                sender.send(caller).await.unwrap();
            });
        }
        let mut batch = vec![];
        gather(&mut waiting, &mut batch, 0, |_| false).await;
        batch.sort_unstable();
        assert_eq!(batch, (0..10).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn nobody_is_waited_for_when_enough_are_there() {
        let (sender, mut waiting) = mpsc::channel(100);
        sender.send(1).await.unwrap();
        let late = sender.clone();
        tokio::spawn(async move { late.send(2).await.unwrap() });
        let mut batch = vec![0];
        gather(&mut waiting, &mut batch, 2, |_| false).await;
        assert_eq!(batch, [0, 1]);
        // One is fewer than two.
        let mut batch = vec![];
        gather(&mut waiting, &mut batch, 2, |_| false).await;
        assert_eq!(batch, [2]);
    }

    #[tokio::test]
    async fn a_full_batch_leaves_the_rest() {
        let (sender, mut waiting) = mpsc::channel(100);
        for caller in 1..=5 {
            sender.send(caller).await.unwrap();
        }
        let mut batch = vec![0];
        gather(&mut waiting, &mut batch, 0, |batch| batch.len() >= 3).await;
        assert_eq!(batch, [0, 1, 2]);
        // Nobody else comes, and nobody is waited for.
        gather(&mut waiting, &mut batch, 0, |batch| batch.len() >= 100).await;
        assert_eq!(batch, [0, 1, 2, 3, 4, 5]);
    }
}
