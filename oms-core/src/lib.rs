#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
compile_error!("oms-core needs a database: turn on the feature `sqlite`, `postgres` or both");

mod oms;

pub mod catalog;
pub mod inventory;
pub mod jobs;
pub mod mail;
pub mod orders;
pub mod payments;
#[cfg(feature = "plugins")]
pub mod plugins;
#[cfg(feature = "testing")]
pub mod testing;
pub mod users;

mod actor;
mod cause;
mod combining;
mod db;
mod error;
mod figures;
#[cfg(test)]
#[path = "../tests/fresh/mod.rs"]
mod fresh;
mod gather;
mod id;
mod idempotency;
#[cfg(test)]
mod interleave;
mod money;
mod page;
mod panics;
mod telemetry;
mod text;
mod time;
#[cfg(all(feature = "sqlite", feature = "postgres"))]
mod transfer;
mod verify;

pub use actor::{Actor, Roles};
pub use cause::{Cause, JobStart};
pub use db::SchemaVersion;
pub use error::{Error, ErrorKind, Result, Shortage, Violation};
pub use figures::{Backlog, Connections, JobFigures, PlacementQueue};
pub use id::*;
pub use idempotency::{IdempotencyKey, Outcome};
pub use money::{Currency, Money};
pub use oms::{Oms, OmsBuilder};
pub use page::{Page, PageRequest};
pub use time::{Clock, SystemClock, Timestamp};
#[cfg(all(feature = "sqlite", feature = "postgres"))]
pub use transfer::{Copied, CopyStep};
