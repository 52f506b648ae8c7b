//! `OMS_MEDIA_URL`: where pictures are kept.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use oms_core::payments::Secret;

use crate::config::{ConfigError, wrong};

const VARIABLE: &str = "OMS_MEDIA_URL";

/// The usual variables of S3 clients: keys, or where a pod or a machine gets its role from.
const AWS: [&str; 16] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS",
    "AWS_ALLOW_HTTP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// Two more tries, soon: who waits for a picture does not wait long, and the deadline is above all of them.
const RETRIES: usize = 2;
const RETRY_FOR: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(3);
/// Between two packets.
const SILENCE: Duration = Duration::from_secs(8);

/// Where pictures are kept.
#[derive(Clone)]
pub enum MediaPlace {
    Folder(PathBuf),
    S3 {
        bucket: String,
        prefix: String,
        /// `AWS_*` as they were given.
        settings: Vec<(&'static str, Secret)>,
    },
}

/// Without keys.
impl fmt::Debug for MediaPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "file://{}", folder.display()),
            Self::S3 { bucket, prefix, .. } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl MediaPlace {
    pub(crate) fn read(
        lookup: &impl Fn(&'static str) -> Option<String>,
        data_dir: &Path,
    ) -> Result<Self, ConfigError> {
        let Some(text) = lookup(VARIABLE) else {
            return Ok(Self::Folder(data_dir.join("media")));
        };
        // Never repeated in a message: somebody may have put a password into it.
        let neither = || wrong(VARIABLE, "must be s3://bucket/prefix or file:///absolute/path");
        let url = url::Url::parse(&text).map_err(|_| neither())?;
        let plain = url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
            && url.port().is_none();
        match (url.scheme(), url.host_str()) {
            ("file", None) if plain => url.to_file_path().map(Self::Folder).map_err(|()| neither()),
            ("s3", Some(bucket)) if plain => {
                let prefix = Key::from_url_path(url.path()).map_err(|_| neither())?;
                Ok(Self::S3 {
                    bucket: bucket.to_owned(),
                    prefix: prefix.to_string(),
                    settings: settings(lookup)?,
                })
            }
            _ => Err(neither()),
        }
    }

    /// For people: a folder or an address.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::S3 { .. } => format!("{self:?}"),
        }
    }

    /// The store and what stands before every name in it.
    pub(super) fn open(&self) -> Result<(Arc<dyn ObjectStore>, Key)> {
        match self {
            Self::Folder(folder) => {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("cannot make {}", folder.display()))?;
                let store = LocalFileSystem::new_with_prefix(folder)
                    .with_context(|| format!("cannot keep media in {}", folder.display()))?
                    .with_fsync(true);
                Ok((Arc::new(store), Key::default()))
            }
            Self::S3 {
                bucket,
                prefix,
                settings,
            } => Ok((s3(bucket, settings)?, Key::from(prefix.as_str()))),
        }
    }
}

fn settings(
    lookup: &impl Fn(&'static str) -> Option<String>,
) -> Result<Vec<(&'static str, Secret)>, ConfigError> {
    match (lookup("AWS_ACCESS_KEY_ID"), lookup("AWS_SECRET_ACCESS_KEY")) {
        (Some(_), None) => {
            let detail = "is not set, but AWS_ACCESS_KEY_ID is";
            return Err(wrong("AWS_SECRET_ACCESS_KEY", detail));
        }
        (None, Some(_)) => {
            let detail = "is not set, but AWS_SECRET_ACCESS_KEY is";
            return Err(wrong("AWS_ACCESS_KEY_ID", detail));
        }
        _ => {}
    }
    let in_clear = match lookup("AWS_ALLOW_HTTP").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(wrong("AWS_ALLOW_HTTP", "must be true or false")),
    };
    for variable in ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"] {
        let Some(url) = lookup(variable) else { continue };
        let url = url::Url::parse(&url)
            .ok()
            // It is written into the log; a password is not.
            .filter(|url| url.has_host() && url.username().is_empty() && url.password().is_none());
        match url.as_ref().map(url::Url::scheme) {
            Some("https") => {}
            Some("http") if in_clear => {}
            Some("http") => {
                let detail = "begins with http://, which needs AWS_ALLOW_HTTP=true: pictures cross the network in clear";
                return Err(wrong(variable, detail));
            }
            _ => {
                return Err(wrong(
                    variable,
                    "is not an address such as https://s3.example.com",
                ));
            }
        }
    }
    let given = AWS
        .iter()
        .filter_map(|name| lookup(name).map(|value| (*name, Secret::new(value))));
    Ok(given.collect())
}

fn s3(bucket: &str, settings: &[(&'static str, Secret)]) -> Result<Arc<dyn ObjectStore>> {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(1),
        base: 2.0,
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_client_options(
            ClientOptions::new()
                .with_connect_timeout(CONNECT)
                .with_read_timeout(SILENCE)
                // A download lasts as long as the customer's line is slow.
                .with_timeout_disabled(),
        )
        .with_retry(RetryConfig {
            backoff,
            max_retries: RETRIES,
            retry_timeout: RETRY_FOR,
        });
    for (name, value) in settings {
        let key = name.to_lowercase().parse();
        let key = key.map_err(|e| wrong(name, format!("is not known: {e}")))?;
        builder = builder.with_config(key, value.reveal());
    }
    let store = builder
        .build()
        .map_err(|e| wrong(VARIABLE, format!("cannot be used with these AWS_ settings: {e}")))?;
    Ok(Arc::new(store))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<MediaPlace, ConfigError> {
        let lookup = |name: &'static str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        MediaPlace::read(&lookup, Path::new("data"))
    }

    #[test]
    fn addresses_name_a_folder_or_a_bucket() {
        let place = |url: &str| format!("{:?}", read(&[(VARIABLE, url)]).unwrap());
        assert_eq!(format!("{:?}", read(&[]).unwrap()), "file://data/media");
        assert_eq!(place("file:///srv/media"), "file:///srv/media");
        assert_eq!(place("s3://shop"), "s3://shop/");
        assert_eq!(place("s3://shop/a/b/"), "s3://shop/a/b");
        for other in [
            "shop",
            "/srv/media",
            "file://host/x",
            "s3:///x",
            "s3://u:geheim@shop/x",
            "s3://shop?secret=geheim",
            "https://shop/x",
        ] {
            let error = read(&[(VARIABLE, other)]).unwrap_err();
            assert_eq!(error.variable, VARIABLE, "{other}");
            assert!(!error.detail.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn keys_come_in_pairs_and_are_not_shown() {
        let s3 = (VARIABLE, "s3://shop/x");
        let id = ("AWS_ACCESS_KEY_ID", "AKIA-geheim");
        let key = ("AWS_SECRET_ACCESS_KEY", "sehr-geheim");
        let wrong = |more: &[(&str, &str)]| read(&[&[s3], more].concat()).map(drop).unwrap_err().variable;
        assert_eq!(wrong(&[id]), key.0);
        assert_eq!(wrong(&[key]), id.0);
        let plain = ("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
        assert_eq!(wrong(&[plain]), plain.0);
        assert_eq!(wrong(&[plain, ("AWS_ALLOW_HTTP", "1")]), "AWS_ALLOW_HTTP");
        for odd in ["minio", "https://u:geheim@minio"] {
            assert_eq!(wrong(&[("AWS_ENDPOINT_URL_S3", odd)]), "AWS_ENDPOINT_URL_S3");
        }
        let place = read(&[s3, id, key, plain, ("AWS_ALLOW_HTTP", "true")]).unwrap();
        let MediaPlace::S3 { settings, .. } = &place else {
            panic!("{place:?}")
        };
        assert_eq!(settings.len(), 4);
        assert!(!format!("{place:?} {settings:?}").contains("geheim"));
        // Whatever stands in the environment of a shop that keeps its pictures on the disk does not matter.
        assert!(read(&[id]).is_ok());
    }
}
