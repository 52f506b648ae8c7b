//! The dashboard and the alert rules, and what the guide says of the measurements.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// The first column of the guide's table.
pub fn documented() -> BTreeSet<String> {
    let text = read("docs/observability.md");
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    rows.filter(|name| is_ours(name)).map(str::to_owned).collect()
}

/// The measurements that the dashboard and the rules ask for, with the file.
pub fn used() -> BTreeSet<(&'static str, String)> {
    let mut used = BTreeSet::new();
    for (file, expressions) in [
        ("deploy/grafana-dashboard.json", expressions(&dashboard())),
        (
            "deploy/alerts.yml",
            rules().into_values().map(|rule| rule["expr"].clone()).collect(),
        ),
    ] {
        assert!(
            expressions.len() >= 10,
            "{file} has {} expressions",
            expressions.len()
        );
        used.extend(
            expressions
                .iter()
                .flat_map(|text| named(text))
                .map(|name| (file, name)),
        );
    }
    assert!(used.len() > 20, "{used:?}");
    used
}

fn is_ours(name: &str) -> bool {
    name.starts_with("oms_") || name.starts_with("process_")
}

/// The measurements that an expression names. Histograms are asked for by their parts.
fn named(expression: &str) -> Vec<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| is_ours(word))
        .map(|word| {
            let parts = ["_bucket", "_sum", "_count"];
            parts
                .iter()
                .find_map(|part| word.strip_suffix(part))
                .unwrap_or(word)
                .to_owned()
        })
        .collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana-dashboard.json")).unwrap()
}

/// Every `expr` and every query of a variable in it.
fn expressions(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| match (key.as_str(), value) {
                ("expr", Value::String(text)) => vec![text.clone()],
                ("query", Value::String(text)) if text.contains('(') => vec![text.clone()],
                (_, value) => expressions(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(expressions).collect(),
        _ => Vec::new(),
    }
}

/// The rules by name. The file keeps to a plain form of YAML: one `key: value` a line, values that hold special signs in
/// single quotes.
fn rules() -> BTreeMap<String, BTreeMap<String, String>> {
    let text = read("deploy/alerts.yml");
    let mut rules = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let indent = line.len() - trimmed.len();
        let (key, value) = trimmed
            .split_once(':')
            .unwrap_or_else(|| panic!("{line:?} is no key: value"));
        let value = value.trim();
        let value = match value.strip_prefix('\'').map(|rest| rest.strip_suffix('\'')) {
            Some(inner) => inner
                .unwrap_or_else(|| panic!("a quote stays open in {line:?}"))
                .replace("''", "'"),
            None => {
                assert!(
                    !value.contains([':', '#', '{', '[', '&', '*', '|', '>', '"']),
                    "quote the value of {line:?}"
                );
                value.to_owned()
            }
        };
        if key == "- alert" {
            assert_eq!(indent, 6, "{line:?}");
            assert!(
                rules.insert(value.clone(), BTreeMap::new()).is_none(),
                "{value} stands there twice"
            );
            current = Some(value);
        } else if let Some(rule) = &current {
            let expected = if matches!(key, "severity" | "summary" | "description") {
                10
            } else {
                8
            };
            assert_eq!(indent, expected, "{line:?}");
            let old = rules.get_mut(rule).unwrap().insert(key.to_owned(), value);
            assert!(old.is_none(), "{rule} has two {key}");
        } else {
            assert!(matches!(key, "groups" | "- name" | "rules"), "{line:?}");
        }
    }
    rules
}

#[test]
fn every_rule_says_what_when_how_bad_and_what_to_do() {
    let rules = rules();
    assert!(rules.len() >= 10, "{}", rules.len());
    for (name, rule) in rules {
        for key in [
            "expr",
            "for",
            "labels",
            "severity",
            "annotations",
            "summary",
            "description",
        ] {
            assert!(rule.contains_key(key), "{name} has no {key}");
        }
        assert!(
            !named(&rule["expr"]).is_empty(),
            "{name} asks for nothing of ours"
        );
        assert!(matches!(rule["severity"].as_str(), "page" | "ticket"), "{name}");
        let balance = |open, close| rule["expr"].matches(open).count() == rule["expr"].matches(close).count();
        assert!(
            balance('(', ')') && balance('{', '}') && balance('[', ']'),
            "{name}"
        );
    }
}

#[test]
fn the_dashboard_can_be_imported() {
    let dashboard = dashboard();
    assert!(dashboard["id"].is_null() && dashboard["uid"].is_string() && dashboard["title"].is_string());
    assert!(dashboard["schemaVersion"].as_i64().unwrap() >= 36);
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_i64().unwrap()),
            "{title}: its id is taken"
        );
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_i64().unwrap());
        assert!(w > 0 && h > 0 && x >= 0 && x + w <= 24, "{title}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} covers another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().unwrap() {
            assert!(
                !named(target["expr"].as_str().unwrap()).is_empty(),
                "{title} asks for nothing of ours"
            );
        }
    }
}
