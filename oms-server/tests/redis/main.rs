//! A real Redis between real servers: what they share through it, and that they miss nothing but time when it is killed,
//! emptied, frozen or full.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests may panic and print"
)]

mod database;
mod faults;
#[path = "../../../oms-core/tests/fresh/mod.rs"]
mod fresh;
mod process;
mod redis_server;
mod shared;
