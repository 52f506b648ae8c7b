//! What an operator sees of the real program: measurements, traces, logs and health, on SQLite and on PostgreSQL.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "tests may panic and print"
)]

#[expect(dead_code, reason = "other tests with processes use the rest")]
#[path = "../common/mod.rs"]
mod common;
mod files;
mod health;
mod logs;
mod metrics;
mod shopping;
mod smtp;
mod support;
#[cfg(feature = "otel")]
mod traces;
