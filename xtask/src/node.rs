//! The Node packages of the tests: the gateways' own libraries, which plugins are held against, and the compiler of
//! JavaScript plugins. They live under the target folder, installed once and again when the list of versions changes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages;
use crate::workspace::{Workspace, output, run};

const LISTS: [&str; 2] = ["package.json", "package-lock.json"];

/// The folder whose `node_modules` hold everything of the list.
pub(crate) fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    packages::ensure_node()?;
    let lists = workspace.root.join("oms-server/tests");
    let folder = workspace.target_dir.join("test-node");
    let stamp = folder.join("installed.txt");
    let mut wanted = String::new();
    for list in LISTS {
        let path = lists.join(list);
        wanted += &fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder)?;
    for list in LISTS {
        fs::copy(lists.join(list), folder.join(list))?;
    }
    // Not `npm ci`: it refuses a list that was made on another platform and lacks that platform's binaries.
    let install = [
        "install",
        "--no-save",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
    ];
    run(Command::new("npm")
        .args(install)
        .arg("--loglevel=error")
        .current_dir(&folder))
    .context("the Node packages of the tests cannot be installed")?;
    if output("node", &["--version"]).is_none() || !folder.join("node_modules/stripe").exists() {
        bail!(
            "npm says that it is done, but its packages are not in {}",
            folder.display()
        );
    }
    // Last: a folder that was not finished is made again.
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(folder)
}
