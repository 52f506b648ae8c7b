//! Plugins as they lie in a folder: `<dir>/<anything>/plugin.toml` and the component beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::manifest::Manifest;
use super::sha256_hex;
use super::store::NewVersion;
use crate::error::{Error, Result, Violation};

/// The largest component; those of Python have 18 MB.
const MAX_COMPONENT: u64 = 64 << 20;

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

/// Reads all plugins of a folder, by name of their folders. Folders without a `plugin.toml` are passed over.
pub(super) async fn find(dir: PathBuf) -> Result<Vec<Found>> {
    tokio::task::spawn_blocking(move || read_all(&dir))
        .await
        .map_err(|e| Error::Internal(format!("reading plugins: {e}")))?
}

/// Refuses an id that is taken: by another folder, or by a gateway of the program.
pub(super) fn check_ids(found: &[Found], is_native: impl Fn(&str) -> bool) -> Result<()> {
    let (mut folders, mut faults) = (BTreeMap::new(), Vec::new());
    for plugin in found {
        let id = plugin.manifest.id.as_str();
        if is_native(id) {
            faults.push(plugin.fault(format!("the program has a gateway of its own with the id {id:?}")));
        }
        if let Some(other) = folders.insert(id, plugin.folder.as_str()) {
            faults.push(plugin.fault(format!(
                "the folder {other} has a plugin with the id {id:?} as well"
            )));
        }
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Error::Invalid(faults)),
    }
}

fn read_all(dir: &Path) -> Result<Vec<Found>> {
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
        let folder = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        match read(&path, &folder) {
            Ok(plugin) => found.push(plugin),
            Err(detail) => faults.push(fault(&folder, detail)),
        }
    }
    match faults.is_empty() {
        true => Ok(found),
        false => Err(Error::Invalid(faults)),
    }
}

fn read(path: &Path, folder: &str) -> Result<Found, String> {
    let text = std::fs::read_to_string(path.join("plugin.toml")).map_err(|e| e.to_string())?;
    let manifest = Manifest::parse(&text)?;
    let named = |e: std::io::Error| format!("{}: {e}", manifest.wasm);
    let file = path.join(&manifest.wasm);
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
        folder: folder.to_owned(),
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
