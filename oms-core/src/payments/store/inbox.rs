//! SQL of the webhook inbox.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use sqlx::QueryBuilder;
use sqlx::types::Json;
use uuid::Uuid;

use crate::db::{Tx, run};
use crate::error::{Error, Result};
use crate::id::{InboxId, PaymentId};
use crate::payments::gateway::{Delivery, GatewayEvent};
use crate::time::Timestamp;

/// What became of a webhook event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InboxStatus {
    /// It had its effect, or there was none left to have.
    Applied,
    /// It does not concern payments.
    Irrelevant,
    /// Its payment is not known (yet).
    Unmatched,
    /// Applying it failed; see the detail, and replay it.
    Failed,
}

/// A webhook event that was verified and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct InboxEntry {
    pub id: InboxId,
    pub account: String,
    /// The gateway's own id of the event, unique within the account.
    pub event_id: String,
    /// The gateway's own name of the type.
    pub kind: String,
    pub payment: Option<PaymentId>,
    /// The gateway's id of the payment.
    pub reference: Option<String>,
    pub status: InboxStatus,
    pub detail: Option<String>,
    pub tries: i64,
    pub received_at: Timestamp,
    pub applied_at: Option<Timestamp>,
    /// What the gateway's adapter read of it.
    pub event: GatewayEvent,
}

impl InboxStatus {
    const ALL: [Self; 4] = [Self::Applied, Self::Irrelevant, Self::Unmatched, Self::Failed];

    /// Its spelling in the API and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Irrelevant => "irrelevant",
            Self::Unmatched => "unmatched",
            Self::Failed => "failed",
        }
    }

    /// Reads the spelling of [`InboxStatus::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: InboxId,
    account: String,
    event_id: String,
    kind: String,
    payment_id: Option<PaymentId>,
    reference: Option<String>,
    event: Json<GatewayEvent>,
    status: String,
    detail: Option<String>,
    tries: i64,
    received_at: Timestamp,
    applied_at: Option<Timestamp>,
}

impl Row {
    fn entry(self) -> Result<InboxEntry> {
        let status = InboxStatus::parse(&self.status).ok_or_else(|| Error::Corrupt {
            table: "oms_webhook_inbox",
            column: "status",
            id: self.id.to_string(),
            detail: format!("{:?} is not one of its values", self.status),
        })?;
        Ok(InboxEntry {
            status,
            id: self.id,
            account: self.account,
            event_id: self.event_id,
            kind: self.kind,
            payment: self.payment_id,
            reference: self.reference,
            event: self.event.0,
            detail: self.detail,
            tries: self.tries,
            received_at: self.received_at,
            applied_at: self.applied_at,
        })
    }
}

macro_rules! columns {
    () => {
        "id, account, event_id, kind, payment_id, reference, event, status, detail, tries, received_at, applied_at"
    };
}

/// Keeps a new event; false when this account's event was kept before.
pub(in crate::payments) async fn insert(
    tx: &mut Tx,
    entry: &InboxEntry,
    delivery: &Delivery,
) -> Result<bool> {
    Ok(insert_all(tx, vec![(entry, delivery)]).await?.contains(&entry.id))
}

/// Keeps new events, at least one; those that were kept before are left out of the answer.
pub(in crate::payments) async fn insert_all(
    tx: &mut Tx,
    mut entries: Vec<(&InboxEntry, &Delivery)>,
) -> Result<HashSet<InboxId>> {
    // Two transactions that keep the same events meet at the first of them, and cannot wait for each other.
    entries.sort_by_key(|(entry, _)| (&entry.account, &entry.event_id));
    let ids: Vec<(InboxId,)> = run!(tx, |conn| {
        let mut sql = QueryBuilder::new(
            "INSERT INTO oms_webhook_inbox (id, account, event_id, kind, payment_id, reference, event, headers,
                 body, status, detail, received_at, applied_at) ",
        );
        sql.push_values(entries, |mut row, (entry, delivery)| {
            row.push_bind(entry.id)
                .push_bind(&entry.account)
                .push_bind(&entry.event_id)
                .push_bind(&entry.kind)
                .push_bind(entry.payment)
                .push_bind(&entry.reference)
                .push_bind(Json(&entry.event))
                .push_bind(Json(readable(&delivery.headers)))
                .push_bind(&delivery.body)
                .push_bind(entry.status.as_str())
                .push_bind(&entry.detail)
                .push_bind(entry.received_at)
                .push_bind(entry.applied_at);
        });
        sql.push(" ON CONFLICT (account, event_id) DO NOTHING RETURNING id");
        sql.build_query_as().fetch_all(conn).await
    })?;
    Ok(ids.into_iter().map(|(id,)| id).collect())
}

/// For people who look into a case: what is no text is shown as far as it is.
fn readable(headers: &[(String, Vec<u8>)]) -> Vec<(&str, Cow<'_, str>)> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value)))
        .collect()
}

/// Stores what became of an event.
pub(in crate::payments) async fn update(tx: &mut Tx, entry: &InboxEntry) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "UPDATE oms_webhook_inbox SET payment_id = $2, status = $3, detail = $4, tries = $5, applied_at = $6
             WHERE id = $1",
        )
        .bind(entry.id)
        .bind(entry.payment)
        .bind(entry.status.as_str())
        .bind(&entry.detail)
        .bind(entry.tries)
        .bind(entry.applied_at)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

pub(in crate::payments) async fn get(tx: &mut Tx, id: InboxId) -> Result<InboxEntry> {
    let row: Option<Row> = run!(tx, |conn| {
        sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM oms_webhook_inbox WHERE id = $1"
        ))
        .bind(id)
        .fetch_optional(conn)
        .await
    })?;
    row.ok_or(Error::NotFound("webhook"))?.entry()
}

/// What was told of a payment and had its effect, the oldest first.
pub(in crate::payments) async fn of_payment(tx: &mut Tx, payment: PaymentId) -> Result<Vec<InboxEntry>> {
    let rows: Vec<Row> = run!(tx, |conn| {
        sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM oms_webhook_inbox WHERE payment_id = $1 AND status = 'applied' ORDER BY id LIMIT 1000"
        ))
        .bind(payment)
        .fetch_all(conn)
        .await
    })?;
    rows.into_iter().map(Row::entry).collect()
}

/// The newest first.
pub(in crate::payments) async fn list(
    tx: &mut Tx,
    status: Option<InboxStatus>,
    before: Option<InboxId>,
    limit: i64,
) -> Result<Vec<InboxEntry>> {
    let rows: Vec<Row> = run!(tx, |conn| {
        sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM oms_webhook_inbox WHERE id < $1 AND ($2 = '' OR status = $2) ORDER BY id DESC LIMIT $3"
        ))
        .bind(before.map_or(Uuid::max(), InboxId::uuid))
        .bind(status.map_or("", InboxStatus::as_str))
        .bind(limit)
        .fetch_all(conn)
        .await
    })?;
    rows.into_iter().map(Row::entry).collect()
}

/// An event of the inbox with the delivery that it came in.
#[cfg(feature = "conformance")]
pub(crate) struct KeptDelivery {
    pub(crate) entry: InboxEntry,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What came in since a time, the oldest first, after `after`.
#[cfg(feature = "conformance")]
pub(crate) async fn deliveries_since(
    tx: &mut Tx,
    since: Timestamp,
    after: Option<InboxId>,
    limit: i64,
) -> Result<Vec<KeptDelivery>> {
    #[derive(sqlx::FromRow)]
    struct WithDelivery {
        #[sqlx(flatten)]
        row: Row,
        headers: Json<Vec<(String, String)>>,
        body: Vec<u8>,
    }
    let rows: Vec<WithDelivery> = run!(tx, |conn| {
        sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            ", headers, body FROM oms_webhook_inbox WHERE received_at >= $1 AND id > $2 ORDER BY id LIMIT $3"
        ))
        .bind(since)
        .bind(after.map_or(Uuid::nil(), InboxId::uuid))
        .bind(limit)
        .fetch_all(conn)
        .await
    })?;
    let kept = |with: WithDelivery| {
        Ok(KeptDelivery {
            entry: with.row.entry()?,
            headers: with.headers.0,
            body: with.body,
        })
    };
    rows.into_iter().map(kept).collect()
}
