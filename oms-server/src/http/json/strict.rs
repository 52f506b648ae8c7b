//! Reading a text as JSON, and nothing that two readers could understand differently.

use std::cell::RefCell;
use std::fmt;

use poem::http::StatusCode;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::place::{At, note};
use crate::http::error::{ApiError, Fault};

/// Reads JSON. A name that stands twice in an object would be read one way here and another way elsewhere.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    let faults = RefCell::default();
    let root = Strict {
        at: &At::Root,
        faults: &faults,
    };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let parsed = root
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value));
    let Faults { duplicates, values } = faults.into_inner();
    match parsed {
        Ok(_) if !duplicates.is_empty() => {
            Err(ApiError::invalid_request("a name stands twice in an object").with_errors(duplicates))
        }
        Ok(_) if !values.is_empty() => {
            let detail = "a number is out of range or a text holds a zero byte";
            Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", detail).with_errors(values))
        }
        Ok(value) => Ok(value),
        // Beyond what floating point can hold; there is no other way to tell than by the text.
        Err(e) if e.to_string().starts_with("number out of range") => {
            let detail = format!("the body holds a number out of range: {e}");
            Err(ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_value",
                detail,
            ))
        }
        Err(e) => Err(ApiError::invalid_request(format!("the body is not JSON: {e}"))),
    }
}

#[derive(Default)]
struct Faults {
    duplicates: Vec<Fault>,
    values: Vec<Fault>,
}

/// Reads one value and notes its faults.
#[derive(Clone, Copy)]
struct Strict<'a> {
    at: &'a At<'a>,
    faults: &'a RefCell<Faults>,
}

impl Strict<'_> {
    fn out_of_range(&self) -> Value {
        note(
            &mut self.faults.borrow_mut().values,
            self.at,
            "invalid_value",
            || format!("must be a whole number between {} and {}", i64::MIN, i64::MAX),
        );
        Value::Null
    }

    /// Not every database can keep them, and nobody means them.
    fn refuse_zero_bytes(&self, text: &str) {
        if text.contains('\0') {
            note(
                &mut self.faults.borrow_mut().values,
                self.at,
                "invalid_value",
                || "must not hold a zero byte".into(),
            );
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or_else(|_| self.out_of_range(), |n| Value::Number(n.into())))
    }

    /// Whole numbers beyond 64 bits come in as floating point, too.
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        const LIMIT: f64 = 9_223_372_036_854_775_808.0;
        if value.abs() >= LIMIT {
            return Ok(self.out_of_range());
        }
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        self.refuse_zero_bytes(value);
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let at = At::Index(self.at, list.len());
            let seed = Strict { at: &at, ..self };
            match items.next_element_seed(seed)? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let at = At::Name(self.at, &name);
            let value = entries.next_value_seed(Strict { at: &at, ..self })?;
            Strict { at: &at, ..self }.refuse_zero_bytes(&name);
            if object.contains_key(&name) {
                note(
                    &mut self.faults.borrow_mut().duplicates,
                    &at,
                    "invalid_request",
                    || "stands twice".into(),
                );
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}
