//! Whether a plugin would be loaded, and in words why not.

use serde::Serialize;
use serde_json::Value;
use wasmtime::Module;

use super::package::Package;
use super::sandbox::Sandbox;
use crate::plugins::engine::{CONTRACT, Prepared, Runtime};
use crate::plugins::load::MAX_COMPONENT;
use crate::plugins::manifest::{Limits, Manifest};
use crate::time::Timestamp;

/// What was looked at, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, such as `manifest`.
    pub what: String,
    /// How bad it is.
    pub level: Level,
    /// What was found, as a sentence.
    pub detail: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Good,
    /// It would be loaded, but look at it.
    Warning,
    /// It would be refused, or could not work.
    Fault,
}

/// Looks at everything that can be known of a plugin without calling its gateway. It goes on after a fault wherever it
/// can, so that an author sees all of them at once.
pub async fn check(package: &Package) -> Vec<Finding> {
    let mut found = Findings::default();
    found.file(package);
    let manifest = match package.parsed() {
        Ok(manifest) => {
            found.manifest(&manifest, package);
            Some(manifest)
        }
        Err(fault) => {
            found.add("manifest", Level::Fault, fault);
            None
        }
    };
    found.size(package);
    if !found.component(package).await {
        return found.0;
    }
    let Some(manifest) = manifest else { return found.0 };
    // The digest was judged above; a file that is not the one that is asked for can still be looked at.
    let unpinned = Package {
        manifest: without_digest(&package.manifest),
        ..package.clone()
    };
    match Box::pin(Sandbox::load(&unpinned, Timestamp::from_millis(0))).await {
        Ok(sandbox) => {
            let info = sandbox.info();
            let said = format!("{} {}, {}", info.id, info.version, features(&sandbox));
            found.add("descriptor", Level::Good, said);
            found.schema(&sandbox.schema, &manifest);
        }
        Err(fault) => found.add("descriptor", Level::Fault, fault),
    }
    found.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, what: &str, level: Level, detail: impl Into<String>) {
        self.0.push(Finding {
            what: what.into(),
            level,
            detail: detail.into(),
        });
    }

    fn file(&mut self, package: &Package) {
        let level = match package.passed_over {
            None => Level::Good,
            Some(_) => Level::Warning,
        };
        self.add("file", level, package.chosen());
    }

    fn manifest(&mut self, manifest: &Manifest, package: &Package) {
        let Manifest {
            id,
            version,
            contract,
            ..
        } = manifest;
        self.add("manifest", Level::Good, format!("{id} {version} for {contract}"));
        let digest = package.digest();
        match &manifest.sha256 {
            None => self.add(
                "hash",
                Level::Warning,
                format!("sha256 is not pinned; the component has {digest}"),
            ),
            Some(pinned) if pinned.eq_ignore_ascii_case(&digest) => self.add("hash", Level::Good, digest),
            Some(pinned) => self.add(
                "hash",
                Level::Fault,
                format!("the component has the sha256 {digest}, but plugin.toml asks for {pinned}"),
            ),
        }
        match manifest.hosts.as_slice() {
            [] => self.add("hosts", Level::Good, "none: it sends no requests"),
            hosts => self.add("hosts", Level::Good, hosts.join(", ")),
        }
        for host in manifest.hosts.iter().filter(|host| host.starts_with("http:")) {
            self.add(
                "hosts",
                Level::Warning,
                format!("{host} is not https: every account has to grant it as a private host"),
            );
        }
        let Limits {
            memory_mib,
            operation_seconds,
            webhook_seconds,
            http_calls,
            ..
        } = manifest.limits;
        let limits = format!(
            "{memory_mib} MiB, {operation_seconds} s for an operation, {webhook_seconds} s for a webhook, \
             {http_calls} requests"
        );
        self.add("limits", Level::Good, limits);
    }

    fn size(&mut self, package: &Package) {
        let size = package.wasm.len();
        let within = u64::try_from(size).is_ok_and(|size| size <= MAX_COMPONENT);
        let (level, more) = match within {
            true => (Level::Good, String::new()),
            false => (Level::Fault, format!(", {MAX_COMPONENT} are taken")),
        };
        self.add("size", level, format!("{size} bytes{more}"));
    }

    /// Whether it can be asked what it is.
    async fn component(&mut self, package: &Package) -> bool {
        let wasm = package.wasm.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            let runtime = Runtime::new(None)?;
            match runtime.prepare(&wasm) {
                Ok(prepared) => Ok(imports_sockets(&runtime, &prepared)),
                Err(fault) => Err(in_words(&runtime, &wasm, fault)),
            }
        });
        match prepared.await {
            Ok(Ok(sockets)) => {
                self.add(
                    "component",
                    Level::Good,
                    format!("its imports and exports fit {CONTRACT}"),
                );
                if sockets {
                    self.add(
                        "imports",
                        Level::Warning,
                        "it imports wasi:sockets, of which the host refuses every connection and every name: requests \
                         go through the contract's http interface (Python brings this import along, used or not)",
                    );
                }
                true
            }
            Ok(Err(fault)) => {
                self.add("component", Level::Fault, fault);
                false
            }
            Err(e) => {
                self.add("component", Level::Fault, format!("the compiler failed: {e}"));
                false
            }
        }
    }

    /// Enough of JSON Schema to show a form and to read settings by: an object whose members are texts.
    fn schema(&mut self, text: &str, manifest: &Manifest) {
        let before = self.0.len();
        let schema: Value = match serde_json::from_str(text) {
            Ok(schema) => schema,
            Err(e) => return self.add("config-schema", Level::Fault, format!("it is no JSON: {e}")),
        };
        let Some(members) = schema.as_object() else {
            return self.add(
                "config-schema",
                Level::Fault,
                "it must be a JSON object, such as {\"type\": \"object\"}",
            );
        };
        if members.get("type").is_some_and(|kind| kind != "object") {
            self.add("config-schema", Level::Fault, "its type must be \"object\"");
        }
        let empty = serde_json::Map::new();
        let properties = match members.get("properties") {
            None => &empty,
            Some(Value::Object(properties)) => properties,
            Some(_) => return self.add("config-schema", Level::Fault, "properties must be an object"),
        };
        for (name, property) in properties {
            self.property(name, property);
        }
        let required = members.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten() {
            if !name.as_str().is_some_and(|name| properties.contains_key(name)) {
                self.add(
                    "config-schema",
                    Level::Fault,
                    format!("required names {name}, which is not in properties"),
                );
            }
        }
        let settings = manifest
            .hosts
            .iter()
            .filter_map(|host| host.strip_prefix("config:"));
        // A schema without properties describes nothing, so it does not leave this one out either.
        let level = if properties.is_empty() {
            Level::Warning
        } else {
            Level::Fault
        };
        for name in settings.filter(|name| !properties.contains_key(*name)) {
            self.add(
                "config-schema",
                level,
                format!("hosts has config:{name}, but there is no setting {name} in properties"),
            );
        }
        if self.0.len() == before {
            let is_secret = |property: &&Value| property["writeOnly"] == true;
            let secrets = properties.values().filter(is_secret).count();
            let said = format!("{} settings, {secrets} of them secret", properties.len());
            self.add("config-schema", Level::Good, said);
        }
    }

    fn property(&mut self, name: &str, property: &Value) {
        if !property.is_object() {
            return self.add(
                "config-schema",
                Level::Fault,
                format!("the property {name} must be an object"),
            );
        }
        match property.get("type") {
            None => {}
            Some(kind) if kind == "string" => {}
            Some(kind) => self.add(
                "config-schema",
                Level::Fault,
                format!(
                    "{name} has the type {kind}, but settings are texts: make it \"string\" with a pattern"
                ),
            ),
        }
        let words = ["secret", "password", "token", "api-key", "private"];
        let sounds_secret = words.iter().any(|word| name.contains(word)) && !name.contains("public");
        if sounds_secret && property["writeOnly"] != true {
            self.add(
                "config-schema",
                Level::Warning,
                format!("{name} sounds like a secret, but is not marked \"writeOnly\": true"),
            );
        }
    }
}

/// Of the imports that are linked but refused, the one that hints at a client library. Files are no such hint: every
/// component of JavaScript and Python imports them.
fn imports_sockets(runtime: &Runtime, prepared: &Prepared) -> bool {
    let kind = prepared.pre.component().component_type();
    kind.imports(runtime.engine())
        .any(|(name, _)| name.starts_with("wasi:sockets/"))
}

/// Adds to what the engine says what an author can do about it.
fn in_words(runtime: &Runtime, wasm: &[u8], fault: String) -> String {
    if wasm.starts_with(b"\0asm\x01\0\0\0") {
        let from = match Module::new(runtime.engine(), wasm) {
            Ok(module)
                if module
                    .imports()
                    .any(|import| import.module() == "wasi_snapshot_preview1") =>
            {
                " (this one was built for wasm32-wasip1)"
            }
            Ok(module) if module.imports().next().is_none() => {
                " (this one was built for wasm32-unknown-unknown)"
            }
            _ => "",
        };
        return format!("{fault}{from}; `rustup target add wasm32-wasip2` adds the target");
    }
    if !wasm.starts_with(b"\0asm") {
        let start: String = String::from_utf8_lossy(wasm).chars().take(24).collect();
        return format!("the file is no WebAssembly at all: it begins with {start:?}");
    }
    let versions = fault
        .split("oms:payment/")
        .skip(1)
        .filter_map(|rest| rest.split_once('@'));
    for (_, version) in versions {
        let major: Option<u32> = version.split('.').next().and_then(|major| major.parse().ok());
        match major {
            Some(0) => {
                return format!("{fault}; it was built against an older wit/payment.wit: build it anew");
            }
            Some(2..) => {
                return format!(
                    "{fault}; it was built against a newer wit/payment.wit: this host is too old"
                );
            }
            _ => {}
        }
    }
    if fault.contains("wasi:http/") {
        return format!(
            "{fault}; leave the toolchain's own HTTP out (componentize: disableFeatures http, fetch-event)"
        );
    }
    fault
}

fn without_digest(manifest: &str) -> String {
    let Ok(mut table) = manifest.parse::<toml::Table>() else {
        return manifest.to_owned();
    };
    table.remove("sha256");
    toml::to_string(&table).unwrap_or_else(|_| manifest.to_owned())
}

fn features(sandbox: &Sandbox) -> String {
    let f = sandbox.info().features;
    let all = [
        (f.manual_capture, "manual-capture"),
        (f.partial_capture, "partial-capture"),
        (f.multiple_capture, "multiple-capture"),
        (f.cancel, "cancel"),
        (f.refund, "refund"),
        (f.partial_refund, "partial-refund"),
        (f.sync, "sync"),
        (f.complete, "complete"),
        (f.webhooks, "webhooks"),
        (f.client_tokens, "client-tokens"),
    ];
    let has: Vec<_> = all
        .iter()
        .filter(|(has, _)| *has)
        .map(|(_, name)| *name)
        .collect();
    match has.is_empty() {
        true => "start alone".into(),
        false => has.join(", "),
    }
}
