//! Where the words of mails come from: files that are compiled in, and files of a folder in their place.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Files in the folder, and bytes of each.
const MOST_FILES: usize = 200;
const LARGEST_FILE: u64 = 256 << 10;

macro_rules! compiled_in {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../templates/mail/", $name)))),+]
    };
}

const COMPILED_IN: &[(&str, &str)] = compiled_in![
    "_lines.html",
    "_lines.txt",
    "_page.html",
    "order-canceled.html",
    "order-canceled.txt",
    "order-expired.html",
    "order-expired.txt",
    "order-paid.html",
    "order-paid.txt",
    "order-shipped.html",
    "order-shipped.txt",
    "refunded.html",
    "refunded.txt",
    "verify.html",
    "verify.txt",
];

/// One file, wherever it comes from.
pub(super) struct Source {
    pub(super) text: String,
    /// None when it is compiled in.
    pub(super) path: Option<PathBuf>,
}

/// By file name.
pub(super) type Sources = BTreeMap<String, Source>;

/// What is compiled in, replaced by what the folder has.
pub(super) fn sources(folder: Option<&Path>) -> Result<Sources, String> {
    let mut sources: Sources = COMPILED_IN
        .iter()
        .map(|(name, text)| {
            let source = Source {
                text: (*text).to_owned(),
                path: None,
            };
            ((*name).to_owned(), source)
        })
        .collect();
    let Some(folder) = folder else {
        return Ok(sources);
    };
    let own = read(folder)?;
    // Words of the shop's own must not travel with ours in the other half of the mail.
    for name in own.keys().filter(|name| !name.starts_with('_')) {
        if let Some(mail) = name.strip_suffix(".txt") {
            sources.remove(&format!("{mail}.html"));
        }
    }
    sources.extend(own);
    Ok(sources)
}

fn read(folder: &Path) -> Result<Sources, String> {
    let cannot = |e: std::io::Error| format!("cannot read {}: {e}", folder.display());
    let mut found = Sources::new();
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let is_template = name.ends_with(".txt") || name.ends_with(".html");
        // Hidden files and those of other kinds belong to editors and to whatever keeps the folder.
        if name.starts_with('.') || !is_template {
            continue;
        }
        let cannot = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
        if !name.starts_with('_') && COMPILED_IN.iter().all(|(known, _)| *known != name) {
            return Err(format!(
                "{}: there is no such mail; names of parts to include begin with _",
                path.display()
            ));
        }
        if fs::metadata(&path).map_err(cannot)?.len() > LARGEST_FILE || found.len() >= MOST_FILES {
            return Err(format!(
                "{}: at most {MOST_FILES} files of {LARGEST_FILE} bytes are read",
                path.display()
            ));
        }
        let text = fs::read_to_string(&path).map_err(cannot)?.replace("\r\n", "\n");
        let path = Some(path);
        found.insert(name, Source { text, path });
    }
    Ok(found)
}

/// The text of a mail begins with its subject, which is a template by itself: nothing that stands in a variable can
/// leave the line.
pub(super) fn split(name: &str, text: &str) -> Result<Vec<(String, String)>, String> {
    let mail = match name.strip_suffix(".txt") {
        Some(mail) if !name.starts_with('_') => mail,
        _ => return Ok(vec![(name.to_owned(), text.to_owned())]),
    };
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let subject = first
        .strip_prefix("Subject:")
        .map(str::trim)
        .filter(|subject| !subject.is_empty())
        .ok_or("must be the subject, as in `Subject: Welcome`")?;
    Ok(vec![
        (format!("{mail}.subject"), subject.to_owned()),
        (name.to_owned(), format!("\n{rest}")),
    ])
}

/// How people find the file behind a template.
pub(super) fn place(sources: &Sources, name: &str) -> String {
    let file = match name.strip_suffix(".subject") {
        Some(mail) => format!("{mail}.txt"),
        None => name.to_owned(),
    };
    match sources.get(&file).and_then(|source| source.path.as_ref()) {
        Some(path) => path.display().to_string(),
        None => format!("the compiled-in {file}"),
    }
}
