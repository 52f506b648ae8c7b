//! `cargo xtask plugins`: every `plugins/*/` with a `plugin.toml` becomes `<target folder>/plugins/<id>/`
//! with two files, the component and its manifest with the component's SHA-256 filled in.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::workspace::{Package, Workspace, output, run};

pub(crate) const WASM_TARGET: &str = "wasm32-wasip2";

/// Builds all plugins and returns the folder that holds them.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    ensure_wasm_target()?;
    let plugins = packages(workspace);
    if plugins.is_empty() {
        bail!(
            "no folder under {} has a plugin.toml",
            workspace.root.join("plugins").display()
        );
    }
    let mut build = workspace.cargo(["build", "--profile", "plugin", "--target", WASM_TARGET]);
    for plugin in &plugins {
        build.args(["-p", &plugin.name]);
    }
    run(&mut build)?;

    // From scratch, so that a plugin that left the workspace does not stay behind and get loaded.
    let out = workspace.plugin_dir();
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("cannot empty {}", out.display()))?;
    }
    let built = workspace.target_dir.join(WASM_TARGET).join("plugin");
    for plugin in plugins {
        install(plugin, &built, &out).with_context(|| format!("plugin {}", plugin.name))?;
    }
    build_guest(workspace, "hostile", "plugins-test")
        .context("the guest for the tests of the plugin host")?;
    build_guest(workspace, "careless", "plugins-kit")
        .context("the guest for the tests of the conformance kit")?;
    Ok(out)
}

/// A guest for tests, into `<target folder>/<to>/<name>`, where no server looks for plugins.
fn build_guest(workspace: &Workspace, name: &str, to: &str) -> Result<()> {
    let guest = Package {
        name: format!("oms-test-{name}"),
        dir: workspace.root.join("oms-core/tests/guests").join(name),
        cdylib: Some(format!("oms_test_{name}")),
    };
    let mut build = workspace.cargo(["build", "--profile", "plugin", "--target", WASM_TARGET]);
    build.arg("--manifest-path").arg(guest.dir.join("Cargo.toml"));
    // It is a workspace of its own, which would have a target folder of its own.
    build.arg("--target-dir").arg(&workspace.target_dir);
    run(&mut build)?;
    let built = workspace.target_dir.join(WASM_TARGET).join("plugin");
    install(&guest, &built, &workspace.target_dir.join(to))
}

/// The workspace's packages that are plugins.
pub(crate) fn packages(workspace: &Workspace) -> Vec<&Package> {
    workspace
        .packages
        .iter()
        .filter(|package| package.dir.join("plugin.toml").exists())
        .collect()
}

/// Adds the target with rustup when the compiler has no standard library for it.
pub(crate) fn ensure_wasm_target() -> Result<()> {
    let libdir = output("rustc", &["--print", "target-libdir", "--target", WASM_TARGET]);
    if libdir.is_some_and(|dir| Path::new(&dir).exists()) {
        return Ok(());
    }
    if output("rustup", &["--version"]).is_none() {
        bail!(
            "this Rust has no {WASM_TARGET} target, and rustup, which could add it, is not installed. \
             Install rustup (https://rustup.rs) or your distribution's package for {WASM_TARGET}."
        );
    }
    run(Command::new("rustup").args(["target", "add", WASM_TARGET]))
}

fn install(plugin: &Package, built: &Path, out: &Path) -> Result<()> {
    let library = plugin
        .cdylib
        .as_ref()
        .context("a plugin needs `crate-type = [\"cdylib\"]`")?;
    let component = fs::read(built.join(library).with_extension("wasm"))?;
    place(&plugin.dir, &component, out)
}

/// Puts a component and the manifest in `source`, with the component's digest filled in, below `out`.
pub(crate) fn place(source: &Path, component: &[u8], out: &Path) -> Result<()> {
    let digest = sha256_hex(component);
    let manifest = fs::read_to_string(source.join("plugin.toml"))?;
    let (id, manifest) = with_digest(&manifest, &digest)?;

    let dir = out.join(&id);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(format!("{id}.wasm")), component)?;
    fs::write(dir.join("plugin.toml"), manifest)?;
    println!(
        "{id}: {} kB, sha256 {digest}, in {}",
        component.len() / 1000,
        dir.display()
    );
    Ok(())
}

/// The plugin's id, and its manifest with `sha256` set.
fn with_digest(manifest: &str, digest: &str) -> Result<(String, String)> {
    let mut table: toml::Table = manifest.parse().context("plugin.toml is not valid TOML")?;
    let id = table
        .get("id")
        .and_then(toml::Value::as_str)
        .context("plugin.toml has no `id`")?
        .to_owned();
    // It becomes a folder and a file name.
    if id.is_empty()
        || !id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    {
        bail!("the id {id:?} in plugin.toml may hold only ASCII letters, digits, `-` and `_`");
    }
    table.insert("sha256".into(), digest.into());
    Ok((id, toml::to_string(&table)?))
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}"); // writing to a String cannot fail
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_set_above_the_tables() {
        let (id, text) = with_digest("id = \"mock\"\nsha256 = \"\"\n[limits]\nmemory = 64\n", "abc").unwrap();
        assert_eq!(id, "mock");
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["sha256"].as_str(), Some("abc"));
        assert_eq!(table["limits"]["memory"].as_integer(), Some(64));
    }

    #[test]
    fn an_id_that_leaves_the_folder_is_refused() {
        assert!(with_digest("id = \"../evil\"", "abc").is_err());
        assert!(with_digest("version = \"1\"", "abc").is_err());
    }

    #[test]
    fn sha256_matches_the_published_example() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(b"abc"), expected);
    }
}
