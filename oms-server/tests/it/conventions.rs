//! What holds for every route: problems, headers, ids, versions, keys, pages.

use reqwest::Method;
use serde_json::json;

use crate::support::{TestServer, send};

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_framework_are_problems_too() {
    TestServer::each_db(async |server| {
        for path in [
            "/",
            "/nope",
            "/v1",
            "/v1/nope",
            "/v2/orders",
            "/v1/orders/x/y/z",
            "/verify/x",
        ] {
            server.get(path, "").await.problem(404, "not_found");
        }
        for (method, path) in [
            (Method::PUT, "/v1/orders"),
            (Method::DELETE, "/v1/products"),
            (Method::POST, "/livez"),
        ] {
            let answer = send(server.request(method, path)).await;
            let allowed = answer.header("allow").to_owned();
            let wanted = match path {
                "/livez" => "GET, HEAD",
                _ => "GET, HEAD, POST",
            };
            assert_eq!(allowed, wanted, "{path}");
            answer.problem(405, "method_not_allowed");
        }
        server
            .get("/v1/products?limit=many", "")
            .await
            .problem(400, "invalid_request");
        server
            .get("/v1/products?limit=0", "")
            .await
            .problem(422, "invalid_value");
        server
            .get("/v1/products?cursor=x", "")
            .await
            .problem(422, "invalid_value");
        server
            .get("/v1/products?sort=best", "")
            .await
            .problem(422, "invalid_value");
        server
            .get("/v1/products?min_price=1", "")
            .await
            .problem(422, "invalid_value");
        for id in [
            "prd_1",
            "ord_01h455vb4pex5vsknk084sn02q",
            "prd_01h455vb4pex5vsknk084sn02q",
        ] {
            server
                .get(&format!("/v1/products/{id}"), "")
                .await
                .problem(404, "not_found");
        }
        for path in ["/v1/products/%00", "/v1/stock/%00", "/v1/products?text=a%00"] {
            server.get(path, "").await.problem(400, "invalid_request");
        }
        server
            .get("/v1/products/%ff", "")
            .await
            .problem(400, "invalid_request");
        for path in ["/livez", "/readyz"] {
            let answer = server.get(path, "").await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
        }
        send(server.request(Method::HEAD, "/v1/products"))
            .await
            .expect(200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_ids_and_traces_go_in_and_out() {
    TestServer::each_db(async |server| {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let request = server
            .request(Method::GET, "/nope")
            .header("x-request-id", "mine-1")
            .header("traceparent", trace);
        let answer = send(request).await;
        assert_eq!(answer.header("traceparent"), trace);
        assert_eq!(answer.problem(404, "not_found")["request_id"], "mine-1");
        let request = server
            .request(Method::GET, "/nope")
            .header("x-request-id", "not mine")
            .header("traceparent", "x");
        let answer = send(request).await;
        assert_eq!(answer.header("traceparent"), "");
        let made = answer.problem(404, "not_found")["request_id"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(made.len() >= 16 && made != "not mine", "{made}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_needed_and_checked() {
    TestServer::each_db(async |server| {
        for (method, path) in [
            (Method::GET, "/v1/me"),
            (Method::GET, "/v1/orders"),
            (Method::POST, "/v1/orders"),
            (Method::POST, "/v1/businesses"),
            (Method::POST, "/v1/media"),
            (Method::GET, "/v1/admin/users"),
            (Method::DELETE, "/v1/sessions/current"),
        ] {
            send(server.request(method.clone(), path))
                .await
                .problem(401, "unauthorized");
            for token in ["", "x", "a.b.c"] {
                let request = server.request(method.clone(), path).bearer_auth(token);
                send(request).await.problem(401, "unauthorized");
            }
            let basic = server.request(method, path).basic_auth("ann", Some("x"));
            send(basic).await.problem(401, "unauthorized");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_name_the_version_they_are_based_on() {
    TestServer::each_db(async |server| {
        let token = server.customer("ann").await;
        let product = server.product(&token, "MUG", 5).await;
        let path = format!("/v1/products/{}", product["id"].as_str().unwrap());
        let tag = server.get(&path, "").await.header("etag").to_owned();
        assert_eq!(tag, "\"v1\"");
        let patch = |tag: Option<&str>, name: &str| {
            let request = server
                .request(Method::PATCH, &path)
                .bearer_auth(&token)
                .json(&json!({"name": name}));
            match tag {
                Some(tag) => request.header("if-match", tag),
                None => request,
            }
        };
        send(patch(None, "x")).await.problem(428, "precondition_required");
        for tag in ["\"v9\"", "v1", "*", "\"1\""] {
            send(patch(Some(tag), "x")).await.problem(412, "version_conflict");
        }
        let changed = send(patch(Some(&tag), "New")).await;
        assert_eq!(changed.header("etag"), "\"v2\"");
        assert_eq!(changed.expect(200)["name"], "New");
        send(patch(Some(&tag), "Newer"))
            .await
            .problem(412, "version_conflict");
        send(server.request(Method::DELETE, &path).bearer_auth(&token))
            .await
            .problem(428, "precondition_required");
        let delete = server
            .request(Method::DELETE, &path)
            .bearer_auth(&token)
            .header("if-match", "\"v2\"");
        send(delete).await.expect(204);
        server.get(&path, "").await.problem(404, "not_found");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages() {
    TestServer::each_db(async |server| {
        let token = server.customer("ann").await;
        for sku in ["A", "B", "C"] {
            server.product(&token, sku, 1).await;
        }
        let (mut seen, mut path) = (Vec::new(), "/v1/products?limit=2".to_owned());
        loop {
            let page = server.get(&path, "").await.expect(200);
            let skus = page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|p| p["variants"][0]["sku"].as_str().unwrap().to_owned());
            seen.extend(skus);
            match page["next_cursor"].as_str() {
                Some(cursor) => path = format!("/v1/products?limit=2&cursor={cursor}"),
                None => break,
            }
        }
        seen.sort();
        assert_eq!(seen, ["A", "B", "C"]);
        let cheap = server
            .get("/v1/products?text=product%20b&currency=EUR&max_price=1299", "")
            .await
            .expect(200);
        assert_eq!(
            cheap["data"][0]["variants"][0]["price"],
            json!({"amount": 1299, "currency": "EUR"})
        );
        assert_eq!(cheap["data"].as_array().unwrap().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_cannot_be_read_is_not_called_missing() {
    TestServer::each_db(async |server| {
        let token = server.customer("ann").await;
        for name in ["idempotency-key", "if-match"] {
            let request = server.request(Method::POST, "/v1/orders").bearer_auth(&token);
            let request = request
                .header(name, &b"caf\xc3\xa9"[..])
                .json(&json!({"lines": []}));
            let problem = send(request).await.problem(400, "invalid_request");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("visible ASCII"), "{problem}");
        }
    })
    .await;
}
