//! PostgreSQL goes away in every way that a database can, beneath the real server under load; and migrations are killed.
//! Clients must see nothing worse than "503, come back later", soon, and nothing that was acknowledged may be lost.
//!
//! `cargo test -p oms-server --test faults -- --nocapture` prints the figures.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests may panic and print"
)]

#[expect(dead_code, reason = "other tests with processes use the rest")]
#[path = "../common/mod.rs"]
mod common;
mod load;
mod migrations;
mod outages;
mod scene;
mod shutdown;
mod silence;

/// One test at a time: each has servers and clients of its own, and measures time.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
