//! What is wrong with a body that is JSON and no such request.

use poem_openapi::registry::{MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::ParseFromJSON;
use serde_json::{Map, Value};

use super::place::{At, MAX_FAULTS, note};
use crate::http::error::{ApiError, Fault};

/// Finds the faults of a value that does not fit its type. Only values that were refused come here, so it may be slow.
pub(super) fn explain<T: ParseFromJSON>(value: &Value, refusal: String) -> ApiError {
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
