//! Where in a body a fault is, and how many of them an answer names.

use std::fmt::{self, Write};

use crate::http::error::Fault;

/// Faults that an answer names.
pub(super) const MAX_FAULTS: usize = 20;
/// Characters of a pointer.
const POINTER_LENGTH: usize = 200;

/// Where a value stands in the document.
pub(super) enum At<'a> {
    Root,
    Name(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Name(parent, name) => {
                write!(f, "{parent}/")?;
                name.chars().try_for_each(|c| match c {
                    '~' => f.write_str("~0"),
                    '/' => f.write_str("~1"),
                    c => f.write_char(c),
                })
            }
            Self::Index(parent, index) => write!(f, "{parent}/{index}"),
        }
    }
}

impl At<'_> {
    /// The pointer, cut where it is longer than anyone reads: the client chooses the names in it, and its depth.
    fn pointer(&self) -> String {
        let mut text = Short(String::new());
        match write!(text, "{self}") {
            Ok(()) => text.0,
            // Only `Short` fails, and only when it is full.
            Err(fmt::Error) => text.0 + "..",
        }
    }
}

/// Takes characters until it is full, so that no long pointer is ever put together.
struct Short(String);

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = POINTER_LENGTH.saturating_sub(self.0.chars().count());
        let mut rest = text.chars();
        self.0.extend(rest.by_ref().take(left));
        match rest.next() {
            None => Ok(()),
            Some(_) => Err(fmt::Error),
        }
    }
}

/// Notes a fault, unless there are enough. Nothing is made up for one that is not kept: a small body can have a hundred
/// thousand of them.
pub(super) fn note(faults: &mut Vec<Fault>, at: &At<'_>, code: &str, detail: impl FnOnce() -> String) {
    if faults.len() < MAX_FAULTS {
        faults.push(Fault::new(at.pointer(), code, detail()));
    }
}
