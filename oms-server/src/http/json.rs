//! Bodies of JSON, read strictly: duplicates and unknown fields are refused, and every fault has its pointer.

use std::cell::RefCell;
use std::fmt;

use poem::http::StatusCode;
use poem::{FromRequest, Request, RequestBody};
use poem_openapi::payload::{Json, Payload};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::ParseFromJSON;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::error::{ApiError, Fault};

/// A request's body. 415 for other content types, 400 for what cannot be parsed, 422 for whole
/// numbers out of range and zero bytes.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<'a, T: ParseFromJSON> ApiExtractor<'a> for JsonBody<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(MetaRequest {
            description: None,
            content: vec![MetaMediaType {
                content_type: "application/json",
                schema: T::schema_ref(),
            }],
            required: T::IS_REQUIRED,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let bytes = <Vec<u8> as FromRequest>::from_request(request, body).await?;
        // No body at all stands for an object without fields: all the fields of some commands may be left out.
        let value = match request.content_type() {
            None if bytes.is_empty() => Value::Object(Map::new()),
            Some(kind) if Json::<T>::check_content_type(kind) => parse(&bytes)?,
            other => return Err(unsupported(other).into()),
        };
        match T::parse_from_json(Some(value.clone())) {
            Ok(parsed) => Ok(Self(parsed)),
            Err(e) => Err(explain::<T>(&value, e.into_message()).into()),
        }
    }
}

fn unsupported(content_type: Option<&str>) -> ApiError {
    let sent = content_type.unwrap_or("none");
    let detail = format!("send the body as application/json; the content type was {sent}");
    ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        detail,
    )
}

/// Reads JSON. A name that stands twice in an object would be read one way here and another way elsewhere.
fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
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
        Err(e) => Err(ApiError::invalid_request(format!("the body is not JSON: {e}"))),
    }
}

/// Where a value stands in the document.
enum At<'a> {
    Root,
    Name(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Name(parent, name) => {
                write!(f, "{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
            }
            Self::Index(parent, index) => write!(f, "{parent}/{index}"),
        }
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
        let detail = format!("must be a whole number between {} and {}", i64::MIN, i64::MAX);
        let fault = Fault::new(self.at.to_string(), "invalid_value", detail);
        self.faults.borrow_mut().values.push(fault);
        Value::Null
    }

    /// Not every database can keep them, and nobody means them.
    fn refuse_zero_bytes(&self, text: &str) {
        if text.contains('\0') {
            let fault = Fault::new(self.at.to_string(), "invalid_value", "must not hold a zero byte");
            self.faults.borrow_mut().values.push(fault);
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
                let fault = Fault::new(at.to_string(), "invalid_request", "stands twice");
                self.faults.borrow_mut().duplicates.push(fault);
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// Finds the faults of a value that does not fit its type. Only values that were refused come here, so it may be slow.
fn explain<T: ParseFromJSON>(value: &Value, refusal: String) -> ApiError {
    let mut registry = Registry::new();
    T::register(&mut registry);
    let mut faults = Vec::new();
    compare(&registry, &T::schema_ref(), value, &At::Root, &mut faults);
    let detail = match faults.as_slice() {
        [] => refusal,
        [first, ..] => format!("{}: {}", first.pointer, first.detail),
    };
    ApiError::invalid_request(detail).with_errors(faults)
}

fn compare(registry: &Registry, schema: &MetaSchemaRef, value: &Value, at: &At<'_>, faults: &mut Vec<Fault>) {
    let schema = match schema {
        MetaSchemaRef::Inline(schema) => schema.as_ref(),
        MetaSchemaRef::Reference(name) => match registry.schemas.get(name) {
            Some(schema) => schema,
            None => return,
        },
    };
    let fits = match schema.ty {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        _ => true,
    };
    if !fits {
        let article = if schema.ty.starts_with(['a', 'i', 'o']) {
            "an"
        } else {
            "a"
        };
        let detail = format!("must be {article} {}", schema.ty);
        faults.push(Fault::new(at.to_string(), "invalid_request", detail));
    } else if !schema.enum_items.is_empty() && !schema.enum_items.contains(value) {
        let known: Vec<String> = schema.enum_items.iter().map(Value::to_string).collect();
        let detail = format!("must be one of {}", known.join(", "));
        faults.push(Fault::new(at.to_string(), "invalid_request", detail));
    }
    match value {
        Value::Object(object) => compare_object(registry, schema, object, at, faults),
        Value::Array(items) => {
            let Some(item_schema) = &schema.items else { return };
            for (index, item) in items.iter().enumerate() {
                compare(registry, item_schema, item, &At::Index(at, index), faults);
            }
        }
        _ => {}
    }
}

fn compare_object(
    registry: &Registry,
    schema: &MetaSchema,
    object: &Map<String, Value>,
    at: &At<'_>,
    faults: &mut Vec<Fault>,
) {
    let free = schema.additional_properties.is_some();
    for (name, value) in object {
        let at = At::Name(at, name);
        match schema.properties.iter().find(|(known, _)| known == name) {
            Some((known, _)) if value.is_null() && !schema.required.contains(known) => {}
            Some((_, property)) => compare(registry, property, value, &at, faults),
            None if free => {}
            None => faults.push(Fault::new(
                at.to_string(),
                "invalid_request",
                "is not a field of this request",
            )),
        }
    }
    for name in schema.required.iter().filter(|name| !object.contains_key(**name)) {
        faults.push(Fault::new(
            At::Name(at, name).to_string(),
            "invalid_request",
            "is missing",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(error: &ApiError) -> Vec<String> {
        error.errors().iter().map(|fault| fault.pointer.clone()).collect()
    }

    #[test]
    fn duplicates_and_numbers_out_of_range_have_pointers() {
        assert_eq!(faults(&parse(br#"{"a":{"b":1,"b":1}}"#).unwrap_err()), ["/a/b"]);
        let huge = br#"{"lines":[{"q":1},{"q":9223372036854775808},{"q":-1e300},{"q":123456789012345678901234567890}]}"#;
        assert_eq!(
            faults(&parse(huge).unwrap_err()),
            ["/lines/1/q", "/lines/2/q", "/lines/3/q"]
        );
        assert_eq!(
            parse(br#"[1,2.5,"x",null,true]"#).unwrap(),
            serde_json::json!([1, 2.5, "x", null, true])
        );
        for broken in [&b"{"[..], b"", b"{} {}", b"\xff", &b"[".repeat(10_000)] {
            assert!(parse(broken).is_err());
        }
    }

    #[derive(Debug, poem_openapi::Object)]
    #[oai(deny_unknown_fields)]
    struct Cart {
        lines: Vec<Line>,
        note: Option<String>,
    }

    #[derive(Debug, poem_openapi::Object)]
    #[oai(deny_unknown_fields)]
    struct Line {
        sku: String,
        quantity: i64,
    }

    #[test]
    fn every_fault_of_a_body_is_named() {
        let value = serde_json::json!({"lines": [{"sku": 1, "quantity": "2"}, {"sku": "x", "quantity": 1.5, "y": 0}, 7], "note": null, "z/": 1});
        let error = Cart::parse_from_json(Some(value.clone())).unwrap_err();
        let mut pointers = faults(&explain::<Cart>(&value, error.into_message()));
        pointers.sort();
        assert_eq!(
            pointers,
            [
                "/lines/0/quantity",
                "/lines/0/sku",
                "/lines/1/quantity",
                "/lines/1/y",
                "/lines/2",
                "/z~1"
            ]
        );
        assert_eq!(
            faults(&explain::<Cart>(&serde_json::json!({}), String::new())),
            ["/lines"]
        );
    }
}
