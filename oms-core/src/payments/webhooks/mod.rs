//! Webhooks: what a gateway tells by itself. Each event is kept and applied in one transaction, once.

mod find;
mod hear;
mod together;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub(super) use hear::{hear, hear_again};
pub(crate) use together::Intake;

use super::gateway::{Change, Delivery, GatewayEvent, Proof, Received, Reply, WebhookError};
use super::gateways::Work;
use super::locked::Locked;
use super::start::webhook_url;
use super::store::Place;
use super::store::inbox::{self, InboxEntry, InboxStatus};
use super::{gateways, reconcile, store};
use crate::actor::Actor;
use crate::db::{Table, Tx, lock};
use crate::error::Result;
use crate::id::InboxId;
use crate::jobs::{Job, JobError, NewJob, enqueue};
use crate::oms::Oms;
use crate::page::{Page, PageRequest};
use crate::time::Timestamp;
use crate::{telemetry, text};

/// How long an adapter may take over a webhook.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many references of an unsigned hint are looked at: nobody vouches for them.
const MAX_HINTS: usize = 50;

/// What came of a webhook, for the server to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookOutcome {
    /// Kept, or known already: 2xx, with this body if any.
    Accepted(Option<Reply>),
    /// A handshake: answer with this.
    Challenge(Reply),
    /// Missing, wrong or stale signature, or not readable: 400. Nothing was kept.
    Refused(WebhookError),
    /// It could not be checked or kept now: 503, so that the gateway sends it again. For the log, not for the sender.
    Unavailable(String),
}

pub(super) async fn receive(oms: Oms, account: String, mut delivery: Delivery) -> Result<WebhookOutcome> {
    let till = match gateways::active(&oms, oms.account(&account)?, Work::Webhook).await {
        Ok(till) => till,
        Err(e) => return Ok(WebhookOutcome::Unavailable(e.to_string())),
    };
    // The library's own clock, address and tolerance, whatever the caller filled in.
    delivery.received_at = oms.now();
    delivery.tolerance_seconds = till.account.tolerance_seconds.max(1);
    if let Some(url) = webhook_url(&oms, &account) {
        delivery.url = url;
    }
    let received = till
        .gateway
        .receive(&till.account, Proof::new(), delivery.clone());
    let asked = Box::pin(async {
        let late = || WebhookError::Unavailable("the adapter did not answer in time".into());
        let answer = tokio::time::timeout(PATIENCE, received).await;
        answer.unwrap_or_else(|_| Err(late()))
    });
    let received = match telemetry::gateway_call(&account, "receive", asked).await {
        Ok(received) => received,
        Err(e @ (WebhookError::Misconfigured(_) | WebhookError::Unavailable(_))) => {
            return Ok(WebhookOutcome::Unavailable(e.to_string()));
        }
        Err(e) => return Ok(WebhookOutcome::Refused(e)),
    };
    let kept = match received {
        Received::Challenge(reply) => return Ok(WebhookOutcome::Challenge(reply)),
        Received::UnsignedHint(references) => look_at(&oms, &account, &references).await.map(|()| None),
        Received::Verified(verified) => {
            let (events, reply) = verified.into_parts();
            if let Some(event) = events.iter().find(|e| !is_well_named(e)) {
                let why = format!("an event has the id {:?}", event.id);
                return Ok(WebhookOutcome::Refused(WebhookError::Malformed(why)));
            }
            keep_in_order(&oms, &account, events, delivery)
                .await
                .map(|()| reply)
        }
    };
    Ok(match kept {
        Ok(reply) => WebhookOutcome::Accepted(reply),
        Err(e) => WebhookOutcome::Unavailable(e.to_string()),
    })
}

/// The id is what duplicates are known by: without one every event would be the same.
fn is_well_named(event: &GatewayEvent) -> bool {
    text::check(&event.id, 255).is_ok()
}

/// Nothing of an unsigned hint is believed but that it may be worth asking.
async fn look_at(oms: &Oms, account: &str, references: &[String]) -> Result<()> {
    let mut tx = oms.db().write().await?;
    let now = oms.now();
    // Sorted, so that two hints cannot wait for each other's jobs.
    let mut payments = BTreeSet::new();
    for reference in references.iter().take(MAX_HINTS) {
        let place = match reference.parse() {
            Ok(id) => store::of_account(&mut tx, account, id).await?,
            Err(_) => store::by_reference(&mut tx, account, reference).await?,
        };
        payments.extend(place.map(|place| place.payment));
    }
    for payment in payments {
        reconcile::look_now(&mut tx, payment, now).await?;
    }
    tx.commit().await?;
    oms.ring();
    Ok(())
}

/// One after the other, in the order of the gateway. After a failure in the middle it sends all of them again, and those
/// that are kept are known by their ids.
async fn keep_in_order(
    oms: &Oms,
    account: &str,
    events: Vec<GatewayEvent>,
    delivery: Delivery,
) -> Result<()> {
    let delivery = Arc::new(delivery);
    for event in events {
        let entry = InboxEntry {
            id: InboxId::new(oms.now()),
            account: account.into(),
            event_id: event.id.clone(),
            kind: event.kind.clone(),
            payment: None,
            reference: event.reference.clone(),
            status: InboxStatus::Failed,
            detail: None,
            tries: 1,
            received_at: delivery.received_at,
            applied_at: None,
            event,
        };
        together::keep(oms, entry, Arc::clone(&delivery)).await?;
    }
    Ok(())
}

/// Notes in the entry of an event what becomes of it when [`apply`] is done.
fn aim(entry: &mut InboxEntry, place: Option<Place>, now: Timestamp) {
    entry.detail = None;
    if entry.event.change == Change::Irrelevant {
        entry.status = InboxStatus::Irrelevant;
        return;
    }
    entry.payment = place.map(|place| place.payment);
    (entry.status, entry.applied_at) = match place {
        Some(_) => (InboxStatus::Applied, Some(now)),
        None => (InboxStatus::Unmatched, entry.applied_at),
    };
}

/// Applies an event whose row is held by this transaction.
async fn apply(tx: &mut Tx, entry: &InboxEntry, place: Option<Place>, now: Timestamp) -> Result<()> {
    if let Some(place) = place {
        let actor = Actor::Gateway(entry.account.clone());
        let mut locked = Locked::load_at(tx, place, &actor, now).await?;
        hear(&mut locked, &entry.event, false);
        locked.save(tx).await?;
    } else {
        try_later(tx, entry, now).await?;
    }
    Ok(())
}

/// A payment that is not known yet may be soon.
async fn try_later(tx: &mut Tx, entry: &InboxEntry, now: Timestamp) -> Result<()> {
    if entry.status == InboxStatus::Unmatched
        && let Some(delay) = reconcile::delay(entry.tries - 1)
    {
        let inbox = entry.id;
        let job = NewJob::at(now + delay, Job::MatchWebhook { inbox }).unique(inbox);
        enqueue(tx, now, &[job]).await?;
    }
    Ok(())
}

/// Handler of `MatchWebhook`.
pub(crate) async fn match_webhook(oms: &Oms, id: InboxId) -> std::result::Result<(), JobError> {
    let entry = apply_again(oms, id).await?;
    match (entry.status, reconcile::delay(entry.tries - 1)) {
        (InboxStatus::Unmatched, Some(delay)) => Err(JobError::Again(oms.now() + delay)),
        (InboxStatus::Unmatched, None) => {
            tracing::warn!(inbox.id = %id, account = entry.account, "the payment of a webhook event was never found");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Applies a kept event that had no effect yet. One that had is left alone.
async fn apply_again(oms: &Oms, id: InboxId) -> Result<InboxEntry> {
    let mut tx = oms.db().write().await?;
    lock(&mut tx, Table::Inbox, &[id.uuid()]).await?;
    let mut entry = inbox::get(&mut tx, id).await?;
    if entry.status == InboxStatus::Applied {
        tx.rollback().await?;
        return Ok(entry);
    }
    apply_kept(&mut tx, &mut entry, oms.now()).await?;
    tx.commit().await?;
    oms.ring();
    Ok(entry)
}

async fn apply_kept(tx: &mut Tx, entry: &mut InboxEntry, now: Timestamp) -> Result<()> {
    entry.tries += 1;
    let place = find::all(tx, &[(&entry.account, &entry.event)])
        .await?
        .pop()
        .flatten();
    aim(entry, place, now);
    apply(tx, entry, place, now).await?;
    inbox::update(tx, entry).await
}

pub(super) async fn list(
    oms: &Oms,
    actor: &Actor,
    page: &PageRequest,
    status: Option<InboxStatus>,
) -> Result<Page<InboxEntry>> {
    actor.require_operator()?;
    let (limit, before) = (page.limit()?, page.after()?);
    let mut tx = oms.db().read().await?;
    let rows = inbox::list(&mut tx, status, before, limit + 1).await?;
    tx.rollback().await?;
    Ok(Page::cut(rows, limit, |entry| entry.id))
}

/// Applies a kept event anew, also one that was applied: merging it twice changes nothing.
pub(super) async fn replay(oms: Oms, actor: Actor, id: InboxId) -> Result<InboxEntry> {
    actor.require_operator()?;
    let mut tx = oms.db().write().await?;
    lock(&mut tx, Table::Inbox, &[id.uuid()]).await?;
    let mut entry = inbox::get(&mut tx, id).await?;
    apply_kept(&mut tx, &mut entry, oms.now()).await?;
    tx.commit().await?;
    oms.ring();
    Ok(entry)
}
