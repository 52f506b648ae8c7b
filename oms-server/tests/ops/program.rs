//! The program on a folder of its own, and databases for it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use sqlx::{Connection, SqliteConnection};

use crate::common::server::program;

pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = program(folder);
    command.args(args);
    command
}

pub(crate) fn run(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

/// What it printed; it must have succeeded.
#[track_caller]
pub(crate) fn ok(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
pub(crate) fn json(folder: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&ok(folder, args)).unwrap()
}

/// What it said; it must have ended with this status.
#[track_caller]
pub(crate) fn fails(folder: &Path, args: &[&str], status: i32) -> String {
    let output = run(folder, args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {said}");
    said
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The database that the program makes in its folder.
pub(crate) fn sqlite_url(folder: &Path) -> String {
    format!("sqlite://{}", folder.join("oms.db").display())
}

pub(crate) async fn sqlite(path: &Path) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite://{}", path.display()))
        .await
        .unwrap()
}
