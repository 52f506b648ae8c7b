//! `plugin.toml`, as an operator might have downloaded it.
#![cfg_attr(fuzzing, no_main)]

use std::path::{Component, Path};

use oms_core::plugins::fuzzing::{Manifest, manifest};
use oms_fuzz::delivery::Control;
use oms_fuzz::json::{Words, edited};
use url::Url;

oms_fuzz::target!(run);

const WORDS: Words = Words {
    names: &[
        "id",
        "name",
        "version",
        "contract",
        "wasm",
        "sha256",
        "hosts",
        "limits",
        "memory_mib",
        "operation_seconds",
        "webhook_seconds",
        "cpu_seconds",
        "http_calls",
        "log_kib",
        "concurrent_calls",
        "failures",
        "other",
    ],
    values: &[
        r#""acme""#,
        r#""acme-2_x""#,
        r#""../acme""#,
        r#""1.0.0""#,
        r#""1.0.0-rc.1+build""#,
        r#""oms:payment@1""#,
        r#""oms:payment@1.0.0""#,
        r#""oms:payment@10""#,
        r#""oms:payment@2""#,
        r#""acme.wasm""#,
        r#"".wasm""#,
        r#""a/b.wasm""#,
        r#""..""#,
        r#""C:\\acme.wasm""#,
        r#""config:base-url""#,
        r#""config:""#,
        r#""https://api.acme.test""#,
        r#""https://api.acme.test/""#,
        r#""https://API.acme.test""#,
        r#""https://api.acme.test:443""#,
        r#""https://api.acme.test:8443""#,
        r#""https://user@acme.test""#,
        r#""https://acme.test/v1""#,
        r#""https://acme.test?x""#,
        r#""https://acme.test#x""#,
        r#""http://127.0.0.1:1""#,
        r#""http://[::1]:80""#,
        r#""https://bücher.test""#,
        r#""ftp://acme.test""#,
        r#""file:///etc/passwd""#,
        r#""*""#,
        "1",
        "20",
        "64",
        "100",
        "256",
        "257",
        "4294967295",
        "4294967296",
        "-1",
        "1.5",
        r#"["https://api.acme.test","config:base-url"]"#,
        r#"{"http_calls":4}"#,
        r#""9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08""#,
        r#""9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A0é""#,
    ],
};

/// The most that may be set.
const BOUNDS: [(&str, u32); 8] = [
    ("memory_mib", 256),
    ("operation_seconds", 60),
    ("webhook_seconds", 20),
    ("cpu_seconds", 20),
    ("http_calls", 64),
    ("log_kib", 256),
    ("concurrent_calls", 128),
    ("failures", 100),
];

fn run(input: &[u8]) {
    let (control, text) = Control::read(input);
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let text = with_edits(&control, text);
    match manifest(&text) {
        Ok(read) => {
            keeps_its_promises(&read);
            let again = manifest(&written(&read));
            assert_eq!(
                again.as_ref(),
                Ok(&read),
                "what was read and written reads otherwise"
            );
        }
        Err(said) => assert!(!said.trim().is_empty(), "a fault without a word: {text:?}"),
    }
}

/// The same changes as to JSON, because a TOML document is one without null.
fn with_edits(control: &Control, text: &str) -> String {
    let Ok(table) = text.parse::<toml::Table>() else {
        return text.to_owned();
    };
    let Ok(json) = serde_json::to_vec(&table) else {
        return text.to_owned();
    };
    let edited = edited(&json, &control.edits, &WORDS);
    if edited == json {
        return text.to_owned();
    }
    let value: serde_json::Value = serde_json::from_slice(&edited).expect("edits leave JSON");
    toml::to_string(&value).unwrap_or_else(|_| text.to_owned())
}

fn keeps_its_promises(read: &Manifest) {
    let is_word = |text: &str, max: usize, marks: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
        !text.is_empty() && text.len() <= max && text.chars().all(known)
    };
    // It becomes the name of a folder and stands in the database.
    assert!(is_word(&read.id, 32, "_-"), "{:?}", read.id);
    assert!(is_word(&read.version, 64, ".+-"), "{:?}", read.version);
    assert!(read.contract == "oms:payment@1" || read.contract.starts_with("oms:payment@1."));
    let mut parts = Path::new(&read.wasm).components();
    let beside = matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none();
    assert!(
        beside && is_word(&read.wasm, 128, "._-"),
        "{:?} is not beside the manifest",
        read.wasm
    );
    if let Some(digest) = &read.sha256 {
        assert!(digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit()));
    }
    for host in &read.hosts {
        match host.strip_prefix("config:") {
            Some(name) => assert!(is_word(name, 64, "._-"), "{host:?}"),
            None => is_origin(host),
        }
    }
    for ((name, value), (bounded, most)) in read.limits.iter().zip(BOUNDS) {
        assert_eq!(*name, bounded);
        assert!((1..=most).contains(value), "{name} is {value}");
    }
    let [memory, .., log, _, _] = read.limits.map(|(_, value)| value as usize);
    assert_eq!((read.memory_bytes, read.log_bytes), (memory << 20, log << 10));
    // A tick is ten milliseconds of the processor.
    assert_eq!(read.ticks, u64::from(read.limits[3].1) * 100);
}

/// A scheme, a host and perhaps a port, and nothing that would be lost when it is compared with an address.
fn is_origin(host: &str) {
    let url = Url::parse(host).unwrap_or_else(|error| panic!("{host:?}: {error}"));
    assert!(matches!(url.scheme(), "https" | "http"), "{host:?}");
    assert!(url.host_str().is_some_and(|name| !name.is_empty()), "{host:?}");
    assert!(url.username().is_empty() && url.password().is_none(), "{host:?}");
    assert!(url.query().is_none() && url.fragment().is_none(), "{host:?}");
    assert!(url.path().trim_matches('/').is_empty(), "{host:?}");
    assert!(host.is_ascii() && !host.contains(char::is_whitespace), "{host:?}");
}

fn written(read: &Manifest) -> String {
    let mut table = toml::Table::new();
    let mut set = |name: &str, text: &str| table.insert(name.into(), text.into());
    set("id", &read.id);
    set("version", &read.version);
    set("contract", &read.contract);
    set("wasm", &read.wasm);
    if let Some(name) = &read.name {
        set("name", name);
    }
    if let Some(digest) = &read.sha256 {
        set("sha256", digest);
    }
    table.insert("hosts".into(), read.hosts.clone().into());
    let limits = read
        .limits
        .iter()
        .map(|(name, value)| ((*name).to_owned(), i64::from(*value).into()));
    table.insert("limits".into(), toml::Value::Table(limits.collect()));
    table.to_string()
}
