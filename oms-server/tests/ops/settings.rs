//! What the settings are, and what production wants of them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::common::server::Server;
use crate::program::{command, sqlite_url, text};

const GOOD: [(&str, &str); 5] = [
    ("OMS_ENV", "production"),
    ("SECRET_KEY", "kW3k0c9cJ7rC1dX8fQ2mZ5vB6nL4pT0a"),
    ("OMS_PUBLIC_URL", "https://shop.example.com"),
    ("MAIL_SERVER", "mail.example.com"),
    ("MAIL_FROM", "shop@example.com"),
];

/// One that nobody else can look into.
fn private_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    folder
}

fn check(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let args = [&["config", "check"], args].concat();
    command(folder, &args)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn setting<'a>(report: &'a Value, name: &str) -> (&'a str, &'a str) {
    let settings = report["settings"].as_array().unwrap();
    let found = settings.iter().find(|setting| setting["name"] == name).unwrap();
    (
        found["value"].as_str().unwrap(),
        found["source"].as_str().unwrap(),
    )
}

#[test]
fn good_settings_are_fit_and_secrets_hidden() {
    let folder = private_folder();
    let database = ("DATABASE_URL", "postgres://oms:geheim@db/oms");
    let variables = [
        &GOOD[..],
        &[database, ("MAIL_USERNAME", "oms"), ("MAIL_PASSWORD", "geheim")],
    ]
    .concat();
    let output = check(folder.path(), &["--json", "--listen", "0.0.0.0:80"], &variables);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(!shown.contains("geheim") && !shown.contains(GOOD[1].1), "{shown}");
    let report: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(report["fit"], true);
    assert_eq!(setting(&report, "OMS_LISTEN"), ("0.0.0.0:80", "flag"));
    assert_eq!(
        setting(&report, "DATABASE_URL"),
        ("postgres://oms:hidden@db/oms", "environment")
    );
    assert_eq!(setting(&report, "MAIL_PORT"), ("587", "default"));
    assert!(setting(&report, "SECRET_KEY").0.starts_with("hidden"));

    let readable = text(&check(folder.path(), &[], &variables).stdout);
    assert!(
        readable.contains("Fit for production") && !readable.contains("geheim"),
        "{readable}"
    );
}

#[test]
fn every_problem_has_a_line_and_an_unfit_status() {
    let folder = private_folder();
    std::fs::write(
        folder.path().join(".env"),
        "SECRET_KEY=from-a-file\nOMS_LISTEN=127.0.0.1:9\n",
    )
    .unwrap();
    let output = check(folder.path(), &["--json"], &[("OMS_LISTEN", "127.0.0.1:7")]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(setting(&report, "SECRET_KEY").1, ".env");
    assert_eq!(setting(&report, "OMS_LISTEN"), ("127.0.0.1:7", "environment"));
    let problems = report["problems"].as_array().unwrap();
    let named: Vec<_> = problems
        .iter()
        .map(|problem| problem["variable"].as_str().unwrap())
        .collect();
    assert_eq!(
        named,
        [
            "OMS_ENV",
            "SECRET_KEY",
            "OMS_PUBLIC_URL",
            "MAIL_SERVER",
            "MAIL_FROM"
        ]
    );

    let wrong = check(folder.path(), &[], &[("OMS_LISTEN", "nowhere")]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(
        text(&wrong.stdout).contains("OMS_LISTEN: \"nowhere\""),
        "{}",
        text(&wrong.stdout)
    );
}

#[test]
fn what_a_start_would_find_wrong_is_found_before() {
    let folder = private_folder();
    let templates = folder.path().join("words");
    std::fs::create_dir(&templates).unwrap();
    std::fs::write(templates.join("verify.txt"), "{{ nobody }}").unwrap();
    let templates = templates.to_str().unwrap();
    for (variable, value) in [
        ("OMS_LOG", "oms_core=loud"),
        ("OMS_LOG_FORMAT", "xml"),
        ("OMS_MAIL_TEMPLATES", templates),
    ] {
        let output = check(
            folder.path(),
            &["--json"],
            &[&GOOD[..], &[(variable, value)]].concat(),
        );
        assert_eq!(output.status.code(), Some(1), "{variable}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["problems"][0]["variable"], variable, "{report}");
    }
    let wrong = [("OMS_PUBLIC_URL", "https://me:geheim@shop")];
    let shown = text(&check(folder.path(), &[], &wrong).stdout);
    assert!(
        shown.contains("OMS_PUBLIC_URL: ") && !shown.contains("geheim"),
        "{shown}"
    );
}

/// Ends by itself when it is refused; otherwise it would listen.
fn starts(folder: &Path, variables: &[(&str, &str)]) -> Output {
    // A port that nobody may listen on, so that a start that is not refused ends too, with another status.
    let args = ["serve", "--listen", "192.0.2.1:80"];
    command(folder, &args)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

#[test]
fn production_does_not_start_with_unsafe_settings_unless_they_are_named() {
    let folder = private_folder();
    let output = starts(folder.path(), &GOOD);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("192.0.2.1"));
    // What is allowed, but should be looked at, is said at the start too.
    assert!(
        text(&output.stderr).contains("nobody can pay"),
        "{}",
        text(&output.stderr)
    );

    let bare = starts(folder.path(), &GOOD[..1]);
    let said = text(&bare.stderr);
    assert_eq!(bare.status.code(), Some(2), "{said}");
    let named: Vec<_> = said
        .lines()
        .map(|line| line.split(':').nth(1).unwrap().trim())
        .collect();
    assert_eq!(
        named,
        ["SECRET_KEY", "OMS_PUBLIC_URL", "MAIL_SERVER", "MAIL_FROM"],
        "{said}"
    );

    let plain = [&GOOD[..], &[("OMS_PUBLIC_URL", "http://shop.example.com")]].concat();
    let said = text(&starts(folder.path(), &plain).stderr);
    assert!(said.contains("OMS_ALLOW=http-public-url"), "{said}");
    let allowed = [&plain[..], &[("OMS_ALLOW", "http-public-url")]].concat();
    assert_eq!(starts(folder.path(), &allowed).status.code(), Some(1));

    std::fs::write(folder.path().join("accounts.toml"), "[till]\nplugin = \"mock\"\n").unwrap();
    let said = text(&starts(folder.path(), &GOOD).stderr);
    assert!(said.contains("OMS_ACCOUNTS") && said.contains("till"), "{said}");

    std::fs::remove_file(folder.path().join("accounts.toml")).unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let said = text(&starts(folder.path(), &GOOD).stderr);
    assert!(said.contains("OMS_DATA_DIR") && said.contains("755"), "{said}");

    // Somebody who has to save what can be saved is not asked for a mail server.
    let made = command(folder.path(), &["admin", "users", "list"])
        .env("OMS_ENV", "production")
        .output();
    assert!(made.unwrap().status.success());
}

/// Where nobody put a plugin, which is known to whoever starts it for the first time.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_plugin_folder_is_said_once() {
    for production in [true, false] {
        let folder = private_folder();
        let nowhere = folder.path().join("nowhere");
        let mut server = Server::new(folder.path(), &sqlite_url(folder.path())).with_plugins(&nowhere);
        if production {
            server = server.with_all(&GOOD);
        }
        server.start().await;
        let log = server.logged();
        let said: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(nowhere.to_str().unwrap()))
            .collect();
        assert_eq!(said.len(), 1, "production {production}: {said:#?}");
        assert!(said[0].contains("OMS_PLUGIN_DIR"), "{said:?}");
    }
}
