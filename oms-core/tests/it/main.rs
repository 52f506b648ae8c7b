//! Every story here is played on SQLite and on PostgreSQL.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub,
    dead_code,
    reason = "tests may panic, and not every story needs every helper"
)]

#[path = "../fresh/mod.rs"]
mod fresh;
mod support;

mod architecture;
mod catalog;
mod gate;
mod gateways;
mod holding;
mod inventory;
mod jobs;
mod orders;
mod payments;
mod plugins;
mod schema;
mod users;
