//! What an operator sees of the real program: measurements, traces, logs and health, on SQLite and on PostgreSQL.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "tests may panic and print"
)]

mod files;
#[path = "../../../oms-core/tests/fresh/mod.rs"]
mod fresh;
mod health;
mod logs;
mod metrics;
mod proxy;
mod shopping;
mod smtp;
mod support;
#[cfg(feature = "otel")]
mod traces;
