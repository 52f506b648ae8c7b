//! The way past the queue: an order that finds nobody else is placed by the runtime of its caller, which takes two changes
//! of thread less. When others come they find the floor taken, and wait in the queue.

use tokio_util::sync::CancellationToken;

use super::*;

/// Places one order at a time.
pub(super) struct Direct<P> {
    pub(super) placer: P,
    pub(super) floor: Floor,
    pub(super) stop: CancellationToken,
}

impl<P: Placer> Direct<P> {
    /// The floor, if nobody has it or waits for it. After a batch of several more will come together, and the first of
    /// them would keep the others waiting.
    pub(super) fn floor_if_alone(&self, tickets: &mpsc::Sender<Ticket>) -> Option<Held> {
        let floor = Arc::clone(&self.floor).try_lock_owned().ok()?;
        let nobody_waits = tickets.capacity() == tickets.max_capacity();
        (*floor <= 1 && nobody_waits && !self.stop.is_cancelled()).then_some(floor)
    }

    pub(super) async fn place(&self, ticket: Ticket, floor: Held) {
        let begun = contained(self.placer.begin()).await;
        place_held(&self.placer, vec![ticket], begun, Some(floor)).await;
    }
}
