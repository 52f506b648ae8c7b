//! Orders.

use oms_core::Error;
use oms_core::orders::{
    Address, CancelOrder, FulfillOrder, Fulfillment, FulfillmentLine, NewLine, Order, OrderFilter, OrderLine,
    OrderState, PlaceOrder, TimelineEntry,
};
use oms_core::payments::Payment;
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::types::Any;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;

use super::Tag;
use super::auth::{Auth, SignedIn};
use super::error::{Result, idempotency_key, version};
use super::json::JsonBody;
use super::payments::PaymentBody;
use super::reply::{Created, List, Reply};
use super::values::{MoneyBody, id_at, page};

pub(super) struct OrdersApi;

#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct NewOrder {
    /// 1 to 500. Lines of the same SKU are added up.
    lines: Vec<LineBody>,
    shipping_address: Option<AddressBody>,
    /// The customer's remark.
    note: Option<String>,
}

/// Units of a SKU.
#[derive(Debug, Object, Serialize)]
#[oai(deny_unknown_fields, rename = "Line")]
struct LineBody {
    sku: String,
    /// 1 to 1,000,000.
    quantity: i64,
}

/// A postal address.
#[derive(Debug, Object, Serialize)]
#[oai(deny_unknown_fields, rename = "Address", skip_serializing_if_is_none)]
struct AddressBody {
    name: String,
    line1: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line2: Option<String>,
    city: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    postal_code: Option<String>,
    /// ISO 3166-1: two capital letters.
    country: String,
}

#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct Cancellation {
    reason: Option<String>,
}

#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct NewFulfillment {
    /// What goes out; all that is left when not given.
    lines: Option<Vec<LineBody>>,
    /// The carrier's code.
    tracking: Option<String>,
}

/// An order.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Order")]
struct OrderBody {
    id: String,
    /// What people read to each other.
    number: i64,
    /// `awaiting_payment`, `paid`, `partially_fulfilled`, `fulfilled`, `canceled` or `expired`.
    status: String,
    /// `unpaid`, `pending`, `authorized`, `paid`, `partially_refunded` or `refunded`.
    payment_status: String,
    user_id: Option<String>,
    email: String,
    lines: Vec<OrderLineBody>,
    subtotal: MoneyBody,
    discount: MoneyBody,
    shipping: MoneyBody,
    tax: MoneyBody,
    total: MoneyBody,
    shipping_address: Option<AddressBody>,
    billing_address: Option<AddressBody>,
    note: Option<String>,
    /// When it expires if it is not paid.
    expires_at: Option<String>,
    external_ref: Option<String>,
    /// The oldest first; not in lists.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    payments: Option<Vec<PaymentBody>>,
    version: i64,
    created_at: String,
    updated_at: String,
}

/// A line of an order, at the name and price of the moment it was placed.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "OrderLine")]
struct OrderLineBody {
    sku: String,
    variant_id: String,
    business_id: String,
    name: String,
    unit_price: MoneyBody,
    quantity: i64,
    fulfilled: i64,
    canceled: i64,
    returned: i64,
    discount: MoneyBody,
    tax: MoneyBody,
    total: MoneyBody,
}

/// Something that happened to an order.
#[derive(Debug, Object, Serialize)]
struct OrderEvent {
    /// The order's version that it made.
    version: i64,
    /// Such as `placed`, `paid`, `expired`.
    kind: String,
    /// Who: `usr_..`, `gateway:mock`, `system`.
    actor: String,
    /// Facts.
    data: Any<serde_json::Value>,
    created_at: String,
}

/// What went out together.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Fulfillment")]
struct FulfillmentBody {
    id: String,
    order_id: String,
    lines: Vec<LineBody>,
    tracking: Option<String>,
    created_at: String,
}

#[OpenApi(prefix_path = "/v1", tag = "Tag::Orders")]
impl OrdersApi {
    /// Place an order
    ///
    /// It takes all its units or none. Pay it before `expires_at`.
    #[oai(path = "/orders", method = "post", operation_id = "placeOrder")]
    async fn place(
        &self,
        auth: Auth,
        #[oai(name = "Idempotency-Key")] key: Header<Option<String>>,
        body: JsonBody<NewOrder>,
    ) -> Result<Created<OrderBody>> {
        let (Auth(me), JsonBody(new)) = (auth, body);
        let command = PlaceOrder {
            idempotency_key: idempotency_key(key.0.as_deref())?,
            lines: new.lines.into_iter().map(Into::into).collect(),
            shipping_address: new.shipping_address.map(Into::into),
            note: new.note,
        };
        let outcome = me.oms.orders().place(&me.actor, command).await?;
        let reply = match outcome.replayed {
            true => whole(&me, outcome.value).await?,
            // Nobody has heard of it yet, so nobody has paid.
            false => reply(outcome.value, Vec::new()),
        };
        Ok(reply.replayed(outcome.replayed))
    }

    /// Orders, the newest first
    ///
    /// One's own; operators see all.
    #[oai(path = "/orders", method = "get", operation_id = "listOrders")]
    async fn list(
        &self,
        auth: Auth,
        /// Only orders with this status.
        status: Query<Option<String>>,
        /// Only this user's, for operators.
        user_id: Query<Option<String>>,
        /// The `next_cursor` of the page before.
        cursor: Query<Option<String>>,
        /// At most so many, 1 to 200; 50 when not given.
        limit: Query<Option<u32>>,
    ) -> Result<Reply<List<OrderBody>>> {
        let Auth(me) = auth;
        let filter = OrderFilter {
            state: status.0.map(|text| order_state(&text)).transpose()?,
            user: user_id.0.map(|text| id_at(&text, "user_id")).transpose()?,
        };
        let page = page(cursor.0, limit.0);
        let found = me.oms.orders().list(&me.actor, &filter, &page).await?;
        Ok(Reply::new(found.into()))
    }

    /// An order
    #[oai(path = "/orders/:id", method = "get", operation_id = "getOrder")]
    async fn get(&self, auth: Auth, id: Path<String>) -> Result<Reply<OrderBody>> {
        let Auth(me) = auth;
        let order = me.oms.orders().get(&me.actor, self::id(&id)?).await?;
        whole(&me, order).await
    }

    /// What happened to an order, the oldest first
    #[oai(path = "/orders/:id/events", method = "get", operation_id = "listOrderEvents")]
    async fn events(&self, auth: Auth, id: Path<String>) -> Result<Reply<List<OrderEvent>>> {
        let Auth(me) = auth;
        let entries = me.oms.orders().timeline(&me.actor, self::id(&id)?).await?;
        Ok(Reply::new(List {
            data: entries.into_iter().map(Into::into).collect(),
            next_cursor: None,
        }))
    }

    /// Cancel an order
    ///
    /// Customers their own while it is unpaid; operators also what has not shipped, with a refund.
    #[oai(path = "/orders/:id/cancel", method = "post", operation_id = "cancelOrder")]
    async fn cancel(
        &self,
        auth: Auth,
        id: Path<String>,
        #[oai(name = "Idempotency-Key")] key: Header<Option<String>>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: JsonBody<Cancellation>,
    ) -> Result<Reply<OrderBody>> {
        let Auth(me) = auth;
        let command = CancelOrder {
            idempotency_key: idempotency_key(key.0.as_deref())?,
            reason: body.0.reason,
            expected_version: version(if_match.0.as_deref())?,
        };
        let outcome = me.oms.orders().cancel(&me.actor, self::id(&id)?, command).await?;
        let reply = whole(&me, outcome.value).await?;
        Ok(reply.replayed(outcome.replayed))
    }

    /// Send (a part of) an order out
    ///
    /// For operators.
    #[oai(
        path = "/orders/:id/fulfillments",
        method = "post",
        operation_id = "fulfillOrder"
    )]
    async fn fulfill(
        &self,
        auth: Auth,
        id: Path<String>,
        #[oai(name = "Idempotency-Key")] key: Header<Option<String>>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: JsonBody<NewFulfillment>,
    ) -> Result<Created<FulfillmentBody>> {
        let (Auth(me), JsonBody(new)) = (auth, body);
        let lines = new.lines.map(|lines| lines.into_iter().map(Into::into).collect());
        let command = FulfillOrder {
            idempotency_key: idempotency_key(key.0.as_deref())?,
            lines,
            tracking: new.tracking,
            expected_version: version(if_match.0.as_deref())?,
        };
        let outcome = me
            .oms
            .orders()
            .fulfill(&me.actor, self::id(&id)?, command)
            .await?;
        Ok(Reply::outcome(outcome))
    }

    /// What of an order went out, the oldest first
    #[oai(
        path = "/orders/:id/fulfillments",
        method = "get",
        operation_id = "listFulfillments"
    )]
    async fn fulfillments(&self, auth: Auth, id: Path<String>) -> Result<Reply<List<FulfillmentBody>>> {
        let Auth(me) = auth;
        let found = me.oms.orders().fulfillments(&me.actor, self::id(&id)?).await?;
        Ok(Reply::new(List {
            data: found.into_iter().map(Into::into).collect(),
            next_cursor: None,
        }))
    }
}

fn id(text: &str) -> Result<oms_core::OrderId> {
    super::values::id(text, "order")
}

/// The order with its payments.
async fn whole<const STATUS: u16>(me: &SignedIn, order: Order) -> Result<Reply<OrderBody, STATUS>> {
    let payments = me.oms.payments().of_order(&me.actor, order.id).await?;
    Ok(reply(order, payments))
}

fn reply<const STATUS: u16>(order: Order, payments: Vec<Payment>) -> Reply<OrderBody, STATUS> {
    let version = order.version;
    let mut body = OrderBody::from(order);
    body.payments = Some(payments.into_iter().map(Into::into).collect());
    Reply::new(body).version(version)
}

fn order_state(text: &str) -> Result<OrderState> {
    OrderState::parse(text).ok_or_else(|| {
        let known = OrderState::ALL.map(OrderState::as_str).join(", ");
        Error::invalid("status", format!("must be one of {known}")).into()
    })
}

impl From<LineBody> for NewLine {
    fn from(line: LineBody) -> Self {
        Self {
            sku: line.sku,
            quantity: line.quantity,
        }
    }
}

impl From<LineBody> for FulfillmentLine {
    fn from(line: LineBody) -> Self {
        Self {
            sku: line.sku,
            quantity: line.quantity,
        }
    }
}

impl From<AddressBody> for Address {
    fn from(address: AddressBody) -> Self {
        Self {
            name: address.name,
            line1: address.line1,
            line2: address.line2,
            city: address.city,
            region: address.region,
            postal_code: address.postal_code,
            country: address.country,
        }
    }
}

impl From<Address> for AddressBody {
    fn from(address: Address) -> Self {
        Self {
            name: address.name,
            line1: address.line1,
            line2: address.line2,
            city: address.city,
            region: address.region,
            postal_code: address.postal_code,
            country: address.country,
        }
    }
}

impl From<Order> for OrderBody {
    fn from(order: Order) -> Self {
        Self {
            id: order.id.to_string(),
            number: order.number,
            status: order.state.as_str().into(),
            payment_status: order.payment_state.as_str().into(),
            user_id: order.user.map(|id| id.to_string()),
            email: order.email,
            lines: order.lines.into_iter().map(Into::into).collect(),
            subtotal: order.subtotal.into(),
            discount: order.discount.into(),
            shipping: order.shipping.into(),
            tax: order.tax.into(),
            total: order.total.into(),
            shipping_address: order.shipping_address.map(Into::into),
            billing_address: order.billing_address.map(Into::into),
            note: order.note,
            expires_at: order.expires_at.map(|at| at.to_string()),
            external_ref: order.external_ref,
            payments: None,
            version: order.version,
            created_at: order.created_at.to_string(),
            updated_at: order.updated_at.to_string(),
        }
    }
}

impl From<OrderLine> for OrderLineBody {
    fn from(line: OrderLine) -> Self {
        Self {
            variant_id: line.variant.to_string(),
            business_id: line.business.to_string(),
            sku: line.sku,
            name: line.name,
            unit_price: line.unit_price.into(),
            quantity: line.quantity,
            fulfilled: line.fulfilled,
            canceled: line.canceled,
            returned: line.returned,
            discount: line.discount.into(),
            tax: line.tax.into(),
            total: line.total.into(),
        }
    }
}

impl From<TimelineEntry> for OrderEvent {
    fn from(entry: TimelineEntry) -> Self {
        Self {
            version: entry.version,
            kind: entry.kind,
            actor: entry.actor,
            data: Any(entry.data),
            created_at: entry.at.to_string(),
        }
    }
}

impl From<Fulfillment> for FulfillmentBody {
    fn from(fulfillment: Fulfillment) -> Self {
        let line = |line: FulfillmentLine| LineBody {
            sku: line.sku,
            quantity: line.quantity,
        };
        Self {
            id: fulfillment.id.to_string(),
            order_id: fulfillment.order.to_string(),
            lines: fulfillment.lines.into_iter().map(line).collect(),
            tracking: fulfillment.tracking,
            created_at: fulfillment.created_at.to_string(),
        }
    }
}
