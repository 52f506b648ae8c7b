//! Accounts that cannot work are told before a customer meets them, and nobody needs their secrets to look after plugins.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use oms_core::payments::Account;
use serde_json::Value;

use crate::common::server::{Server, plugin_dir};
use crate::program::{command, fails, json, ok, sqlite_url, text};

const ACCOUNTS: &str = r#"
[absent]
plugin = "nope"

[fits]
plugin = "mock"
config = { base-url = "https://bank.test" }
secrets = { api-key = "env:API_KEY", webhook-secret = "env:API_KEY" }

[misspelt]
plugin = "mock"
config = { base-ulr = "https://bank.test" }
secrets = { api-key = "env:API_KEY" }
"#;

const FAULTS: [&str; 2] = [
    r#"OMS_ACCOUNTS: account "absent": there is no plugin "nope", neither active in the database nor in the plugin folder"#,
    r#"OMS_ACCOUNTS: account "misspelt": the setting "base-url" is missing; the secret "webhook-secret" is missing; mock has no setting or secret "base-ulr""#,
];

fn with_accounts() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("accounts.toml"), ACCOUNTS).unwrap();
    folder
}

/// What the report of the settings says of accounts, and its status.
fn checked(folder: &Path, plugins: &Path, args: &[&str]) -> (String, Option<i32>) {
    let args = [
        &["config", "check", "--plugin-dir", plugins.to_str().unwrap()],
        args,
    ]
    .concat();
    let output = command(folder, &args).env("API_KEY", "hush").output().unwrap();
    (text(&output.stdout), output.status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_cannot_work_are_told_before_and_at_a_start() {
    let folder = with_accounts();
    let told = |plugins: &Path| {
        let (report, status) = checked(folder.path(), plugins, &["--json"]);
        assert_eq!(status, Some(1), "{report}");
        let report: Value = serde_json::from_str(&report).unwrap();
        let problems = report["problems"].as_array().unwrap().iter();
        let words = problems.map(|problem| {
            let text = |name: &str| problem[name].as_str().unwrap().to_owned();
            format!("{}: {}", text("variable"), text("detail"))
        });
        words
            .filter(|words| words.starts_with("OMS_ACCOUNTS: account "))
            .collect::<Vec<_>>()
    };
    // Before the first start there are the plugins of the folder alone, and nothing comes into being.
    assert_eq!(told(&plugin_dir()), FAULTS);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let (readable, _) = checked(folder.path(), &plugin_dir(), &[]);
    assert!(
        readable.contains("Not fit for production:\n") && readable.contains(&format!("\n  {}\n", FAULTS[0])),
        "{readable}"
    );
    assert!(!readable.contains("hush"), "{readable}");

    let mut server = Server::new(folder.path(), &sqlite_url(folder.path())).with("API_KEY", "hush");
    server.start().await;
    let log = server.logged();
    for fault in FAULTS {
        let said = |line: &&str| line.contains("WARN") && line.ends_with(fault);
        assert_eq!(log.lines().filter(said).count(), 1, "{log}");
    }
    assert!(!log.contains("account \"fits\""), "{log}");

    // From now on the database holds the plugin, wherever the folder is.
    assert_eq!(told(Path::new("nowhere")), FAULTS);
}

#[test]
fn the_guide_names_every_key() {
    let guide = include_str!("../../../docs/plugins/operating.md");
    let unknown = "[cards]\nplugin = \"acme\"\ncolour = 1\n";
    let fault = Account::parse_all(unknown, |_| Ok(String::new())).unwrap_err();
    let (_, keys) = fault.split_once("expected one of ").unwrap();
    let keys: Vec<_> = keys.split('`').skip(1).step_by(2).collect();
    assert_eq!(keys.len(), 10, "{fault}");
    for key in keys {
        assert!(guide.contains(&format!("\n| `{key}` |")), "{key}");
    }
}

#[test]
fn a_database_that_cannot_be_asked_is_said() {
    let folder = with_accounts();
    let nobody = [
        "--json",
        "--database-url",
        "postgres://oms:geheim@127.0.0.1:9/oms",
    ];
    let (report, _) = checked(folder.path(), &plugin_dir(), &nobody);
    let parsed: Value = serde_json::from_str(&report).unwrap();
    let warnings = parsed["warnings"].as_array().unwrap();
    let said = |warning: &&Value| {
        warning["detail"]
            .as_str()
            .unwrap()
            .starts_with("nobody knows whether")
    };
    assert_eq!(warnings.iter().filter(said).count(), 1, "{report}");
    assert!(!report.contains("geheim"), "{report}");
}

#[test]
fn plugins_are_looked_after_without_the_secrets_of_accounts() {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), &["migrate"]);
    std::fs::write(folder.path().join("accounts.toml"), ACCOUNTS).unwrap();
    let built = plugin_dir().join("mock");
    ok(folder.path(), &["plugin", "install", built.to_str().unwrap()]);
    let list = json(folder.path(), &["plugin", "list", "--json"]);
    let version = list["data"][0]["version"].as_str().unwrap();
    ok(folder.path(), &["plugin", "activate", "mock", version]);
    let plugins = plugin_dir();
    ok(
        folder.path(),
        &["plugin", "reload", "--plugin-dir", plugins.to_str().unwrap()],
    );
    let said = fails(folder.path(), &["plugin", "rollback", "mock"], 1);
    assert!(said.contains("no other version of it was active"), "{said}");

    // One that asks the gateway does need them.
    let said = fails(
        folder.path(),
        &["plugin", "call", "describe", "--account", "fits"],
        2,
    );
    assert!(said.contains("the variable API_KEY is not set"), "{said}");
}

/// What the demo shop prints of payments, up to the last line about them.
fn told_by_the_demo(plugins: &Path) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut server = command(
        folder.path(),
        &["serve", "--demo", "--no-worker", "--listen", "127.0.0.1:0"],
    )
    .arg("--plugin-dir")
    .arg(plugins)
    .stdout(Stdio::piped())
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    let mut told = String::new();
    for line in BufReader::new(server.stdout.take().unwrap()).lines() {
        told += &format!("{}\n", line.unwrap());
        if told.contains("payments -H") || told.contains("cannot be started") {
            break;
        }
    }
    server.kill().unwrap();
    server.wait().unwrap();
    told
}

#[test]
fn the_demo_proposes_no_payment_that_would_fail() {
    let told = told_by_the_demo(Path::new("nowhere"));
    assert!(told.contains("ORDER=$(curl"), "{told}");
    assert!(
        told.contains("cannot be started: there is no plugin \"mock\"") && !told.contains("payments -H"),
        "{told}"
    );
    let told = told_by_the_demo(&plugin_dir());
    assert!(
        told.contains("payments -H") && told.contains("approve:\n"),
        "{told}"
    );
}
