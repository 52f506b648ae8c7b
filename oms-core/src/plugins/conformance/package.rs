//! A plugin as its author has it: a folder with `plugin.toml`, and a component beside it or where the compiler put it.

use std::path::{Path, PathBuf};

use crate::plugins::compiled::sha256_hex;
use crate::plugins::manifest::Manifest;

/// Where cargo leaves components, within a target folder.
const BUILDS: [&str; 3] = ["release", "plugin", "debug"];
const TARGET: &str = "wasm32-wasip2";

/// The files of a plugin.
#[derive(Debug, Clone)]
pub struct Package {
    /// The folder that `plugin.toml` lies in.
    pub folder: PathBuf,
    /// The component.
    pub component: PathBuf,
    /// The text of `plugin.toml`.
    pub manifest: String,
    /// The bytes of the component.
    pub wasm: Vec<u8>,
}

impl Package {
    /// Reads a plugin: `path` is its folder, its `plugin.toml`, or a component in or beneath its folder. In a folder the
    /// component is the file that `plugin.toml` names; where there is none, the newest that cargo has built of it.
    pub fn find(path: &Path) -> Result<Self, String> {
        if path.is_dir() {
            return Self::in_folder(path);
        }
        if path.file_name().is_some_and(|name| name == "plugin.toml") {
            return Self::in_folder(path.parent().unwrap_or(Path::new(".")));
        }
        if !path.is_file() {
            return Err(format!("there is no file or folder {}", path.display()));
        }
        let absolute = std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let folder = absolute
            .ancestors()
            .skip(1)
            .take(6)
            .find(|dir| dir.join("plugin.toml").is_file())
            .ok_or_else(|| format!("there is no plugin.toml beside {} or above it", path.display()))?;
        Self::of(folder, path)
    }

    /// A plugin whose component lies somewhere else.
    pub fn of(folder: &Path, component: &Path) -> Result<Self, String> {
        let manifest = folder.join("plugin.toml");
        let named = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
        Ok(Self {
            manifest: std::fs::read_to_string(&manifest).map_err(|e| named(&manifest, e))?,
            wasm: std::fs::read(component).map_err(|e| named(component, e))?,
            folder: folder.to_owned(),
            component: component.to_owned(),
        })
    }

    /// SHA-256 of the component, in hexadecimal.
    pub fn digest(&self) -> String {
        sha256_hex(&self.wasm)
    }

    pub(super) fn parsed(&self) -> Result<Manifest, String> {
        Manifest::parse(&self.manifest).map_err(|fault| format!("plugin.toml: {fault}"))
    }

    fn in_folder(folder: &Path) -> Result<Self, String> {
        let manifest = folder.join("plugin.toml");
        let text = std::fs::read_to_string(&manifest).map_err(|e| format!("{}: {e}", manifest.display()))?;
        // A manifest that is at fault elsewhere may still name its file.
        let table: toml::Table = text.parse().map_err(|e| format!("plugin.toml: {e}"))?;
        let wasm = table
            .get("wasm")
            .and_then(toml::Value::as_str)
            .ok_or("plugin.toml does not name its component: add `wasm = \"<id>.wasm\"`")?;
        let beside = folder.join(wasm);
        if beside.is_file() {
            return Self::of(folder, &beside);
        }
        match newest_build(folder, wasm) {
            Some(built) => Self::of(folder, &built),
            None => Err(not_built(folder, wasm)),
        }
    }
}

fn newest_build(folder: &Path, wasm: &str) -> Option<PathBuf> {
    let folder = std::path::absolute(folder).ok()?;
    // The name of a library has no hyphens, and need not be the plugin's.
    let mut names = vec![wasm.to_owned(), wasm.replace('-', "_")];
    names.extend(library(&folder).map(|name| format!("{name}.wasm")));
    let mut found = Vec::new();
    for dir in folder.ancestors().take(4) {
        for build in BUILDS {
            let built = dir.join("target").join(TARGET).join(build);
            found.extend(names.iter().map(|name| built.join(name)));
        }
    }
    let changed = |path: &PathBuf| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    found.retain(|path| path.is_file());
    found.into_iter().max_by_key(changed)
}

/// What cargo calls the library of this folder.
fn library(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("Cargo.toml")).ok()?;
    let table: toml::Table = text.parse().ok()?;
    let name = |section: &str| table.get(section)?.get("name")?.as_str().map(str::to_owned);
    name("lib")
        .or_else(|| name("package"))
        .map(|name| name.replace('-', "_"))
}

fn not_built(folder: &Path, wasm: &str) -> String {
    let how = match folder.join("Cargo.toml").is_file() {
        true => format!(
            ", and cargo has not built it: `cargo build --release --target {TARGET}` (once before: `rustup target \
             add {TARGET}`), or name the file"
        ),
        false => ": build it, or name the file".into(),
    };
    format!("{} has no {wasm}{how}", folder.display())
}
