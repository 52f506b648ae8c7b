//! `oms-server plugin`: install, choose, roll back and call by hand.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::common::server::plugin_dir;
use crate::program::{command, fails, json, ok, run, text};

/// Without the plugin folder of whoever runs the tests.
const NOWHERE: [&str; 2] = ["--plugin-dir", "nowhere"];

fn with<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [args, &NOWHERE].concat()
}

#[test]
fn versions_are_installed_and_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let built = plugin_dir().join("mock");
    let built = built.to_str().unwrap();
    let installed = ok(folder.path(), &with(&["plugin", "install", built]));
    assert!(
        installed.starts_with("mock 0.1.0 ") && installed.ends_with(" is active\n"),
        "{installed}"
    );
    let digest = installed.split(' ').nth(2).unwrap().to_owned();
    assert_eq!(digest.len(), 64);

    let list = json(folder.path(), &with(&["plugin", "list", "--json"]));
    assert_eq!(list["data"][0]["digest"], digest.as_str());
    assert_eq!(list["data"][0]["active"], true);
    let table = ok(folder.path(), &with(&["plugin", "list"]));
    assert!(
        table.starts_with("ID") && table.contains(&digest[..12]),
        "{table}"
    );

    let other = Path::new(folder.path()).join("other");
    std::fs::create_dir(&other).unwrap();
    let mut component = std::fs::read(plugin_dir().join("mock/mock.wasm")).unwrap();
    component.extend(*b"\0\x06\x05other");
    std::fs::write(other.join("mock.wasm"), component).unwrap();
    let manifest = std::fs::read_to_string(plugin_dir().join("mock/plugin.toml")).unwrap();
    std::fs::write(other.join("plugin.toml"), &manifest).unwrap();
    let other = other.to_str().unwrap();
    let said = fails(folder.path(), &with(&["plugin", "install", other]), 1);
    assert!(
        said.contains("has the sha256") && said.contains(&digest),
        "{said}"
    );
    let bare: Vec<_> = manifest
        .lines()
        .filter(|line| !line.starts_with("sha256"))
        .collect();
    std::fs::write(Path::new(other).join("plugin.toml"), bare.join("\n")).unwrap();
    let said = fails(
        folder.path(),
        &with(&["plugin", "install", other, "--sha256", &digest]),
        1,
    );
    assert!(said.contains("was asked for"), "{said}");
    let output = run(folder.path(), &with(&["plugin", "install", other, "--inactive"]));
    let (kept, said) = (text(&output.stdout), text(&output.stderr));
    assert!(kept.contains("is kept"), "{kept}{said}");
    let told = format!("\nwarning: mock 0.1.0 is also kept with the sha256 {digest}");
    assert!(said.contains(&told), "{said}");
    let second = kept.split(' ').nth(2).unwrap();

    let said = fails(folder.path(), &with(&["plugin", "rollback", "mock"]), 1);
    assert!(
        said.contains("no other version of it was active before"),
        "{said}"
    );
    ok(
        folder.path(),
        &with(&["plugin", "activate", "mock", &second[..10]]),
    );
    let back = json(folder.path(), &with(&["plugin", "rollback", "mock", "--json"]));
    assert_eq!(
        (&back["digest"], &back["active"]),
        (&Value::from(digest), &Value::from(true))
    );
    let said = fails(folder.path(), &with(&["plugin", "activate", "mock", "0.1.0"]), 1);
    assert!(
        said.contains("oms-server: several fit: name the digest"),
        "{said}"
    );
    let said = fails(folder.path(), &with(&["plugin", "activate", "mock", "7.7.7"]), 1);
    assert!(said.contains("no such version of this plugin"), "{said}");
    let said = fails(
        folder.path(),
        &with(&["plugin", "list", "--url", "http://127.0.0.1:9"]),
        1,
    );
    assert!(said.contains("OMS_TOKEN"), "{said}");
    let said = ok(folder.path(), &with(&["plugin", "replay", "--since", "1d"]));
    assert!(
        said.starts_with("mock 0.1.0 ") && said.contains("nothing was compared"),
        "{said}"
    );
}

/// A table without rows would look like a shop without plugins.
#[test]
fn a_folder_without_a_shop_stays_without() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["list"][..],
        &["activate", "mock", "0.1.0"],
        &["rollback", "mock"],
        &["reload"],
        &["call", "describe", "--account", "mock"],
        &["replay", "--since", "1d"],
    ] {
        let said = fails(folder.path(), &with(&[&["plugin"], args].concat()), 1);
        let database = folder.path().join("oms.db");
        assert!(
            said.contains(&format!("no database {}", database.display())) && said.contains("--data-dir"),
            "{args:?}: {said}"
        );
    }
    let url = ["plugin", "list", "--url", "http://127.0.0.1:9", "--token", "none"];
    fails(folder.path(), &with(&url), 1);
    let made: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(made.is_empty(), "{made:?}");
}

#[test]
fn an_operation_is_called_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let built = plugin_dir();
    let call = |args: &[&str], request: &str| {
        let args = [
            &["plugin", "call"],
            args,
            &["--account", "mock", "--plugin-dir", "nowhere"],
        ]
        .concat();
        let mut child = command(folder.path(), &args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), request.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stderr);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
        (output.status.code().unwrap(), answer, said)
    };
    ok(
        folder.path(),
        &with(&["plugin", "install", built.join("mock").to_str().unwrap()]),
    );
    let (code, answer, said) = call(&["describe"], "");
    assert_eq!((code, &answer["id"]), (0, &Value::from("mock")), "{said}");
    assert_eq!(answer["features"]["webhooks"], true);

    // Nobody listens there: it is told what that means, and that it was real.
    let request = r#"{"amount": 1299, "currency": "EUR"}"#;
    let (code, answer, said) = call(&["start", "--request", "-"], request);
    assert_eq!(
        (code, &answer["error"]["kind"]),
        (1, &Value::from("unavailable")),
        "{answer}"
    );
    assert!(
        said.contains("this is real: mock 0.1.0 acts for the account mock"),
        "{said}"
    );
    let (code, answer, _) = call(&["receive", "--request", "-"], r#"{"body": "{}"}"#);
    assert_eq!(code, 1);
    assert!(
        answer["error"].as_str().unwrap().contains("signature is missing"),
        "{answer}"
    );

    let request = folder.path().join("request.json");
    std::fs::write(&request, r#"{"amuont": 1}"#).unwrap();
    let args = [
        "plugin",
        "call",
        "start",
        "--account",
        "mock",
        "--request",
        request.to_str().unwrap(),
    ];
    let said = fails(folder.path(), &with(&args), 1);
    assert!(said.contains("unknown field `amuont`"), "{said}");
    let said = fails(
        folder.path(),
        &with(&["plugin", "call", "describe", "--account", "none"]),
        1,
    );
    assert!(said.contains("there is no payment account \"none\""), "{said}");
}
