//! Events that come in at one moment are kept and applied in one transaction, each as if it had one of its own.

use std::collections::HashSet;
use std::slice;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tracing::{Instrument, Span};

use super::{aim, find, hear, try_later};
use crate::actor::Actor;
use crate::cause::Cause;
use crate::combining::Combining;
use crate::db::{Db, Tx};
use crate::error::{Error, Result};
use crate::oms::Oms;
use crate::orders::OrderState;
use crate::panics::contained;
use crate::payments::gateway::Delivery;
use crate::payments::locked::Locked;
use crate::payments::store::inbox::{self, InboxEntry, InboxStatus};
use crate::telemetry;

/// The most events of one transaction.
const MAX_EVENTS: usize = 32;
/// Events that may wait before gateways are told to come back.
const CAPACITY: usize = 1_024;

/// Where events wait.
#[derive(Debug)]
pub(crate) struct Intake(Combining<Ticket>);

#[derive(Debug)]
struct Ticket {
    entry: InboxEntry,
    delivery: Arc<Delivery>,
    reply: oneshot::Sender<Result<()>>,
    cause: Cause,
    span: Span,
}

impl Intake {
    pub(crate) fn new(db: &Db) -> Self {
        Self(Combining::new(db.writers(), MAX_EVENTS, CAPACITY))
    }
}

/// Keeps an event and applies it; one that is known already changes nothing. One that cannot be applied is kept for an
/// operator. It must not be dropped before its end: it may be at work for others, too.
pub(super) async fn keep(oms: &Oms, entry: InboxEntry, delivery: Arc<Delivery>) -> Result<()> {
    let (reply, answer) = oneshot::channel();
    let ticket = Ticket {
        entry,
        delivery,
        reply,
        cause: Cause::current(),
        span: Span::current(),
    };
    let work = |tickets: Vec<Ticket>| {
        let span = telemetry::batch("webhooks", tickets.iter().map(|ticket| &ticket.span));
        Box::pin(work_off(oms, tickets).instrument(span))
    };
    oms.inner.intake.0.take_part(ticket, answer, work).await
}

async fn work_off(oms: &Oms, mut batch: Vec<Ticket>) {
    while !batch.is_empty() {
        let first;
        (first, batch) = part_twins(batch);
        match contained(oms.db().write()).await {
            Ok(tx) => keep_all(oms, tx, first).await,
            Err(error) => {
                tracing::warn!(%error, events = first.len(), "webhook events were not kept");
                for ticket in first {
                    drop(ticket.reply.send(Err(Error::overloaded())));
                }
            }
        }
    }
}

/// Parts off the first event of each payment: for the others the payment has changed by then. Twins that name it in
/// different ways are found by [`keep_together`].
fn part_twins(batch: Vec<Ticket>) -> (Vec<Ticket>, Vec<Ticket>) {
    let mut seen = HashSet::new();
    batch.into_iter().partition(|ticket| {
        let InboxEntry { account, event, .. } = &ticket.entry;
        let about = event.payment.map(|id| id.to_string());
        about
            .or_else(|| event.reference.clone())
            .is_none_or(|about| seen.insert((account.clone(), about)))
    })
}

/// Together in this transaction, or else each in one of its own.
async fn keep_all(oms: &Oms, tx: Tx, mut tickets: Vec<Ticket>) {
    if tickets.len() == 1
        && let Some(ticket) = tickets.pop()
    {
        return keep_alone(oms, Some(tx), ticket).await;
    }
    match contained(Box::pin(keep_together(oms, tx, &mut tickets))).await {
        Ok(true) => {
            for ticket in tickets {
                drop(ticket.reply.send(Ok(())));
            }
            return;
        }
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(%error, events = tickets.len(), "webhook events were not kept together: trying each");
        }
    }
    join_all(tickets.into_iter().map(|ticket| keep_alone(oms, None, ticket))).await;
}

/// In the transaction that was begun for it, if any.
async fn keep_alone(oms: &Oms, begun: Option<Tx>, mut ticket: Ticket) {
    let span = ticket.span.clone();
    let keep = async {
        let attempt = async {
            let tx = match begun {
                Some(tx) => tx,
                None => oms.db().write().await?,
            };
            match keep_together(oms, tx, slice::from_mut(&mut ticket)).await? {
                true => Ok(()),
                false => Err(Error::Internal(
                    "an event was not kept together with itself".into(),
                )),
            }
        };
        match contained(Box::pin(attempt)).await {
            Err(e) if !e.is_retryable() => {
                let entry = &ticket.entry;
                tracing::error!(entry.account, event.id = entry.event_id, error = %e, "a webhook event could not be applied");
                keep_failed(oms, &mut ticket, &e).await
            }
            kept => kept,
        }
    };
    let kept = keep.instrument(span).await;
    drop(ticket.reply.send(kept));
}

/// It would fail again and again: kept for an operator, who can replay it.
async fn keep_failed(oms: &Oms, ticket: &mut Ticket, why: &Error) -> Result<()> {
    let entry = &mut ticket.entry;
    entry.status = InboxStatus::Failed;
    entry.applied_at = None;
    entry.detail = Some(why.to_string());
    let mut tx = oms.db().write().await?;
    inbox::insert(&mut tx, entry, &ticket.delivery).await?;
    tx.commit().await
}

/// One transaction for all. False, and nothing is done: they need one each.
async fn keep_together(oms: &Oms, mut tx: Tx, tickets: &mut [Ticket]) -> Result<bool> {
    let now = oms.now();
    let events: Vec<_> = tickets
        .iter()
        .map(|ticket| (ticket.entry.account.as_str(), &ticket.entry.event))
        .collect();
    let places = find::all(&mut tx, &events).await?;
    for (ticket, place) in tickets.iter_mut().zip(&places) {
        aim(&mut ticket.entry, *place, now);
    }
    let entries: Vec<_> = tickets
        .iter()
        .map(|ticket| (&ticket.entry, &*ticket.delivery))
        .collect();
    let fresh = inbox::insert_all(&mut tx, entries).await?;
    if fresh.is_empty() {
        tx.rollback().await?;
        return Ok(true);
    }
    let fresh = tickets
        .iter()
        .zip(places)
        .filter(|(ticket, _)| fresh.contains(&ticket.entry.id));
    let (mut at_payments, mut at_none) = (Vec::new(), Vec::new());
    for (ticket, place) in fresh {
        match place {
            Some(place) => at_payments.push((ticket, place)),
            None => at_none.push(ticket),
        }
    }
    let mut orders = HashSet::new();
    let distinct = at_payments.iter().all(|(_, place)| orders.insert(place.order));
    // The order in which jobs of payments are added everywhere. A worker that ends looks at these payments just now goes
    // by the ids of its jobs: the database breaks the circle, and each event is tried by itself.
    at_payments.sort_by_key(|(_, place)| place.payment);
    let wanted = at_payments.iter().map(|(ticket, place)| {
        let actor = Actor::Gateway(ticket.entry.account.clone());
        (*place, actor)
    });
    let locked = match distinct {
        true => Locked::load_all(&mut tx, wanted.collect(), now).await?,
        false => Vec::new(),
    };
    // An order that expired may take stock again, and stock is locked once in a transaction, in one order.
    let expired = |locked: &Locked| locked.order.state == OrderState::Expired;
    if !distinct || (locked.len() > 1 && locked.iter().any(expired)) {
        tx.rollback().await?;
        return Ok(false);
    }
    for ((ticket, _), mut locked) in at_payments.into_iter().zip(locked) {
        let apply = async {
            hear(&mut locked, &ticket.entry.event, false);
            locked.save(&mut tx).await
        };
        ticket.cause.clone().scope(apply).await?;
    }
    for ticket in at_none {
        ticket
            .cause
            .clone()
            .scope(try_later(&mut tx, &ticket.entry, now))
            .await?;
    }
    tx.commit().await?;
    oms.ring();
    Ok(true)
}
