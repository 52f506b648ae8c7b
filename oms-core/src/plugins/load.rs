//! Plugins as they lie in a folder: `<dir>/<anything>/plugin.toml` and the component beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::compiled::sha256_hex;
use super::manifest::Manifest;
use super::store::NewVersion;
use crate::error::{Error, Result, Violation};

/// The largest component; those of Python have 18 MB.
pub(super) const MAX_COMPONENT: u64 = 64 << 20;

/// A plugin that was read.
pub(super) struct Found {
    /// Its folder's name, for messages.
    folder: String,
    pub(super) text: String,
    pub(super) manifest: Manifest,
    pub(super) wasm: Vec<u8>,
    pub(super) digest: String,
}

impl Found {
    pub(super) fn fault(&self, detail: String) -> Violation {
        fault(&self.folder, detail)
    }

    /// Says of it in the log what became of it.
    pub(super) fn tell(&self, what: &str) {
        let Manifest { id, version, .. } = &self.manifest;
        tracing::info!(plugin.id = %id, plugin.version = %version, digest = %self.digest, "{what}");
    }

    pub(super) fn version(&self) -> NewVersion<'_> {
        NewVersion {
            digest: &self.digest,
            id: &self.manifest.id,
            version: &self.manifest.version,
            wasm: &self.wasm,
            manifest: &self.text,
        }
    }
}

/// Reads all plugins of a folder, by name of their folders, and notes the faults of those that cannot be read. Folders
/// without a `plugin.toml` are passed over.
pub(super) async fn find(dir: PathBuf) -> Result<(Vec<Found>, Vec<Violation>)> {
    on_a_thread(move || read_all(&dir)).await
}

/// Reads the plugin in this folder, or the one that this file is a part of; its component may lie elsewhere.
pub(super) async fn one(path: PathBuf, component: Option<PathBuf>) -> Result<Found> {
    on_a_thread(move || match &component {
        Some(component) => {
            let invalid = |detail| Error::Invalid(vec![fault(&name(&path), detail)]);
            read(&path, Some(component)).map_err(invalid)
        }
        None => read_one(&path).map_err(|detail| Error::invalid(path.display().to_string(), detail)),
    })
    .await
}

async fn on_a_thread<T: Send + 'static>(read: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|e| Error::Internal(format!("reading plugins: {e}")))?
}

/// Notes the faults of those whose id is taken: by another folder, or by a gateway of the program.
pub(super) fn check_ids(
    found: Vec<Found>,
    is_native: impl Fn(&str) -> bool,
    faults: &mut Vec<Violation>,
) -> Vec<Found> {
    let (mut folders, mut unique) = (BTreeMap::new(), Vec::new());
    for plugin in found {
        let id = plugin.manifest.id.clone();
        if is_native(&id) {
            faults.push(plugin.fault(format!("the program has a gateway of its own with the id {id:?}")));
        } else if let Some(other) = folders.get(&id) {
            faults.push(plugin.fault(format!(
                "the folder {other} has a plugin with the id {id:?} as well"
            )));
        } else {
            folders.insert(id, plugin.folder.clone());
            unique.push(plugin);
        }
    }
    unique
}

fn read_all(dir: &Path) -> Result<(Vec<Found>, Vec<Violation>)> {
    let unreadable = |e: std::io::Error| Error::Internal(format!("plugin folder {}: {e}", dir.display()));
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.join("plugin.toml").is_file() {
            folders.push(path);
        }
    }
    folders.sort();
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    for path in folders {
        match read(&path, None) {
            Ok(plugin) => found.push(plugin),
            Err(detail) => faults.push(fault(&name(&path), detail)),
        }
    }
    Ok((found, faults))
}

fn name(folder: &Path) -> String {
    // `.` has a name too.
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let name = absolute.file_name().unwrap_or(folder.as_os_str());
    name.to_string_lossy().into_owned()
}

fn read_one(path: &Path) -> Result<Found, String> {
    if path.is_dir() {
        return read(path, None);
    }
    if !path.is_file() {
        return Err("there is no such file or folder".into());
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.join("plugin.toml").is_file() {
        return Err(
            "there is no plugin.toml beside it, which says what it is and what it may ask for".into(),
        );
    }
    let found = read(folder, None)?;
    let file = path.file_name().unwrap_or_default();
    match file == "plugin.toml" || file == found.manifest.wasm.as_str() {
        true => Ok(found),
        false => Err(format!(
            "the plugin.toml beside it is of another file, {}",
            found.manifest.wasm
        )),
    }
}

fn read(path: &Path, component: Option<&Path>) -> Result<Found, String> {
    let text = std::fs::read_to_string(path.join("plugin.toml")).map_err(|e| e.to_string())?;
    let manifest = Manifest::parse(&text)?;
    let named = |e: std::io::Error| format!("{}: {e}", manifest.wasm);
    let file = component.map_or_else(|| path.join(&manifest.wasm), Path::to_owned);
    let size = std::fs::metadata(&file).map_err(named)?.len();
    if size > MAX_COMPONENT {
        return Err(format!(
            "{} has {size} bytes, {MAX_COMPONENT} are taken",
            manifest.wasm
        ));
    }
    let wasm = std::fs::read(&file).map_err(named)?;
    let digest = sha256_hex(&wasm);
    if let Some(expected) = &manifest.sha256
        && !expected.eq_ignore_ascii_case(&digest)
    {
        return Err(format!(
            "{} has the sha256 {digest}, but plugin.toml asks for {expected}",
            manifest.wasm
        ));
    }
    Ok(Found {
        folder: name(path),
        text,
        manifest,
        wasm,
        digest,
    })
}

fn fault(folder: &str, detail: String) -> Violation {
    Violation {
        pointer: format!("/{folder}/plugin.toml"),
        detail,
    }
}
