use std::collections::BTreeMap;

use super::model::{Cause, Movement, StockLevel};
use crate::catalog::Sku;
use crate::db::{Tx, run};
use crate::error::{Error, Result};
use crate::id::{MovementId, OrderId, UserId, VariantId};
use crate::orders::OrderState;
use crate::time::Timestamp;

/// What movements say beside their numbers.
pub(crate) struct Note<'a> {
    pub(crate) now: Timestamp,
    pub(crate) actor: &'a str,
    pub(crate) order: Option<OrderId>,
    pub(crate) cause: Cause,
    pub(crate) reason: Option<&'a str>,
}

/// Writes a movement for each variant, with the units that come to its on hand and its allocated ones, and moves the
/// stock along. The caller has locked the rows of stock in order. Each variant may stand there once; a change that
/// would oversell is a defect of the caller, since it has seen the numbers under the lock.
pub(crate) async fn apply(
    tx: &mut Tx,
    now: Timestamp,
    actor: &str,
    order: Option<OrderId>,
    cause: Cause,
    changes: &[(VariantId, i64, i64)],
) -> Result<()> {
    let note = Note {
        now,
        actor,
        order,
        cause,
        reason: None,
    };
    record(tx, &note, changes).await
}

/// Takes units of every variant for an order, or of none: false when one has too few available. The caller has locked
/// the rows of stock in order. Each variant may stand there once.
pub(crate) async fn try_allocate(
    tx: &mut Tx,
    now: Timestamp,
    actor: &str,
    order: OrderId,
    wanted: &[(VariantId, i64)],
) -> Result<bool> {
    let mut changes = Vec::with_capacity(wanted.len());
    for (variant, units) in wanted {
        let level = level(tx, *variant).await?;
        if *units <= 0 {
            return Err(Error::Internal(format!("allocate {units} units of {variant}")));
        }
        if level.available() < *units {
            return Ok(false);
        }
        changes.push((*variant, 0, *units));
    }
    apply(tx, now, actor, Some(order), Cause::Allocate, &changes).await?;
    Ok(true)
}

/// As [`apply`], with a reason. Two statements, however many variants there are.
pub(crate) async fn record(tx: &mut Tx, note: &Note<'_>, changes: &[(VariantId, i64, i64)]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let once: BTreeMap<VariantId, ()> = changes.iter().map(|(variant, ..)| (*variant, ())).collect();
    if once.len() != changes.len() {
        // UPDATE .. FROM applies only one of two rows with the same id.
        return Err(Error::Internal(
            "a variant stands twice in one change of stock".into(),
        ));
    }
    let changed = run!(tx, |conn| {
        let mut query = sqlx::QueryBuilder::new(
            "UPDATE oms_stock SET on_hand = on_hand + change.column2, allocated = allocated + change.column3,
                 version = version + 1 FROM (",
        );
        query.push_values(changes, |mut row, (variant, on_hand, allocated)| {
            row.push_bind(*variant).push_bind(*on_hand).push_bind(*allocated);
        });
        // Also a CHECK of the table, but this way the transaction lives on and the error says what happened.
        query.push(
            ") AS change WHERE variant_id = change.column1 AND allocated + change.column3 >= 0
                 AND on_hand + change.column2 >= allocated + change.column3",
        );
        query.build().execute(conn).await.map(|done| done.rows_affected())
    })?;
    if changed != changes.len() as u64 {
        return Err(Error::Internal(format!(
            "{} of {} rows of stock fit the change: {changes:?}",
            changed,
            changes.len(),
        )));
    }
    run!(tx, |conn| {
        let mut query = sqlx::QueryBuilder::new(
            "INSERT INTO oms_stock_movement (variant_id, id, delta_on_hand, delta_allocated, cause, order_id,
                 actor, reason, created_at) ",
        );
        query.push_values(changes, |mut row, (variant, on_hand, allocated)| {
            row.push_bind(*variant)
                .push_bind(MovementId::new(note.now))
                .push_bind(*on_hand)
                .push_bind(*allocated)
                .push_bind(note.cause.as_str())
                .push_bind(note.order)
                .push_bind(note.actor)
                .push_bind(note.reason)
                .push_bind(note.now);
        });
        query.build().execute(conn).await.map(drop)
    })?;
    Ok(())
}

/// A variant on sale and who sells it.
#[derive(sqlx::FromRow)]
pub(super) struct OnSale {
    pub(super) variant: VariantId,
    pub(super) owner: UserId,
}

pub(super) async fn on_sale(tx: &mut Tx, sku: &Sku) -> Result<Option<OnSale>> {
    let row = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT v.id AS variant, b.owner_id AS owner
             FROM oms_variant v JOIN oms_business b ON b.id = v.business_id
             WHERE v.sku = $1 AND v.deleted_at IS NULL",
        )
        .bind(sku.as_str())
        .fetch_optional(conn)
        .await
    })?;
    Ok(row)
}

/// The stock of a variant, on sale or not.
pub(super) async fn level(tx: &mut Tx, variant: VariantId) -> Result<StockLevel> {
    let row: Option<(String, i64, i64, i64)> = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT v.sku, s.on_hand, s.allocated, s.version
             FROM oms_stock s JOIN oms_variant v ON v.id = s.variant_id WHERE s.variant_id = $1",
        )
        .bind(variant)
        .fetch_optional(conn)
        .await
    })?;
    let (sku, on_hand, allocated, version) =
        row.ok_or_else(|| Error::Internal(format!("{variant} has no row of stock")))?;
    Ok(StockLevel {
        sku,
        variant,
        on_hand,
        allocated,
        version,
    })
}

#[derive(sqlx::FromRow)]
struct MovementRow {
    id: MovementId,
    delta_on_hand: i64,
    delta_allocated: i64,
    cause: String,
    order_id: Option<OrderId>,
    actor: String,
    reason: Option<String>,
    created_at: Timestamp,
}

/// The newest first.
pub(super) async fn movements(
    tx: &mut Tx,
    variant: VariantId,
    after: Option<MovementId>,
    limit: i64,
) -> Result<Vec<Movement>> {
    let rows: Vec<MovementRow> = run!(tx, |conn| {
        let mut query = sqlx::QueryBuilder::new(
            "SELECT id, delta_on_hand, delta_allocated, cause, order_id, actor, reason, created_at
             FROM oms_stock_movement WHERE variant_id = ",
        );
        query.push_bind(variant);
        if let Some(after) = after {
            query.push(" AND id < ").push_bind(after);
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
        query.build_query_as().fetch_all(conn).await
    })?;
    rows.into_iter().map(MovementRow::read).collect()
}

impl MovementRow {
    fn read(self) -> Result<Movement> {
        let cause = Cause::parse(&self.cause).ok_or_else(|| Error::Corrupt {
            table: "oms_stock_movement",
            column: "cause",
            id: self.id.to_string(),
            detail: self.cause.clone(),
        })?;
        Ok(Movement {
            id: self.id,
            delta_on_hand: self.delta_on_hand,
            delta_allocated: self.delta_allocated,
            cause,
            order: self.order_id,
            actor: self.actor,
            reason: self.reason,
            at: self.created_at,
        })
    }
}

/// Recomputes all stock from the movements and from the open orders, and tells every difference. Takes a snapshot:
/// each of its statements must see the same moment.
pub(crate) async fn verify(tx: &mut Tx) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let missing: Vec<(VariantId,)> = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT v.id FROM oms_variant v LEFT JOIN oms_stock s ON s.variant_id = v.id
             WHERE s.variant_id IS NULL ORDER BY v.id",
        )
        .fetch_all(conn)
        .await
    })?;
    lines.extend(
        missing
            .iter()
            .map(|(variant,)| format!("{variant} has no row of stock")),
    );

    // PostgreSQL adds bigints up to a numeric, hence the casts.
    let moved: Vec<(VariantId, String, i64, i64, i64, i64)> = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT s.variant_id, v.sku, s.on_hand, s.allocated, m.on_hand, m.allocated
             FROM oms_stock s JOIN oms_variant v ON v.id = s.variant_id
             JOIN (SELECT s.variant_id,
                       CAST(COALESCE(SUM(m.delta_on_hand), 0) AS BIGINT) AS on_hand,
                       CAST(COALESCE(SUM(m.delta_allocated), 0) AS BIGINT) AS allocated
                   FROM oms_stock s LEFT JOIN oms_stock_movement m ON m.variant_id = s.variant_id
                   GROUP BY s.variant_id) m ON m.variant_id = s.variant_id
             WHERE s.on_hand <> m.on_hand OR s.allocated <> m.allocated ORDER BY s.variant_id",
        )
        .fetch_all(conn)
        .await
    })?;
    for (variant, sku, on_hand, allocated, moved_on_hand, moved_allocated) in moved {
        for (what, stock, sum) in [
            ("on hand", on_hand, moved_on_hand),
            ("allocated", allocated, moved_allocated),
        ] {
            if stock != sum {
                lines.push(format!(
                    "{variant} ({sku}): {what} is {stock}, its movements add up to {sum}"
                ));
            }
        }
    }
    lines.extend(verify_allocated(tx).await?);
    Ok(lines)
}

async fn verify_allocated(tx: &mut Tx) -> Result<Vec<String>> {
    let holding = [
        OrderState::AwaitingPayment,
        OrderState::Paid,
        OrderState::PartiallyFulfilled,
    ];
    let rows: Vec<(VariantId, String, i64, i64)> = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT s.variant_id, v.sku, s.allocated, COALESCE(q.units, 0)
             FROM oms_stock s JOIN oms_variant v ON v.id = s.variant_id
             LEFT JOIN (SELECT l.variant_id,
                            CAST(SUM(l.quantity - l.fulfilled - l.canceled) AS BIGINT) AS units
                        FROM oms_order_line l JOIN oms_order o ON o.id = l.order_id
                        WHERE o.state IN ($1, $2, $3) GROUP BY l.variant_id) q ON q.variant_id = s.variant_id
             WHERE s.allocated <> COALESCE(q.units, 0) ORDER BY s.variant_id",
        )
        .bind(holding[0].as_str())
        .bind(holding[1].as_str())
        .bind(holding[2].as_str())
        .fetch_all(conn)
        .await
    })?;
    let tell = |(variant, sku, allocated, open)| {
        format!("{variant} ({sku}): allocated is {allocated}, open orders have {open}")
    };
    Ok(rows.into_iter().map(tell).collect())
}
