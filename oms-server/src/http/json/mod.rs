//! Bodies of JSON, read strictly: duplicates and unknown fields are refused, and every fault has its pointer.

mod explain;
mod place;
mod strict;

use poem::http::StatusCode;
use poem::{FromRequest, Request, RequestBody};
use poem_openapi::payload::{Json, Payload};
use poem_openapi::registry::{MetaMediaType, MetaRequest, Registry};
use poem_openapi::types::ParseFromJSON;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde_json::{Map, Value};

use super::error::ApiError;
use explain::explain;
use strict::parse;

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
        let read = || match request.content_type() {
            None if bytes.is_empty() => Ok(Value::Object(Map::new())),
            Some(kind) if Json::<T>::check_content_type(kind) => parse(&bytes),
            other => Err(unsupported(other)),
        };
        match T::parse_from_json(Some(read()?)) {
            Ok(parsed) => Ok(Self(parsed)),
            // Read once more, since few come here and the others need no copy.
            Err(e) => Err(explain::<T>(&read()?, e.into_message()).into()),
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

#[cfg(test)]
mod tests {
    use super::place::MAX_FAULTS;
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
