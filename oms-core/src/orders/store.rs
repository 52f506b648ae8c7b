//! SQL of orders, their lines, timelines and fulfilments. Placing has its own in `placement/write/`.

use std::collections::HashMap;

use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow};

use super::model::{
    Address, Fulfillment, FulfillmentLine, Order, OrderLine, OrderState, PaymentState, TimelineEntry,
};
use crate::actor::Actor;
use crate::db::{Tx, push_list, row_lock, run};
use crate::error::{Error, Result};
use crate::id::{BusinessId, FulfillmentId, OrderId, UserId, VariantId};
use crate::money::{Currency, Money};
use crate::telemetry;
use crate::time::Timestamp;

#[derive(FromRow)]
struct OrderRow {
    id: OrderId,
    number: i64,
    user_id: Option<UserId>,
    email: String,
    shipping_address: Option<Json<Address>>,
    billing_address: Option<Json<Address>>,
    note: Option<String>,
    currency: String,
    subtotal: i64,
    discount: i64,
    shipping: i64,
    tax: i64,
    total: i64,
    state: String,
    payment_state: String,
    expires_at: Option<Timestamp>,
    external_ref: Option<String>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(FromRow)]
struct LineRow {
    order_id: OrderId,
    variant_id: VariantId,
    business_id: BusinessId,
    sku: String,
    name: String,
    unit_price: i64,
    quantity: i64,
    fulfilled: i64,
    canceled: i64,
    returned: i64,
    discount: i64,
    tax: i64,
    total: i64,
}

impl OrderRow {
    fn into_order(self, lines: Vec<LineRow>) -> Result<Order> {
        let id = self.id;
        let corrupt = move |column| {
            move |detail| Error::Corrupt {
                table: "oms_order",
                column,
                id: id.to_string(),
                detail,
            }
        };
        let unknown = |column, text: &str| corrupt(column)(format!("{text:?} is not known"));
        let currency: Currency = self.currency.parse().map_err(corrupt("currency"))?;
        let money = |column, minor| Money::new(minor, currency).map_err(corrupt(column));
        let lines = lines
            .into_iter()
            .map(|line| line.into_line(currency).map_err(corrupt("lines")));
        Ok(Order {
            id,
            number: self.number,
            user: self.user_id,
            email: self.email,
            shipping_address: self.shipping_address.map(|a| a.0),
            billing_address: self.billing_address.map(|a| a.0),
            note: self.note,
            currency,
            subtotal: money("subtotal", self.subtotal)?,
            discount: money("discount", self.discount)?,
            shipping: money("shipping", self.shipping)?,
            tax: money("tax", self.tax)?,
            total: money("total", self.total)?,
            state: OrderState::parse(&self.state).ok_or_else(|| unknown("state", &self.state))?,
            payment_state: PaymentState::parse(&self.payment_state)
                .ok_or_else(|| unknown("payment_state", &self.payment_state))?,
            expires_at: self.expires_at,
            external_ref: self.external_ref,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
            lines: lines.collect::<Result<_>>()?,
        })
    }
}

impl LineRow {
    fn into_line(self, currency: Currency) -> Result<OrderLine, String> {
        let money = |minor| Money::new(minor, currency);
        Ok(OrderLine {
            variant: self.variant_id,
            business: self.business_id,
            sku: self.sku,
            name: self.name,
            unit_price: money(self.unit_price)?,
            quantity: self.quantity,
            fulfilled: self.fulfilled,
            canceled: self.canceled,
            returned: self.returned,
            discount: money(self.discount)?,
            tax: money(self.tax)?,
            total: money(self.total)?,
        })
    }
}

pub(super) async fn find(tx: &mut Tx, id: OrderId) -> Result<Option<Order>> {
    let row: Option<OrderRow> = run!(tx, |conn| {
        sqlx::query_as("SELECT * FROM oms_order WHERE id = $1")
            .bind(id)
            .fetch_optional(conn)
            .await
    })?;
    let Some(row) = row else { return Ok(None) };
    Ok(with_lines(tx, vec![row]).await?.pop())
}

/// The order with its row locked until the transaction ends.
pub(super) async fn load_locked(tx: &mut Tx, id: OrderId) -> Result<Order> {
    all_locked(tx, &[id]).await?.pop().ok_or(Error::NotFound("order"))
}

/// As [`load_locked`], those that there are of at least one.
pub(super) async fn all_locked(tx: &mut Tx, ids: &[OrderId]) -> Result<Vec<Order>> {
    let lock = row_lock(tx);
    let rows: Vec<OrderRow> = run!(tx, |conn| {
        let mut sql = sqlx::QueryBuilder::new("SELECT * FROM oms_order WHERE id IN ");
        push_list(&mut sql, ids);
        sql.push(" ORDER BY id").push(lock);
        sql.build_query_as().fetch_all(conn).await
    })?;
    with_lines(tx, rows).await
}

async fn with_lines(tx: &mut Tx, rows: Vec<OrderRow>) -> Result<Vec<Order>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<OrderId> = rows.iter().map(|row| row.id).collect();
    let lines: Vec<LineRow> = run!(tx, |conn| {
        let mut sql = sqlx::QueryBuilder::new("SELECT * FROM oms_order_line WHERE order_id IN ");
        push_list(&mut sql, &ids);
        sql.push(" ORDER BY order_id, line");
        sql.build_query_as().fetch_all(conn).await
    })?;
    let mut by_order: HashMap<OrderId, Vec<LineRow>> = HashMap::new();
    for line in lines {
        by_order.entry(line.order_id).or_default().push(line);
    }
    rows.into_iter()
        .map(|row| {
            let lines = by_order.remove(&row.id).unwrap_or_default();
            row.into_order(lines)
        })
        .collect()
}

/// Which orders a list shows, the newest first.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) user: Option<UserId>,
    pub(super) state: Option<OrderState>,
    pub(super) after: Option<OrderId>,
}

/// Its values stand in the order of the fields, then the limit.
pub(super) fn list_sql(listed: &Listed) -> String {
    let conditions = [
        (listed.user.is_some(), "user_id = "),
        (listed.state.is_some(), "state = "),
        (listed.after.is_some(), "id < "),
    ];
    let mut sql = "SELECT * FROM oms_order WHERE 1 = 1".to_owned();
    let mut value = 1;
    for (_, condition) in conditions.iter().filter(|(asked, _)| *asked) {
        sql += &format!(" AND {condition}${value}");
        value += 1;
    }
    sql + &format!(" ORDER BY id DESC LIMIT ${value}")
}

pub(super) async fn list(tx: &mut Tx, listed: &Listed, limit: i64) -> Result<Vec<Order>> {
    let rows: Vec<OrderRow> = run!(tx, |conn| {
        let mut query = sqlx::query_as(AssertSqlSafe(list_sql(listed)));
        if let Some(user) = listed.user {
            query = query.bind(user);
        }
        if let Some(state) = listed.state {
            query = query.bind(state.as_str());
        }
        if let Some(after) = listed.after {
            query = query.bind(after);
        }
        query.bind(limit).fetch_all(conn).await
    })?;
    with_lines(tx, rows).await
}

/// Stores what changes about an order and one entry of its timeline, and raises its version.
/// The row must be locked since it was loaded.
pub(super) async fn change(
    tx: &mut Tx,
    order: &mut Order,
    actor: &Actor,
    kind: &str,
    data: &serde_json::Value,
    now: Timestamp,
) -> Result<()> {
    let expected = order.version;
    order.version += 1;
    order.updated_at = now;
    let updated = run!(tx, |conn| {
        sqlx::query(
            "UPDATE oms_order SET state = $3, payment_state = $4, expires_at = $5, version = $6, updated_at = $7
             WHERE id = $1 AND version = $2",
        )
        .bind(order.id)
        .bind(expected)
        .bind(order.state.as_str())
        .bind(order.payment_state.as_str())
        .bind(order.expires_at)
        .bind(order.version)
        .bind(now)
        .execute(conn)
        .await
        .map(|done| done.rows_affected())
    })?;
    telemetry::order_changed(kind);
    if updated != 1 {
        return Err(Error::Internal(format!(
            "order {} changed while its row was locked",
            order.id
        )));
    }
    run!(tx, |conn| {
        sqlx::query(
            "INSERT INTO oms_order_event (order_id, version, kind, actor, data, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(order.id)
        .bind(order.version)
        .bind(kind)
        .bind(actor.to_string())
        .bind(Json(data))
        .bind(now)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Stores the unit counts of every line.
pub(super) async fn update_lines(tx: &mut Tx, order: &Order) -> Result<()> {
    for (n, line) in (1i64..).zip(&order.lines) {
        run!(tx, |conn| {
            sqlx::query(
                "UPDATE oms_order_line SET fulfilled = $3, canceled = $4, returned = $5
                 WHERE order_id = $1 AND line = $2",
            )
            .bind(order.id)
            .bind(n)
            .bind(line.fulfilled)
            .bind(line.canceled)
            .bind(line.returned)
            .execute(conn)
            .await
            .map(drop)
        })?;
    }
    Ok(())
}

pub(super) async fn timeline(tx: &mut Tx, order: OrderId) -> Result<Vec<TimelineEntry>> {
    let rows: Vec<(i64, String, String, Json<serde_json::Value>, Timestamp)> = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT version, kind, actor, data, created_at FROM oms_order_event WHERE order_id = $1 ORDER BY version",
        )
        .bind(order)
        .fetch_all(conn)
        .await
    })?;
    Ok(rows
        .into_iter()
        .map(|(version, kind, actor, data, at)| TimelineEntry {
            version,
            kind,
            actor,
            data: data.0,
            at,
        })
        .collect())
}

/// Unpaid orders whose time is over, the oldest first.
pub(super) async fn due(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<OrderId>> {
    let rows: Vec<(OrderId,)> = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT id FROM oms_order
             WHERE state = 'awaiting_payment' AND expires_at IS NOT NULL AND expires_at <= $1
             ORDER BY expires_at LIMIT $2",
        )
        .bind(now)
        .bind(limit)
        .fetch_all(conn)
        .await
    })?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

pub(super) async fn insert_fulfillment(tx: &mut Tx, fulfillment: &Fulfillment) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "INSERT INTO oms_fulfillment (id, order_id, tracking, lines, created_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(fulfillment.id)
        .bind(fulfillment.order)
        .bind(fulfillment.tracking.as_deref())
        .bind(Json(&fulfillment.lines))
        .bind(fulfillment.created_at)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

type FulfillmentRow = (
    FulfillmentId,
    OrderId,
    Option<String>,
    Json<Vec<FulfillmentLine>>,
    Timestamp,
);

fn fulfillment((id, order, tracking, lines, created_at): FulfillmentRow) -> Fulfillment {
    Fulfillment {
        id,
        order,
        tracking,
        lines: lines.0,
        created_at,
    }
}

pub(super) async fn find_fulfillment(tx: &mut Tx, id: FulfillmentId) -> Result<Option<Fulfillment>> {
    let row: Option<FulfillmentRow> = run!(tx, |conn| {
        sqlx::query_as("SELECT id, order_id, tracking, lines, created_at FROM oms_fulfillment WHERE id = $1")
            .bind(id)
            .fetch_optional(conn)
            .await
    })?;
    Ok(row.map(fulfillment))
}

pub(super) async fn fulfillments(tx: &mut Tx, order: OrderId) -> Result<Vec<Fulfillment>> {
    let rows: Vec<FulfillmentRow> = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT id, order_id, tracking, lines, created_at FROM oms_fulfillment WHERE order_id = $1 ORDER BY id",
        )
        .bind(order)
        .fetch_all(conn)
        .await
    })?;
    Ok(rows.into_iter().map(fulfillment).collect())
}

/// Sums over an order's payments, for its payment state.
#[derive(FromRow)]
pub(super) struct Paid {
    pub(super) open: i64,
    pub(super) authorized: i64,
    pub(super) captured: i64,
    pub(super) refunded: i64,
}

pub(super) async fn paid(tx: &mut Tx, order: OrderId) -> Result<Paid> {
    // SUM of bigint is numeric on PostgreSQL: the casts bring it back.
    Ok(run!(tx, |conn| {
        sqlx::query_as(
            "SELECT COUNT(CASE WHEN open THEN 1 END) AS open,
                    COUNT(CASE WHEN status = 'authorized' THEN 1 END) AS authorized,
                    CAST(COALESCE(SUM(captured), 0) AS BIGINT) AS captured,
                    CAST(COALESCE(SUM(refunded), 0) AS BIGINT) AS refunded
             FROM oms_payment WHERE order_id = $1",
        )
        .bind(order)
        .fetch_one(conn)
        .await
    })?)
}

/// Whether an open payment holds the order: its money may be on its way.
pub(super) async fn is_held(tx: &mut Tx, order: OrderId) -> Result<bool> {
    let (held,): (i64,) = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT COUNT(*) FROM oms_payment WHERE order_id = $1
             AND ((open AND status IN ('pending', 'authorized', 'partially_captured')) OR attention IS NOT NULL)",
        )
        .bind(order)
        .fetch_one(conn)
        .await
    })?;
    Ok(held > 0)
}

/// Sets only the expiry, without an entry in the timeline: nobody acted.
pub(super) async fn postpone(tx: &mut Tx, order: OrderId, until: Timestamp) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query("UPDATE oms_order SET expires_at = $2 WHERE id = $1")
            .bind(order)
            .bind(until)
            .execute(conn)
            .await
            .map(drop)
    })?;
    Ok(())
}
