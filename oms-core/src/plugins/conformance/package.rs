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
    /// Another file that could be meant: it is older and not the same.
    pub passed_over: Option<PathBuf>,
    /// The text of `plugin.toml`.
    pub manifest: String,
    /// The bytes of the component.
    pub wasm: Vec<u8>,
}

impl Package {
    /// Reads a plugin: `path` is its folder, its `plugin.toml`, or a component in or beneath its folder. In a folder the
    /// component is the newest of the file that `plugin.toml` names and of what cargo has built of it.
    pub fn find(path: &Path) -> Result<Self, String> {
        Self::find_with(path, None)
    }

    /// As [`Package::find`], where cargo may have been told another target folder, as by `CARGO_TARGET_DIR`.
    pub fn find_with(path: &Path, target: Option<&Path>) -> Result<Self, String> {
        if path.is_dir() {
            return Self::in_folder(path, target);
        }
        if path.file_name().is_some_and(|name| name == "plugin.toml") {
            let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            return Self::in_folder(folder.unwrap_or(Path::new(".")), target);
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
            passed_over: None,
        })
    }

    /// Which file is the component, and which is not.
    pub fn chosen(&self) -> String {
        let taken = self.component.display();
        match &self.passed_over {
            None => taken.to_string(),
            Some(older) => format!(
                "{taken}; {} is older and not the same, so it is not used",
                older.display()
            ),
        }
    }

    /// SHA-256 of the component, in hexadecimal.
    pub fn digest(&self) -> String {
        sha256_hex(&self.wasm)
    }

    pub(super) fn parsed(&self) -> Result<Manifest, String> {
        Manifest::parse(&self.manifest).map_err(|fault| format!("plugin.toml: {fault}"))
    }

    fn in_folder(folder: &Path, target: Option<&Path>) -> Result<Self, String> {
        let manifest = folder.join("plugin.toml");
        let text = std::fs::read_to_string(&manifest).map_err(|e| format!("{}: {e}", manifest.display()))?;
        // A manifest that is at fault elsewhere may still name its file.
        let table: toml::Table = text.parse().map_err(|e| format!("plugin.toml: {e}"))?;
        let wasm = table
            .get("wasm")
            .and_then(toml::Value::as_str)
            .ok_or("plugin.toml does not name its component: add `wasm = \"<id>.wasm\"`")?;
        let beside = Some(folder.join(wasm)).filter(|file| file.is_file());
        let targets = targets(folder, target)?;
        let built = newest_build(folder, wasm, &targets);
        // What was handed over without its sources is meant as it is.
        let built = built.filter(|_| beside.is_none() || folder.join("Cargo.toml").is_file());
        match (beside, built) {
            (Some(beside), Some(built)) => Self::newer(folder, beside, built),
            (Some(only), None) | (None, Some(only)) => Self::of(folder, &only),
            (None, None) => Err(not_built(folder, wasm, &targets)),
        }
    }

    /// A copy beside `plugin.toml` is stale as soon as cargo has built again.
    fn newer(folder: &Path, beside: PathBuf, built: PathBuf) -> Result<Self, String> {
        let (newer, older) = match changed(&built) > changed(&beside) {
            true => (built, beside),
            false => (beside, built),
        };
        let mut package = Self::of(folder, &newer)?;
        let same = std::fs::read(&older).is_ok_and(|wasm| wasm == package.wasm);
        package.passed_over = (!same).then_some(older);
        Ok(package)
    }
}

/// Cargo's target folders: the one that it was told, the plugin's own, and those of workspaces that it may belong to.
fn targets(folder: &Path, told: Option<&Path>) -> Result<Vec<PathBuf>, String> {
    let folder = std::path::absolute(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let above = folder.ancestors().skip(1).take(3).map(|dir| dir.join("target"));
    Ok(told
        .map(Path::to_owned)
        .into_iter()
        .chain([folder.join("target")])
        .chain(above.filter(|target| target.is_dir()))
        .collect())
}

fn newest_build(folder: &Path, wasm: &str, targets: &[PathBuf]) -> Option<PathBuf> {
    // The name of a library has no hyphens, and need not be the plugin's.
    let mut names = vec![wasm.to_owned(), wasm.replace('-', "_")];
    names.extend(library(folder).map(|name| format!("{name}.wasm")));
    let mut found = Vec::new();
    for target in targets {
        for build in BUILDS {
            let built = target.join(TARGET).join(build);
            found.extend(names.iter().map(|name| built.join(name)));
        }
    }
    found.retain(|path| path.is_file());
    found.into_iter().max_by_key(|path| changed(path))
}

fn changed(file: &Path) -> Option<impl Ord + use<>> {
    std::fs::metadata(file).and_then(|meta| meta.modified()).ok()
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

fn not_built(folder: &Path, wasm: &str, targets: &[PathBuf]) -> String {
    let how = match folder.join("Cargo.toml").is_file() {
        true => format!(
            ", and cargo has built none into {}: `cargo build --release --target {TARGET}` (once before: `rustup \
             target add {TARGET}`), or name the file",
            targets
                .iter()
                .map(|target| target.display().to_string())
                .collect::<Vec<_>>()
                .join(" or ")
        ),
        false => ": build it, or name the file".into(),
    };
    format!("{} has no {wasm}{how}", folder.display())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, create_dir_all, write};
    use std::time::Duration;

    use super::*;

    /// A plugin with a crate around it, and what cargo has built of it.
    fn crate_of(folder: &Path, target: &Path) -> (PathBuf, PathBuf) {
        let built = target.join("wasm32-wasip2/release/acme_pay.wasm");
        create_dir_all(built.parent().unwrap()).unwrap();
        write(&built, "built").unwrap();
        write(folder.join("Cargo.toml"), "[package]\nname = \"acme-pay\"\n").unwrap();
        write(folder.join("plugin.toml"), "wasm = \"acme-pay.wasm\"\n").unwrap();
        (built, folder.join("acme-pay.wasm"))
    }

    fn age(file: &Path, seconds: u64) {
        let modified = std::fs::metadata(file).unwrap().modified().unwrap();
        let written = modified - Duration::from_secs(seconds);
        File::options()
            .write(true)
            .open(file)
            .unwrap()
            .set_modified(written)
            .unwrap();
    }

    #[test]
    fn the_newest_component_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (built, copy) = crate_of(folder, &folder.join("target"));
        let taken = || {
            let package = Package::find(folder).unwrap();
            (package.component, package.passed_over)
        };
        assert_eq!(taken(), (built.clone(), None));
        write(&copy, "built").unwrap();
        age(&copy, 60);
        assert_eq!(taken(), (built.clone(), None), "the same bytes are no question");
        write(&copy, "another").unwrap();
        assert_eq!(taken(), (copy.clone(), Some(built.clone())));
        age(&copy, 60);
        assert_eq!(taken(), (built, Some(copy.clone())));
        // As it is handed over.
        std::fs::remove_file(folder.join("Cargo.toml")).unwrap();
        assert_eq!(taken(), (copy, None));
    }

    #[test]
    fn cargo_may_build_elsewhere() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (built, _) = crate_of(folder.path(), elsewhere.path());
        let package = Package::find_with(folder.path(), Some(elsewhere.path())).unwrap();
        assert_eq!(package.component, built);

        let member = folder.path().join("plugins/acme");
        create_dir_all(&member).unwrap();
        let (built, _) = crate_of(&member, &folder.path().join("target"));
        assert_eq!(Package::find(&member).unwrap().component, built);

        std::fs::remove_file(built).unwrap();
        let said = Package::find_with(&member, Some(elsewhere.path().join("none").as_ref())).unwrap_err();
        for target in [
            elsewhere.path().join("none"),
            member.join("target"),
            folder.path().join("target"),
        ] {
            assert!(said.contains(target.to_str().unwrap()), "{target:?}: {said}");
        }
    }
}
