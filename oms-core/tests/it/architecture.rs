//! What the documents say, held against the code.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// Every Rust file below a folder, with its text.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    assert!(!found.is_empty());
    found
}

/// No file outside of `allowed` (below `oms-core/src`) and outside of tests holds any of the words.
fn only_in(allowed: &[&str], words: &[&str]) {
    let src = root().join("oms-core/src");
    for (path, text) in sources(&src) {
        let place = path.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
        let test = place.contains("/tests");
        let may = test || allowed.iter().any(|a| place.starts_with(a));
        for word in words {
            assert!(
                may || !text.contains(word),
                "{place} holds {word:?}, which only {allowed:?} may"
            );
        }
    }
}

#[test]
fn only_the_plugin_host_names_wasmtime() {
    only_in(&["plugins/"], &["wasmtime"]);
}

#[test]
fn databases_differ_and_rows_are_locked_in_few_places() {
    let places = ["db/", "jobs/store.rs", "orders/placement/"];
    only_in(
        &places,
        &[
            ".pick(",
            "FOR UPDATE",
            "FOR NO KEY UPDATE",
            "SKIP LOCKED",
            "Tx::Sqlite",
            "Tx::Postgres",
        ],
    );
}

#[test]
fn the_library_prints_nothing_and_reads_no_environment() {
    only_in(&[], &["println!", "std::env", "SystemTime"]);
}

#[test]
fn the_documents_name_files_that_exist() {
    for document in [
        "ARCHITECTURE.md",
        "README.md",
        "CONTRIBUTING.md",
        "docs/decisions.md",
        "docs/observability.md",
        "docs/operations.md",
        "docs/plugins/README.md",
        "docs/plugins/contract.md",
        "docs/plugins/javascript.md",
        "docs/plugins/operating.md",
        "docs/plugins/python.md",
        "docs/plugins/rust.md",
        "docs/plugins/security.md",
        "docs/plugins/testing.md",
        "docs/upgrading.md",
    ] {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        let mut named = 0;
        for word in text.split('`').skip(1).step_by(2) {
            let path = word.trim_end_matches('/');
            let is_path = path.contains('/')
                && !path.contains([' ', '<', '{', ':', '*'])
                && !path.starts_with(['/', '.'])
                && !path.starts_with("application/");
            if !is_path {
                continue;
            }
            // Some are written from the folder that the text speaks of.
            let places = [
                "",
                "oms-core/src",
                "oms-core/src/orders",
                "oms-server/src",
                "migrations",
            ];
            assert!(
                places.iter().any(|p| root().join(p).join(path).exists()),
                "{document} names {word}"
            );
            named += 1;
        }
        assert!(named > 0, "{document} names no file");
    }
}

#[test]
fn the_readme_shows_the_example() {
    let read = |path| std::fs::read_to_string(root().join(path)).unwrap();
    assert!(read("README.md").contains(&read("oms-core/examples/embed.rs")));
    assert!(read("oms-core/examples/embed.rs").lines().count() < 60);
}

/// The blocks of code of a page: language and text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let mut blocks = Vec::new();
    for part in text.split("\n```").skip(1).step_by(2) {
        let (language, code) = part.split_once('\n').unwrap();
        blocks.push((language.to_owned(), format!("{code}\n")));
    }
    assert!(!blocks.is_empty(), "{page} shows no code");
    blocks
}

/// The pages show pieces of plugins that are built and tested; the commands are held against those that build them by a
/// test of `xtask`.
#[test]
fn the_guides_to_plugins_show_the_plugins() {
    for (page, folder, languages) in [
        ("docs/plugins/rust.md", "plugins/mock/src", ["rust", "sh"]),
        (
            "docs/plugins/javascript.md",
            "plugins/examples/javascript",
            ["js", "sh"],
        ),
        (
            "docs/plugins/python.md",
            "plugins/examples/python",
            ["python", "sh"],
        ),
        ("docs/plugins/publishing.md", "plugins/mock", ["toml", "sh"]),
    ] {
        let files = std::fs::read_dir(root().join(folder)).unwrap();
        let paths = files
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file());
        let sources: Vec<_> = paths.map(|path| std::fs::read_to_string(path).unwrap()).collect();
        for (language, code) in blocks(page) {
            assert!(
                languages.contains(&language.as_str()),
                "{page}: a block of {language:?}"
            );
            let shown = language == "sh" || sources.iter().any(|source| source.contains(&code));
            assert!(shown, "{page} shows what is not in {folder}:\n{code}");
        }
    }
}

/// Its files are built by `cargo xtask plugins --examples`, its last block is run by a story of the server.
#[test]
fn the_quick_start_declares_an_account() {
    let (_, accounts) = blocks("docs/plugins/README.md")
        .into_iter()
        .filter(|(language, _)| language == "toml")
        .nth(2)
        .unwrap();
    let secret = |name: &str| {
        assert_eq!(name, "env:ACME_WEBHOOK_SECRET");
        Ok("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into())
    };
    let accounts = oms_core::payments::Account::parse_all(&accounts, secret).unwrap();
    assert_eq!(
        (accounts[0].name.as_str(), accounts[0].plugin.as_str()),
        ("acme", "acme")
    );
}
