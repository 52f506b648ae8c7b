//! The conformance kit: the plugins of this repository pass it, and a plugin with one mistake fails at the rule that is
//! about that mistake.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oms_core::plugins::conformance::{Fixtures, Kit, Level, Package, Report, Verdict, check};
use tempfile::TempDir;

use super::guests::{LANGUAGES, dir_of, hostile_dir, plugin_dir};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

async fn run(package: &Package, fixtures: &Path) -> Report {
    let fixtures = Fixtures::read(fixtures).unwrap();
    let kit = Kit::load(package, fixtures).await.unwrap();
    Box::pin(kit.run(|_| ())).await
}

/// Faults, a line each.
fn faults(report: &Report) -> Vec<String> {
    let line =
        |(case, fault): (&oms_core::plugins::conformance::Case, &str)| format!("{}: {fault}", case.name);
    report.faults().map(line).collect()
}

/// The folders of this repository that have fixtures, by the id in their `plugin.toml`.
fn fixtures() -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for parent in [root().join("plugins"), root().join("plugins/examples")] {
        for entry in std::fs::read_dir(parent).into_iter().flatten() {
            let dir = entry.unwrap().path();
            let manifest = std::fs::read_to_string(dir.join("plugin.toml")).unwrap_or_default();
            let table: toml::Table = manifest.parse().unwrap();
            if let (Some(id), true) = (table.get("id"), dir.join("fixtures").is_dir()) {
                found.insert(id.as_str().unwrap().to_owned(), dir.join("fixtures"));
            }
        }
    }
    found
}

#[tokio::test]
async fn every_plugin_that_has_fixtures_keeps_the_rules() {
    let fixtures = fixtures();
    let mut tested = Vec::new();
    for entry in std::fs::read_dir(plugin_dir()).unwrap() {
        let package = Package::find(&entry.unwrap().path()).unwrap();
        let table: toml::Table = package.manifest.parse().unwrap();
        let id = table["id"].as_str().unwrap().to_owned();
        let Some(folder) = fixtures.get(&id) else { continue };
        let report = run(&package, folder).await;
        assert_eq!(faults(&report), Vec::<String>::new(), "{id}");
        tested.push(id);
    }
    tested.sort();
    assert!(tested.contains(&"mock".to_owned()), "{tested:?}");
    let rust = fixtures
        .iter()
        .filter(|(_, dir)| dir.with_file_name("Cargo.toml").is_file());
    let missing: Vec<_> = rust.map(|(id, _)| id).filter(|id| !tested.contains(id)).collect();
    assert!(
        missing.is_empty(),
        "not built by `cargo xtask plugins`: {missing:?}"
    );
}

/// They are the mock gateway once more. The commands that test build them: where one is missing, something went wrong.
#[tokio::test]
async fn the_examples_in_other_languages_keep_the_rules() {
    for id in LANGUAGES.into_iter().filter(|id| *id != "mock") {
        let package = Package::find(&dir_of(id).join(id)).unwrap_or_else(|fault| {
            panic!("{fault}\nThe example {id} is not built: run `cargo xtask plugins --examples`, or `cargo xtask test`")
        });
        let report = run(&package, &root().join("plugins/mock/fixtures")).await;
        assert_eq!(report.id, id);
        assert_eq!(faults(&report), Vec::<String>::new(), "{id}");
    }
}

#[tokio::test]
async fn the_mock_gateway_is_looked_at_from_all_sides() {
    let package = Package::find(&plugin_dir().join("mock")).unwrap();
    let report = run(&package, &root().join("plugins/mock/fixtures")).await;
    let not_offered: Vec<_> = report
        .cases
        .iter()
        .filter(|case| matches!(case.verdict, Verdict::NotOffered(_)))
        .map(|case| case.name.as_str())
        .collect();
    assert_eq!(not_offered, ["what is not offered is unsupported"]);
    assert!(report.timings.verification_micros.is_some() && report.timings.peak_memory > 0);
    let requests = report
        .cases
        .iter()
        .flat_map(|case| &case.runs)
        .flat_map(|run| &run.calls);
    assert!(
        requests
            .filter(|call| matches!(call, oms_core::plugins::HostCall::Http(_)))
            .count()
            > 50
    );
}

/// Nobody needs a secret to check what was signed with a private key, but to know whose key counts.
#[tokio::test]
async fn a_public_key_needs_the_settings_that_say_whose_it_is() {
    let package = Package::find(&plugin_dir().join("paypal")).unwrap();
    let report = run(&package, &root().join("plugins/paypal/fixtures")).await;
    let genuine = report.cases.iter().find(|case| case.name == "webhook: genuine");
    let outcomes = genuine.unwrap().runs.iter().map(|run| run.outcome.as_str());
    let refused = outcomes.filter(|outcome| outcome.starts_with("misconfigured"));
    // base-url and webhook-id.
    assert_eq!(refused.count(), 2);
}

const SUITE: &str = r##"
now = "2026-01-02T03:04:05Z"
[account]
config = { mistake = "MISTAKE" }
secrets = { api-key = "kit-api-key-0001", webhook-secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" }
[[start.http]]
request.method = "POST"
request.url = "https://api.careless.test/payments"
response.body = '{"id": "p1", "status": "captured", "authorized": {{authorized}}, "captured": {{captured}}}'
[[authorize.http]]
request.method = "POST"
request.url = "https://api.careless.test/payments"
response.body = '{"id": "p1", "status": "authorized", "authorized": {{authorized}}, "captured": 0}'
[[capture.http]]
request.method = "POST"
request.url = "https://api.careless.test/payments/p1/capture"
response.body = '{"id": "p1", "status": "captured", "authorized": {{authorized}}, "captured": {{captured}}}'
[[refund.http]]
request.method = "POST"
request.url = "https://api.careless.test/payments/p1/refunds"
response.body = '{"id": "r1"}'
[[sync.http]]
request.method = "GET"
request.url = "https://api.careless.test/payments/p1"
response.body = '{"id": "p1", "status": "captured", "authorized": {{authorized}}, "captured": {{captured}}}'
[[declined.http]]
request.method = "POST"
request.url = "https://api.careless.test/payments"
response.status = 402
[[not_found.http]]
request.method = "GET"
request.url = "https://api.careless.test/payments/p1"
response.status = 404
[webhook]
headers = { webhook-id = "{{event_id}}", webhook-timestamp = "{{timestamp}}", webhook-signature = "v1,{{signature}}" }
body = '{"payment": "{{payment_id}}", "captured": {{captured}}}'
[webhook.sign]
algorithm = "hmac-sha256"
key = "secret:webhook-secret"
key_encoding = "base64"
message = "{{event_id}}.{{timestamp}}.{{body}}"
"##;

fn careless() -> Package {
    Package::find(&plugin_dir().with_file_name("plugins-kit").join("careless")).unwrap()
}

async fn with_mistake(mistake: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("suite.toml"),
        SUITE.replace("MISTAKE", mistake),
    )
    .unwrap();
    faults(&run(&careless(), folder.path()).await)
}

#[tokio::test]
async fn a_plugin_without_a_mistake_passes() {
    assert_eq!(with_mistake("none").await, Vec::<String>::new());
}

#[tokio::test]
async fn every_mistake_is_found_by_its_rule() {
    let mut found: Option<(&str, Vec<String>)> = None;
    for (mistake, rule, says) in [
        (
            "forget-key",
            "the same key",
            "start does not hand the idempotency key on",
        ),
        (
            "fail-on-silence",
            "what was sent without an answer",
            "a final no that nobody said",
        ),
        (
            "not-found-without-a-word",
            "what was sent without an answer",
            "sync: after a request that timed out",
        ),
        (
            "trust-errors",
            "an error of the gateway",
            "it must be indeterminate",
        ),
        (
            "lose-success",
            "an answer that cannot be read",
            "it must be indeterminate",
        ),
        (
            "hide-amount",
            "another amount",
            "the gateway has 4199 of 4200, and the plugin reports the whole",
        ),
        (
            "capture-everything",
            "start, capture and refund",
            "no request of capture carries the amount of 1400 or 14.00",
        ),
        (
            "cancel-anyway",
            "what is not offered",
            "cancel is not among its features",
        ),
        (
            "guess-settings",
            "a missing setting",
            "without the setting api-key",
        ),
        (
            "log-secret-address",
            "secrets stay out",
            "the secret api-key stands in an address",
        ),
        (
            "believe-anybody",
            "webhook: tampered with",
            "with byte 2 of the body changed it answered",
        ),
        ("believe-anybody", "webhook: signed with another key", "answered"),
        (
            "call-it-malformed",
            "webhook: too old",
            "it must be stale, but it answered malformed",
        ),
        (
            "call-it-malformed",
            "webhook: from the future",
            "it must be stale",
        ),
        (
            "name-the-delivery",
            "webhook: sent again",
            "it would be applied twice",
        ),
        ("remember", "webhook: out of order", "out of order"),
        (
            "trap-on-garbage",
            "webhook: garbage",
            "the gateway always says it",
        ),
        ("trap-on-garbage", "garbage in answers", "the gateway sends JSON"),
    ] {
        if found.as_ref().is_none_or(|(of, _)| *of != mistake) {
            found = Some((mistake, with_mistake(mistake).await));
        }
        let found = found.as_ref().map(|(_, found)| found).unwrap();
        let told = found
            .iter()
            .any(|fault| fault.starts_with(rule) && fault.contains(says));
        assert!(told, "{mistake}: {rule}: {says}; found {found:#?}");
    }
}

#[tokio::test]
async fn fixtures_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(folder.path().join("suite.toml"), text).unwrap();
    write(&SUITE.replace("[[capture.http]]", "[[captured.http]]"));
    let error = Fixtures::read(folder.path()).unwrap_err();
    assert!(
        error.contains("suite.toml") && error.contains("captured"),
        "{error}"
    );

    write(
        &SUITE
            .replace("{{payment_id}}", "{{pament_id}}")
            .replace("payments/p1/refunds", "refunds"),
    );
    let found = faults(&run(&careless(), folder.path()).await).join("\n");
    assert!(
        found.contains("the placeholder {{pament_id}} stands for nothing here"),
        "{found}"
    );
    assert!(
        found.contains("POST https://api.careless.test/payments/p1/refunds, which is not recorded"),
        "{found}"
    );

    write(&SUITE.replace("[[not_found.http]]", "[[sync.http]]"));
    let found = faults(&run(&careless(), folder.path()).await).join("\n");
    assert!(found.contains("suite.toml has no [not_found]"), "{found}");
    assert!(
        found.contains("the plugin did not ask GET https://api.careless.test/payments/p1"),
        "{found}"
    );
}

/// A copy of a plugin's folder to spoil.
fn copy(of: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(of).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

async fn found_in(folder: &Path) -> String {
    match Package::find(folder) {
        Ok(package) => {
            let findings = check(&package).await;
            let bad = findings.iter().filter(|finding| finding.level == Level::Fault);
            bad.map(|finding| format!("{}: {}\n", finding.what, finding.detail))
                .collect()
        }
        Err(fault) => fault,
    }
}

#[tokio::test]
async fn a_check_says_in_words_what_is_wrong() {
    assert_eq!(found_in(&plugin_dir().join("mock")).await, "");
    assert_eq!(found_in(&hostile_dir().join("hostile")).await, "");

    let spoilt = |from: &str, to: &str| {
        let folder = copy(&plugin_dir().join("mock"));
        let file = folder.path().join("plugin.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(file, text.replace(from, to)).unwrap();
        folder
    };
    for (from, to, says) in [
        (
            "id = \"mock\"",
            "id = \"mock\"\ncolour = \"red\"",
            "unknown field `colour`",
        ),
        (
            "id = \"mock\"",
            "id = \"other\"",
            "plugin.toml has the id \"other\", the component \"mock\"",
        ),
        (
            "config:base-url",
            "config:base-url\", \"config:other",
            "there is no setting other in properties",
        ),
        ("payment@1\"", "payment@2\"", "this host speaks \"oms:payment@1\""),
        ("sha256 = \"", "sha256 = \"0", "64 hexadecimal digits"),
        ("wasm = \"mock.wasm\"", "wasm = \"gone.wasm\"", "has no gone.wasm"),
    ] {
        let folder = spoilt(from, to);
        let found = found_in(folder.path()).await;
        assert!(found.contains(says), "{says}: {found}");
    }

    let with = |wasm: &[u8]| {
        let folder = spoilt("sha256 = \"", "# \"");
        std::fs::write(folder.path().join("mock.wasm"), wasm).unwrap();
        folder
    };
    for (wasm, says) in [
        (
            &b"\0asm\x01\0\0\0"[..],
            "a core WebAssembly module, not a component",
        ),
        (b"\x7fELF", "no WebAssembly at all"),
        (b"\0asm\x0d\0\x01\0", "does not export oms:payment/descriptor"),
        (
            &importing("wasi:http/outgoing-handler@0.2.0"),
            "leave the toolchain's own HTTP out",
        ),
        (&importing("oms:payment/log@0.9.0"), "an older wit/payment.wit"),
        (&importing("oms:payment/log@2.0.0"), "a newer wit/payment.wit"),
    ] {
        let folder = with(wasm);
        let found = found_in(folder.path()).await;
        assert!(found.contains(says), "{says}: {found}");
    }
    let folder = with(&importing("acme:files/store@1.0.0"));
    let found = found_in(folder.path()).await;
    assert!(
        found.contains("imports acme:files/store@1.0.0") && !found.contains("sockets"),
        "{found}"
    );
    assert!(!found.contains("toolchain's own HTTP"), "{found}");
}

/// A component that imports an empty instance and does nothing.
fn importing(name: &str) -> Vec<u8> {
    let section = |id: u8, content: &[u8]| [&[id, u8::try_from(content.len()).unwrap()], content].concat();
    let mut wasm = b"\0asm\x0d\0\x01\0".to_vec();
    // A type: an instance without exports. An import of it, by a name that says its version.
    wasm.extend(section(7, &[1, 0x42, 0]));
    let length = u8::try_from(name.len()).unwrap();
    let import = [&[1, 0, length], name.as_bytes(), &[5, 0]].concat();
    wasm.extend(section(10, &import));
    wasm
}
