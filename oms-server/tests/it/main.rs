//! A real server, listening, on SQLite and on PostgreSQL, driven from outside.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub,
    dead_code,
    reason = "tests may panic, and not every story needs every helper"
)]

#[path = "../common/mod.rs"]
mod common;
mod support;

mod bad_input;
mod bench;
mod command_line;
mod conventions;
mod docs;
mod limits;
mod media;
mod orders;
mod payments;
mod users;
