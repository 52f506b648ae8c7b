//! `cargo xtask fuzz`: every target of `fuzz/` for a while, one after the other. What was found stays in the target
//! folder; of it and of what was kept before, the few inputs that reach everything become `fuzz/corpus/`.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::plugins::sha256_hex;
use crate::workspace::{Workspace, output, run as run_command};

/// Longer inputs find nothing that shorter ones do not, and are slower.
const MAX_LEN: u32 = 4096;
/// An input that takes longer is a defect as well.
const TIMEOUT_SECONDS: u32 = 10;
/// Inputs of each target in the repository.
const KEPT: usize = 64;

#[derive(Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, default_value_t = 600)]
    seconds: u32,
    /// Targets to run; all of them when none is named
    #[arg(last = true)]
    targets: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure_cargo_fuzz()?;
    let targets = chosen(&list()?, &options.targets)?;
    for target in &targets {
        fuzz(workspace, target, options.seconds).with_context(|| {
            format!("{target} found something: the input is in fuzz/artifacts/{target}, and fuzz/README.md says what to do")
        })?;
        minimise(workspace, target).with_context(|| format!("cannot minimise the corpus of {target}"))?;
    }
    Ok(())
}

/// The tests of the targets and the inputs that are kept, without cargo-fuzz. What needs the library is left out: it
/// would be compiled a second time.
pub(crate) fn replay(workspace: &Workspace) -> Result<()> {
    for (subcommand, rest) in [
        ("fmt", ["--", "--check"].as_slice()),
        ("clippy", ["--all-targets", "--", "-D", "warnings"].as_slice()),
        ("test", ["--quiet"].as_slice()),
    ] {
        let mut command = workspace.cargo([subcommand, "--manifest-path", "fuzz/Cargo.toml"]);
        // It is a workspace of its own, which would have a target folder of its own.
        command.env("CARGO_TARGET_DIR", &workspace.target_dir);
        run_command(command.args(rest))?;
    }
    Ok(())
}

fn ensure_cargo_fuzz() -> Result<()> {
    if output("cargo", &["fuzz", "--version"]).is_none() {
        bail!("cargo-fuzz is not installed. Type: cargo install --locked cargo-fuzz");
    }
    Ok(())
}

fn list() -> Result<Vec<String>> {
    let list = output("cargo", &["fuzz", "list"]).context("cargo fuzz list failed")?;
    Ok(list.lines().map(str::to_owned).collect())
}

fn chosen(all: &[String], wanted: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        bail!("there is no fuzz target {unknown:?}, but {}", all.join(", "));
    }
    Ok(match wanted {
        [] => all.to_vec(),
        wanted => wanted.to_vec(),
    })
}

fn fuzz(workspace: &Workspace, target: &str, seconds: u32) -> Result<()> {
    let found = workspace.target_dir.join("fuzz-corpus").join(target);
    fs::create_dir_all(&found)?;
    let mut command = cargo_fuzz(workspace, target, [&found, &kept(workspace, target)]);
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-timeout={TIMEOUT_SECONDS}"));
    run_command(command.arg("-print_final_stats=1"))
}

/// Keeps the few inputs that together reach the most. That an edge of the code was taken more often counts for nothing:
/// by that thousands would be worth keeping.
fn minimise(workspace: &Workspace, target: &str) -> Result<()> {
    let folder = workspace.target_dir.join("fuzz-corpus");
    let (found, cover) = (folder.join(target), folder.join(format!("{target}.cover")));
    let list = cover.join("list");
    if cover.exists() {
        fs::remove_dir_all(&cover)?;
    }
    // libFuzzer writes its own choice beside the list, which is larger than what should be in a repository.
    fs::create_dir_all(cover.join("all"))?;
    let kept = kept(workspace, target);
    let mut command = cargo_fuzz(workspace, target, [&cover.join("all"), &found, &kept]);
    command.arg(format!("-merge_control_file={}", list.display()));
    run_command(command.args(["-set_cover_merge=1", "-use_counters=0"]))?;

    let list = fs::read_to_string(&list)?;
    let best = best(&list)?;
    let chosen = best
        .iter()
        .map(|path| fs::read(path).map(|input| (name(&input), input)));
    let chosen: Vec<_> = chosen.collect::<std::io::Result<_>>()?;
    fs::remove_dir_all(&kept)?;
    fs::create_dir(&kept)?;
    let mut bytes = 0;
    for (name, input) in &chosen {
        bytes += input.len();
        fs::write(kept.join(name), input)?;
    }
    println!(
        "{target}: {} inputs of {bytes} bytes kept in {}",
        chosen.len(),
        kept.display()
    );
    Ok(())
}

/// Short, and the same for the same input.
fn name(input: &[u8]) -> String {
    let mut name = sha256_hex(input);
    name.truncate(16);
    name
}

/// Paths of the inputs that libFuzzer's list of a merge says to reach the most together.
fn best(list: &str) -> Result<Vec<&str>> {
    let mut lines = list.lines();
    let count: usize = lines
        .next()
        .and_then(|line| line.parse().ok())
        .context("no count of inputs")?;
    lines.next().context("no count of inputs in the first folder")?;
    let paths: Vec<&str> = lines.by_ref().take(count).collect();
    // `FT 7 1 5 9`: the seventh input reaches these features.
    let mut reached: Vec<(usize, Vec<usize>)> = Vec::new();
    for line in lines.filter_map(|line| line.strip_prefix("FT ")) {
        let mut numbers = line.split(' ').map(str::parse);
        let path = numbers.next().context("a line without a number")??;
        reached.push((path, numbers.collect::<Result<_, _>>()?));
    }
    let features = reached
        .iter()
        .flat_map(|(_, features)| features)
        .max()
        .map_or(0, |most| most + 1);
    let mut seen = vec![false; features];
    let mut best = Vec::new();
    while best.len() < KEPT {
        let gain = |features: &Vec<usize>| features.iter().filter(|feature| !seen[**feature]).count();
        let most = reached
            .iter()
            .map(|(path, features)| (gain(features), *path, features));
        // The first of equals: libFuzzer lists the small ones first.
        let Some((1.., path, features)) = most.min_by_key(|(gain, path, _)| (usize::MAX - gain, *path))
        else {
            break;
        };
        best.push(*paths.get(path).context("a number without an input")?);
        features.iter().for_each(|feature| seen[*feature] = true);
    }
    Ok(best)
}

/// Without a sanitizer it needs no nightly compiler, and there is nothing to sanitize: our code has no `unsafe`.
fn cargo_fuzz<A: AsRef<OsStr>>(
    workspace: &Workspace,
    target: &str,
    folders: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = workspace.cargo(["fuzz", "run", "--sanitizer", "none", "--features", "core"]);
    command.arg("--target-dir").arg(&workspace.target_dir);
    command.arg(target).args(folders);
    command.args(["--", &format!("-max_len={MAX_LEN}")]);
    command
}

fn kept(workspace: &Workspace, target: &str) -> PathBuf {
    workspace.root.join("fuzz/corpus").join(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_named_or_all() {
        let all = ["manifest".to_owned(), "receive_mock".to_owned()];
        assert_eq!(chosen(&all, &[]).unwrap(), all);
        assert_eq!(chosen(&all, &all[1..]).unwrap(), all[1..]);
        let refused = chosen(&all, &["receive_mok".to_owned()]).unwrap_err();
        assert!(
            refused.to_string().contains("manifest, receive_mock"),
            "{refused}"
        );
    }

    #[test]
    fn inputs_are_kept_for_what_they_add() {
        let list = "4\n0\na\nb\nc\nd\nSTARTED 0 1\nFT 0 1\nCOV 0 1\nSTARTED 1 2\nFT 1 1 2 3\nCOV 1\nFT 2 2 3\nFT 3 4 3\n";
        assert_eq!(best(list).unwrap(), ["b", "d"]);
        assert!(best("").is_err());
    }
}
