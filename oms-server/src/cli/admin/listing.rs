//! Lists and single things: tables for people, the API's own JSON for scripts.

use oms_core::{Page, PageRequest};
use poem_openapi::types::{ParseFromJSON, ToJSON, Type};

use crate::cli::table;
use crate::http::List;

#[derive(clap::Args)]
pub(in crate::cli) struct Options {
    /// How many at most, up to 200
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(PageRequest::MAX)))]
    limit: u32,
    /// Where the page begins: what the page before printed as its end
    #[arg(long)]
    cursor: Option<String>,
    /// Print JSON, as the API answers
    #[arg(long)]
    json: bool,
}

impl Options {
    pub(super) fn page(&self) -> PageRequest {
        PageRequest {
            cursor: self.cursor.clone(),
            limit: Some(self.limit),
        }
    }

    /// `Body` is what the API makes of an item.
    pub(super) fn text<Body, T, const N: usize>(
        &self,
        page: Page<T>,
        head: [&str; N],
        row: impl FnMut(&T) -> [String; N],
    ) -> String
    where
        Body: From<T> + ParseFromJSON + ToJSON + Type + Send + Sync,
    {
        if self.json {
            return format!("{}\n", List::<Body>::from(page).to_json_string());
        }
        let rows: Vec<_> = page
            .data
            .iter()
            .map(row)
            .map(|row| row.map(|text| table::one_line(&text)))
            .collect();
        let mut text = table::table(head, &rows);
        if let Some(cursor) = page.next_cursor {
            text += &format!("\nThere are more: --cursor {cursor}\n");
        }
        text
    }
}

/// One thing: its fields, or the API's JSON.
pub(super) fn one<Body: ToJSON>(body: &Body, json: bool) -> String {
    match (json, body.to_json()) {
        (false, Some(value)) => table::fields(&value),
        _ => format!("{}\n", body.to_json_string()),
    }
}

/// A text of limited length: the rest is for `show`.
pub(super) fn short(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text.to_owned(),
    }
}

/// What may not be there.
pub(super) fn or_dash<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".into(), ToString::to_string)
}
