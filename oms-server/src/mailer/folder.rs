//! Mails as files, for development: people and scripts read them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{Body, SinglePart};
use oms_core::{Clock, SystemClock};

use crate::secrets;

/// One file per mail in this folder.
pub(super) struct MailFolder(PathBuf);

impl MailFolder {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        for path in [folder.to_owned(), drafts(folder)] {
            std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(Self(folder.to_owned()))
    }

    /// Whole or not at all: whoever looks into the folder sees no half mails. Only the owner can read the links in
    /// them.
    pub(super) fn write(&self, id: &str, kind: &str, to: &str, bytes: &[u8]) -> Result<()> {
        let path = self.0.join(file_name(id, kind, to));
        let draft = drafts(&self.0).join(secrets::random_text(12)?);
        secrets::write_private(&draft, bytes)?;
        std::fs::rename(&draft, &path).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// As it is: the library would encode lines of more than 76 characters, and so break links.
pub(super) fn readable(content_type: ContentType, text: &str) -> Result<SinglePart> {
    anyhow::ensure!(
        text.lines().all(|line| line.len() <= 998) && !text.contains('\0'),
        "a line of the mail is too long"
    );
    let encoding = if text.is_ascii() {
        ContentTransferEncoding::SevenBit
    } else {
        ContentTransferEncoding::EightBit
    };
    let lines: String = text.lines().map(|line| format!("{line}\r\n")).collect();
    let body = Body::dangerous_pre_encoded(lines.into_bytes(), encoding);
    Ok(SinglePart::builder().header(content_type).body(body))
}

/// Sorts by time, in letters that every file system takes. The mail's id is in it, since two mails of a kind to one
/// recipient may be written at the same moment and neither may take the other's place.
fn file_name(id: &str, kind: &str, to: &str) -> String {
    let time = SystemClock.now().to_string().replace(':', "-");
    let plain = |text: &str| -> String {
        let letter = |c: char| {
            if c.is_ascii_alphanumeric() || "@._-+".contains(c) {
                c
            } else {
                '_'
            }
        };
        text.chars().map(letter).take(100).collect()
    };
    format!("{time}-{}-{kind}-{}.eml", plain(id), plain(to))
}

/// Beside the folder, on the same disk.
fn drafts(folder: &Path) -> PathBuf {
    folder.with_extension("drafts")
}
