//! Orders that are paid through the whole chain: a listening server with its worker, the mock gateway as a WASM
//! component, the fake bank with books of its own, and webhooks over HTTP. On SQLite and on PostgreSQL.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub,
    dead_code,
    reason = "tests may panic, and not every story needs every helper"
)]

#[path = "../../../oms-core/tests/fresh/mod.rs"]
mod fresh;
mod support;

mod faults;
mod generic;
mod given_up;
mod languages;
mod late;
mod payments;
mod replay;
mod slow;
mod webhooks;
