//! SQLite has no arrays: the rows of a table come as VALUES, all of them in one statement. Statements for the same number
//! of rows are one text, as each way to the connection's thread and back takes as long as running one for a single order.
//! There is a power of two of rows, of which the last ones are empty and left out: a text for each size of batch would be
//! parsed anew nearly every time, which takes longer than running it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow, Row as _, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::{NewOrder, OfferRow, Written, miscounted};
use crate::error::Result;
use crate::id::{MovementId, OrderId, VariantId};
use crate::idempotency::Claim;
use crate::time::Timestamp;

type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// The most lines of one statement. A batch has no more orders than that, so that each text has eight sizes at most, all of
/// them kept prepared.
const MOST: usize = 128;

/// Statements in one text. `{rows}` stands for so many rows of this number of columns. They take what is bound one after
/// the other, and what they return comes in this order.
fn texts<'q>(texts: &[(&str, usize)], rows: usize) -> Statement<'q> {
    let texts = texts.iter().map(|(text, width)| {
        let row = format!("({})", vec!["?"; *width].join(", "));
        let values = vec![row; rows.next_power_of_two()].join(", ");
        text.replace("{rows}", &format!("(VALUES {values}) WHERE column1 IS NOT NULL"))
    });
    sqlx::query(AssertSqlSafe(texts.collect::<Vec<_>>().join(";")))
}

/// Binds the rows after what else was bound, and the empty ones after them.
fn with_rows<'q, T>(
    statement: Statement<'q>,
    width: usize,
    rows: &'q [T],
    bind: impl Fn(Statement<'q>, &'q T) -> Statement<'q>,
) -> Statement<'q> {
    let empty = width * (rows.len().next_power_of_two() - rows.len());
    let statement = rows.iter().fold(statement, bind);
    (0..empty).fold(statement, |statement, _| statement.bind(None::<i64>))
}

const TAKE_KEYS: &str = "
    INSERT INTO oms_idempotency (id, operation, key, fingerprint, result_id, created_at)
    SELECT column1, column2, column3, column4, column5, ? FROM {rows}
    ON CONFLICT DO NOTHING RETURNING id";

pub(super) const OFFERS: &str = "
    SELECT v.sku, v.id AS variant_id, v.business_id, p.name AS product_name, v.name AS variant_name,
           v.price, v.currency, s.on_hand - s.allocated AS available
    FROM json_each(?) wanted
    JOIN oms_variant v ON v.sku = wanted.value AND v.deleted_at IS NULL
    JOIN oms_product p ON p.id = v.product_id
    JOIN oms_stock s ON s.variant_id = v.id";

/// The write transaction is the lock.
#[tracing::instrument(level = "debug", name = "sql", skip_all)]
pub(super) async fn take(
    conn: &mut SqliteConnection,
    keys: &[(&Claim, &OrderId)],
    skus: &BTreeSet<&str>,
    now: Timestamp,
) -> Result<(HashSet<Uuid>, Vec<OfferRow>)> {
    let take = texts(&[(TAKE_KEYS, 5), (OFFERS, 0)], keys.len()).bind(now);
    let take = with_rows(take, 5, keys, |take, (claim, id)| {
        take.bind(claim.id)
            .bind(claim.operation)
            .bind(claim.key.as_str())
            .bind(&claim.fingerprint)
            .bind(id.uuid())
    });
    // A JSON text is one value of any length.
    let rows = take.bind(Json(skus)).fetch_all(conn).await?;
    // Of a key that was taken its id alone comes back.
    let (keys, offers): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.len() == 1);
    let keys = keys.into_iter().map(|row| Ok(row.try_get(0)?));
    let offers = offers.into_iter().map(|row| Ok(OfferRow::from_row(row)?));
    Ok((keys.collect::<Result<_>>()?, offers.collect::<Result<_>>()?))
}

/// Pairs of an id in hexadecimal, as JSON has no bytes, and units.
const TAKE_STOCK: &str = "
    UPDATE oms_stock SET allocated = allocated + (wanted.value ->> 1), version = version + 1
    FROM json_each(?) wanted
    WHERE variant_id = unhex(wanted.value ->> 0) AND on_hand - allocated >= (wanted.value ->> 1)
    RETURNING 1";

const TAKE_NUMBERS: &str = "UPDATE oms_counter SET value = value + ? WHERE name = 'order_number'";

const INSERT_ORDERS: &str = "
    INSERT INTO oms_order (id, number, user_id, email, shipping_address, note, currency, subtotal, total,
                           state, payment_state, expires_at, created_at, updated_at)
    SELECT column1, (SELECT value FROM oms_counter WHERE name = 'order_number') - column2, column3,
           (SELECT email FROM oms_user WHERE id = column3), column4, column5, column6,
           column7, column7, 'awaiting_payment', 'unpaid', ?, ?, ?
    FROM {rows}
    RETURNING id, number, email";

const INSERT_EVENTS: &str = "
    INSERT INTO oms_order_event (order_id, version, kind, actor, data, created_at)
    SELECT column1, 1, 'placed', column2, '{}', ? FROM {rows}";

pub(super) async fn insert(
    conn: &mut SqliteConnection,
    orders: &[NewOrder<'_>],
    net: &BTreeMap<VariantId, i64>,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<Vec<Written>> {
    let wanted: Vec<(String, i64)> = net
        .iter()
        .map(|(variant, quantity)| (variant.uuid().simple().to_string(), *quantity))
        .collect();
    let count = i64::try_from(orders.len()).unwrap_or(i64::MAX);
    // The first one is the farthest from the last number.
    let numbered: Vec<_> = orders.iter().zip((0..count).rev()).collect();
    let statements = [
        (TAKE_STOCK, 0),
        (TAKE_NUMBERS, 0),
        (INSERT_ORDERS, 7),
        (INSERT_EVENTS, 2),
    ];
    let insert = texts(&statements, orders.len()).bind(Json(wanted)).bind(count);
    let insert = insert.bind(expires_at).bind(now).bind(now);
    let insert = with_rows(insert, 7, &numbered, |insert, (new, before_last)| {
        insert
            .bind(new.id)
            .bind(before_last)
            .bind(new.user())
            .bind(new.address())
            .bind(new.ticket.draft.note.as_deref())
            .bind(new.sale.total.currency().code())
            .bind(new.sale.total.minor())
    });
    let insert = with_rows(insert.bind(now), 2, orders, |insert, new| {
        insert.bind(new.id).bind(new.user().to_string())
    });
    let rows = insert.fetch_all(&mut *conn).await?;
    let (taken, written) = rows.split_at_checked(net.len()).unwrap_or((&rows, &[]));
    if taken.iter().any(|row| row.len() != 1) || written.len() != orders.len() {
        return Err(miscounted("stock rows"));
    }
    insert_lines(conn, orders, now).await?;
    let written = written.iter().map(|row| Ok(Written::from_row(row)?));
    written.collect()
}

const INSERT_LINES: &str = "
    INSERT INTO oms_order_line
        (order_id, line, variant_id, business_id, sku, name, unit_price, quantity, total)
    SELECT * FROM {rows}";

const INSERT_MOVEMENTS: &str = "
    INSERT INTO oms_stock_movement
        (variant_id, id, delta_on_hand, delta_allocated, cause, order_id, actor, created_at)
    SELECT column1, column2, 0, column3, 'allocate', column4, column5, ? FROM {rows}";

/// With the movement of each.
async fn insert_lines(conn: &mut SqliteConnection, orders: &[NewOrder<'_>], now: Timestamp) -> Result<()> {
    let lines = orders
        .iter()
        .flat_map(|new| (1i64..).zip(&new.sale.lines).map(move |(n, line)| (new, n, line)));
    for part in lines.collect::<Vec<_>>().chunks(MOST) {
        let insert = texts(&[(INSERT_LINES, 9), (INSERT_MOVEMENTS, 5)], part.len());
        let insert = with_rows(insert, 9, part, |insert, (new, n, line)| {
            insert
                .bind(new.id)
                .bind(n)
                .bind(line.offer.variant)
                .bind(line.offer.business)
                .bind(&line.sku)
                .bind(&line.offer.name)
                .bind(line.offer.price.minor())
                .bind(line.quantity)
                .bind(line.total.minor())
        });
        let insert = with_rows(insert.bind(now), 5, part, |insert, (new, _, line)| {
            insert
                .bind(line.offer.variant)
                .bind(MovementId::new(now))
                .bind(line.quantity)
                .bind(new.id)
                .bind(new.user().to_string())
        });
        insert.execute(&mut *conn).await?;
    }
    Ok(())
}
