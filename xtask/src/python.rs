//! The Python programs of the tests: servers that they talk to, the gateways' own libraries, a compiler of plugins. They
//! live in a virtual environment under the target folder, made once and made again when the list of versions changes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, output, run};

const REQUIREMENTS: &str = "oms-server/tests/requirements.txt";

/// The Python of the environment, with everything of the list installed.
pub(crate) fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    let path = workspace.root.join(REQUIREMENTS);
    let wanted = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let folder = workspace.target_dir.join("test-python");
    let (python, stamp) = (folder.join("bin/python"), folder.join("installed.txt"));
    let works = || output(&python, &["-c", "import aiosmtpd, moto, stripe, componentize_py"]).is_some();
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) && works() {
        return Ok(python);
    }
    if output("python3", &["-c", "import ensurepip, venv"]).is_none() {
        bail!(
            "tests need Python 3 with its module venv; type: {}",
            how_to_install()
        );
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let pip = ["-m", "pip", "install", "--quiet", "--no-input"];
    let pip = [&pip[..], &["--disable-pip-version-check", "--requirement"]].concat();
    run(Command::new(&python).args(pip).arg(&path))
        .context("the Python programs of the tests cannot be installed")?;
    // Last: an environment that was not finished is made again.
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}

fn how_to_install() -> &'static str {
    match cfg!(target_os = "macos") {
        true => "brew install python",
        false => "sudo apt-get install -y python3-venv",
    }
}
