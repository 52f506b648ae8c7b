//! The statements of a batch. Those that differ by database stand side by side.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::FromRow;
use sqlx::types::Json;
use uuid::Uuid;

use super::decide::{Offer, Sale, judge};
use super::{Placed, Ticket};
use crate::db::Tx;
#[cfg(feature = "postgres")]
use crate::db::limited;
use crate::error::{Error, Result};
use crate::id::{BusinessId, MovementId, OrderId, UserId, VariantId};
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
    let mut taken = take_keys(tx, tickets, &ids, now).await?;
    let mut offers = lock_offers(tx, tickets.iter().filter(|t| !taken.contains_key(&t.claim.id))).await?;

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
                    .map(fresh)
            })
        })
        .collect())
}

fn fresh(order: Order) -> Placed {
    Placed::Fresh(Box::new(order))
}

fn miscounted(what: &str) -> Error {
    Error::Internal(format!(
        "a batch of orders wrote another number of {what} than it decided on"
    ))
}

/// Takes the keys, sorted, and returns those that were taken before with what they made.
#[tracing::instrument(level = "debug", name = "sql", skip_all)]
async fn take_keys(
    tx: &mut Tx,
    tickets: &[Ticket],
    ids: &[OrderId],
    now: Timestamp,
) -> Result<HashMap<Uuid, Result<OrderId>>> {
    // Sorted, so that two batches with the same keys wait for each other in one direction only.
    let mut keys: Vec<_> = tickets.iter().map(|t| &t.claim).zip(ids).collect();
    keys.sort_by_key(|(claim, _)| claim.id);
    let fresh: Vec<(Uuid,)> = match tx {
        #[cfg(feature = "sqlite")]
        Tx::Sqlite(conn) => {
            let mut sql = sqlx::QueryBuilder::new(
                "INSERT INTO oms_idempotency (id, operation, key, fingerprint, result_id, created_at) ",
            );
            sql.push_values(&keys, |mut row, (claim, id)| {
                row.push_bind(claim.id)
                    .push_bind(claim.operation)
                    .push_bind(claim.key.as_str())
                    .push_bind(&claim.fingerprint)
                    .push_bind(id.uuid())
                    .push_bind(now);
            });
            sql.push(" ON CONFLICT DO NOTHING RETURNING id");
            sql.build_query_as().fetch_all(&mut **conn).await?
        }
        #[cfg(feature = "postgres")]
        Tx::Postgres(tx) => limited!(tx, |conn| {
            sqlx::query_as(
                "INSERT INTO oms_idempotency (id, operation, key, fingerprint, result_id, created_at)
                 SELECT id, operation, key, fingerprint, result_id, $6
                 FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::uuid[])
                      AS k (id, operation, key, fingerprint, result_id)
                 ORDER BY id ON CONFLICT DO NOTHING RETURNING id",
            )
            .bind(keys.iter().map(|(c, _)| c.id).collect::<Vec<_>>())
            .bind(keys.iter().map(|(c, _)| c.operation).collect::<Vec<_>>())
            .bind(keys.iter().map(|(c, _)| c.key.as_str()).collect::<Vec<_>>())
            .bind(
                keys.iter()
                    .map(|(c, _)| c.fingerprint.as_slice())
                    .collect::<Vec<_>>(),
            )
            .bind(keys.iter().map(|(_, id)| id.uuid()).collect::<Vec<_>>())
            .bind(now)
            .fetch_all(conn)
            .await
        })?,
    };
    let fresh: BTreeSet<Uuid> = fresh.into_iter().map(|(id,)| id).collect();
    let mut taken = HashMap::new();
    // Retries are rare: one look-up each.
    for (claim, _) in keys.into_iter().filter(|(claim, _)| !fresh.contains(&claim.id)) {
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

/// Locks the stock of every SKU that the tickets name, sorted by variant, and reads it with prices and names.
#[tracing::instrument(level = "debug", name = "sql", skip_all)]
async fn lock_offers(tx: &mut Tx, tickets: impl Iterator<Item = &Ticket>) -> Result<HashMap<String, Offer>> {
    let skus: BTreeSet<&str> = tickets
        .flat_map(|t| t.draft.lines.iter().map(|l| l.sku.as_str()))
        .collect();
    let rows: Vec<OfferRow> = match tx {
        #[cfg(feature = "sqlite")]
        Tx::Sqlite(conn) => {
            // SQLite has no arrays; a JSON text is one value of any length.
            sqlx::query_as(
                "SELECT v.sku, v.id AS variant_id, v.business_id, p.name AS product_name, v.name AS variant_name,
                        v.price, v.currency, s.on_hand - s.allocated AS available
                 FROM json_each($1) wanted
                 JOIN oms_variant v ON v.sku = wanted.value AND v.deleted_at IS NULL
                 JOIN oms_product p ON p.id = v.product_id
                 JOIN oms_stock s ON s.variant_id = v.id",
            )
            .bind(Json(&skus))
            .fetch_all(&mut **conn)
            .await?
        }
        #[cfg(feature = "postgres")]
        // The sort stands below the locks in the plan: rows are locked in the order of their ids.
        Tx::Postgres(tx) => limited!(tx, |conn| {
            sqlx::query_as(
                "SELECT v.sku, v.id AS variant_id, v.business_id, p.name AS product_name, v.name AS variant_name,
                        v.price, v.currency, s.on_hand - s.allocated AS available
                 FROM oms_variant v
                 JOIN oms_product p ON p.id = v.product_id
                 JOIN oms_stock s ON s.variant_id = v.id
                 WHERE v.sku = ANY($1) AND v.deleted_at IS NULL
                 ORDER BY v.id FOR NO KEY UPDATE OF s",
            )
            .bind(skus.into_iter().collect::<Vec<_>>())
            .fetch_all(conn)
            .await
        })?,
    };
    rows.into_iter().map(OfferRow::into_offer).collect()
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
            let mut sql = sqlx::QueryBuilder::new("DELETE FROM oms_idempotency WHERE id IN (");
            let mut ids = sql.separated(", ");
            for id in refused {
                ids.push_bind(*id);
            }
            sql.push(")").build().execute(&mut **conn).await.map(drop)?;
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
    // Each variant once: an UPDATE .. FROM applies only one of two rows for the same target.
    let mut net: BTreeMap<VariantId, i64> = BTreeMap::new();
    for line in orders.iter().flat_map(|o| &o.sale.lines) {
        *net.entry(line.offer.variant).or_default() += line.quantity;
    }
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

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

    use super::*;

    pub(super) async fn insert(
        conn: &mut SqliteConnection,
        orders: &[NewOrder<'_>],
        net: &BTreeMap<VariantId, i64>,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Vec<Written>> {
        for (variant, quantity) in net {
            let updated = sqlx::query(
                "UPDATE oms_stock SET allocated = allocated + $2, version = version + 1
                 WHERE variant_id = $1 AND on_hand - allocated >= $2",
            )
            .bind(variant)
            .bind(quantity)
            .execute(&mut *conn)
            .await?;
            if updated.rows_affected() != 1 {
                return Err(miscounted("stock rows"));
            }
        }
        let written = insert_orders(conn, orders, now, expires_at).await?;
        insert_lines(conn, orders).await?;
        insert_movements(conn, orders, now).await?;
        insert_events(conn, orders, now).await?;
        Ok(written)
    }

    async fn insert_orders(
        conn: &mut SqliteConnection,
        orders: &[NewOrder<'_>],
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Vec<Written>> {
        let count = i64::try_from(orders.len()).unwrap_or(i64::MAX);
        let (last,): (i64,) = sqlx::query_as(
            "UPDATE oms_counter SET value = value + $1 WHERE name = 'order_number' RETURNING value",
        )
        .bind(count)
        .fetch_one(&mut *conn)
        .await?;
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO oms_order (id, number, user_id, email, shipping_address, note, currency, subtotal, total,
                                    state, payment_state, expires_at, created_at, updated_at) ",
        );
        let mut number = last - count;
        sql.push_values(orders, |mut row, new| {
            number += 1;
            row.push_bind(new.id)
                .push_bind(number)
                .push_bind(new.user())
                .push("(SELECT email FROM oms_user WHERE id = ")
                .push_bind_unseparated(new.user())
                .push_unseparated(")")
                .push_bind(new.address())
                .push_bind(new.ticket.draft.note.as_deref())
                .push_bind(new.sale.total.currency().code())
                .push_bind(new.sale.total.minor())
                .push_bind(new.sale.total.minor())
                .push_bind(OrderState::AwaitingPayment.as_str())
                .push_bind(PaymentState::Unpaid.as_str())
                .push_bind(expires_at)
                .push_bind(now)
                .push_bind(now);
        });
        sql.push(" RETURNING id, number, email");
        Ok(sql.build_query_as().fetch_all(conn).await?)
    }

    async fn insert_lines(conn: &mut SqliteConnection, orders: &[NewOrder<'_>]) -> Result<()> {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO oms_order_line (order_id, line, variant_id, business_id, sku, name, unit_price, quantity, total) ",
        );
        let lines = orders
            .iter()
            .flat_map(|o| (1i64..).zip(&o.sale.lines).map(move |(n, line)| (o.id, n, line)));
        sql.push_values(lines, |mut row, (order, n, line)| {
            row.push_bind(order)
                .push_bind(n)
                .push_bind(line.offer.variant)
                .push_bind(line.offer.business)
                .push_bind(&line.sku)
                .push_bind(&line.offer.name)
                .push_bind(line.offer.price.minor())
                .push_bind(line.quantity)
                .push_bind(line.total.minor());
        });
        sql.build().execute(conn).await?;
        Ok(())
    }

    async fn insert_movements(
        conn: &mut SqliteConnection,
        orders: &[NewOrder<'_>],
        now: Timestamp,
    ) -> Result<()> {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO oms_stock_movement
                 (variant_id, id, delta_on_hand, delta_allocated, cause, order_id, actor, created_at) ",
        );
        let lines = orders
            .iter()
            .flat_map(|o| o.sale.lines.iter().map(move |line| (o, line)));
        sql.push_values(lines, |mut row, (new, line)| {
            row.push_bind(line.offer.variant)
                .push_bind(MovementId::new(now))
                .push_bind(0i64)
                .push_bind(line.quantity)
                .push_bind("allocate")
                .push_bind(new.id)
                .push_bind(new.user().to_string())
                .push_bind(now);
        });
        sql.build().execute(conn).await?;
        Ok(())
    }

    async fn insert_events(
        conn: &mut SqliteConnection,
        orders: &[NewOrder<'_>],
        now: Timestamp,
    ) -> Result<()> {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO oms_order_event (order_id, version, kind, actor, data, created_at) ",
        );
        sql.push_values(orders, |mut row, new| {
            row.push_bind(new.id)
                .push_bind(1i64)
                .push_bind("placed")
                .push_bind(new.user().to_string())
                .push_bind("{}")
                .push_bind(now);
        });
        sql.build().execute(conn).await?;
        Ok(())
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::*;
    use crate::db::PgTx;

    /// Everything in one statement: a batch costs its round trips and its commit once.
    const INSERT: &str = "
        WITH taken AS (
            UPDATE oms_stock s SET allocated = s.allocated + n.quantity, version = s.version + 1
            FROM UNNEST($1::uuid[], $2::bigint[]) AS n (variant_id, quantity)
            WHERE s.variant_id = n.variant_id AND s.on_hand - s.allocated >= n.quantity
            RETURNING 1
        ), new_order AS (
            INSERT INTO oms_order (id, number, user_id, email, shipping_address, note, currency, subtotal, total,
                                   state, payment_state, expires_at, created_at, updated_at)
            SELECT o.id, nextval('oms_order_number'), o.user_id, u.email, o.shipping_address, o.note, o.currency,
                   o.total, o.total, 'awaiting_payment', 'unpaid', $9, $10, $10
            FROM UNNEST($3::uuid[], $4::uuid[], $5::jsonb[], $6::text[], $7::text[], $8::bigint[])
                 AS o (id, user_id, shipping_address, note, currency, total)
            JOIN oms_user u ON u.id = o.user_id
            RETURNING id, number, email, user_id
        ), new_line AS (
            INSERT INTO oms_order_line (order_id, line, variant_id, business_id, sku, name, unit_price, quantity, total)
            SELECT * FROM UNNEST($11::uuid[], $12::bigint[], $13::uuid[], $14::uuid[], $15::text[], $16::text[],
                                 $17::bigint[], $18::bigint[], $19::bigint[])
        ), new_movement AS (
            INSERT INTO oms_stock_movement
                (variant_id, id, delta_on_hand, delta_allocated, cause, order_id, actor, created_at)
            SELECT m.variant_id, m.id, 0, m.quantity, 'allocate', m.order_id, m.actor, $10
            FROM UNNEST($13::uuid[], $20::uuid[], $18::bigint[], $11::uuid[], $21::text[])
                 AS m (variant_id, id, quantity, order_id, actor)
        ), new_event AS (
            INSERT INTO oms_order_event (order_id, version, kind, actor, data, created_at)
            SELECT e.order_id, 1, 'placed', e.actor, '{}', $10
            FROM UNNEST($3::uuid[], $22::text[]) AS e (order_id, actor)
        )
        SELECT id, number, email, (SELECT count(*) FROM taken) FROM new_order";

    pub(super) async fn insert(
        tx: &mut PgTx,
        orders: &[NewOrder<'_>],
        net: &BTreeMap<VariantId, i64>,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Vec<Written>> {
        let lines: Vec<_> = orders
            .iter()
            .flat_map(|o| (1i64..).zip(&o.sale.lines).map(move |(n, line)| (o, n, line)))
            .collect();
        let actors: Vec<String> = orders.iter().map(|o| o.user().to_string()).collect();
        let insert = sqlx::query_as(INSERT)
            .bind(net.keys().copied().collect::<Vec<_>>())
            .bind(net.values().copied().collect::<Vec<_>>())
            .bind(orders.iter().map(|o| o.id).collect::<Vec<_>>())
            .bind(orders.iter().map(NewOrder::user).collect::<Vec<_>>())
            .bind(orders.iter().map(NewOrder::address).collect::<Vec<_>>())
            .bind(
                orders
                    .iter()
                    .map(|o| o.ticket.draft.note.as_deref())
                    .collect::<Vec<_>>(),
            )
            .bind(
                orders
                    .iter()
                    .map(|o| o.sale.total.currency().to_string())
                    .collect::<Vec<_>>(),
            )
            .bind(orders.iter().map(|o| o.sale.total.minor()).collect::<Vec<_>>())
            .bind(expires_at)
            .bind(now)
            .bind(lines.iter().map(|(o, _, _)| o.id).collect::<Vec<_>>())
            .bind(lines.iter().map(|(_, n, _)| *n).collect::<Vec<_>>())
            .bind(lines.iter().map(|(_, _, l)| l.offer.variant).collect::<Vec<_>>())
            .bind(lines.iter().map(|(_, _, l)| l.offer.business).collect::<Vec<_>>())
            .bind(lines.iter().map(|(_, _, l)| l.sku.as_str()).collect::<Vec<_>>())
            .bind(
                lines
                    .iter()
                    .map(|(_, _, l)| l.offer.name.as_str())
                    .collect::<Vec<_>>(),
            )
            .bind(
                lines
                    .iter()
                    .map(|(_, _, l)| l.offer.price.minor())
                    .collect::<Vec<_>>(),
            )
            .bind(lines.iter().map(|(_, _, l)| l.quantity).collect::<Vec<_>>())
            .bind(lines.iter().map(|(_, _, l)| l.total.minor()).collect::<Vec<_>>())
            .bind(lines.iter().map(|_| MovementId::new(now)).collect::<Vec<_>>())
            .bind(
                lines
                    .iter()
                    .map(|(o, _, _)| o.user().to_string())
                    .collect::<Vec<_>>(),
            )
            .bind(actors);
        let rows: Vec<(OrderId, i64, String, i64)> = limited!(tx, |conn| insert.fetch_all(conn).await)?;
        if rows.iter().any(|row| usize::try_from(row.3) != Ok(net.len())) {
            return Err(miscounted("stock rows"));
        }
        Ok(rows
            .into_iter()
            .map(|(id, number, email, _)| (id, number, email))
            .collect())
    }
}
