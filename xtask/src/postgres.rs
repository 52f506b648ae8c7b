//! A throw-away PostgreSQL server: found (or installed), started in a temporary folder on a free port, removed.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::packages::{Needed, is_root};
use crate::workspace::output;

const OLDEST_MAJOR: u32 = 15;

const NEEDED: Needed = Needed {
    name: "PostgreSQL 15 or later",
    package: "postgresql",
    commands: &[
        ("apt-get", "sudo apt-get install postgresql"),
        ("dnf", "sudo dnf install postgresql-server"),
        ("pacman", "sudo pacman -S postgresql"),
        ("apk", "sudo apk add postgresql"),
        ("zypper", "sudo zypper install postgresql-server"),
        ("brew", "brew install postgresql@17"),
    ],
    site: "https://www.postgresql.org/download/",
};

/// Owns the server for as long as its standard input is open. When our end of that pipe closes, because the test is
/// over, was interrupted, or was killed with a signal that nobody can handle, `read` returns and everything goes.
/// It ignores signals itself: Ctrl-C reaches the whole process group, and the folder must still be removed.
const SUPERVISOR: &str = r#"
trap '' INT HUP TERM PIPE
bin=$1 port=$2 base=$3 settings=$4
dir=$(mktemp -d "$base/oms-postgres-XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
fail() { cat "$dir/log" >&2; exit 1; }
"$bin/initdb" -D "$dir/data" --username=postgres --auth=trust --encoding=UTF8 --no-locale --no-sync \
    >"$dir/log" 2>&1 || fail
options="-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=300 $settings"
"$bin/pg_ctl" start -D "$dir/data" -w -t 60 -l "$dir/log" -o "$options" >/dev/null 2>&1 || fail
echo ready
read -r _
"$bin/pg_ctl" stop -D "$dir/data" -m immediate >/dev/null 2>&1
"#;

/// The programs of one PostgreSQL version.
pub(crate) struct Installation {
    bin: PathBuf,
    major: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Without fsync. The data lives no longer than the tests, so only a crash of the machine could harm it, and the
    /// tests kill clients, never this server.
    Fast,
    /// As in production: a commit is on disk before it is answered.
    Durable,
}

/// A running server; dropping it stops it and removes its folder.
pub(crate) struct Server {
    supervisor: Child,
    port: u16,
}

/// The newest installed version that will do; installs one when it may, otherwise says how.
pub(crate) fn ensure() -> Result<Installation> {
    if let Some(found) = find() {
        return Ok(found);
    }
    NEEDED.install()?;
    find().with_context(|| format!("the system's package is older than PostgreSQL {OLDEST_MAJOR}"))
}

impl Server {
    pub(crate) fn start(installation: &Installation, durability: Durability) -> Result<Self> {
        let port = free_port()?;
        // Temporary folders are often kept in memory, where durable commits would cost nothing: /var/tmp is on disk.
        let (base, settings) = match durability {
            Durability::Fast => (std::env::temp_dir(), "-c fsync=off"),
            Durability::Durable => (PathBuf::from("/var/tmp"), "-c fsync=on -c synchronous_commit=on"),
        };
        let mut command = Command::new("sh");
        command
            .args(["-c", SUPERVISOR, "sh"])
            .arg(&installation.bin)
            .arg(port.to_string())
            .arg(base)
            .arg(settings);
        command
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if is_root() {
            let (user, group) = unprivileged_user()?;
            command.uid(user).gid(group);
        }
        let mut supervisor = command.spawn().context("cannot start sh")?;

        let stdout = supervisor.stdout.take().context("the pipe to sh is missing")?;
        let mut answer = String::new();
        BufReader::new(stdout).read_line(&mut answer)?;
        let server = Self { supervisor, port };
        if answer.trim() != "ready" {
            bail!("PostgreSQL did not start; its messages stand above");
        }
        println!("PostgreSQL {} runs at {}", installation.major, server.url());
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        if let Err(error) = self.supervisor.wait() {
            eprintln!("cannot wait for PostgreSQL to stop: {error}");
        }
    }
}

fn find() -> Option<Installation> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(output("pg_config", &["--bindir"]).map(PathBuf::from));
    // Debian keeps the server's programs out of PATH, as do the packages of other systems.
    for parent in [
        "/usr/lib/postgresql",
        "/usr",
        "/opt/homebrew/opt",
        "/usr/local/opt",
    ] {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        folders.extend(entries.map(|entry| entry.path().join("bin")));
    }
    let installations = folders.into_iter().filter_map(installation);
    installations
        .filter(|found| found.major >= OLDEST_MAJOR)
        .max_by_key(|found| found.major)
}

fn installation(bin: PathBuf) -> Option<Installation> {
    let complete = ["initdb", "pg_ctl", "postgres"]
        .iter()
        .all(|program| bin.join(program).exists());
    let version = complete
        .then(|| output(bin.join("postgres"), &["--version"]))
        .flatten()?;
    Some(Installation {
        major: major(&version)?,
        bin,
    })
}

/// `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` -> 15; also `17beta2`.
fn major(version: &str) -> Option<u32> {
    let number = version
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// `initdb` and `postgres` refuse to run as root.
fn unprivileged_user() -> Result<(u32, u32)> {
    let ids = |name| Some((id("-u", name)?, id("-g", name)?));
    ids("postgres")
        .or_else(|| ids("nobody"))
        .context("found neither a user `postgres` nor `nobody` to run PostgreSQL as")
}

fn id(flag: &str, user: &str) -> Option<u32> {
    output("id", &[flag, user])?.parse().ok()
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_versions_are_read() {
        assert_eq!(
            major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"),
            Some(15)
        );
        assert_eq!(major("postgres (PostgreSQL) 18beta2"), Some(18));
        assert_eq!(major("nonsense"), None);
    }

    #[test]
    fn a_server_starts_and_leaves_nothing_behind() {
        let server = Server::start(&ensure().unwrap(), Durability::Fast).unwrap();
        let address = ("127.0.0.1", server.port);
        assert!(std::net::TcpStream::connect(address).is_ok());
        drop(server);
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
