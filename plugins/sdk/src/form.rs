//! Form bodies with nested names, as many gateways' APIs take them: `metadata[order]=7&expand[]=charge`.

use crate::http::{Request, encode_into};
use std::fmt::Display;

/// A form (`application/x-www-form-urlencoded`) being put together, in the order of the calls.
///
/// ```
/// use oms_plugin_sdk::form::Form;
///
/// let form = Form::new()
///     .field("amount", 1299)
///     .optional("description", None::<&str>)
///     .entry("metadata", "order", "A 7")
///     .item("expand", "charge");
/// assert_eq!(form.encoded(), "amount=1299&metadata%5Border%5D=A+7&expand%5B%5D=charge");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    fields: Vec<(String, String)>,
}

impl Form {
    /// An empty form.
    pub fn new() -> Self {
        Self::default()
    }

    /// `name=value`
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.fields.push((name.into(), value.to_string()));
        self
    }

    /// `name=value`, or nothing at all.
    #[must_use]
    pub fn optional(self, name: impl Into<String>, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// `map[key]=value`
    #[must_use]
    pub fn entry(self, map: &str, key: &str, value: impl Display) -> Self {
        self.field(format!("{map}[{key}]"), value)
    }

    /// `list[]=value`
    #[must_use]
    pub fn item(self, list: &str, value: impl Display) -> Self {
        self.field(format!("{list}[]"), value)
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// How it is sent, as a body or as a query.
    pub fn encoded(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.fields {
            if !out.is_empty() {
                out.push('&');
            }
            encode_into(&mut out, name);
            out.push('=');
            encode_into(&mut out, value);
        }
        out
    }
}

impl Request {
    /// A form with nested names as the body.
    #[must_use]
    pub fn form_body(self, form: &Form) -> Self {
        self.body("application/x-www-form-urlencoded", form.encoded())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_cannot_break_out() {
        let form = Form::new().entry("metadata", "a]&amount", "1&amount=2=ü");
        assert_eq!(
            form.encoded(),
            "metadata%5Ba%5D%26amount%5D=1%26amount%3D2%3D%C3%BC"
        );
    }

    #[test]
    fn what_is_absent_is_not_sent() {
        let form = Form::new().optional("a", None::<u8>).optional("b", Some(true));
        assert!(!form.is_empty());
        assert_eq!(form.encoded(), "b=true");
        assert!(Form::new().is_empty());
    }
}
