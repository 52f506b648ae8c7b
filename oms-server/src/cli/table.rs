//! Results for people: columns of equal width, and one line for each field of a single thing.

use serde_json::Value;

/// Rows under a head. The last column is not padded.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let head = head.map(str::to_uppercase);
    let width = |n: usize| {
        let texts = std::iter::once(&head[n]).chain(rows.iter().map(|row| &row[n]));
        texts.map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    std::iter::once(&head)
        .chain(rows)
        .map(|row| line(row, &widths))
        .collect()
}

/// A line for each member of an object; what is not a plain value stands there as JSON.
pub(super) fn fields(value: &Value) -> String {
    let Some(members) = value.as_object() else {
        return format!("{value}\n");
    };
    let rows: Vec<[String; 2]> = members
        .iter()
        .map(|(name, value)| [name.clone(), plain(value)])
        .collect();
    let width = rows.iter().map(|row| row[0].chars().count()).max().unwrap_or(0);
    rows.iter().map(|row| line(row, &[width, 0])).collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => one_line(text),
        other => other.to_string(),
    }
}

/// What others wrote cannot break a line or move a terminal's cursor.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn line<const N: usize>(row: &[String; N], widths: &[usize; N]) -> String {
    let padded: Vec<String> = row
        .iter()
        .zip(widths)
        .map(|(text, width)| format!("{text:<width$}"))
        .collect();
    format!("{}\n", padded.join("  ").trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["1".into(), "long text".into()], ["22".into(), String::new()]];
        assert_eq!(table(["id", "what"], &rows), "ID  WHAT\n1   long text\n22\n");
    }

    #[test]
    fn fields_are_plain() {
        let value = serde_json::json!({"a": "b\u{1b}[2J", "cc": null, "d": [1]});
        assert_eq!(fields(&value), "a   b [2J\ncc  -\nd   [1]\n");
    }
}
