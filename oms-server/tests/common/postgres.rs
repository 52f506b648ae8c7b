//! A PostgreSQL server of the test's own, which can be stopped and started.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Does what its standard input says. When that closes, because the test is over or was killed, everything goes.
const SUPERVISOR: &str = r#"
trap '' INT HUP TERM PIPE
bin=$1 port=$2 settings=$3
dir=$(mktemp -d "${TMPDIR:-/tmp}/oms-faults-XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
"$bin/initdb" -D "$dir/data" --username=postgres --auth=trust --encoding=UTF8 --no-locale --no-sync \
    >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
options="-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off $settings"
answer() { if [ "$1" = 0 ]; then echo done; else cat "$dir/log" >&2; echo failed; fi; }
while read -r what mode; do
    case $what in
        start) "$bin/pg_ctl" start -D "$dir/data" -w -t 60 -l "$dir/log" -o "$options" >/dev/null 2>&1; answer $? ;;
        stop) "$bin/pg_ctl" stop -D "$dir/data" -w -t 60 -m "$mode" >/dev/null 2>&1; answer $? ;;
    esac
done
"$bin/pg_ctl" stop -D "$dir/data" -m immediate >/dev/null 2>&1
"#;

/// A server without `fsync`: what is killed here are its processes, not the machine.
pub(crate) struct Postgres {
    supervisor: Child,
    answers: BufReader<ChildStdout>,
    pub(crate) port: u16,
}

impl Postgres {
    /// `settings` as on the command line of `postgres`: `-c max_connections=30`.
    pub(crate) fn start(settings: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut command = Command::new("sh");
        command
            .args(["-c", SUPERVISOR, "sh"])
            .arg(programs())
            .arg(port.to_string())
            .arg(settings)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // PostgreSQL refuses to run as root.
        if id(&["-u"]) == Some(0) {
            let user = ["postgres", "nobody"]
                .into_iter()
                .find(|name| id(&["-u", name]).is_some());
            let user = user.expect("found neither a user `postgres` nor `nobody`");
            command
                .uid(id(&["-u", user]).unwrap())
                .gid(id(&["-g", user]).unwrap());
        }
        let mut supervisor = command.spawn().unwrap();
        let answers = BufReader::new(supervisor.stdout.take().unwrap());
        let mut postgres = Self {
            supervisor,
            answers,
            port,
        };
        postgres.tell("start");
        postgres
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// `start`, `stop fast` (sessions are ended) or `stop immediate` (as a crash).
    pub(crate) fn tell(&mut self, what: &str) {
        // The other tasks of the test go on meanwhile.
        tokio::task::block_in_place(|| {
            let mut orders = self.supervisor.stdin.as_ref().unwrap();
            writeln!(orders, "{what}").unwrap();
            let mut answer = String::new();
            self.answers.read_line(&mut answer).unwrap();
            assert_eq!(answer.trim(), "done", "{what}: what PostgreSQL says stands above");
        });
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

/// Debian keeps the server's programs out of PATH.
fn programs() -> PathBuf {
    let told = Command::new("pg_config").arg("--bindir").output();
    let told = told
        .ok()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.extend(told.map(PathBuf::from));
    let complete = |folder: &&PathBuf| {
        ["initdb", "pg_ctl", "postgres"]
            .iter()
            .all(|name| folder.join(name).exists())
    };
    folders
        .iter()
        .rev()
        .find(complete)
        .cloned()
        .expect("PostgreSQL 15 or later is needed: initdb, pg_ctl and postgres were not found")
}

fn id(args: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(args).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
