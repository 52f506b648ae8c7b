//! `plugin new`: the folder of a plugin that works, to be changed into one that pays.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use oms_core::plugins::WIT;

use super::super::print;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Its id: letters, digits, - and _; accounts name it, and it becomes the folder
    name: String,
    /// The language to write it in
    #[arg(long, value_enum)]
    lang: Language,
    /// Where to put it [default: a folder named like it]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The SDK for Rust: plugins/sdk of a checkout [default: of the one that this program was built from while it is
    /// there, else the published one]
    #[arg(long, value_name = "PATH")]
    sdk: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Language {
    Rust,
    #[value(alias = "javascript")]
    Js,
    Python,
}

/// A file of a template: where it goes, and its text.
type File = (&'static str, &'static str);

macro_rules! template {
    ($path:literal) => {
        include_str!(concat!("../../../templates/plugin/", $path))
    };
}

/// The same gateway in every language, so the same facts.
const COMMON: [File; 5] = [
    ("plugin.toml", template!("plugin.toml")),
    ("config-schema.json", template!("config-schema.json")),
    ("README.md", template!("README.md")),
    ("fixtures/suite.toml", template!("suite.toml")),
    ("fixtures/lost-answer.toml", template!("story.toml")),
];

/// The SDK beside which this program was built.
const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/sdk");

impl Language {
    const fn files(self) -> &'static [File] {
        match self {
            Self::Rust => &[
                ("Cargo.toml", template!("rust/Cargo.toml.txt")),
                ("rust-toolchain.toml", template!("rust/rust-toolchain.toml")),
                (".gitignore", template!("rust/gitignore")),
                ("src/lib.rs", template!("rust/lib.rs")),
            ],
            Self::Js => &[
                ("package.json", template!("js/package.json")),
                (".gitignore", template!("js/gitignore")),
                ("plugin.js", template!("js/plugin.js")),
                ("oms.js", template!("js/oms.js")),
                ("encoding.js", template!("js/encoding.js")),
                ("wit/payment.wit", WIT),
            ],
            Self::Python => &[
                ("requirements.txt", template!("python/requirements.txt")),
                (".gitignore", template!("python/gitignore")),
                ("plugin.py", template!("python/plugin.py")),
                ("oms.py", template!("python/oms.py")),
                ("wit/payment.wit", WIT),
            ],
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Js => "js",
            Self::Python => "python",
        }
    }

    const fn build(self) -> &'static str {
        match self {
            Self::Rust => "cargo build --release --target wasm32-wasip2",
            Self::Js => "npm install && npm run build",
            Self::Python => {
                "pip install -r requirements.txt\n\
                 componentize-py --wit-path wit --world payment-plugin componentize plugin --output __ID__.wasm"
            }
        }
    }

    const fn sources(self) -> &'static str {
        match self {
            Self::Rust => {
                "| `src/lib.rs` | the plugin, on the SDK; `cargo test` runs the tests at its end |\n\
                 | `Cargo.toml` | where the SDK comes from: `plugin new --sdk PATH` takes the folder `plugins/sdk` of a checkout of oms |"
            }
            Self::Js => {
                "| `plugin.js` | the plugin |\n\
                 | `oms.js`, `encoding.js` | the contract in comfortable JavaScript; nothing to change |\n\
                 | `wit/payment.wit` | the contract |"
            }
            Self::Python => {
                "| `plugin.py` | the plugin |\n\
                 | `oms.py` | the contract in comfortable Python; nothing to change |\n\
                 | `wit/payment.wit` | the contract |"
            }
        }
    }
}

pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let Options { name, lang, .. } = options;
    let good = (1..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
    if !good {
        bail!("the name {name:?} must be 1 to 32 of a-z, 0-9, - and _, and begin with a letter");
    }
    if options.sdk.is_some() && *lang != Language::Rust {
        bail!("--sdk is about plugins in Rust");
    }
    let dir = options.dir.clone().unwrap_or_else(|| PathBuf::from(name));
    if dir.exists()
        && dir
            .read_dir()
            .with_context(|| format!("{}", dir.display()))?
            .next()
            .is_some()
    {
        bail!("{} is there already and not empty", dir.display());
    }
    let (sdk, from) = sdk(options.sdk.as_deref(), Path::new(CHECKOUT))?;
    for (path, text) in COMMON.iter().chain(lang.files()) {
        let text = text
            .replace("__BUILD__", lang.build())
            .replace("__FILES__", lang.sources())
            .replace("__LANG__", lang.name())
            .replace("__LIBRARY__", &name.replace('-', "_"))
            .replace("__ACCOUNT__", &name.replace('_', "-"))
            .replace("__SDK__", &sdk)
            .replace("__ID__", name);
        write(&dir.join(path), &text)?;
    }
    let build = lang.build().replace("__ID__", name).replace('\n', "\n  ");
    let dir = dir.display();
    let from = match lang {
        Language::Rust => format!("Its SDK comes from {from}.\n"),
        Language::Js | Language::Python => String::new(),
    };
    print(&format!(
        "{dir} holds a plugin that works. Next:\n  cd {dir}\n  {build}\n  oms-server plugin test .\n{from}"
    ))
}

/// What Cargo.toml depends on, and in words where that is. Who works in a checkout has no other SDK to hand.
fn sdk(named: Option<&Path>, checkout: &Path) -> Result<(String, String)> {
    let there = Some(checkout).filter(|path| path.join("Cargo.toml").is_file());
    let Some(path) = named.or(there) else {
        let version = format!("{:?}", env!("CARGO_PKG_VERSION"));
        let from = "crates.io; --sdk PATH takes the folder plugins/sdk of a checkout of oms instead";
        return Ok((version, from.into()));
    };
    let absolute = path
        .canonicalize()
        .with_context(|| format!("{}", path.display()))?;
    let absolute = absolute.display().to_string();
    Ok((format!("{{ path = {absolute:?} }}"), absolute))
}

fn write(path: &Path, text: &str) -> Result<()> {
    let named = || format!("cannot write {}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(named)?;
    }
    std::fs::write(path, text).with_context(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_is_where_it_can_be_had() {
        let (checkout, named) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path_of = |folder: &Path| format!("{{ path = {:?} }}", folder.canonicalize().unwrap());
        let (dependency, from) = sdk(None, checkout.path()).unwrap();
        assert_eq!(dependency, format!("{:?}", env!("CARGO_PKG_VERSION")));
        assert!(from.contains("--sdk PATH"), "{from}");

        write(&checkout.path().join("Cargo.toml"), "").unwrap();
        let (dependency, from) = sdk(None, checkout.path()).unwrap();
        assert_eq!(dependency, path_of(checkout.path()));
        assert!(dependency.contains(&from), "{from}");
        let (dependency, _) = sdk(Some(named.path()), checkout.path()).unwrap();
        assert_eq!(dependency, path_of(named.path()));
    }
}
