//! Programs that tests need: installed by the system's package manager when that is possible, otherwise by hand.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::workspace::{output, run};

/// A program, and what installs it on each system.
pub(crate) struct Needed {
    pub(crate) name: &'static str,
    /// Debian's package.
    pub(crate) package: &'static str,
    /// Package managers and the command that a person types there.
    pub(crate) commands: &'static [(&'static str, &'static str)],
    /// Where to look otherwise.
    pub(crate) site: &'static str,
}

const REDIS: Needed = Needed {
    name: "Redis",
    package: "redis-server",
    commands: &[
        ("apt-get", "sudo apt-get install redis-server"),
        ("dnf", "sudo dnf install redis"),
        ("pacman", "sudo pacman -S redis"),
        ("apk", "sudo apk add redis"),
        ("zypper", "sudo zypper install redis"),
        ("brew", "brew install redis"),
    ],
    site: "https://redis.io/downloads/",
};

const NODE: Needed = Needed {
    name: "Node.js",
    package: "npm",
    commands: &[
        ("apt-get", "sudo apt-get install nodejs npm"),
        ("dnf", "sudo dnf install nodejs npm"),
        ("pacman", "sudo pacman -S nodejs npm"),
        ("apk", "sudo apk add nodejs npm"),
        ("zypper", "sudo zypper install nodejs npm"),
        ("brew", "brew install node"),
    ],
    site: "https://nodejs.org/en/download",
};

impl Needed {
    /// Installs it, or says what a person has to type.
    pub(crate) fn install(&self) -> Result<()> {
        if !Path::new("/usr/bin/apt-get").exists() || !is_root() {
            bail!(
                "{} is needed and was not found. Install it with: {}",
                self.name,
                self.hint()
            );
        }
        println!("{} was not found: installing it", self.name);
        run(apt_get().arg("update"))?;
        run(apt_get().args(["install", "-y", "--no-install-recommends", self.package]))
    }

    fn hint(&self) -> String {
        let mut commands = self.commands.iter();
        let known = commands.find(|(program, _)| output(program, &["--version"]).is_some());
        known.map_or_else(
            || format!("see {}", self.site),
            |(_, command)| (*command).to_owned(),
        )
    }
}

/// The tests start it themselves, on free ports and in temporary folders.
pub(crate) fn ensure_redis() -> Result<()> {
    if output("redis-server", &["--version"]).is_some() {
        return Ok(());
    }
    REDIS.install()
}

/// For the gateways' own libraries and the compiler of JavaScript plugins.
pub(crate) fn ensure_node() -> Result<()> {
    match ["node", "npm"]
        .iter()
        .all(|program| output(program, &["--version"]).is_some())
    {
        true => Ok(()),
        false => NODE.install(),
    }
}

pub(crate) fn is_root() -> bool {
    output("id", &["-u"]).is_some_and(|id| id == "0")
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null());
    command
}
