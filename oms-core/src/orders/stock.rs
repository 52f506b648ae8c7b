//! What orders do to stock: always under row locks taken in the order of the variants' ids.

use super::model::Order;
use crate::actor::Actor;
use crate::db::{Table, Tx, lock};
use crate::error::Result;
use crate::id::VariantId;
use crate::inventory::{self, Cause};
use crate::time::Timestamp;

/// Gives back what is allocated to the open units of the order.
pub(super) async fn release(tx: &mut Tx, order: &Order, actor: &Actor, now: Timestamp) -> Result<()> {
    let deltas: Vec<_> = open(order)
        .into_iter()
        .map(|(variant, units)| (variant, 0, -units))
        .collect();
    apply(tx, order, actor, Cause::Release, &deltas, now).await
}

/// Takes units out of the house: `shipped` says how many of each variant.
pub(super) async fn ship(
    tx: &mut Tx,
    order: &Order,
    shipped: &[(VariantId, i64)],
    actor: &Actor,
    now: Timestamp,
) -> Result<()> {
    let deltas: Vec<_> = shipped
        .iter()
        .map(|(variant, units)| (*variant, -units, -units))
        .collect();
    apply(tx, order, actor, Cause::Ship, &deltas, now).await
}

/// Allocates the open units of an order again; false, and nothing taken, when a line does not fit any more.
pub(super) async fn reallocate(tx: &mut Tx, order: &Order, actor: &Actor, now: Timestamp) -> Result<bool> {
    let wanted = open(order);
    lock_all(tx, wanted.iter().map(|(variant, _)| *variant)).await?;
    inventory::store::try_allocate(tx, now, &actor.to_string(), order.id, &wanted).await
}

async fn apply(
    tx: &mut Tx,
    order: &Order,
    actor: &Actor,
    cause: Cause,
    deltas: &[(VariantId, i64, i64)],
    now: Timestamp,
) -> Result<()> {
    lock_all(tx, deltas.iter().map(|(variant, _, _)| *variant)).await?;
    inventory::store::apply(tx, now, &actor.to_string(), Some(order.id), cause, deltas).await
}

async fn lock_all(tx: &mut Tx, variants: impl Iterator<Item = VariantId>) -> Result<()> {
    let ids: Vec<_> = variants.map(VariantId::uuid).collect();
    lock(tx, Table::Stock, &ids).await
}

/// Units that are neither shipped nor canceled, by variant; an order has each variant once.
fn open(order: &Order) -> Vec<(VariantId, i64)> {
    order
        .lines
        .iter()
        .map(|line| (line.variant, line.open()))
        .filter(|(_, units)| *units > 0)
        .collect()
}
