//! What lies in `deploy/` is checked by the programs that it is for, where they are there.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::script::python;
use crate::program::text;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn manifests() -> Vec<PathBuf> {
    let folder = fs::read_dir(root().join("deploy/k8s")).unwrap();
    let mut files: Vec<PathBuf> = folder.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// Against the schemas of the newest Kubernetes that it knows; unknown fields are errors.
fn validate(files: &[PathBuf]) -> Output {
    let program = python().with_file_name("kubernetes-validate");
    let output = Command::new(&program).arg("--strict").args(files).output();
    output.unwrap_or_else(|e| panic!("{}: {e}; run `cargo xtask test`", program.display()))
}

#[test]
fn every_manifest_is_valid() {
    let files = manifests();
    let texts: Vec<String> = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let objects = texts.iter().flat_map(|text| text.lines());
    let objects = objects.filter(|line| line.starts_with("kind: ")).count();
    let output = validate(&files);
    let said = text(&output.stdout) + &text(&output.stderr);
    println!("{said}");
    assert!(output.status.success());
    assert!(objects >= 8);
    assert_eq!(said.matches(" passed for resource ").count(), objects);

    // It would say so.
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.yaml");
    let servers = texts
        .iter()
        .find(|text| text.contains("  replicas: 3\n"))
        .unwrap();
    fs::write(&broken, servers.replace("  replicas: 3\n", "  replica: 3\n")).unwrap();
    assert!(!validate(&[broken]).status.success());
}

/// A variable that is written wrongly is one that nobody reads.
#[test]
fn manifests_set_what_the_program_reads() {
    let example = fs::read_to_string(root().join(".env.example")).unwrap();
    let known: BTreeSet<&str> = example
        .lines()
        .filter_map(|line| Some(line.trim_start_matches(['#', ' ']).split_once('=')?.0))
        .collect();
    let mut set = BTreeSet::new();
    for file in manifests() {
        let text = fs::read_to_string(file).unwrap();
        let names = text.lines().filter_map(|line| line.trim().split_once(": "));
        let is_variable = |name: &str| name.contains('_') && !name.contains(|c: char| c.is_ascii_lowercase());
        set.extend(
            names
                .map(|(name, _)| name.to_owned())
                .filter(|name| is_variable(name)),
        );
    }
    assert!(set.len() >= 10, "{set:?}");
    let unknown: Vec<_> = set.iter().filter(|name| !known.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?} do not stand in .env.example");
}

#[test]
fn the_unit_is_one_that_systemd_understands() {
    let unit = fs::read_to_string(root().join("deploy/systemd/oms.service")).unwrap();
    let mut section = "";
    let mut keys = BTreeSet::new();
    for line in unit
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if line.starts_with('[') {
            section = line;
            continue;
        }
        let (key, _) = line.split_once('=').unwrap_or_else(|| panic!("{line:?}"));
        assert!(keys.insert((section, key)), "{section} has two {key}");
    }
    for wanted in [
        ("[Unit]", "After"),
        ("[Service]", "ExecStart"),
        ("[Service]", "EnvironmentFile"),
        ("[Service]", "DynamicUser"),
        ("[Install]", "WantedBy"),
    ] {
        assert!(keys.contains(&wanted), "{wanted:?} is missing");
    }
    // Where it will be installed there is nothing now.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("oms.service");
    let here = unit.replace("/usr/local/bin/oms-server", env!("CARGO_BIN_EXE_oms-server"));
    assert_ne!(here, unit);
    fs::write(&copy, here).unwrap();
    if let Some(output) = run_if_there("systemd-analyze", &["verify", copy.to_str().unwrap()]) {
        let said = text(&output.stderr);
        // It looks at the units of this machine as well.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("oms.service")).collect();
        assert!(output.status.success() && ours.is_empty(), "{said}");
    }
}

#[test]
fn prometheus_understands_the_rules() {
    let rules = root().join("deploy/alerts.yml");
    if let Some(output) = run_if_there("promtool", &["check", "rules", rules.to_str().unwrap()]) {
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
}

/// Few machines have these programs; what can be checked without them is checked on all.
fn run_if_there(program: &str, args: &[&str]) -> Option<Output> {
    match Command::new(program).args(args).output() {
        Ok(output) => {
            println!("{program} {}: {}", args.join(" "), output.status);
            Some(output)
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            println!(
                "{program} is not installed: only the form was checked, here and in the tests of what operators see"
            );
            None
        }
        Err(e) => panic!("{program}: {e}"),
    }
}

/// The image builds the dependencies in a layer of their own, for which cargo wants every manifest and every target that
/// a manifest names.
#[test]
fn the_image_knows_every_crate() {
    let dockerfile = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let cargo = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, members) = cargo.split_once("\nmembers = [").unwrap();
    let (members, _) = members.split_once(']').unwrap();
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert!(members.len() >= 10, "{members:?}");
    for member in members {
        let copied = format!("COPY {member}/Cargo.toml {member}/\n");
        assert!(dockerfile.contains(&copied), "the Dockerfile lacks: {copied}");
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        for (kind, folder) in [("bench", "benches"), ("example", "examples")] {
            for target in manifest.split(&format!("[[{kind}]]\nname = \"")).skip(1) {
                let (name, _) = target.split_once('"').unwrap();
                let stub = format!("{member}/{folder}/{name}");
                assert!(
                    dockerfile.contains(&stub),
                    "the Dockerfile lacks a stub of {stub}.rs"
                );
            }
        }
    }
}
