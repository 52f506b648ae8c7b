//! Money that no gateway tells of: it comes by bank transfer or in cash, and goes back as it came. An operator sees it and
//! says so. Kept in the inbox like the word of a gateway, so that it can be looked up and told again.

use super::change::not;
use super::gateway::{Change, Delivery, GatewayEvent, GatewayStatus, RefundStatus, Totals};
use super::locked::Locked;
use super::model::{Attention, MoneyReceived, Payment, Refund, RefundSent};
use super::store::inbox::{self, InboxEntry, InboxStatus};
use super::{gateways, store, webhooks};
use crate::actor::Actor;
use crate::db::Tx;
use crate::error::{Check, Error, Result};
use crate::id::{InboxId, PaymentId, RefundId};
use crate::idempotency::{Claim, Claimed, Outcome};
use crate::money::Money;
use crate::oms::Oms;
use crate::text;
use crate::time::Timestamp;

const RECEIVED: &str = "received";
const SENT: &str = "refund_sent";

/// Money came. Less or more than the payment is of goes to review with all that came, and comes out of it when the sum
/// fits or a person takes it.
pub(super) async fn received(
    oms: Oms,
    actor: Actor,
    id: PaymentId,
    command: MoneyReceived,
) -> Result<Outcome<Payment>> {
    actor.require_operator()?;
    check_note(command.note.as_deref())?;
    let amount = command
        .amount
        .map(|m| (m.minor(), m.currency().code().to_owned()));
    let (target, key) = (id.to_string(), &command.idempotency_key);
    let fingerprint = (amount, &command.note);
    let claim = Claim::new(&actor, "payment.received", &target, key, &fingerprint)?;
    require_offline(&oms, id).await?;
    let now = oms.now();
    let mut tx = oms.db().write().await?;
    if let Claimed::Replay(_) = claim.take(&mut tx, id.uuid(), now).await? {
        let payment = store::get(&mut tx, id).await?;
        tx.rollback().await?;
        return Ok(Outcome::replayed(payment));
    }
    let mut locked = Locked::load(&mut tx, id, &actor, now).await?;
    let so_far = told(&inbox::of_payment(&mut tx, id).await?);
    let sum = sum(&locked.payment, so_far, &command)?;
    let change = Change::Payment {
        status: Some(GatewayStatus::Captured),
        totals: Totals {
            currency: Some(locked.payment.amount.currency().to_string()),
            captured: Some(sum),
            ..Totals::default()
        },
        decline_code: None,
        operation_reference: None,
    };
    let entry = entry(&locked.payment, RECEIVED, &claim, change, now);
    keep(&mut tx, &entry, &actor, command.note.as_deref()).await?;
    // The rest of what was short came.
    if in_review_for(&locked.payment, so_far) {
        locked.payment.attention = None;
    }
    if sum == locked.payment.amount.minor() {
        webhooks::hear(&mut locked, &entry.event, false);
    } else {
        let reason = difference(&locked.payment, sum);
        locked.need_review(reason);
    }
    let payment = locked.save(&mut tx).await?;
    tx.commit().await?;
    oms.ring();
    Ok(Outcome::fresh(payment))
}

/// An operator sent a refund by hand.
pub(super) async fn refund_sent(
    oms: Oms,
    actor: Actor,
    id: RefundId,
    command: RefundSent,
) -> Result<Outcome<Refund>> {
    actor.require_operator()?;
    check_note(command.note.as_deref())?;
    let (target, key) = (id.to_string(), &command.idempotency_key);
    let claim = Claim::new(&actor, "refund.sent", &target, key, &command.note)?;
    let mut tx = oms.db().read().await?;
    let payment = store::payment_of_refund(&mut tx, id).await?;
    tx.rollback().await?;
    require_offline(&oms, payment).await?;
    let now = oms.now();
    let mut tx = oms.db().write().await?;
    let replayed = match claim.take(&mut tx, id.uuid(), now).await? {
        Claimed::Replay(_) => true,
        Claimed::Fresh => false,
    };
    if replayed {
        let payment = store::get(&mut tx, payment).await?;
        tx.rollback().await?;
        return Ok(Outcome::replayed(refund_of(payment, id)?));
    }
    let mut locked = Locked::load(&mut tx, payment, &actor, now).await?;
    let refund = refund_of(locked.payment.clone(), id)?;
    if !refund.status.is_unsettled() {
        return Err(Error::InvalidState {
            what: "refund",
            state: refund.status.as_str().into(),
            detail: "it does not wait for anybody",
        });
    }
    let change = Change::Refund {
        refund: Some(id),
        reference: refund.reference.unwrap_or_else(|| id.to_string()),
        status: RefundStatus::Succeeded,
        amount: Some((refund.amount.minor(), refund.amount.currency().to_string())),
    };
    let entry = entry(&locked.payment, SENT, &claim, change, now);
    keep(&mut tx, &entry, &actor, command.note.as_deref()).await?;
    webhooks::hear(&mut locked, &entry.event, false);
    let payment = locked.save(&mut tx).await?;
    tx.commit().await?;
    oms.ring();
    Ok(Outcome::fresh(refund_of(payment, id)?))
}

fn check_note(note: Option<&str>) -> Result<()> {
    let mut check = Check::default();
    if let Some(note) = note {
        check.take("/note", text::check(note, 500));
    }
    check.done()
}

/// Whoever can be asked, or tells by itself, is believed more than a person.
async fn require_offline(oms: &Oms, id: PaymentId) -> Result<()> {
    let mut tx = oms.db().read().await?;
    let payment = store::get(&mut tx, id).await?;
    tx.rollback().await?;
    let till = gateways::pinned(oms, &payment).await?;
    let features = till.gateway.info().features;
    if features.sync || features.webhooks {
        return Err(not(&payment, "its gateway tells this by itself"));
    }
    Ok(())
}

/// All that came so far, as it was told last.
fn told(entries: &[InboxEntry]) -> i64 {
    let sums = entries
        .iter()
        .filter(|e| e.kind == RECEIVED)
        .map(|e| match &e.event.change {
            Change::Payment { totals, .. } => totals.captured.unwrap_or(0),
            _ => 0,
        });
    sums.max().unwrap_or(0)
}

/// All that came, with what came now. Without an amount it is what was missing.
fn sum(payment: &Payment, so_far: i64, command: &MoneyReceived) -> Result<i64> {
    let Some(amount) = command.amount else {
        let missing = payment.amount.minor() - so_far;
        return match missing {
            1.. => Ok(payment.amount.minor()),
            _ => Err(not(payment, "nothing is missing: say how much came")),
        };
    };
    if amount.currency() != payment.amount.currency() {
        let currency = payment.amount.currency();
        return Err(Error::invalid("/amount", format!("the payment is in {currency}")));
    }
    if amount.minor() == 0 {
        return Err(Error::invalid("/amount", "must be above 0"));
    }
    let sum = so_far
        .checked_add(amount.minor())
        .and_then(|sum| payment.money(sum).ok());
    let too_much = || Error::invalid("/amount", "is more than can be counted");
    sum.map(Money::minor).ok_or_else(too_much)
}

fn difference(payment: &Payment, sum: i64) -> String {
    let (came, currency) = (payment.money(sum), payment.amount.currency());
    let came = came.map_or_else(
        |_| format!("{sum} minor units of {currency}"),
        |money| money.to_string(),
    );
    format!("{came} came, the payment is of {}", payment.amount)
}

fn in_review_for(payment: &Payment, sum: i64) -> bool {
    let reason = difference(payment, sum);
    matches!(&payment.attention, Some(Attention::NeedsReview(why)) if *why == reason)
}

fn refund_of(payment: Payment, id: RefundId) -> Result<Refund> {
    let mut refunds = payment.refunds.into_iter();
    refunds.find(|r| r.id == id).ok_or(Error::NotFound("refund"))
}

fn entry(payment: &Payment, kind: &str, claim: &Claim, change: Change, now: Timestamp) -> InboxEntry {
    let event_id = format!("{kind}:{}", claim.id);
    InboxEntry {
        id: InboxId::new(now),
        account: payment.account.clone(),
        event_id: event_id.clone(),
        kind: kind.into(),
        payment: Some(payment.id),
        reference: payment.reference.clone(),
        status: InboxStatus::Applied,
        detail: None,
        tries: 1,
        received_at: now,
        applied_at: Some(now),
        event: GatewayEvent {
            id: event_id,
            kind: kind.into(),
            occurred_at: Some(now),
            reference: payment.reference.clone(),
            payment: Some(payment.id),
            change,
        },
    }
}

/// The locks of order and payment are held, against the usual order; but nobody else can wait for a row whose name was
/// made of a claim that this transaction holds.
async fn keep(tx: &mut Tx, entry: &InboxEntry, actor: &Actor, note: Option<&str>) -> Result<()> {
    let said = serde_json::json!({ "said_by": actor.to_string(), "note": note });
    let delivery = Delivery {
        method: String::new(),
        url: String::new(),
        query: String::new(),
        headers: Vec::new(),
        body: said.to_string().into_bytes(),
        received_at: entry.received_at,
        remote_ip: None,
        tolerance_seconds: 0,
    };
    match inbox::insert(tx, entry, &delivery).await? {
        true => Ok(()),
        false => Err(Error::Internal(
            "an operator's word was kept before it was said".into(),
        )),
    }
}
