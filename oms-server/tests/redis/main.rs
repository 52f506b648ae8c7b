//! A real Redis between real servers: what they share through it, and that they miss nothing but time when it is killed,
//! emptied, frozen or full.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests may panic and print"
)]

#[expect(dead_code, reason = "other tests with processes use the rest")]
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod process;
mod shared;
