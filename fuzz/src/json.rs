//! Changes to a JSON text that leave it one: bytes that are turned over at random seldom get past a parser.

use arbitrary::Arbitrary;
use serde_json::{Map, Value};

/// One change. Each number is taken modulo what there is, and all zeros change nothing.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct Edit {
    what: u8,
    at: u8,
    with: u8,
}

/// What a gateway's messages are made of: names of members and values, as JSON.
pub struct Words {
    pub names: &'static [&'static str],
    pub values: &'static [&'static str],
}

/// Values that are odd anywhere.
const EDGES: [&str; 24] = [
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "1e308",
    "-0.0",
    "19.99",
    "1e2",
    r#""""#,
    r#""\u0000""#,
    r#""a\nb""#,
    r#""ü€😀""#,
    r#""9223372036854775807""#,
    r#""-92233720368547758.08""#,
    r#""00000000000000000000000000000019.99""#,
    r#""0.00000000000000000000000000000000""#,
    "[]",
    "{}",
];

/// The text with the changes, or as it is when it is no JSON or nothing is to be changed.
pub fn edited(text: &[u8], edits: &[Edit], words: &Words) -> Vec<u8> {
    if edits.iter().all(|edit| edit.what == 0) {
        return text.to_vec();
    }
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else {
        return text.to_vec();
    };
    for edit in edits {
        edit.apply(&mut value, words);
    }
    value.to_string().into_bytes()
}

impl Edit {
    fn apply(self, root: &mut Value, words: &Words) {
        let mut left = usize::from(self.at) % count(root);
        let node = nth(root, &mut left).expect("the number is below their count");
        match self.what % 8 {
            0 => {}
            1 => *node = self.value(words.values),
            2 => *node = self.value(&EDGES),
            3 => {
                if let Value::Object(members) = node {
                    let name = pick(words.names, self.with).to_owned();
                    members.insert(name, self.value(words.values));
                }
            }
            4 => remove(node, self.with),
            5 => repeat(node, self.with),
            6 => vary(node, self.with),
            _ => {
                let inner = node.take();
                *node = if self.with.is_multiple_of(2) {
                    Value::Array(vec![inner])
                } else {
                    Value::Object(Map::from_iter([(pick(words.names, self.with).to_owned(), inner)]))
                };
            }
        }
    }

    fn value(self, values: &[&str]) -> Value {
        serde_json::from_str(pick(values, self.with)).expect("the words are JSON")
    }
}

fn pick<'a>(list: &[&'a str], number: u8) -> &'a str {
    list[usize::from(number) % list.len()]
}

fn remove(node: &mut Value, which: u8) {
    match node {
        Value::Object(members) if !members.is_empty() => {
            let at = usize::from(which) % members.len();
            let name = members
                .keys()
                .nth(at)
                .cloned()
                .expect("the number is below their count");
            members.remove(&name);
        }
        Value::Array(items) if !items.is_empty() => {
            items.remove(usize::from(which) % items.len());
        }
        other => *other = Value::Null,
    }
}

/// More of the same: lists beyond what is read, texts beyond what is kept.
fn repeat(node: &mut Value, times: u8) {
    let times = usize::from(times) % 128 + 1;
    match node {
        Value::Array(items) => {
            if let Some(last) = items.last().cloned() {
                items.extend(std::iter::repeat_n(last, times));
            }
        }
        Value::String(text) => *text = text.repeat(times.min(1 + 4_096 / text.len().max(1))),
        Value::Number(number) => {
            let digits = number.to_string().repeat(times.min(8));
            *node = serde_json::from_str(&digits).unwrap_or(Value::Null);
        }
        _ => {}
    }
}

/// Nearly the same.
fn vary(node: &mut Value, how: u8) {
    let varied = match (&*node, how % 8) {
        (Value::String(text), 0) => text.to_uppercase().into(),
        (Value::String(text), 1) => text.to_lowercase().into(),
        (Value::String(text), 2) => format!("{text}\u{0}").into(),
        (Value::String(text), 3) => format!(" {text}").into(),
        (Value::String(text), 4) => text.chars().skip(1).collect::<String>().into(),
        (Value::String(text), 5) => format!("{text}.{text}").into(),
        (Value::String(text), 6) => text.parse::<i64>().map_or(Value::Null, Value::from),
        (Value::Number(number), 0) => number.to_string().into(),
        (Value::Number(number), 1) => number.as_i64().and_then(i64::checked_neg).into(),
        (Value::Number(number), 2) => number.as_f64().map(|n| n / 100.0).into(),
        (Value::Number(number), 3) => number.as_i64().map(|n| n.wrapping_mul(100)).into(),
        (Value::Bool(yes), 0) => yes.to_string().into(),
        (Value::Bool(yes), _) => Value::Bool(!yes),
        _ => return,
    };
    *node = varied;
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

/// In the order in which they are written.
fn nth<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, left)),
        Value::Object(members) => members.values_mut().find_map(|member| nth(member, left)),
        _ => None,
    }
}
