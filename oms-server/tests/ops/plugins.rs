//! What authors of plugins do: make one, check it, test it. Without a database.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::program::{command, fails, json, ok, run, text};

#[expect(
    clippy::disallowed_methods,
    reason = "the test command says here where its parts are"
)]
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

fn mock() -> String {
    let dir = variable("OMS_TEST_PLUGIN_DIR")
        .expect("set OMS_TEST_PLUGIN_DIR, or run `cargo xtask test`, which does");
    dir.join("mock").display().to_string()
}

/// Runs a tool of a language, which must succeed: what it printed.
fn tool(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

#[test]
fn a_plugin_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let said = ok(folder.path(), &["plugin", "check", &mock()]);
    assert!(
        said.contains("ok       component") && !said.contains("FAULT"),
        "{said}"
    );
    assert!(
        said.contains("mock/mock.wasm\n") && !said.contains("wasi:sockets"),
        "{said}"
    );

    let broken = folder.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    let manifest =
        "id = \"broken\"\nversion = \"1\"\ncontract = \"oms:payment@1\"\nwasm = \"b.wasm\"\ncolour = 1\n";
    std::fs::write(broken.join("plugin.toml"), manifest).unwrap();
    std::fs::write(broken.join("b.wasm"), b"\0asm\x01\0\0\0").unwrap();
    let output = run(folder.path(), &["plugin", "check", "broken", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let faults: Vec<_> = found[0]["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["level"] == "fault")
        .map(|finding| finding["detail"].as_str().unwrap())
        .collect();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("unknown field `colour`"), "{faults:?}");
    assert!(
        faults[1].contains("rustup target add wasm32-wasip2"),
        "{faults:?}"
    );
    let made = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(made, 1, "no database is made for it");
}

#[test]
fn a_plugin_is_tested() {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = root().join("plugins/mock/fixtures").display().to_string();
    let test = ["plugin", "test", &mock(), "--fixtures", &fixtures];
    let said = ok(folder.path(), &test);
    for line in [
        "ok    webhook: tampered with",
        " 0 failed",
        "PLUGIN",
        "VERIFICATION",
        "receive",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let said = ok(folder.path(), &[&test[..], &["-v"]].concat());
    assert!(
        said.contains("http POST https://bank.test/mock-gateway/v1/payments"),
        "{said}"
    );
    assert!(said.contains("crypto verify-hmac with webhook-secret"), "{said}");
    let reports = json(folder.path(), &[&test[..], &["--json"]].concat());
    assert_eq!(reports[0]["id"], "mock");
    assert!(reports[0]["timings"]["peak_memory"].as_u64().unwrap() > 0);

    // An account of the operator's in the place of the fixtures': its address is the one that is asked.
    let account = "[mine]\nplugin = \"mock\"\nconfig = { base-url = \"https://mine.test\" }\n\
                   secrets = { api-key = \"file:key\", webhook-secret = \"file:secret\" }\n";
    std::fs::write(folder.path().join("accounts.toml"), account).unwrap();
    std::fs::write(folder.path().join("key"), "my-own-key-0001").unwrap();
    std::fs::write(
        folder.path().join("secret"),
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    )
    .unwrap();
    let mine = [&test[..], &["--account", "accounts.toml", "--name", "mine", "-v"]].concat();
    let output = run(folder.path(), &mine);
    let said = text(&output.stdout);
    assert!(said.contains("http POST https://mine.test/v1/payments"), "{said}");

    let said = fails(
        folder.path(),
        &["plugin", "test", &mock(), "--fixtures", "nowhere"],
        1,
    );
    assert!(said.contains("has no suite.toml"), "{said}");
}

#[test]
fn a_new_plugin_in_rust_works() {
    let folder = tempfile::tempdir().unwrap();
    // The one beside which the program was built.
    let sdk = root().join("plugins/sdk").display().to_string();
    let said = ok(folder.path(), &["plugin", "new", "acme-pay", "--lang", "rust"]);
    assert!(said.ends_with(&format!("Its SDK comes from {sdk}.\n")), "{said}");
    let dir = folder.path().join("acme-pay");
    let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).unwrap();
    assert!(manifest.contains(&format!("path = \"{sdk}\"")), "{manifest}");

    // As its README says, but with what this repository has fetched already.
    let said = fails(folder.path(), &["plugin", "test", "acme-pay"], 1);
    assert!(
        said.contains("cargo build --release --target wasm32-wasip2")
            && said.contains(dir.join("target").to_str().unwrap()),
        "{said}"
    );
    std::fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new-plugin");
    let cargo = |args: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(args).arg("--offline").current_dir(&dir);
        tool(cargo.env("CARGO_TARGET_DIR", &target))
    };
    let said = cargo(&["test"]);
    assert!(said.contains("test result: ok. 2 passed"), "{said}");
    cargo(&["build", "--release", "--target", "wasm32-wasip2"]);
    works(folder.path(), "acme-pay", Some(&target));

    let said = fails(folder.path(), &["plugin", "new", "acme-pay", "--lang", "js"], 1);
    assert!(said.contains("is there already"), "{said}");
    let said = fails(folder.path(), &["plugin", "new", "../evil", "--lang", "js"], 1);
    assert!(said.contains("must be 1 to 32"), "{said}");
}

#[test]
fn a_new_plugin_in_javascript_works() {
    let Some(node) = variable("OMS_TEST_NODE_DIR") else {
        return println!("not run: OMS_TEST_NODE_DIR does not say where componentize-qjs is");
    };
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), &["plugin", "new", "acme_js", "--lang", "js"]);
    let dir = folder.path().join("acme_js");
    // The line of its package.json.
    let package: Value = serde_json::from_slice(&std::fs::read(dir.join("package.json")).unwrap()).unwrap();
    let build = package["scripts"]["build"].as_str().unwrap();
    let mut words = build.split(' ');
    let compiler = node.join("node_modules/.bin").join(words.next().unwrap());
    tool(Command::new(compiler).args(words).current_dir(&dir));
    works(folder.path(), "acme_js", None);
}

#[test]
fn a_new_plugin_in_python_works() {
    let python = variable("OMS_TEST_PYTHON");
    let compiler = python
        .map(|python| python.with_file_name("componentize-py"))
        .filter(|path| path.exists());
    let Some(compiler) = compiler else {
        return println!("not run: componentize-py is not beside OMS_TEST_PYTHON");
    };
    let folder = tempfile::tempdir().unwrap();
    let said = ok(folder.path(), &["plugin", "new", "acme_py", "--lang", "python"]);
    let line = said
        .lines()
        .find(|line| line.contains("componentize-py "))
        .unwrap();
    let words = line.trim().split(' ').skip(1);
    let dir = folder.path().join("acme_py");
    tool(Command::new(compiler).args(words).current_dir(&dir));
    let said = works(folder.path(), "acme_py", None);
    assert!(
        said.contains("warning  imports        it imports wasi:sockets"),
        "{said}"
    );
}

/// What its README promises, and what is said of it. `target`: where cargo was told to build.
fn works(folder: &Path, name: &str, target: Option<&Path>) -> String {
    let said = ["check", "test", "install"].map(|step| {
        let mut command = command(folder, &["plugin", step, name]);
        if let Some(target) = target {
            command.env("CARGO_TARGET_DIR", target);
        }
        tool(&mut command)
    });
    said.concat()
}

/// As `cargo build` leaves it: the component is not beside `plugin.toml`.
#[test]
fn what_cargo_built_is_used_without_a_copy() {
    let folder = tempfile::tempdir().unwrap();
    let (acme, mock) = (folder.path().join("acme"), PathBuf::from(mock()));
    let built = acme.join("target/wasm32-wasip2/release");
    std::fs::create_dir_all(&built).unwrap();
    std::fs::write(acme.join("Cargo.toml"), "[package]\nname = \"mock\"\n").unwrap();
    std::fs::copy(mock.join("plugin.toml"), acme.join("plugin.toml")).unwrap();
    std::fs::copy(mock.join("mock.wasm"), built.join("mock.wasm")).unwrap();
    ok(folder.path(), &["plugin", "check", "acme"]);
    let install = ["plugin", "install", "acme"];
    ok(folder.path(), &install);

    let copy = acme.join("mock.wasm");
    std::fs::write(&copy, "of last week").unwrap();
    let week = std::time::Duration::from_secs(7 * 24 * 3600);
    let written = std::fs::metadata(&copy).unwrap().modified().unwrap() - week;
    let file = std::fs::File::options().write(true).open(&copy).unwrap();
    file.set_modified(written).unwrap();
    let told = "acme/mock.wasm is older and not the same, so it is not used";
    let said = ok(folder.path(), &["plugin", "check", "acme"]);
    assert!(said.contains("warning  file") && said.contains(told), "{said}");
    let said = text(&run(folder.path(), &install).stderr);
    assert!(said.starts_with("component: /") && said.contains(told), "{said}");
}

#[test]
fn faults_name_their_file_once() {
    let folder = tempfile::tempdir().unwrap();
    let mock = PathBuf::from(mock());
    std::fs::copy(mock.join("mock.wasm"), folder.path().join("mock.wasm")).unwrap();
    let manifest = std::fs::read_to_string(mock.join("plugin.toml")).unwrap();
    std::fs::write(folder.path().join("plugin.toml"), &manifest).unwrap();
    let said = fails(folder.path(), &["plugin", "test", "."], 1);
    assert!(
        said.contains("\noms-server: ./fixtures has no suite.toml"),
        "{said}"
    );
    std::fs::write(
        folder.path().join("plugin.toml"),
        manifest + "\n[limits]\nmemory_mib = 0\n",
    )
    .unwrap();
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    let said = fails(folder.path(), &["plugin", "install", "."], 1);
    let told = format!("\noms-server: {name}/plugin.toml: limits.memory_mib is 0");
    assert!(said.contains(&told), "{said}");
}
