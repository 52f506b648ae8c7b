//! Where things are, and how cargo is called.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// As cargo itself sees it: `CARGO_TARGET_DIR`, its configuration, or `target`.
    pub(crate) target_dir: PathBuf,
    pub(crate) packages: Vec<Package>,
}

pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    /// File name of the `cdylib` without its ending, if the package builds one.
    pub(crate) cdylib: Option<String>,
}

impl Workspace {
    pub(crate) fn load() -> Result<Self> {
        // As cargo says now: what it said when this was compiled may be another checkout with the same target folder.
        let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| ".".into());
        let output = cargo_in(Path::new(&here))
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .output()
            .context("cannot start cargo")?;
        if !output.status.success() {
            bail!(
                "cargo metadata failed:\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
        let packages = metadata["packages"]
            .as_array()
            .context("cargo metadata lists no packages")?;
        Ok(Self {
            root: path(&metadata["workspace_root"])?,
            target_dir: path(&metadata["target_directory"])?,
            packages: packages.iter().map(Package::parse).collect::<Result<_>>()?,
        })
    }

    /// A cargo command that runs at the workspace root.
    pub(crate) fn cargo<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = cargo_in(&self.root);
        command.args(args);
        command
    }

    pub(crate) fn plugin_dir(&self) -> PathBuf {
        self.target_dir.join("plugins")
    }

    /// Builds the server with the given profile flag and returns the program's path.
    pub(crate) fn build_server(&self, release: bool) -> Result<PathBuf> {
        let (flags, folder): (&[&str], _) = if release {
            (&["--release"], "release")
        } else {
            (&[], "debug")
        };
        run(self.cargo(["build", "-p", "oms-server"]).args(flags))?;
        Ok(self.target_dir.join(folder).join("oms-server"))
    }
}

impl Package {
    fn parse(package: &Value) -> Result<Self> {
        let is_cdylib = |target: &&Value| {
            target["crate_types"]
                .as_array()
                .is_some_and(|types| types.iter().any(|t| t == "cdylib"))
        };
        let targets = package["targets"].as_array().context("package without targets")?;
        let cdylib = targets
            .iter()
            .find(is_cdylib)
            .and_then(|target| target["name"].as_str());
        Ok(Self {
            name: package["name"]
                .as_str()
                .context("package without name")?
                .to_owned(),
            dir: path(&package["manifest_path"])?
                .parent()
                .context("manifest without folder")?
                .to_owned(),
            cdylib: cdylib.map(|name| name.replace('-', "_")),
        })
    }
}

/// Prints the command, runs it to its end, and fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = describe(command);
    println!("$ {line}");
    let status = command
        .status()
        .with_context(|| format!("cannot start: {line}"))?;
    if !status.success() {
        bail!("failed ({status}): {line}");
    }
    Ok(())
}

/// Trimmed stdout of a command that succeeded; `None` when it is missing or fails.
pub(crate) fn output(program: impl AsRef<OsStr>, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

fn cargo_in(dir: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(dir);
    // `cargo xtask` runs under cargo, which describes xtask in the environment. Build scripts that watch these
    // variables (ring's, for one) would be run again each time the caller changes between cargo and cargo xtask.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

fn path(value: &Value) -> Result<PathBuf> {
    value
        .as_str()
        .map(PathBuf::from)
        .context("cargo metadata lacks a path")
}
