//! The example plugins in other languages, JavaScript by componentize-qjs and Python by componentize-py: each folder of
//! `plugins/examples` becomes `<target folder>/plugins-examples/<id>`, where no server looks for plugins by itself.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use crate::workspace::{Workspace, run};
use crate::{node, plugins, python};

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
            if path
                .extension()
                .is_some_and(|ending| *ending == OsString::from(self.ending))
            {
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

    /// Whoever follows the guides types what is run here.
    #[test]
    fn the_guides_show_these_commands() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
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
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
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
