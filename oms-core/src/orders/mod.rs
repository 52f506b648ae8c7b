//! Orders: place, read, cancel, fulfil, expire.

pub(crate) mod model;
pub(crate) mod placement;
pub(crate) mod settle;

mod expiry;
mod mail;
mod stock;
mod store;
#[cfg(test)]
#[cfg(all(feature = "sqlite", feature = "postgres"))]
mod tests;
mod verify;

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::json;

pub use model::{
    Address, Fulfillment, FulfillmentLine, NewLine, Order, OrderLine, OrderState, PaymentState, PlaceOrder,
    TimelineEntry,
};
pub(crate) use verify::verify;

use crate::actor::Actor;
use crate::catalog::Sku;
use crate::error::{Check, Error, Result};
use crate::id::{FulfillmentId, OrderId, UserId, VariantId};
use crate::idempotency::{Claim, Claimed, IdempotencyKey, Outcome};
use crate::jobs::{self, EmailJob, Job, NewJob};
use crate::oms::Oms;
use crate::page::{Page, PageRequest};
use crate::payments;
use crate::text;
use model::Transition;
use placement::{Draft, Placed};

/// Orders. Made by [`Oms::orders`].
pub struct Orders<'a> {
    oms: &'a Oms,
}

impl Oms {
    /// Orders: place, read, cancel, fulfil.
    pub fn orders(&self) -> Orders<'_> {
        Orders { oms: self }
    }
}

/// Which orders a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderFilter {
    /// Only orders in this state.
    pub state: Option<OrderState>,
    /// Only this user's orders; others than one's own are for operators.
    pub user: Option<UserId>,
}

/// Cancel an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelOrder {
    /// Makes a retry safe.
    pub idempotency_key: IdempotencyKey,
    /// For the timeline; at most 500 characters.
    pub reason: Option<String>,
    /// Refuse when the order is at another version.
    pub expected_version: Option<i64>,
}

/// Send (a part of) an order out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FulfillOrder {
    /// Makes a retry safe.
    pub idempotency_key: IdempotencyKey,
    /// SKUs and units; none for all that is left.
    pub lines: Option<Vec<FulfillmentLine>>,
    /// The carrier's code; at most 200 characters.
    pub tracking: Option<String>,
    /// Refuse when the order is at another version.
    pub expected_version: Option<i64>,
}

impl Orders<'_> {
    /// Places an order for the acting user, who must be verified. It is durable, and its units are allocated, when
    /// this returns; a refused order has taken nothing.
    ///
    /// # Errors
    /// [`Error::OutOfStock`], [`Error::UnknownSku`], [`Error::MixedCurrencies`], [`Error::Invalid`]; the same key with
    /// another command is [`Error::IdempotencyKeyReused`]. After [`Error::Overloaded`] retry with the same key.
    #[tracing::instrument(level = "debug", name = "orders.place", skip_all)]
    pub async fn place(&self, actor: &Actor, command: PlaceOrder) -> Result<Outcome<Order>> {
        let user = actor.require_verified()?;
        let claim = claim_of(actor, &command)?;
        let draft = checked(user, command)?;
        match self.oms.inner.placement.place(claim, draft).await? {
            Placed::Fresh(order) => Ok(Outcome::fresh(*order)),
            Placed::Replay(id) => Ok(Outcome::replayed(self.load(id).await?)),
        }
    }

    /// Whether [`Orders::place`] would take another order at this moment, or answer [`Error::Overloaded`] at once. A
    /// server that asks this first spends nothing on those whom it must turn away.
    pub fn has_room(&self) -> bool {
        let (waiting, most) = self.oms.inner.placement.filled();
        waiting < most
    }

    /// One order: the customer's own, any for operators.
    #[tracing::instrument(level = "debug", name = "orders.get", skip_all)]
    pub async fn get(&self, actor: &Actor, id: OrderId) -> Result<Order> {
        let order = self.load(id).await?;
        actor.require_owner_or_operator(order.user, "order")?;
        Ok(order)
    }

    /// Orders, the newest first: one's own; for operators all, or those of one user.
    #[tracing::instrument(level = "debug", name = "orders.list", skip_all)]
    pub async fn list(&self, actor: &Actor, filter: &OrderFilter, page: &PageRequest) -> Result<Page<Order>> {
        let own = actor.user_id();
        let user = match (actor.is_operator(), filter.user) {
            (true, user) => user,
            (false, None) => Some(actor.require_user()?),
            (false, Some(user)) if own == Some(user) => Some(user),
            (false, Some(_)) => return Err(Error::Forbidden("operators only")),
        };
        let limit = page.limit()?;
        let listed = store::Listed {
            user,
            state: filter.state,
            after: page.after()?,
        };
        let mut tx = self.oms.db().read().await?;
        let orders = store::list(&mut tx, &listed, limit + 1).await?;
        tx.rollback().await?;
        Ok(Page::cut(orders, limit, |order| order.id))
    }

    /// What happened to an order, the oldest first.
    pub async fn timeline(&self, actor: &Actor, id: OrderId) -> Result<Vec<TimelineEntry>> {
        self.get(actor, id).await?;
        let mut tx = self.oms.db().read().await?;
        let entries = store::timeline(&mut tx, id).await?;
        tx.rollback().await?;
        Ok(entries)
    }

    /// What of an order went out, the oldest first.
    pub async fn fulfillments(&self, actor: &Actor, id: OrderId) -> Result<Vec<Fulfillment>> {
        self.get(actor, id).await?;
        let mut tx = self.oms.db().read().await?;
        let fulfillments = store::fulfillments(&mut tx, id).await?;
        tx.rollback().await?;
        Ok(fulfillments)
    }

    /// Cancels what has not shipped: stock comes back, open payments are given up, captured money is refunded.
    /// Customers cancel their own unpaid orders, operators any that [`OrderState`] lets them.
    #[tracing::instrument(level = "debug", name = "orders.cancel", skip_all)]
    pub async fn cancel(&self, actor: &Actor, id: OrderId, command: CancelOrder) -> Result<Outcome<Order>> {
        let claim = Claim::new(
            actor,
            "cancel_order",
            &id.to_string(),
            &command.idempotency_key,
            &command.reason,
        )?;
        if let Some(reason) = &command.reason {
            text::check(reason, 500).map_err(|detail| Error::invalid("/reason", detail))?;
        }
        let now = self.oms.now();
        let mut tx = self.oms.db().write().await?;
        let claimed = claim.take(&mut tx, id.uuid(), now).await?;
        let mut order = store::load_locked(&mut tx, id).await?;
        actor.require_owner_or_operator(order.user, "order")?;
        if matches!(claimed, Claimed::Replay(_)) {
            tx.rollback().await?;
            return Ok(Outcome::replayed(order));
        }
        check_version(&order, command.expected_version)?;
        let next = order.state.after(Transition::Cancel)?;
        if order.state != OrderState::AwaitingPayment {
            actor.require_operator()?;
        }
        let back = money_of_open_units(&order)?;
        payments::request_cancel(&mut tx, id, now).await?;
        let paid = store::paid(&mut tx, id).await?;
        let back = back.min(paid.captured - paid.refunded);
        if back > 0 {
            let amount = crate::Money::new(back, order.currency).map_err(Error::Internal)?;
            payments::request_refund(&mut tx, id, amount, "order canceled", now).await?;
        }
        stock::release(&mut tx, &order, actor, now).await?;
        for line in &mut order.lines {
            line.canceled += line.open();
        }
        store::update_lines(&mut tx, &order).await?;
        order.state = next;
        order.expires_at = None;
        let facts = json!({ "reason": command.reason, "refund": back });
        store::change(&mut tx, &mut order, actor, "canceled", &facts, now).await?;
        let mail = Job::SendEmail(EmailJob::OrderCanceled { order: id });
        jobs::enqueue(&mut tx, now, &[NewJob::at(now, mail)]).await?;
        tx.commit().await?;
        self.oms.ring();
        Ok(Outcome::fresh(order))
    }

    /// Sends units out: they leave the house and the allocation. Operators only; the order must be paid.
    #[tracing::instrument(level = "debug", name = "orders.fulfill", skip_all)]
    pub async fn fulfill(
        &self,
        actor: &Actor,
        id: OrderId,
        command: FulfillOrder,
    ) -> Result<Outcome<Fulfillment>> {
        actor.require_operator()?;
        let what = (&command.lines, &command.tracking);
        let claim = Claim::new(
            actor,
            "fulfill_order",
            &id.to_string(),
            &command.idempotency_key,
            &what,
        )?;
        if let Some(tracking) = &command.tracking {
            text::check(tracking, 200).map_err(|detail| Error::invalid("/tracking", detail))?;
        }
        let now = self.oms.now();
        let made = FulfillmentId::new(now);
        let mut tx = self.oms.db().write().await?;
        if let Claimed::Replay(earlier) = claim.take(&mut tx, made.uuid(), now).await? {
            let earlier = store::find_fulfillment(&mut tx, FulfillmentId::from_uuid(earlier)).await?;
            tx.rollback().await?;
            return earlier
                .map(Outcome::replayed)
                .ok_or(Error::NotFound("fulfillment"));
        }
        let mut order = store::load_locked(&mut tx, id).await?;
        check_version(&order, command.expected_version)?;
        // Judged before the units, so that an unpaid order says so.
        order.state.after(Transition::Fulfill { all: true })?;
        let (lines, shipped) = ship_lines(&mut order, command.lines)?;
        order.state = order.state.after(Transition::Fulfill {
            all: order.lines.iter().all(|l| l.open() == 0),
        })?;
        stock::ship(&mut tx, &order, &shipped, actor, now).await?;
        store::update_lines(&mut tx, &order).await?;
        let fulfillment = Fulfillment {
            id: made,
            order: id,
            tracking: command.tracking,
            lines,
            created_at: now,
        };
        store::insert_fulfillment(&mut tx, &fulfillment).await?;
        let facts =
            json!({ "fulfillment": made, "lines": fulfillment.lines, "tracking": fulfillment.tracking });
        let kind = order.state.as_str();
        store::change(&mut tx, &mut order, actor, kind, &facts, now).await?;
        let mail = Job::SendEmail(EmailJob::OrderShipped { fulfillment: made });
        jobs::enqueue(&mut tx, now, &[NewJob::at(now, mail)]).await?;
        tx.commit().await?;
        self.oms.ring();
        Ok(Outcome::fresh(fulfillment))
    }

    async fn load(&self, id: OrderId) -> Result<Order> {
        let mut tx = self.oms.db().read().await?;
        let order = store::find(&mut tx, id).await?;
        tx.rollback().await?;
        order.ok_or(Error::NotFound("order"))
    }
}

fn check_version(order: &Order, expected: Option<i64>) -> Result<()> {
    match expected {
        Some(expected) if expected != order.version => Err(Error::VersionConflict {
            expected,
            actual: order.version,
        }),
        _ => Ok(()),
    }
}

/// The fingerprint is over the whole command as it was sent.
fn claim_of(actor: &Actor, command: &PlaceOrder) -> Result<Claim> {
    let what = (&command.lines, &command.shipping_address, &command.note);
    Claim::new(actor, "place_order", "", &command.idempotency_key, &what)
}

/// Checks what needs no database, all of it, and adds up lines of the same SKU.
fn checked(user: UserId, command: PlaceOrder) -> Result<Draft> {
    let mut check = Check::default();
    let count = command.lines.len();
    check.that(count > 0, "/lines", "must not be empty");
    if count > PlaceOrder::MAX_LINES {
        return Err(Error::invalid(
            "/lines",
            format!("must have at most {} lines, has {count}", PlaceOrder::MAX_LINES),
        ));
    }
    let mut lines: Vec<NewLine> = Vec::with_capacity(count);
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (index, line) in command.lines.into_iter().enumerate() {
        let units = (1..=NewLine::MAX_QUANTITY).contains(&line.quantity);
        check.that(
            units,
            &format!("/lines/{index}/quantity"),
            "must be between 1 and 1000000",
        );
        if let Some(place) = places.get(&line.sku) {
            // Both are at most a million: no overflow.
            lines[*place].quantity += if units { line.quantity } else { 0 };
        } else {
            places.insert(line.sku.clone(), lines.len());
            lines.push(line);
        }
    }
    if let Some(address) = &command.shipping_address {
        address.check("/shipping_address", &mut check);
    }
    if let Some(note) = &command.note {
        check.take("/note", text::check(note, 1_000));
    }
    check.done()?;
    // What no SKU can look like needs no look-up, and a zero byte is none that PostgreSQL would take.
    let shapeless = |(index, line): (usize, &NewLine)| {
        Sku::from_str(&line.sku)
            .is_err()
            .then(|| (index, line.sku.clone()))
    };
    let unknown: Vec<_> = lines.iter().enumerate().filter_map(shapeless).collect();
    if !unknown.is_empty() {
        return Err(Error::UnknownSku(unknown));
    }
    Ok(Draft {
        user,
        lines,
        shipping_address: command.shipping_address,
        note: command.note,
    })
}

/// What the customer paid for units that are neither shipped nor canceled, in minor units.
fn money_of_open_units(order: &Order) -> Result<i64> {
    order.lines.iter().try_fold(0i64, |sum, line| {
        let price = line
            .unit_price
            .times(line.open())
            .ok_or_else(|| Error::Internal("a line total overflows".into()))?;
        Ok(sum + price.minor())
    })
}

/// Units of each variant.
type Units = Vec<(VariantId, i64)>;

/// Moves units to `fulfilled`; returns what went out, by SKU and by variant.
fn ship_lines(
    order: &mut Order,
    wanted: Option<Vec<FulfillmentLine>>,
) -> Result<(Vec<FulfillmentLine>, Units)> {
    let wanted = wanted.unwrap_or_else(|| {
        let open = order.lines.iter().filter(|line| line.open() > 0);
        open.map(|line| FulfillmentLine {
            sku: line.sku.clone(),
            quantity: line.open(),
        })
        .collect()
    });
    if wanted.is_empty() || wanted.len() > PlaceOrder::MAX_LINES {
        return Err(Error::invalid("/lines", "must have between 1 and 500 lines"));
    }
    let mut shipped = Vec::with_capacity(wanted.len());
    for (index, out) in wanted.iter().enumerate() {
        let at = |field| format!("/lines/{index}/{field}");
        if shipped
            .iter()
            .any(|(_, sku, _): &(VariantId, &str, i64)| *sku == out.sku)
        {
            return Err(Error::invalid(at("sku"), "stands twice"));
        }
        let line = order
            .lines
            .iter_mut()
            .find(|line| line.sku == out.sku)
            .ok_or_else(|| Error::invalid(at("sku"), "is not a line of this order"))?;
        if !(1..=line.open()).contains(&out.quantity) {
            let detail = format!(
                "must be between 1 and the {} units that are left to ship",
                line.open()
            );
            return Err(Error::invalid(at("quantity"), detail));
        }
        line.fulfilled += out.quantity;
        shipped.push((line.variant, out.sku.as_str(), out.quantity));
    }
    let by_variant = shipped
        .into_iter()
        .map(|(variant, _, units)| (variant, units))
        .collect();
    Ok((wanted, by_variant))
}
