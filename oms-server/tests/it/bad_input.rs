//! Bad input of every kind gets its documented problem, and nothing is written.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{TestServer, pointers, send};

fn order(lines: impl Into<Value>) -> Value {
    json!({"lines": lines.into()})
}

fn line(sku: &str, quantity: i64) -> Value {
    json!({"sku": sku, "quantity": quantity})
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_cannot_be() {
    TestServer::each_db(async |server| {
        let token = server.customer("ann").await;
        server.product(&token, "MUG", 5).await;
        server.product(&token, "DEAR", 5).await;
        let business = server
            .post("/v1/businesses", &token, json!({"name": "Other"}))
            .await
            .expect(201);
        let huge = json!({"business_id": business["id"], "name": "Palace", "variants": [
            {"sku": "PALACE", "price": {"amount": 9_007_199_254_740_991_i64, "currency": "EUR"}},
            {"sku": "YEN", "price": {"amount": 5, "currency": "JPY"}},
        ]});
        server.post("/v1/products", &token, huge).await.expect(201);
        for sku in ["PALACE", "YEN"] {
            let delivery = json!({"delta": 100, "reason": "delivery"});
            server
                .post_once(&format!("/v1/stock/{sku}/adjustments"), &token, sku, delivery)
                .await
                .expect(201);
        }
        let many: Vec<Value> = (0..10_000).map(|i| line(&format!("S{i}"), 1)).collect();
        let cases = [
            (
                order(json!([line("MUG", 0)])),
                422,
                "invalid_value",
                vec!["/lines/0/quantity"],
            ),
            (
                order(json!([line("MUG", -1)])),
                422,
                "invalid_value",
                vec!["/lines/0/quantity"],
            ),
            (
                order(json!([line("MUG", 1 << 31)])),
                422,
                "invalid_value",
                vec!["/lines/0/quantity"],
            ),
            (
                order(json!([line("MUG", i64::MAX)])),
                422,
                "invalid_value",
                vec!["/lines/0/quantity"],
            ),
            (
                order(json!([{"sku": "MUG", "quantity": u64::MAX}])),
                422,
                "invalid_value",
                vec!["/lines/0/quantity"],
            ),
            (
                order(json!([line("NONE", 1), line("MUG", 1)])),
                422,
                "unknown_sku",
                vec!["/lines/0/sku"],
            ),
            (
                order(json!([line("MUG", 1), line("YEN", 1)])),
                422,
                "mixed_currencies",
                vec![],
            ),
            (order(json!([])), 422, "invalid_value", vec!["/lines"]),
            (order(json!(many)), 422, "invalid_value", vec!["/lines"]),
            (
                order(json!([line("MUG", 1), line("DEAR", 6)])),
                409,
                "out_of_stock",
                vec!["/lines/1/quantity"],
            ),
            (
                order(json!([{"sku": "MUG", "quantity": "1"}])),
                400,
                "invalid_request",
                vec!["/lines/0/quantity"],
            ),
            (
                order(json!([{"sku": "MUG", "quantity": 1.5}])),
                400,
                "invalid_request",
                vec!["/lines/0/quantity"],
            ),
            (
                order(json!([{"sku": "MUG", "quantity": 1, "price": 1}])),
                400,
                "invalid_request",
                vec!["/lines/0/price"],
            ),
            (
                order(json!([{"sku": "MUG"}])),
                400,
                "invalid_request",
                vec!["/lines/0/quantity"],
            ),
            (order(json!({})), 400, "invalid_request", vec!["/lines"]),
            (json!({}), 400, "invalid_request", vec!["/lines"]),
            (json!([]), 400, "invalid_request", vec![""]),
            (
                json!({"lines": [line("MUG", 1)], "free": true}),
                400,
                "invalid_request",
                vec!["/free"],
            ),
            (
                json!({"lines": [line("MUG", 1)], "note": "a\u{0}b"}),
                422,
                "invalid_value",
                vec!["/note"],
            ),
            (
                json!({"lines": [line("M\u{0}G", 1)]}),
                422,
                "invalid_value",
                vec!["/lines/0/sku"],
            ),
        ];
        for (i, (body, status, code, at)) in cases.into_iter().enumerate() {
            let shown: String = body.to_string().chars().take(200).collect();
            println!("{shown}");
            let problem = server
                .post_once("/v1/orders", &token, &format!("bad-{i}"), body)
                .await
                .problem(status, code);
            assert_eq!(pointers(&problem), at, "{shown}");
        }
        let overflow = order(json!([line("PALACE", 2)]));
        let problem = server.post_once("/v1/orders", &token, "overflow", overflow).await;
        assert_eq!(problem.status, 422, "{}", problem.text);
        let shortage = order(json!([line("DEAR", 6)]));
        let problem = server
            .post_once("/v1/orders", &token, "short", shortage)
            .await
            .problem(409, "out_of_stock");
        assert_eq!(problem["errors"][0]["detail"], "DEAR wanted 6, available 5");

        let orders = server.get("/v1/orders", &token).await.expect(200);
        assert_eq!(orders["data"], json!([]));
        let stock = server.get("/v1/stock/MUG", "").await.expect(200);
        assert_eq!(stock["available"], 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_cannot_be_read() {
    TestServer::each_db(async |server| {
        let token = server.customer("ann").await;
        let post = |kind: &'static str, body: Vec<u8>| {
            let request = server.request(Method::POST, "/v1/orders").bearer_auth(&token);
            let request = request.header("idempotency-key", "k");
            match kind {
                "" => request.body(body),
                kind => request.header("content-type", kind).body(body),
            }
        };
        let json = "application/json";
        for broken in ["{", "", "nul", "{} {}", "{\"lines\":[}", "\u{feff}{}"] {
            send(post(json, broken.into()))
                .await
                .problem(400, "invalid_request");
        }
        send(post(json, vec![0xff, 0xfe]))
            .await
            .problem(400, "invalid_request");
        send(post(json, b"[".repeat(100_000)))
            .await
            .problem(400, "invalid_request");
        let twice = send(post(json, br#"{"lines":[],"lines":[]}"#.to_vec()))
            .await
            .problem(400, "invalid_request");
        assert_eq!(pointers(&twice), ["/lines"]);
        for kind in ["", "text/plain", "application/x-www-form-urlencoded", "nonsense"] {
            send(post(kind, b"{}".to_vec()))
                .await
                .problem(415, "unsupported_media_type");
        }
        for huge in ["{\"lines\":1e400}", "{\"lines\":[{\"quantity\":-1e999}]}"] {
            send(post(json, huge.into())).await.problem(422, "invalid_value");
        }
        // A small body must not become a large answer: every fault could repeat a long name.
        let (name, faults) = ("n".repeat(20_000), vec!["1e300"; 8_000].join(","));
        let answer = send(post(json, format!("{{\"{name}\":[{faults}]}}").into())).await;
        assert!(answer.text.len() < 20_000, "{}", answer.text.len());
        answer.problem(422, "invalid_value");
        // Declared at once, and counted where it is not declared.
        send(post(json, vec![b' '; 11 << 20]))
            .await
            .problem(413, "payload_too_large");
        let chunks = (0..44).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1 << 18]));
        let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
        let request = server.request(Method::POST, "/v1/orders").bearer_auth(&token);
        let streamed = request.header("content-type", json).body(stream).send().await;
        // The server hangs up on what goes on and on; a client that reads in time gets the answer.
        if let Ok(answer) = streamed {
            assert_eq!(answer.status(), 413);
        }
        server
            .get("/livez", "")
            .await
            .status
            .is_success()
            .then_some(())
            .unwrap();
    })
    .await;
}
