//! The example plugins: JavaScript by componentize-qjs, Python by componentize-py, and the one in Rust that the quick
//! start shows. Each becomes `<target folder>/plugins-examples/<id>`, where no server looks for plugins by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::plugins::WASM_TARGET;
use crate::workspace::{Workspace, run};
use crate::{node, plugins, python};

/// The page whose blocks are a whole plugin in Rust.
const QUICK_START: &str = "docs/plugins/README.md";

/// A language of which there is an example.
struct Language {
    /// The folder below `plugins/examples`.
    folder: &'static str,
    id: &'static str,
    /// Ending of the source files.
    ending: &'static str,
    /// The compiler, installed when it is not there yet.
    compiler: fn(&Workspace) -> Result<PathBuf>,
    /// Its arguments, given where the contract is and where the component goes to.
    arguments: fn(&str, &str) -> Vec<String>,
    /// The list that says which version of the compiler is meant.
    versions: &'static str,
}

const LANGUAGES: [Language; 2] = [
    Language {
        folder: "javascript",
        id: "example-js",
        ending: "js",
        compiler: |workspace| Ok(node::ensure(workspace)?.join("node_modules/.bin/componentize-qjs")),
        arguments: |wit, wasm| {
            let line = format!("--sync --wit {wit} --world payment-plugin --js plugin.js --output {wasm}");
            line.split(' ').map(str::to_owned).collect()
        },
        versions: "oms-server/tests/package-lock.json",
    },
    Language {
        folder: "python",
        id: "example-python",
        ending: "py",
        compiler: |workspace| Ok(python::ensure(workspace)?.with_file_name("componentize-py")),
        arguments: |wit, wasm| {
            let line = format!("--wit-path {wit} --world payment-plugin componentize plugin --output {wasm}");
            line.split(' ').map(str::to_owned).collect()
        },
        versions: "oms-server/tests/requirements.txt",
    },
];

#[derive(Args)]
pub(crate) struct Options {
    /// Build the examples in JavaScript and Python too, into <target folder>/plugins-examples; their compilers are
    /// installed below the target folder
    #[arg(long)]
    pub(crate) examples: bool,
}

/// Builds those whose files have changed, and returns the folder that holds them.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let out = dir(workspace);
    build_quick_start(workspace, &out).with_context(|| format!("the plugin of {QUICK_START}"))?;
    for language in &LANGUAGES {
        language
            .build(workspace, &out)
            .with_context(|| format!("the example plugin in {}", language.folder))?;
    }
    Ok(out)
}

pub(crate) fn dir(workspace: &Workspace) -> PathBuf {
    workspace.target_dir.join("plugins-examples")
}

/// Does what the page says with the files that it shows, so that it cannot go wrong for its readers.
fn build_quick_start(workspace: &Workspace, out: &Path) -> Result<()> {
    let page = fs::read_to_string(workspace.root.join(QUICK_START))?;
    let [cargo, manifest] = [0, 1].map(|n| block(&page, "toml", n));
    let folder = workspace.target_dir.join("plugins-examples-build/acme");
    fs::create_dir_all(folder.join("src"))?;
    let cargo = cargo.context("no block with Cargo.toml")?;
    // Readers have the checkout beside their plugin.
    let (theirs, ours) = ("\"../oms/plugins/sdk\"", workspace.root.join("plugins/sdk"));
    ensure!(cargo.contains(theirs), "no dependency on {theirs}");
    // It is no member of the workspace, but is compiled with the workspace's profile.
    let cargo = cargo.replace(theirs, &format!("{ours:?}")) + PROFILE;
    fs::write(folder.join("Cargo.toml"), cargo)?;
    fs::write(
        folder.join("plugin.toml"),
        manifest.context("no block with plugin.toml")?,
    )?;
    let source = block(&page, "rust", 0).context("no block with src/lib.rs")?;
    fs::write(folder.join("src/lib.rs"), source)?;
    // The versions of the workspace, which are downloaded already.
    fs::copy(workspace.root.join("Cargo.lock"), folder.join("Cargo.lock"))?;
    let mut build = workspace.cargo(["build", "--profile", "plugin", "--target", WASM_TARGET]);
    build.arg("--manifest-path").arg(folder.join("Cargo.toml"));
    build.arg("--target-dir").arg(&workspace.target_dir);
    run(&mut build)?;
    let built = workspace.target_dir.join(WASM_TARGET).join("plugin/acme.wasm");
    plugins::place(&folder, &fs::read(built)?, out)
}

const PROFILE: &str = "
[workspace]

[profile.plugin]
inherits = \"release\"
opt-level = \"s\"
lto = true
codegen-units = 1
panic = \"abort\"
strip = true
";

/// The n-th block of code of a language.
fn block<'a>(page: &'a str, language: &str, n: usize) -> Option<&'a str> {
    let fence = format!("\n```{language}\n");
    let begin = page.match_indices(&fence).nth(n)?.0 + fence.len();
    let length = page[begin..].find("\n```\n")? + 1;
    Some(&page[begin..begin + length])
}

impl Language {
    fn build(&self, workspace: &Workspace, out: &Path) -> Result<()> {
        let source = workspace.root.join("plugins/examples").join(self.folder);
        let wit = workspace.root.join("wit");
        let compiler = (self.compiler)(workspace)?;
        let mut inputs = self.sources(&source)?;
        inputs.extend([
            source.join("plugin.toml"),
            wit.join("payment.wit"),
            workspace.root.join(self.versions),
        ]);
        let inputs = digest_of(&inputs)?;
        let stamp = out.join(self.id).join("built-from.txt");
        if fs::read_to_string(&stamp).is_ok_and(|built_from| built_from == inputs) {
            println!("{}: built already", self.id);
            return Ok(());
        }
        // In a folder of its own: Python leaves its byte code beside the sources.
        let work = workspace.target_dir.join("plugins-examples-build").join(self.id);
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        fs::create_dir_all(&work)?;
        for path in self.sources(&source)? {
            fs::copy(&path, work.join(path.file_name().unwrap_or_default()))?;
        }
        let wasm = format!("{}.wasm", self.id);
        let started = Instant::now();
        let wit = wit.to_str().context("the workspace's path is not UTF-8")?;
        run(Command::new(compiler)
            .args((self.arguments)(wit, &wasm))
            .current_dir(&work))?;
        println!("{}: built in {:.1} s", self.id, started.elapsed().as_secs_f64());
        plugins::place(&source, &fs::read(work.join(wasm))?, out)?;
        // Last: what was not finished is made again.
        fs::write(&stamp, inputs).with_context(|| format!("cannot write {}", stamp.display()))
    }

    fn sources(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == self.ending) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}

fn digest_of(files: &[PathBuf]) -> Result<String> {
    let mut all = Vec::new();
    for path in files {
        all.extend(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(plugins::sha256_hex(&all))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As cargo says now: another checkout may have compiled this into the same target folder.
    fn workspace() -> PathBuf {
        Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("..")
    }

    #[test]
    fn the_quick_start_has_twenty_lines() {
        let page = workspace().join(QUICK_START);
        let page = fs::read_to_string(page).unwrap();
        assert_eq!(block(&page, "rust", 0).unwrap().lines().count(), 20);
    }

    /// Whoever follows the guides types what is run here.
    #[test]
    fn the_guides_show_these_commands() {
        let root = workspace();
        let read =
            |path: String| fs::read_to_string(root.join(&path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        for language in &LANGUAGES {
            let example = read(format!("plugins/examples/{}/README.md", language.folder));
            let arguments = (language.arguments)("../../../wit", &format!("{}.wasm", language.id));
            assert!(example.contains(&arguments.join(" ")), "{}", language.folder);
            let guide = read(format!("docs/plugins/{}.md", language.folder));
            let arguments = (language.arguments)("wit", "acme.wasm");
            assert!(guide.contains(&arguments.join(" ")), "{}", language.folder);
        }
    }

    /// The compilers that the guides tell to install are those of the lists.
    #[test]
    fn the_guides_name_the_compilers_versions() {
        let root = workspace();
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        let version = |list: String, before: &str| {
            let (_, rest) = list.split_once(before).unwrap_or_else(|| panic!("no {before}"));
            rest.split(['"', '\n']).next().unwrap_or_default().to_owned()
        };
        let node = version(read("oms-server/tests/package.json"), "\"componentize-qjs\": \"");
        let python = version(read("oms-server/tests/requirements.txt"), "componentize-py==");
        assert!(read("docs/plugins/javascript.md").contains(&format!("npm install componentize-qjs@{node}")));
        assert!(read("docs/plugins/python.md").contains(&format!("pip install componentize-py=={python}")));
    }
}
