//! Payments: start, complete, capture, refund, webhooks, reconcile.

pub(crate) mod account;
pub(crate) mod gateway;
pub(crate) mod model;

pub use account::{Account, Grant, Secret};
pub use gateway::*;
pub use model::{Attention, Capture, OperationStatus, Payment, PaymentStatus, Refund};
