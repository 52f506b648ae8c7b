//! Orders: place, read, cancel, fulfil, expire.

pub(crate) mod model;
pub(crate) mod settle;

pub use model::{
    Address, Fulfillment, FulfillmentLine, NewLine, Order, OrderLine, OrderState, PaymentState, PlaceOrder,
    TimelineEntry,
};
