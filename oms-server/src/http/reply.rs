//! Answers: a body with a status and the headers that go with it.

use oms_core::{Outcome, Page};
use poem::http::StatusCode;
use poem::{IntoResponse, Response};
use poem_openapi::registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::{ParseFromJSON, ToJSON, Type};
use poem_openapi::{ApiResponse, Object};
use serde::Serialize;

use super::error::ApiError;

/// A JSON body with status 200, or another.
pub(super) struct Reply<T, const STATUS: u16 = 200> {
    body: T,
    version: Option<i64>,
    replayed: bool,
}

/// 201.
pub(super) type Created<T> = Reply<T, 201>;

impl<T, const STATUS: u16> Reply<T, STATUS> {
    pub(super) const fn new(body: T) -> Self {
        Self {
            body,
            version: None,
            replayed: false,
        }
    }

    /// What a command made: says so when an earlier request with the same key made it.
    pub(super) fn outcome<U>(outcome: Outcome<U>) -> Self
    where
        T: From<U>,
    {
        Self::new(T::from(outcome.value)).replayed(outcome.replayed)
    }

    /// Whether an earlier request with the same key did it.
    #[must_use]
    pub(super) const fn replayed(mut self, replayed: bool) -> Self {
        self.replayed = replayed;
        self
    }

    /// Sends the version as ETag, which `If-Match` takes.
    #[must_use]
    pub(super) const fn version(mut self, version: i64) -> Self {
        self.version = Some(version);
        self
    }
}

impl<T: Serialize + ToJSON, const STATUS: u16> IntoResponse for Reply<T, STATUS> {
    fn into_response(self) -> Response {
        // Written at once: poem-openapi's own way makes a tree of copies first, an eighth of what an order over HTTP
        // costs. The document is made from that one, so that the two must say the same.
        debug_assert_eq!(serde_json::to_value(&self.body).ok(), self.body.to_json());
        let body = match serde_json::to_vec(&self.body) {
            Ok(body) => body,
            Err(e) => return ApiError::internal(&e).into_response(),
        };
        let mut response = Response::builder()
            // Every status in the code is a valid one.
            .status(StatusCode::from_u16(STATUS).unwrap_or(StatusCode::OK))
            .content_type("application/json");
        if let Some(version) = self.version {
            response = response.header("etag", format!("\"v{version}\""));
        }
        if self.replayed {
            response = response.header("idempotency-replayed", "true");
        }
        response.body(body)
    }
}

impl<T: Serialize + ToJSON, const STATUS: u16> ApiResponse for Reply<T, STATUS> {
    fn meta() -> MetaResponses {
        let header = |name: &str, description: &str| MetaHeader {
            name: name.into(),
            description: Some(description.into()),
            required: false,
            deprecated: false,
            schema: String::schema_ref(),
        };
        MetaResponses {
            responses: vec![MetaResponse {
                description: "",
                status: Some(STATUS),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: "application/json",
                    schema: T::schema_ref(),
                }],
                headers: vec![
                    header("ETag", "The version of what has one, for If-Match"),
                    header(
                        "Idempotency-Replayed",
                        "`true` when an earlier request with the same key did it",
                    ),
                ],
            }],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

/// 204.
pub(super) struct NoContent;

impl IntoResponse for NoContent {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

impl ApiResponse for NoContent {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "Done.",
                status: Some(204),
                status_range: None,
                content: vec![],
                headers: vec![],
            }],
        }
    }

    fn register(_: &mut Registry) {}
}

/// A part of a list.
#[derive(Debug, Object, Serialize)]
pub(crate) struct List<T: ParseFromJSON + ToJSON + Type + Send + Sync> {
    /// The items.
    pub(super) data: Vec<T>,
    /// Where the next page begins, for `?cursor=`; null on the last page.
    pub(super) next_cursor: Option<String>,
}

impl<T, U> From<Page<U>> for List<T>
where
    T: From<U> + ParseFromJSON + ToJSON + Type + Send + Sync,
{
    fn from(page: Page<U>) -> Self {
        Self {
            data: page.data.into_iter().map(T::from).collect(),
            next_cursor: page.next_cursor,
        }
    }
}
