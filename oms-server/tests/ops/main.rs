//! What an operator does with the compiled program: back up, restore, move, look after, check the settings.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests may panic and print"
)]

mod accounts;
mod admin;
mod backup;
#[expect(dead_code, reason = "other tests with processes use the rest")]
#[path = "../common/mod.rs"]
mod common;
mod deploy;
mod migrate_data;
mod plugin_versions;
mod plugins;
mod program;
mod restore;
mod settings;
mod shop;
