//! Payments: start, complete, capture, refund, webhooks, reconcile.

pub(crate) mod account;
pub(crate) mod gateway;
pub(crate) mod model;

pub use account::{Account, Grant, Secret};
pub use gateway::*;
pub use model::{Attention, Capture, OperationStatus, Payment, PaymentStatus, Refund};

// (stand-ins with the final signatures, until payments land)
use crate::{
    db::Tx,
    error::Result,
    id::{OrderId, RefundId},
    money::Money,
    time::Timestamp,
};
pub(crate) async fn request_cancel(_: &mut Tx, _: OrderId, _: Timestamp) -> Result<usize> {
    Ok(0)
}
pub(crate) async fn request_refund(
    _: &mut Tx,
    _: OrderId,
    _: Money,
    _: &str,
    _: Timestamp,
) -> Result<Vec<RefundId>> {
    Ok(Vec::new())
}
pub(crate) async fn verify(_: &mut Tx) -> Result<Vec<String>> {
    Ok(Vec::new())
}
