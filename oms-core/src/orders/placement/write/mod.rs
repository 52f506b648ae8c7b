//! The statements of a batch. Those that differ by database stand side by side, in a file for each.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(test)]
#[cfg(all(feature = "sqlite", feature = "postgres"))]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};

use sqlx::FromRow;
use sqlx::types::Json;
use uuid::Uuid;

use super::decide::{Offer, Sale, judge, net};
use super::{Placed, Ticket};
use crate::db::Tx;
#[cfg(feature = "postgres")]
use crate::db::limited;
#[cfg(feature = "sqlite")]
use crate::db::push_list;
use crate::error::{Error, Result};
use crate::id::{BusinessId, OrderId, UserId, VariantId};
use crate::idempotency::Claim;
use crate::money::{Currency, Money};
use crate::orders::model::{Address, Order, OrderLine, OrderState, PaymentState};
use crate::time::Timestamp;

/// An order that is to be written.
pub(super) struct NewOrder<'a> {
    pub(super) id: OrderId,
    pub(super) ticket: &'a Ticket,
    pub(super) sale: Sale,
}

/// Places what can be placed. The results stand in the order of the tickets.
pub(super) async fn batch(
    tx: &mut Tx,
    tickets: &[Ticket],
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<Vec<Result<Placed>>> {
    let ids: Vec<OrderId> = tickets.iter().map(|_| OrderId::new(now)).collect();
    let (fresh, mut offers) = take(tx, tickets, &ids, now).await?;
    let claims = tickets.iter().map(|ticket| &ticket.claim);
    let mut taken = look_up(tx, claims.filter(|claim| !fresh.contains(&claim.id))).await?;

    let mut results = Vec::with_capacity(tickets.len());
    let (mut orders, mut refused) = (Vec::new(), Vec::new());
    for (ticket, id) in tickets.iter().zip(ids) {
        results.push(match taken.remove(&ticket.claim.id) {
            Some(earlier) => Some(earlier.map(Placed::Replay)),
            None => match judge(&ticket.draft, &mut offers) {
                Ok(sale) => {
                    orders.push(NewOrder { id, ticket, sale });
                    None
                }
                Err(refusal) => {
                    refused.push(ticket.claim.id);
                    Some(Err(refusal))
                }
            },
        });
    }
    release_keys(tx, &refused).await?;
    let mut placed = insert(tx, &orders, now, expires_at).await?.into_iter();
    Ok(results
        .into_iter()
        .map(|done| {
            done.unwrap_or_else(|| {
                placed
                    .next()
                    .ok_or_else(|| miscounted("placed orders"))
                    .map(|order| Placed::Fresh(Box::new(order)))
            })
        })
        .collect())
}

fn miscounted(what: &str) -> Error {
    Error::Internal(format!(
        "a batch of orders wrote another number of {what} than it decided on"
    ))
}

/// Takes the keys, then locks and reads what is on sale under the SKUs of the tickets. Returns the keys that nobody had
/// taken, and the offers.
async fn take(
    tx: &mut Tx,
    tickets: &[Ticket],
    ids: &[OrderId],
    now: Timestamp,
) -> Result<(HashSet<Uuid>, HashMap<String, Offer>)> {
    // Sorted, so that two batches with the same keys wait for each other in one direction only.
    let mut keys: Vec<_> = tickets.iter().map(|t| &t.claim).zip(ids).collect();
    keys.sort_by_key(|(claim, _)| claim.id);
    let lines = tickets.iter().flat_map(|t| &t.draft.lines);
    let skus: BTreeSet<&str> = lines.map(|line| line.sku.as_str()).collect();
    let (fresh, rows) = match tx {
        #[cfg(feature = "sqlite")]
        Tx::Sqlite(conn) => sqlite::take(conn, &keys, &skus, now).await?,
        #[cfg(feature = "postgres")]
        Tx::Postgres(tx) => postgres::take(tx, &keys, &skus, now).await?,
    };
    let offers = rows.into_iter().map(OfferRow::into_offer);
    Ok((fresh, offers.collect::<Result<_>>()?))
}

/// What keys that were taken before have made. Retries are rare: one look-up each.
async fn look_up<'a>(
    tx: &mut Tx,
    claims: impl Iterator<Item = &'a Claim>,
) -> Result<HashMap<Uuid, Result<OrderId>>> {
    let mut taken = HashMap::new();
    for claim in claims {
        let earlier = match claim.find(tx).await {
            Ok(Some(id)) => Ok(OrderId::from_uuid(id)),
            Ok(None) => Err(Error::overloaded()),
            Err(reused @ Error::IdempotencyKeyReused) => Err(reused),
            Err(error) => return Err(error),
        };
        taken.insert(claim.id, earlier);
    }
    Ok(taken)
}

#[derive(FromRow)]
struct OfferRow {
    sku: String,
    variant_id: VariantId,
    business_id: BusinessId,
    product_name: String,
    variant_name: Option<String>,
    price: i64,
    currency: String,
    available: i64,
}

impl OfferRow {
    fn into_offer(self) -> Result<(String, Offer)> {
        let corrupt = |detail| Error::Corrupt {
            table: "oms_variant",
            column: "price",
            id: self.variant_id.to_string(),
            detail,
        };
        let currency: Currency = self.currency.parse().map_err(corrupt)?;
        let price = Money::new(self.price, currency).map_err(corrupt)?;
        let name = match self.variant_name {
            Some(variant) => format!("{} ({variant})", self.product_name),
            None => self.product_name,
        };
        let offer = Offer {
            variant: self.variant_id,
            business: self.business_id,
            name,
            price,
            available: self.available,
        };
        Ok((self.sku, offer))
    }
}

/// Keys of refused orders are free again: a retry is judged anew.
#[tracing::instrument(level = "debug", name = "sql", skip_all)]
async fn release_keys(tx: &mut Tx, refused: &[Uuid]) -> Result<()> {
    if refused.is_empty() {
        return Ok(());
    }
    match tx {
        #[cfg(feature = "sqlite")]
        Tx::Sqlite(conn) => {
            let mut sql = sqlx::QueryBuilder::new("DELETE FROM oms_idempotency WHERE id IN ");
            push_list(&mut sql, refused);
            sql.build().execute(&mut **conn).await.map(drop)?;
        }
        #[cfg(feature = "postgres")]
        Tx::Postgres(tx) => {
            let sql = "DELETE FROM oms_idempotency WHERE id = ANY($1)";
            limited!(tx, |conn| sqlx::query(sql).bind(refused).execute(conn).await)?;
        }
    }
    Ok(())
}

/// Writes orders, lines, timeline, movements and the net effect on each stock row, and returns the orders.
#[tracing::instrument(level = "debug", name = "sql", skip_all)]
async fn insert(
    tx: &mut Tx,
    orders: &[NewOrder<'_>],
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<Vec<Order>> {
    if orders.is_empty() {
        return Ok(Vec::new());
    }
    let net = net(orders.iter().map(|order| &order.sale));
    let rows = match tx {
        #[cfg(feature = "sqlite")]
        Tx::Sqlite(conn) => sqlite::insert(conn, orders, &net, now, expires_at).await?,
        #[cfg(feature = "postgres")]
        Tx::Postgres(tx) => postgres::insert(tx, orders, &net, now, expires_at).await?,
    };
    let mut rows: HashMap<OrderId, (i64, String)> = rows
        .into_iter()
        .map(|(id, number, email)| (id, (number, email)))
        .collect();
    orders
        .iter()
        .map(|new| {
            let (number, email) = rows.remove(&new.id).ok_or_else(|| miscounted("orders"))?;
            Ok(new.order(number, email, now, expires_at))
        })
        .collect()
}

/// Id, number and e-mail address of an order that was written.
type Written = (OrderId, i64, String);

impl NewOrder<'_> {
    fn user(&self) -> UserId {
        self.ticket.draft.user
    }

    fn address(&self) -> Option<Json<&Address>> {
        self.ticket.draft.shipping_address.as_ref().map(Json)
    }

    fn order(&self, number: i64, email: String, now: Timestamp, expires_at: Timestamp) -> Order {
        let (draft, total) = (&self.ticket.draft, self.sale.total);
        let zero = Money::zero(total.currency());
        Order {
            id: self.id,
            number,
            user: Some(draft.user),
            email,
            shipping_address: draft.shipping_address.clone(),
            billing_address: None,
            note: draft.note.clone(),
            currency: total.currency(),
            subtotal: total,
            discount: zero,
            shipping: zero,
            tax: zero,
            total,
            state: OrderState::AwaitingPayment,
            payment_state: PaymentState::Unpaid,
            expires_at: Some(expires_at),
            external_ref: None,
            version: 1,
            created_at: now,
            updated_at: now,
            lines: self
                .sale
                .lines
                .iter()
                .map(|line| OrderLine {
                    variant: line.offer.variant,
                    business: line.offer.business,
                    sku: line.sku.clone(),
                    name: line.offer.name.clone(),
                    unit_price: line.offer.price,
                    quantity: line.quantity,
                    fulfilled: 0,
                    canceled: 0,
                    returned: 0,
                    discount: zero,
                    tax: zero,
                    total: line.total,
                })
                .collect(),
        }
    }
}
