//! The development server's mail folder: one file per mail.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

pub(crate) struct Mailbox {
    dir: PathBuf,
    recipient: String,
    /// Brings what has arrived since into the folder.
    fetch: Option<Box<dyn Fn() -> Result<()>>>,
}

pub(crate) struct Mail {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    modified: SystemTime,
}

impl Mailbox {
    pub(crate) fn new(data_dir: &Path, recipient: &str) -> Self {
        Self {
            dir: data_dir.join("mail"),
            recipient: recipient.to_owned(),
            fetch: None,
        }
    }

    pub(crate) fn fetched_by(mut self, fetch: impl Fn() -> Result<()> + 'static) -> Self {
        self.fetch = Some(Box::new(fetch));
        self
    }

    /// The files that are there now.
    pub(crate) fn snapshot(&self) -> Result<HashSet<PathBuf>> {
        Ok(self.mails()?.into_iter().map(|mail| mail.path).collect())
    }

    /// The newest mail to the recipient that is not in `seen` and contains `needle`.
    pub(crate) fn newest(&self, seen: &HashSet<PathBuf>, needle: &str) -> Result<Option<Mail>> {
        let wanted = |mail: &Mail| !seen.contains(&mail.path) && mail.text.contains(needle);
        Ok(self
            .mails()?
            .into_iter()
            .filter(wanted)
            .max_by_key(|mail| mail.modified))
    }

    fn mails(&self) -> Result<Vec<Mail>> {
        if let Some(fetch) = &self.fetch {
            fetch()?;
        }
        if !self.dir.exists() {
            return Ok(Vec::new());
        }
        let mut mails = Vec::new();
        for entry in fs::read_dir(&self.dir).with_context(|| format!("cannot read {}", self.dir.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                let raw = fs::read(entry.path())?;
                mails.push(Mail {
                    path: entry.path(),
                    text: decode(&raw),
                    modified: entry.metadata()?.modified()?,
                });
            }
        }
        mails.retain(|mail| mail.text.contains(&self.recipient));
        Ok(mails)
    }
}

impl Mail {
    pub(crate) fn subject(&self) -> &str {
        self.text
            .lines()
            .find_map(|line| line.strip_prefix("Subject: "))
            .unwrap_or("(no subject)")
            .trim()
    }

    /// The token of the first `/verify?token=..` link.
    pub(crate) fn verification_token(&self) -> Option<&str> {
        let (_, rest) = self.text.split_once("/verify?token=")?;
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "-_.~".contains(c)))
            .unwrap_or(rest.len());
        Some(&rest[..end]).filter(|token| !token.is_empty())
    }
}

/// Mails with long lines or letters beyond ASCII are written as quoted-printable: `=3D` is `=`, and `=` at the end
/// of a line joins it to the next.
fn decode(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw).into_owned();
    if !text.to_ascii_lowercase().contains("quoted-printable") {
        return text;
    }
    let joined = text.replace("=\r\n", "").replace("=\n", "");
    let mut bytes = Vec::with_capacity(joined.len());
    let mut rest = joined.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match code
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .filter(|_| first == b'=')
        {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(raw: &str) -> Mail {
        Mail {
            path: PathBuf::new(),
            text: decode(raw.as_bytes()),
            modified: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_token_is_read_from_plain_and_from_encoded_mails() {
        let plain = mail("To: a@example.com\n\nhttp://h/verify?token=Ab-1_x \nbye");
        assert_eq!(plain.verification_token(), Some("Ab-1_x"));
        let encoded = mail(
            "Content-Transfer-Encoding: quoted-printable\r\n\r\nhttp://h/verify?token=3DAb-=\r\n1_x\r\n",
        );
        assert_eq!(encoded.verification_token(), Some("Ab-1_x"));
        assert_eq!(mail("http://h/verify?token=").verification_token(), None);
    }

    #[test]
    fn letters_beyond_ascii_are_decoded() {
        assert_eq!(
            decode("quoted-printable\nGr=C3=BC=C3=9Fe = 1".as_bytes()),
            "quoted-printable\nGrüße = 1"
        );
    }
}
