//! Bodies of JSON, read strictly: duplicates and unknown fields are refused, and every fault has its pointer.

use std::cell::RefCell;
use std::fmt::{self, Write};

use poem::http::StatusCode;
use poem::{FromRequest, Request, RequestBody};
use poem_openapi::payload::{Json, Payload};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::ParseFromJSON;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::error::{ApiError, Fault};

/// Faults that an answer names.
const MAX_FAULTS: usize = 20;
/// Characters of a pointer.
const POINTER_LENGTH: usize = 200;

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
fn note(faults: &mut Vec<Fault>, at: &At<'_>, code: &str, detail: impl FnOnce() -> String) {
    if faults.len() < MAX_FAULTS {
        faults.push(Fault::new(at.pointer(), code, detail()));
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
    if faults.len() == MAX_FAULTS {
        return;
    }
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
        note(faults, at, "invalid_request", || {
            let article = if schema.ty.starts_with(['a', 'i', 'o']) {
                "an"
            } else {
                "a"
            };
            format!("must be {article} {}", schema.ty)
        });
    } else if !schema.enum_items.is_empty() && !schema.enum_items.contains(value) {
        note(faults, at, "invalid_request", || {
            let known: Vec<String> = schema.enum_items.iter().map(Value::to_string).collect();
            format!("must be one of {}", known.join(", "))
        });
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
            None => note(faults, &at, "invalid_request", || {
                "is not a field of this request".into()
            }),
        }
    }
    for name in schema.required.iter().filter(|name| !object.contains_key(**name)) {
        note(faults, &At::Name(at, name), "invalid_request", || {
            "is missing".into()
        });
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

    /// Every fault holds names that the client chose: a small body must not become a large answer.
    #[test]
    fn an_answer_names_few_faults_and_cuts_their_pointers() {
        let name = "~".repeat(20_000);
        let many = |item: &str| vec![item; 5_000].join(",");
        let bodies = [
            format!(r#"{{"{name}":[{}]}}"#, many("1e300")),
            format!(r#"{{"{name}":[{}]}}"#, many(r#""\u0000""#)),
            format!(r#"{{"{name}":{{{}}}}}"#, many(r#""a":1"#)),
        ];
        let size = |error: &ApiError| -> usize {
            let errors = error.errors().iter();
            errors.map(|fault| fault.pointer.len() + fault.detail.len()).sum()
        };
        for body in &bodies {
            let error = parse(body.as_bytes()).unwrap_err();
            assert_eq!(error.errors().len(), MAX_FAULTS);
            assert!(size(&error) < 10_000, "{}", size(&error));
        }
        let items: Vec<Value> = vec![Value::Null; 5_000];
        let error = explain::<Cart>(&serde_json::json!({ "lines": items, name: 1 }), String::new());
        assert_eq!(error.errors().len(), MAX_FAULTS);
        assert!(size(&error) < 10_000, "{}", size(&error));
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
