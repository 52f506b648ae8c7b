//! Texts of the settings in which `{names}` are filled in: paths, and bodies in JSON.

use crate::settings::Fault;
use oms_plugin_sdk::http::percent_encode;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What may be filled in for one operation.
#[derive(Default)]
pub(crate) struct Variables(BTreeMap<&'static str, Value>);

impl Variables {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn of(payment_id: &str, reference: Option<&str>) -> Self {
        let mut this = Self::new();
        this.set("payment-id", payment_id);
        this.set("reference", reference);
        this
    }

    /// `None` becomes null.
    pub(crate) fn set(&mut self, name: &'static str, value: impl serde::Serialize) {
        // Texts, numbers and booleans can always be written.
        self.0
            .insert(name, serde_json::to_value(value).unwrap_or(Value::Null));
    }

    /// A path: what is filled in cannot leave its place.
    pub(crate) fn path(&self, template: &str) -> Result<String, Fault> {
        self.fill(template, |text| percent_encode(&text))
    }

    /// A body. A string that is one name alone becomes the value itself: a number stays a number, and what is not
    /// there is null.
    pub(crate) fn body(&self, template: &str) -> Result<Value, Fault> {
        let json = serde_json::from_str(template)
            .map_err(|error| Fault(format!("a template of a body is no JSON: {error}")))?;
        self.value(json)
    }

    fn value(&self, value: Value) -> Result<Value, Fault> {
        Ok(match value {
            Value::String(text) => match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(name) if !name.contains('{') => self.get(name)?.clone(),
                _ => Value::String(self.fill(&text, |text| text)?),
            },
            Value::Array(items) => Value::Array(
                items
                    .into_iter()
                    .map(|v| self.value(v))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(fields) => {
                let filled = fields.into_iter().map(|(name, v)| Ok((name, self.value(v)?)));
                Value::Object(filled.collect::<Result<Map<_, _>, Fault>>()?)
            }
            other => other,
        })
    }

    fn fill(&self, template: &str, encode: impl Fn(String) -> String) -> Result<String, Fault> {
        let mut out = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after
                .split_once('}')
                .ok_or_else(|| Fault(format!("{template:?} has a brace that is not closed")))?;
            out.push_str(before);
            out.push_str(&encode(match self.get(name)? {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            }));
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn get(&self, name: &str) -> Result<&Value, Fault> {
        let unknown = || {
            let known: Vec<_> = self.0.keys().copied().collect();
            Fault(format!(
                "a template names {{{name}}}, but here there are only {}",
                known.join(", ")
            ))
        };
        self.0.get(name).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn variables() -> Variables {
        let mut variables = Variables::of("pay_1", Some("../x?y"));
        variables.set("amount", 1_999);
        variables.set("reason", None::<String>);
        variables.set("final", true);
        variables
    }

    #[test]
    fn values_keep_their_type() {
        let body = variables().body(
            r#"{"amount": {"value": "{amount}", "text": "{amount} cents"}, "final": "{final}", "reason": "{reason}",
                "ids": ["{payment-id}", "id: {payment-id}, {reason}."], "fixed": 7}"#,
        );
        assert_eq!(
            body,
            Ok(json!({
                "amount": {"value": 1_999, "text": "1999 cents"}, "final": true, "reason": null,
                "ids": ["pay_1", "id: pay_1, ."], "fixed": 7,
            }))
        );
    }

    #[test]
    fn a_path_cannot_be_left() {
        assert_eq!(
            variables()
                .path("/v1/payments/{reference}/capture?n={amount}")
                .as_deref(),
            Ok("/v1/payments/..%2Fx%3Fy/capture?n=1999")
        );
    }

    #[test]
    fn faults_are_named() {
        for template in [
            r#"{"a": "{nobody}"}"#,
            r#"{"a": "x {nobody} y"}"#,
            "{",
            r#"{"a": "x {amount"}"#,
        ] {
            assert!(variables().body(template).is_err(), "{template}");
        }
        let Err(Fault(said)) = variables().path("/{nobody}") else {
            panic!("an unknown name was taken");
        };
        assert!(said.contains("{nobody}") && said.contains("payment-id"), "{said}");
    }
}
