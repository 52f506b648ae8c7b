//! Bodies: how large they may be, how much of them may wait in memory at once, and what becomes of those that nobody reads.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use poem::http::{HeaderMap, HeaderValue, StatusCode, header};
use poem::{Body, Endpoint, IntoResponse, Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::auth::Presented;
use super::error::ApiError;

const LIMIT: usize = 1 << 20;
/// A picture of 5 MiB and what multipart puts around it.
const MEDIA_LIMIT: usize = 6 << 20;
/// So much of a body is nobody's concern: connections are bounded, and so is their sum.
const SMALL: usize = 64 << 10;
const KIB: usize = 1 << 10;
/// What larger bodies may take together, in KiB: sixteen of the largest pictures.
const TOGETHER: usize = 16 * MEDIA_LIMIT / KIB;

/// What is left for large bodies, over all connections.
#[derive(Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(TOGETHER)))
    }
}

/// Refuses bodies that are too large: by their declared length at once, otherwise by counting. What is within the
/// limit is read whole, so that no handler waits for a slow client. Whatever the method: a GET may have a body, too.
pub(super) async fn limit<E: Endpoint>(
    next: Arc<E>,
    mut request: Request,
    room: Room,
) -> poem::Result<Response> {
    let most = Most::of(&request);
    let declared = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > most.bytes() as u64) {
        return Ok(refuse_unread(most.refusal(), request));
    }
    let mut body = request.take_body().into_bytes_stream();
    let (bytes, held) = match read(&mut body, most, &room).await {
        Ok(read) => read,
        Err(error) => {
            // Whatever the refusal is, the client hears it: what it still sends is taken in.
            request.set_body(Body::from_bytes_stream(body));
            return Ok(refuse_unread(error, request));
        }
    };
    request.set_body(bytes);
    let answer = next.call(request).await.map(IntoResponse::into_response);
    // The body lives as long as its handler.
    drop(held);
    answer
}

/// How large a body may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Most {
    Usual,
    Media,
    /// A picture of somebody whom we do not know: not more than anybody may send.
    Stranger,
}

impl Most {
    fn of(request: &Request) -> Self {
        if request.uri().path() != "/v1/media" {
            return Self::Usual;
        }
        let known = request
            .data::<Presented>()
            .is_some_and(|presented| presented.user().is_some());
        if known { Self::Media } else { Self::Stranger }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Usual | Self::Stranger => LIMIT,
            Self::Media => MEDIA_LIMIT,
        }
    }

    fn refusal(self) -> ApiError {
        let detail = format!("the body may have at most {} bytes", self.bytes());
        match self {
            Self::Stranger => ApiError::unauthorized(),
            _ => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail),
        }
    }
}

/// The whole body, with its part of the room. It is taken as bytes come, so that whoever announces much and sends
/// nothing holds nothing.
async fn read<E>(
    body: &mut (impl futures_util::Stream<Item = Result<impl AsRef<[u8]>, E>> + Unpin),
    most: Most,
    room: &Room,
) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), ApiError> {
    let (mut bytes, mut held) = (Vec::new(), None::<OwnedSemaphorePermit>);
    while let Some(part) = body.next().await {
        let part = part.map_err(|_| ApiError::invalid_request("the body ended before its end"))?;
        let part = part.as_ref();
        let length = bytes.len() + part.len();
        if length > most.bytes() {
            return Err(most.refusal());
        }
        let holds = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = length.saturating_sub(SMALL).div_ceil(KIB).saturating_sub(holds);
        if more > 0 {
            let more = u32::try_from(more).ok();
            let more = more.and_then(|more| Arc::clone(&room.0).try_acquire_many_owned(more).ok());
            let more = more.ok_or_else(|| {
                tracing::debug!("there is no room for another large body");
                ApiError::overloaded("too many large bodies are under way: try again", 1)
            })?;
            match &mut held {
                Some(held) => held.merge(more),
                None => held = Some(more),
            }
        }
        bytes.extend_from_slice(part);
    }
    Ok((bytes, held))
}

/// The answer to a request whose body, if it has one, was not read to its end. Then the connection ends with it, and a
/// client that is not told so would lose its next request there.
pub(super) fn refuse_unread(error: ApiError, mut request: Request) -> Response {
    let mut response = poem::Error::from(error).into_response();
    if !has_body(request.headers()) {
        return response;
    }
    // A client that waits for a go sends nothing when it gets none.
    if !request.headers().contains_key(header::EXPECT) {
        tokio::spawn(drain(request.take_body()));
    }
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    length.is_some_and(|length| length != "0") || headers.contains_key(header::TRANSFER_ENCODING)
}

/// Reads on for a while what the client is still sending: a connection that is closed on unread data loses the answer.
async fn drain(body: Body) {
    const AT_MOST: usize = 32 << 20;
    let read = async {
        let (mut stream, mut seen) = (body.into_bytes_stream(), 0);
        while let Some(Ok(bytes)) = stream.next().await {
            seen += bytes.len();
            if seen > AT_MOST {
                break;
            }
        }
    };
    // Either end is fine.
    let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    use futures_util::stream;

    async fn read_parts(
        count: usize,
        most: Most,
        room: &Room,
    ) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), ApiError> {
        let part = vec![7_u8; SMALL];
        let mut body = stream::iter((0..count).map(|_| Ok::<_, std::io::Error>(part.clone())));
        read(&mut body, most, room).await
    }

    #[tokio::test]
    async fn large_bodies_share_a_room_and_small_ones_need_none() {
        let room = Room(Arc::new(Semaphore::new(100)));
        let (bytes, small) = read_parts(1, Most::Usual, &room).await.unwrap();
        assert_eq!((bytes.len(), small.is_none()), (SMALL, true));
        let (bytes, large) = read_parts(2, Most::Media, &room).await.unwrap();
        assert_eq!((bytes.len(), room.0.available_permits()), (2 * SMALL, 36));
        let refused = read_parts(2, Most::Media, &room).await.unwrap_err();
        assert_eq!(
            poem::Error::from(refused).status(),
            StatusCode::SERVICE_UNAVAILABLE
        );
        // What was refused holds nothing, and small ones pass.
        assert_eq!(room.0.available_permits(), 36);
        read_parts(1, Most::Usual, &room).await.unwrap();
        drop(large);
        read_parts(2, Most::Media, &room).await.unwrap();
        assert_eq!(room.0.available_permits(), 100);
    }

    #[tokio::test]
    async fn each_limit_holds_by_counting() {
        let room = Room::new();
        for (most, status) in [
            (Most::Usual, StatusCode::PAYLOAD_TOO_LARGE),
            (Most::Media, StatusCode::PAYLOAD_TOO_LARGE),
            (Most::Stranger, StatusCode::UNAUTHORIZED),
        ] {
            let fits = most.bytes() / SMALL;
            read_parts(fits, most, &room).await.unwrap();
            let refused = read_parts(fits + 1, most, &room).await.unwrap_err();
            assert_eq!(poem::Error::from(refused).status(), status, "{most:?}");
        }
    }
}
