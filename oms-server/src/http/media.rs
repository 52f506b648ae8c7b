//! Pictures: upload and download.

use oms_core::Actor;
use poem::http::{StatusCode, header};
use poem::web::Data;
use poem::{IntoResponse, Response};
use poem_openapi::param::{Header, Path};
use poem_openapi::payload::Binary;
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::multipart::Upload;
use poem_openapi::{ApiResponse, Multipart, Object, OpenApi, payload::Payload};
use serde::Serialize;

use super::auth::Auth;
use super::error::{ApiError, Fault, Result};
use super::reply::Created;
use super::{State, Tag};
use crate::media::{Unavailable, inspect};

pub(super) struct MediaApi;

#[derive(Debug, Multipart)]
struct UploadForm {
    /// A picture: png, jpeg, webp or gif, at most 5 MiB.
    file: Upload,
}

/// A picture that was kept.
#[derive(Debug, Object, Serialize)]
struct StoredMedia {
    /// What products name in `images`.
    name: String,
    /// Where it is served.
    url: String,
    /// Taken from the bytes.
    content_type: String,
    bytes: i64,
}

/// A picture as it was sent in, or 304.
struct Picture(Response);

#[OpenApi(prefix_path = "/v1", tag = "Tag::Media")]
impl MediaApi {
    /// Upload a picture
    ///
    /// The type is taken from the bytes. The same picture again has the same name.
    #[oai(path = "/media", method = "post", operation_id = "uploadMedia")]
    async fn upload(
        &self,
        auth: Auth,
        state: Data<&State>,
        form: UploadForm,
    ) -> Result<Created<StoredMedia>> {
        let Auth(me) = auth;
        me.actor.require_verified()?;
        let bytes = form.file.into_vec().await.map_err(|e| ApiError::internal(&e))?;
        let media = inspect(&bytes).map_err(refused)?;
        state.media.put(&media, bytes).await?;
        let media = me.oms.catalog().register_media(&me.actor, media).await?;
        Ok(Created::new(StoredMedia {
            url: format!("/v1/media/{}", media.name),
            name: media.name,
            content_type: media.content_type,
            bytes: media.bytes,
        }))
    }

    /// A picture
    #[oai(path = "/media/:name", method = "get", operation_id = "getMedia")]
    async fn download(
        &self,
        state: Data<&State>,
        name: Path<String>,
        #[oai(name = "If-None-Match")] known: Header<Option<String>>,
    ) -> Result<Picture> {
        let none = || ApiError::not_found("picture");
        let media = state
            .oms
            .catalog()
            .media(&Actor::Anonymous, &name)
            .await?
            .ok_or_else(none)?;
        let response = Response::builder()
            .header(header::ETAG, format!("\"{}\"", media.name))
            .header(header::CACHE_CONTROL, "public, max-age=31536000, immutable")
            .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox");
        if known
            .0
            .is_some_and(|tags| tags == "*" || tags.contains(&format!("\"{}\"", media.name)))
        {
            return Ok(Picture(response.status(StatusCode::NOT_MODIFIED).finish()));
        }
        let found = state.media.get(&media.name).await?.ok_or_else(none)?;
        let response = response
            .content_type(&media.content_type)
            .header(header::CONTENT_LENGTH, found.bytes);
        Ok(Picture(response.body(found.body)))
    }
}

impl From<Unavailable> for ApiError {
    fn from(error: Unavailable) -> Self {
        tracing::warn!(%error, "pictures cannot be kept or read");
        Self::unavailable(
            "storage_unavailable",
            "pictures cannot be kept or read now: try again",
            5,
        )
    }
}

fn refused(detail: String) -> ApiError {
    let error = ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "invalid_value",
        format!("file: {detail}"),
    );
    error.with_errors(vec![Fault::new("/file", "invalid_value", detail)])
}

impl IntoResponse for Picture {
    fn into_response(self) -> Response {
        self.0
    }
}

impl ApiResponse for Picture {
    fn meta() -> MetaResponses {
        let types = ["image/png", "image/jpeg", "image/webp", "image/gif"];
        MetaResponses {
            responses: vec![MetaResponse {
                description: "The bytes as they were sent in.",
                status: Some(200),
                status_range: None,
                content: types
                    .map(|content_type| MetaMediaType {
                        content_type,
                        schema: Binary::<Vec<u8>>::schema_ref(),
                    })
                    .into(),
                headers: vec![],
            }],
        }
    }

    fn register(_: &mut Registry) {}
}
