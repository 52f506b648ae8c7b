//! Pictures over HTTP.

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::json;

use crate::support::{Answer, TestServer, send};

/// One red pixel.
fn png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let pixel = image::RgbImage::from_pixel(1, 1, image::Rgb([255, 0, 0]));
    pixel.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

async fn upload(
    server: &TestServer,
    token: &str,
    field: &'static str,
    bytes: Vec<u8>,
    claimed: &str,
) -> Answer {
    let part = Part::bytes(bytes)
        .file_name("../../x.html")
        .mime_str(claimed)
        .unwrap();
    let form = Form::new().part(field, part);
    send(
        server
            .request(Method::POST, "/v1/media")
            .bearer_auth(token)
            .multipart(form),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_go_in_and_come_out() {
    TestServer::each_db(async |server| {
        let ann = server.customer("ann").await;
        let media = upload(&server, &ann, "file", png(), "text/html").await.expect(201);
        let name = media["name"].as_str().unwrap().to_owned();
        assert!(name.len() == 68 && name.ends_with(".png"), "{name}");
        assert_eq!((&media["content_type"], &media["url"]), (&json!("image/png"), &json!(format!("/v1/media/{name}"))));
        assert_eq!(upload(&server, &ann, "file", png(), "image/gif").await.expect(201), media);

        let answer = server.request(Method::GET, &format!("/v1/media/{name}")).send().await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "image/png");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert!(header("cache-control").contains("immutable"));
        assert!(header("content-security-policy").contains("default-src 'none'"));
        assert_eq!(answer.bytes().await.unwrap(), png());
        let known = server.request(Method::GET, &format!("/v1/media/{name}"));
        assert_eq!(send(known.header("if-none-match", format!("\"{name}\""))).await.status, 304);

        let business = server.post("/v1/businesses", &ann, json!({"name": "Shop"})).await.expect(201);
        let product = |image: &str| json!({"business_id": business["id"], "name": "Mug", "sku": "MUG", "price": {"amount": 1, "currency": "EUR"}, "images": [image]});
        server.post("/v1/products", &ann, product("unknown.png")).await.problem(422, "invalid_value");
        let product = server.post("/v1/products", &ann, product(&name)).await.expect(201);
        assert_eq!(product["images"], json!([name]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_picture_is_refused() {
    TestServer::each_db(async |server| {
        let ann = server.customer("ann").await;
        upload(
            &server,
            &ann,
            "file",
            b"<svg onload=alert(1)>".to_vec(),
            "image/png",
        )
        .await
        .problem(422, "invalid_value");
        upload(&server, &ann, "file", Vec::new(), "image/png")
            .await
            .problem(422, "invalid_value");
        upload(&server, &ann, "picture", png(), "image/png")
            .await
            .problem(400, "invalid_request");
        let mut large = png();
        large.resize(5 * 1024 * 1024 + 1, 0);
        upload(&server, &ann, "file", large, "image/png")
            .await
            .problem(422, "invalid_value");
        upload(&server, &ann, "file", vec![0; 7 << 20], "image/png")
            .await
            .problem(413, "payload_too_large");
        upload(&server, "", "file", png(), "image/png")
            .await
            .problem(401, "unauthorized");
        // Of strangers not even as much is read as a picture may have.
        for stranger in ["", "e30.e30.e30"] {
            upload(&server, stranger, "file", vec![0; 7 << 20], "image/png")
                .await
                .problem(401, "unauthorized");
        }
        server
            .post("/v1/media", &ann, json!({}))
            .await
            .problem(415, "unsupported_media_type");

        server.register("bob").await.expect(201);
        let bob = server.log_in("bob").await["access_token"]
            .as_str()
            .unwrap()
            .to_owned();
        upload(&server, &bob, "file", png(), "image/png")
            .await
            .problem(403, "email_not_verified");
        for name in ["x.png", "..%2Fsecret.key", "%2e%2e%2fsecret.key", "a.png"] {
            server
                .get(&format!("/v1/media/{name}"), "")
                .await
                .problem(404, "not_found");
        }
        assert_eq!(
            std::fs::read_dir(server.data_dir.join("media")).unwrap().count(),
            0
        );
    })
    .await;
}
