//! Pictures in a bucket: moto's S3 server beside the real server, alive, frozen and dead.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub,
    dead_code,
    reason = "tests may panic, and not every story needs every helper"
)]

#[path = "../common/mod.rs"]
mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::multipart::{Form, Part};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::common::each_db::each_db;
use crate::common::script::Script;
use crate::common::server::Server;
use crate::common::visit::expect;

const KEY: &str = "s3cret-key-of-the-shop";

/// A picture of so many pixels a side that cannot be compressed: each number another one.
fn png(side: u32, number: u32) -> Vec<u8> {
    let mut state = u64::from(number) + 1;
    let picture = image::RgbImage::from_fn(side, side, |_, _| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let bytes = state.to_be_bytes();
        image::Rgb([bytes[0], bytes[1], bytes[2]])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

async fn shop(folder: &Path, database_url: &str, endpoint: &str, bucket: &str) -> Server {
    let url = format!("s3://{bucket}/pictures/of shop");
    let variables = [
        ("OMS_MEDIA_URL", url.as_str()),
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "shop"),
        ("AWS_SECRET_ACCESS_KEY", KEY),
        ("OMS_LOG", "trace"),
    ];
    let mut server = Server::new(folder, database_url)
        .without_plugins()
        .with_all(&variables);
    server.start().await;
    server
}

async fn upload(server: &Server, token: &str, bytes: Vec<u8>) -> Response {
    let part = Part::bytes(bytes)
        .file_name("x.html")
        .mime_str("text/html")
        .unwrap();
    let form = Form::new().part("file", part);
    let request = server.request(Method::POST, "/v1/media").bearer_auth(token);
    request.multipart(form).send().await.unwrap()
}

async fn download(server: &Server, name: &str) -> Response {
    let request = server.request(Method::GET, &format!("/v1/media/{name}"));
    request.send().await.unwrap()
}

/// 503, as every error: a problem document that says when to come back.
async fn unavailable(answer: Response, since: Instant) {
    assert!(since.elapsed() < Duration::from_secs(25), "{:?}", since.elapsed());
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/problem+json");
    assert!(header("retry-after").parse::<u64>().unwrap() > 0);
    let problem = expect(answer, 503).await;
    assert_eq!(problem["code"], "storage_unavailable", "{problem}");
    assert!(
        !problem.to_string().contains("127.0.0.1"),
        "the customer is told of the inside: {problem}"
    );
}

/// A seller's product with this picture, and an order of it.
async fn order(server: &Server, token: &str, sku: &str, picture: Option<&str>) -> Value {
    let post = async |path: &str, body: Value| {
        let request = server.request(Method::POST, path).bearer_auth(token).json(&body);
        expect(
            request
                .header("idempotency-key", format!("{path}-{sku}"))
                .send()
                .await
                .unwrap(),
            201,
        )
        .await
    };
    let business = post("/v1/businesses", json!({"name": format!("Shop {sku}")})).await;
    let images: Vec<&str> = picture.into_iter().collect();
    let product = json!({"business_id": business["id"], "name": "Mug", "sku": sku, "price": {"amount": 1299, "currency": "EUR"}, "images": images});
    post("/v1/products", product).await;
    post(
        &format!("/v1/stock/{sku}/adjustments"),
        json!({"delta": 5, "reason": "delivery"}),
    )
    .await;
    post("/v1/orders", json!({"lines": [{"sku": sku, "quantity": 2}]})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_lives_freezes_and_dies() {
    each_db(async |folder, database_url| {
        let s3 = Script::start("media/s3.py", &["shop", "0"]);
        let endpoint = format!("http://127.0.0.1:{}", s3.port);
        let server = shop(folder, database_url, &endpoint, "shop").await;
        let seller = server.administrator().await;

        // 1 MiB and more: it comes in several parts.
        let picture = png(700, 1);
        assert!(picture.len() > 1 << 20);
        let kept = expect(upload(&server, &seller, picture.clone()).await, 201).await;
        let name = kept["name"].as_str().unwrap();
        assert_eq!(expect(upload(&server, &seller, picture.clone()).await, 201).await, kept);
        let answer = download(&server, name).await;
        for (header, value) in [
            ("content-type", "image/png"),
            ("content-length", &picture.len().to_string()),
            ("x-content-type-options", "nosniff"),
            ("etag", &format!("\"{name}\"")),
        ] {
            assert_eq!(answer.headers()[header], value);
        }
        assert!(answer.bytes().await.unwrap() == picture);
        assert!(!folder.join("media").exists());

        // In the bucket it has its type, and stands below the prefix. moto wants a signature, of whomever.
        let object = server.client.get(format!("{endpoint}/shop/pictures/of%20shop/{name}"));
        let signed = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x";
        let object = object.header("authorization", signed).send().await.unwrap();
        assert_eq!((object.status().as_u16(), &object.headers()["content-type"]), (200, &"image/png".parse().unwrap()));
        assert!(object.bytes().await.unwrap() == picture);
        order(&server, &seller, "MUG-1", Some(name)).await;

        // There, but silent.
        s3.freeze(true);
        let since = Instant::now();
        let (up, down, ordered) = tokio::join!(
            upload(&server, &seller, png(10, 2)),
            download(&server, name),
            order(&server, &seller, "MUG-2", None),
        );
        unavailable(up, since).await;
        unavailable(down, since).await;
        assert_eq!(ordered["status"], "awaiting_payment", "{ordered}");
        // What the client has already needs no storage.
        let known = server.request(Method::GET, &format!("/v1/media/{name}"));
        let known = known.header("if-none-match", format!("\"{name}\"")).send().await.unwrap();
        assert_eq!(known.status(), 304);
        s3.freeze(false);
        assert!(download(&server, name).await.bytes().await.unwrap() == picture);

        // Not there.
        let port = s3.port.to_string();
        drop(s3);
        let since = Instant::now();
        unavailable(upload(&server, &seller, png(10, 3)).await, since).await;
        let since = Instant::now();
        unavailable(download(&server, name).await, since).await;
        assert!(server.request(Method::GET, "/readyz").send().await.unwrap().status().is_success());

        // There again, and empty: uploads work, and what is lost is a 404.
        let _s3 = Script::start("media/s3.py", &["shop", &port]);
        expect(upload(&server, &seller, png(10, 4)).await, 201).await;
        let gone = download(&server, name).await;
        assert_eq!(expect(gone, 404).await["code"], "not_found");
        let log = server.logged();
        assert!(log.contains("pictures cannot be kept or read") && !log.contains(KEY));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_gone_is_no_missing_picture() {
    each_db(async |folder, database_url| {
        let s3 = Script::start("media/s3.py", &["shop", "0"]);
        let endpoint = format!("http://127.0.0.1:{}", s3.port);
        let server = shop(folder, database_url, &endpoint, "shop").await;
        let seller = server.administrator().await;
        let kept = expect(upload(&server, &seller, png(10, 1)).await, 201).await;
        let port = s3.port.to_string();
        drop(s3);
        let _s3 = Script::start("media/s3.py", &["other", &port]);
        let since = Instant::now();
        unavailable(download(&server, kept["name"].as_str().unwrap()).await, since).await;
        unavailable(upload(&server, &seller, png(10, 2)).await, since).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_elsewhere() {
    each_db(async |folder, database_url| {
        let elsewhere = tempfile::tempdir().unwrap();
        let url = format!("file://{}/deep/er", elsewhere.path().display());
        let mut server = Server::new(folder, database_url)
            .without_plugins()
            .with("OMS_MEDIA_URL", &url);
        server.start().await;
        let seller = server.administrator().await;
        let kept = expect(upload(&server, &seller, png(9, 1)).await, 201).await;
        let name = kept["name"].as_str().unwrap();
        assert!(elsewhere.path().join("deep/er").join(name).is_file());
        assert!(download(&server, name).await.bytes().await.unwrap() == png(9, 1));
    })
    .await;
}
