//! Pictures, named by their content, in a folder or in a bucket. The storage may be down or slow: every call ends.

mod inspect;
mod place;

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use object_store::path::Path as Key;
use object_store::{
    Attribute, AttributeValue, Attributes, Error, ObjectStore, ObjectStoreExt, PutOptions, PutPayload,
};
use oms_core::catalog::Media;
use poem::Body;
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use self::inspect::{MAX_BYTES, inspect};
pub use self::place::MediaPlace;

/// How long storage may take for an upload, until the first byte of a download, and between two parts of it.
const PUT: Duration = Duration::from_secs(15);
const OPEN: Duration = Duration::from_secs(10);
const NEXT_PART: Duration = Duration::from_secs(15);
/// At once. An upload holds a picture in memory; what waits for storage holds a connection.
const UPLOADS: usize = 16;
const OPENINGS: usize = 128;

/// Where pictures are.
#[derive(Clone)]
pub struct MediaStore {
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    /// Folders have no place for a type.
    keeps_types: bool,
    uploads: Arc<Semaphore>,
    openings: Arc<Semaphore>,
}

/// A picture on its way out.
pub struct Picture {
    pub bytes: u64,
    pub body: Body,
}

/// Storage is down, slow, busy or refuses us. Nothing is wrong with the picture: try again.
#[derive(Debug)]
pub struct Unavailable(String);

impl std::error::Error for Unavailable {}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the storage of pictures cannot be used: {}", self.0)
    }
}

impl MediaStore {
    pub fn open(place: &MediaPlace) -> Result<Self> {
        let (store, prefix) = place.open()?;
        Ok(Self {
            store,
            prefix,
            keeps_types: matches!(place, MediaPlace::S3 { .. }),
            uploads: Arc::new(Semaphore::new(UPLOADS)),
            openings: Arc::new(Semaphore::new(OPENINGS)),
        })
    }

    /// Keeps a picture that was inspected. The same picture again is the same file.
    pub async fn put(&self, media: &Media, bytes: Vec<u8>) -> Result<(), Unavailable> {
        let mut options = PutOptions::default();
        if self.keeps_types {
            // For whoever reads the bucket past this server.
            let kind = AttributeValue::from(media.content_type.clone());
            options.attributes = Attributes::from_iter([(Attribute::ContentType, kind)]);
        }
        let key = self.key(&media.name);
        let put = self.store.put_opts(&key, PutPayload::from(bytes), options);
        within(PUT, &self.uploads, put)
            .await?
            .map(drop)
            .map_err(|e| Unavailable(e.to_string()))
    }

    /// None when there is no such file. The first part is here when this returns, so that storage that stalls is found
    /// out before an answer has begun.
    pub async fn get(&self, name: &str) -> Result<Option<Picture>, Unavailable> {
        let key = self.key(name);
        let open = async {
            let found = self.store.get(&key).await?;
            let bytes = found.meta.size;
            let mut rest = found.into_stream();
            let first = rest.try_next().await?;
            let parts = stream::iter(first.map(Ok)).chain(patient(rest, NEXT_PART));
            Ok(Picture {
                bytes,
                body: Body::from_bytes_stream(parts),
            })
        };
        match within(OPEN, &self.openings, open).await? {
            Ok(picture) => Ok(Some(picture)),
            Err(Error::NotFound { source, .. }) if !source.to_string().contains("NoSuchBucket") => Ok(None),
            Err(e) => Err(Unavailable(e.to_string())),
        }
    }

    fn key(&self, name: &str) -> Key {
        self.prefix.clone().join(name)
    }
}

/// Bounded in number and time.
async fn within<T>(
    limit: Duration,
    places: &Semaphore,
    work: impl Future<Output = T>,
) -> Result<T, Unavailable> {
    let Ok(_place) = places.try_acquire() else {
        return Err(Unavailable("too many requests wait for it".into()));
    };
    let done = timeout(limit, work).await;
    done.map_err(|_| Unavailable(format!("no answer within {} s", limit.as_secs())))
}

/// Ends when storage is silent for too long. The time in which the client does not read does not count.
fn patient<T>(
    parts: impl Stream<Item = object_store::Result<T>> + Unpin + Send + 'static,
    limit: Duration,
) -> impl Stream<Item = io::Result<T>> + Send + 'static
where
    T: Send + 'static,
{
    stream::try_unfold(parts, move |mut parts| async move {
        match timeout(limit, parts.try_next()).await {
            Ok(Ok(part)) => Ok(part.map(|part| (part, parts))),
            Ok(Err(e)) => Err(broken(&e)),
            Err(e) => Err(broken(&e)),
        }
    })
}

/// The answer is under way: all that is left is to end it before its length, which the client notices.
fn broken(error: &dyn fmt::Display) -> io::Error {
    tracing::warn!(%error, "the storage of pictures failed in the middle of a download");
    io::Error::other(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_download_that_stalls_ends_and_is_no_whole_one() {
        let limit = Duration::from_millis(50);
        let stalls = stream::iter([Ok("a"), Ok("b")]).chain(stream::pending());
        let mut parts = Box::pin(patient(stalls, limit));
        assert_eq!(parts.try_next().await.unwrap(), Some("a"));
        // A slow reader is no slow storage.
        tokio::time::sleep(3 * limit).await;
        assert_eq!(parts.try_next().await.unwrap(), Some("b"));
        assert!(parts.try_next().await.is_err());
    }

    #[tokio::test]
    async fn whoever_finds_no_place_does_not_wait() {
        let places = Semaphore::new(1);
        let long = Duration::from_secs(3600);
        let taken = within(long, &places, async {
            within(long, &places, async {}).await.unwrap_err().to_string()
        });
        assert!(taken.await.unwrap().contains("too many requests"));
        within(long, &places, async {}).await.unwrap();
        let slow = within(Duration::from_millis(10), &places, std::future::pending::<()>());
        assert!(slow.await.unwrap_err().to_string().contains("no answer"));
    }
}
