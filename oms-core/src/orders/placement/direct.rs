//! The way past the queue: an order that finds nobody else is placed by the runtime of its caller, which takes two changes
//! of thread less. When others come they find the floor taken, and wait in the queue.

use tokio_util::sync::CancellationToken;

use super::*;

/// Places one order at a time: more would use up connections that others need.
pub(super) struct Direct<P> {
    placer: P,
    pub(super) floor: Floor,
    stop: CancellationToken,
    one: Arc<Mutex<()>>,
}

/// What an order holds that goes this way.
pub(super) struct Alone {
    floor: Held,
    _one: OwnedMutexGuard<()>,
}

impl<P: Placer> Direct<P> {
    pub(super) fn new(placer: P, floor: &Floor, stop: &CancellationToken) -> Self {
        Self {
            placer,
            floor: Arc::clone(floor),
            stop: stop.clone(),
            one: Arc::default(),
        }
    }

    /// If nobody has the floor or waits for it, and no slow order is under way here. After a batch of several more will
    /// come together, and the first of them would keep the others waiting.
    pub(super) fn alone(&self, tickets: &mpsc::Sender<Ticket>) -> Option<Alone> {
        let one = Arc::clone(&self.one).try_lock_owned().ok()?;
        let floor = Arc::clone(&self.floor).try_lock_owned().ok()?;
        let nobody_waits = tickets.capacity() == tickets.max_capacity();
        (*floor <= 1 && nobody_waits && !self.stop.is_cancelled()).then_some(Alone { floor, _one: one })
    }

    pub(super) async fn place(&self, ticket: Ticket, alone: Alone) {
        let Alone { floor, _one } = alone;
        place_held(&self.placer, vec![ticket], None, Some(floor)).await;
    }
}
