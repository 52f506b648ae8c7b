//! `plugin.toml`: what a plugin is, which hosts it asks for, and its limits.

use serde::Deserialize;
use url::Url;

use super::engine::{CONTRACT, TICK};

/// A plugin's `plugin.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) version: String,
    pub(super) contract: String,
    /// The component's file, in the same folder.
    pub(super) wasm: String,
    /// What the file must have, in hexadecimal.
    pub(super) sha256: Option<String>,
    /// Origins that the plugin asks for, or `config:NAME` for the origin of that setting of the account.
    #[serde(default)]
    pub(super) hosts: Vec<String>,
    #[serde(default)]
    pub(super) limits: Limits,
}

/// What one call may use. A manifest may lower these, and raise them to a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) memory_mib: u32,
    pub(super) operation_seconds: u32,
    pub(super) webhook_seconds: u32,
    /// Processor time, in whichever operation.
    pub(super) cpu_seconds: u32,
    pub(super) http_calls: u32,
    pub(super) log_kib: u32,
    pub(super) concurrent_calls: u32,
    /// In a row, for one account: then it is left alone for a while. One may be chance, and a few cost little.
    pub(super) failures: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_mib: 64,
            operation_seconds: 30,
            webhook_seconds: 10,
            cpu_seconds: 5,
            http_calls: 16,
            log_kib: 64,
            concurrent_calls: 32,
            failures: 5,
        }
    }
}

impl Limits {
    pub(super) const fn memory_bytes(self) -> usize {
        (self.memory_mib as usize) << 20
    }

    pub(super) const fn log_bytes(self) -> usize {
        (self.log_kib as usize) << 10
    }

    pub(super) const fn ticks(self) -> u64 {
        self.cpu_seconds as u64 * 1_000 / TICK.as_millis() as u64
    }

    fn check(self) -> Result<(), String> {
        let bounds = [
            ("memory_mib", self.memory_mib, 256),
            ("operation_seconds", self.operation_seconds, 60),
            ("webhook_seconds", self.webhook_seconds, 20),
            ("cpu_seconds", self.cpu_seconds, 20),
            ("http_calls", self.http_calls, 64),
            ("log_kib", self.log_kib, 256),
            ("concurrent_calls", self.concurrent_calls, 128),
            ("failures", self.failures, 100),
        ];
        for (name, value, max) in bounds {
            if !(1..=max).contains(&value) {
                return Err(format!("limits.{name} is {value}, but must be from 1 to {max}"));
            }
        }
        Ok(())
    }
}

impl Manifest {
    /// Reads and checks a `plugin.toml`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let manifest: Self = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        let Self {
            id,
            version,
            wasm,
            contract,
            ..
        } = &manifest;
        if !is_word(id, 32, "_-") {
            return Err(format!("id {id:?} must be 1 to 32 letters, digits, - and _"));
        }
        if !is_word(version, 64, ".+-") {
            return Err(format!("version {version:?} must be a version such as 1.0.0"));
        }
        if contract != CONTRACT && !contract.starts_with(&format!("{CONTRACT}.")) {
            return Err(format!(
                "contract is {contract:?}, but this host speaks {CONTRACT:?}"
            ));
        }
        // The file lies beside the manifest, nowhere else.
        if !is_word(wasm, 128, "._-") || wasm.starts_with('.') {
            return Err(format!(
                "wasm {wasm:?} must be the name of a file in the same folder"
            ));
        }
        let is_digest = |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if manifest.sha256.as_ref().is_some_and(|text| !is_digest(text)) {
            return Err("sha256 must be 64 hexadecimal digits".into());
        }
        manifest.hosts.iter().try_for_each(|host| check_host(host))?;
        manifest.limits.check()?;
        Ok(manifest)
    }

    /// Checks what the component says of itself.
    pub(super) fn check_descriptor(&self, id: &str, version: &str, hosts: &[String]) -> Result<(), String> {
        if id != self.id {
            return Err(format!(
                "plugin.toml has the id {:?}, the component {id:?}",
                self.id
            ));
        }
        if version != self.version {
            return Err(format!(
                "plugin.toml has version {:?}, the component {version:?}",
                self.version
            ));
        }
        match hosts.iter().find(|host| !self.hosts.contains(host)) {
            Some(host) => Err(format!(
                "the component asks for {host:?}, which plugin.toml does not list in hosts"
            )),
            None => Ok(()),
        }
    }
}

fn is_word(text: &str, max: usize, marks: &str) -> bool {
    (1..=max).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || marks.contains(c))
}

fn check_host(host: &str) -> Result<(), String> {
    if let Some(name) = host.strip_prefix("config:") {
        return match is_word(name, 64, "._-") {
            true => Ok(()),
            false => Err(format!(
                "host {host:?} must name a setting, such as config:base-url"
            )),
        };
    }
    let origin = Url::parse(host)
        .ok()
        .filter(|url| matches!(url.scheme(), "https" | "http") && url.host().is_some())
        .map(|url| url.origin().ascii_serialization());
    match origin {
        Some(origin) if origin == host.trim_end_matches('/') => Ok(()),
        _ => Err(format!(
            "host {host:?} must be an origin such as https://api.example.com, or config:NAME"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        id = "acme"
        version = "1.2.0"
        contract = "oms:payment@1"
        wasm = "acme.wasm"
        hosts = ["https://api.acme.test", "https://acme.test:8443", "config:base-url"]
        [limits]
        http_calls = 4
    "#;

    #[test]
    fn a_manifest_is_read() {
        let manifest = Manifest::parse(GOOD).unwrap();
        assert_eq!((manifest.id.as_str(), manifest.limits.http_calls), ("acme", 4));
        assert_eq!(
            manifest.limits.memory_mib, 64,
            "what is not given keeps its default"
        );
    }

    #[test]
    fn faults_are_named() {
        for (from, to, says) in [
            ("id = \"acme\"", "id = \"../acme\"", "id \"../acme\" must be"),
            ("1.2.0", "1 2", "version \"1 2\" must be"),
            (
                "payment@1\"",
                "payment@2\"",
                "contract is \"oms:payment@2\", but this host speaks \"oms:payment@1\"",
            ),
            ("acme.wasm", "../acme.wasm", "must be the name of a file"),
            (
                "https://api.acme.test",
                "https://api.acme.test/v1",
                "must be an origin",
            ),
            (
                "https://api.acme.test",
                "ftp://api.acme.test",
                "must be an origin",
            ),
            ("https://api.acme.test", "*", "must be an origin"),
            ("config:base-url", "config:", "must name a setting"),
            (
                "http_calls = 4",
                "http_calls = 65",
                "limits.http_calls is 65, but must be from 1 to 64",
            ),
            ("http_calls = 4", "memory_mib = 0", "limits.memory_mib is 0"),
            ("http_calls = 4", "http_cals = 4", "unknown field `http_cals`"),
            ("wasm = ", "sha256 = \"abc\"\nwasm = ", "64 hexadecimal digits"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD);
            let error = Manifest::parse(&text).unwrap_err();
            assert!(error.contains(says), "{to}: {error}");
        }
    }

    #[test]
    fn the_component_must_say_the_same() {
        let manifest = Manifest::parse(GOOD).unwrap();
        let asks = ["config:base-url".to_owned()];
        assert_eq!(manifest.check_descriptor("acme", "1.2.0", &asks), Ok(()));
        for (id, version, host, says) in [
            (
                "other",
                "1.2.0",
                "config:base-url",
                "the id \"acme\", the component \"other\"",
            ),
            (
                "acme",
                "1.2.1",
                "config:base-url",
                "version \"1.2.0\", the component \"1.2.1\"",
            ),
            (
                "acme",
                "1.2.0",
                "https://evil.test",
                "asks for \"https://evil.test\"",
            ),
        ] {
            let error = manifest
                .check_descriptor(id, version, &[host.to_owned()])
                .unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
