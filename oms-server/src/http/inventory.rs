//! Stock.

use oms_core::Actor;
use oms_core::inventory::{Adjust, Movement, StockLevel};
use poem::web::Data;
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::{Object, OpenApi};
use serde::Serialize;

use super::auth::Auth;
use super::error::{Result, idempotency_key};
use super::json::JsonBody;
use super::reply::{Created, List, Reply};
use super::values::page;
use super::{State, Tag};

pub(super) struct InventoryApi;

#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct Adjustment {
    /// Units more, or less when negative.
    delta: i64,
    /// For those who read the movements.
    reason: String,
}

/// The stock of a SKU.
#[derive(Debug, Object, Serialize)]
struct Stock {
    sku: String,
    /// Units in the house.
    on_hand: i64,
    /// Units of these that open orders have.
    allocated: i64,
    /// Units that can be ordered.
    available: i64,
    version: i64,
}

/// A change of stock. The sum of all is the stock.
#[derive(Debug, Object, Serialize)]
struct StockMovement {
    id: String,
    delta_on_hand: i64,
    delta_allocated: i64,
    /// `receive`, `adjust`, `allocate`, `release`, `ship` or `restock`.
    cause: String,
    order_id: Option<String>,
    /// Who: `usr_..`, `gateway:mock`, `system`.
    actor: String,
    reason: Option<String>,
    created_at: String,
}

#[OpenApi(prefix_path = "/v1", tag = "Tag::Stock")]
impl InventoryApi {
    /// The stock of a SKU
    #[oai(path = "/stock/:sku", method = "get", operation_id = "getStock")]
    async fn level(&self, state: Data<&State>, sku: Path<String>) -> Result<Reply<Stock>> {
        let level = state.oms.inventory().level(&Actor::Anonymous, &sku).await?;
        let version = level.version;
        Ok(Reply::new(level.into()).version(version))
    }

    /// Change the units on hand
    ///
    /// For the seller. Units that orders have cannot be taken away.
    #[oai(
        path = "/stock/:sku/adjustments",
        method = "post",
        operation_id = "adjustStock"
    )]
    async fn adjust(
        &self,
        auth: Auth,
        sku: Path<String>,
        #[oai(name = "Idempotency-Key")] key: Header<Option<String>>,
        body: JsonBody<Adjustment>,
    ) -> Result<Created<Stock>> {
        let Auth(me) = auth;
        let adjust = Adjust {
            sku: sku.0,
            delta: body.0.delta,
            reason: body.0.reason,
            idempotency_key: idempotency_key(key.0.as_deref())?,
        };
        let outcome = me.oms.inventory().adjust(&me.actor, adjust).await?;
        let version = outcome.value.version;
        Ok(Reply::outcome(outcome).version(version))
    }

    /// Every change of the stock, the newest first
    #[oai(
        path = "/stock/:sku/movements",
        method = "get",
        operation_id = "listStockMovements"
    )]
    async fn movements(
        &self,
        auth: Auth,
        sku: Path<String>,
        /// The `next_cursor` of the page before.
        cursor: Query<Option<String>>,
        /// At most so many, 1 to 200; 50 when not given.
        limit: Query<Option<u32>>,
    ) -> Result<Reply<List<StockMovement>>> {
        let Auth(me) = auth;
        let page = page(cursor.0, limit.0);
        let found = me.oms.inventory().movements(&me.actor, &sku, page).await?;
        Ok(Reply::new(found.into()))
    }
}

impl From<StockLevel> for Stock {
    fn from(level: StockLevel) -> Self {
        Self {
            available: level.available(),
            sku: level.sku,
            on_hand: level.on_hand,
            allocated: level.allocated,
            version: level.version,
        }
    }
}

impl From<Movement> for StockMovement {
    fn from(movement: Movement) -> Self {
        Self {
            id: movement.id.to_string(),
            delta_on_hand: movement.delta_on_hand,
            delta_allocated: movement.delta_allocated,
            cause: movement.cause.as_str().into(),
            order_id: movement.order.map(|id| id.to_string()),
            actor: movement.actor,
            reason: movement.reason,
            created_at: movement.at.to_string(),
        }
    }
}
