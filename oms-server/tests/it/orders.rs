//! Orders over HTTP: keys, owners, versions.

use serde_json::json;

use crate::support::{TestServer, send};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_order() {
    TestServer::each_db(async |server| {
        let ann = server.customer("ann").await;
        server.product(&ann, "MUG", 10).await;
        let address = json!({"name": "Ann", "line1": "1 Street", "city": "Oslo", "postal_code": "0150", "country": "NO"});
        let body = json!({"lines": [{"sku": "MUG", "quantity": 2}], "shipping_address": address, "note": "ring twice"});

        server.post("/v1/orders", &ann, body.clone()).await.problem(400, "idempotency_key_required");
        let odd = server.post_once("/v1/orders", &ann, "a b", body.clone()).await;
        odd.problem(400, "invalid_request");
        let first = server.post_once("/v1/orders", &ann, "k1", body.clone()).await;
        assert_eq!((first.header("idempotency-replayed"), first.header("etag")), ("", "\"v1\""));
        let order = first.expect(201);
        assert_eq!((&order["status"], &order["total"]), (&json!("awaiting_payment"), &json!({"amount": 2598, "currency": "EUR"})));
        assert!(order["expires_at"].as_str().unwrap().ends_with('Z'), "{order}");
        assert_eq!(order["payments"], json!([]));

        let quoted = server.post_once("/v1/orders", &ann, "\"k1\"", body.clone()).await;
        assert_eq!(quoted.header("idempotency-replayed"), "true");
        assert_eq!(quoted.expect(201), order);
        let other = json!({"lines": [{"sku": "MUG", "quantity": 3}]});
        server.post_once("/v1/orders", &ann, "k1", other).await.problem(422, "idempotency_key_reused");
        assert_eq!(server.get("/v1/stock/MUG", "").await.expect(200)["available"], 8);

        let bob = server.customer("bob").await;
        let his = server.post_once("/v1/orders", &bob, "k1", body).await.expect(201);
        assert_ne!(his["id"], order["id"]);
        let list = server.get("/v1/orders?status=awaiting_payment", &bob).await.expect(200);
        assert_eq!(list["data"].as_array().unwrap().len(), 1);
        server.get("/v1/orders?status=lost", &bob).await.problem(422, "invalid_value");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_their_owners_alone() {
    TestServer::each_db(async |server| {
        let (ann, bob) = (server.customer("ann").await, server.customer("bob").await);
        server.product(&ann, "MUG", 10).await;
        let body = json!({"lines": [{"sku": "MUG", "quantity": 2}]});
        let order = server.post_once("/v1/orders", &ann, "k", body).await.expect(201);
        let path = format!("/v1/orders/{}", order["id"].as_str().unwrap());
        for path in [
            path.clone(),
            format!("{path}/events"),
            format!("{path}/fulfillments"),
        ] {
            server.get(&path, &bob).await.problem(404, "not_found");
            server.get(&path, "").await.problem(401, "unauthorized");
            server.get(&path, &ann).await.expect(200);
        }
        let cancel = format!("{path}/cancel");
        server
            .post_once(&cancel, &bob, "c", json!({}))
            .await
            .problem(404, "not_found");
        let payment = json!({"account": "mock"});
        server
            .post_once(&format!("{path}/payments"), &bob, "p", payment.clone())
            .await
            .problem(404, "not_found");
        server
            .post(&format!("{path}/payments"), &ann, payment)
            .await
            .problem(400, "idempotency_key_required");
        let ship = format!("{path}/fulfillments");
        server
            .post_once(&ship, &ann, "f", json!({}))
            .await
            .problem(403, "forbidden");
        let root = server.administrator().await;
        server
            .post_once(&ship, &root, "f", json!({}))
            .await
            .problem(409, "invalid_state");

        let stale = server
            .request(reqwest::Method::POST, &cancel)
            .bearer_auth(&ann)
            .header("idempotency-key", "c");
        send(stale.header("if-match", "\"v9\"").json(&json!({})))
            .await
            .problem(412, "version_conflict");
        let canceled = server
            .post_once(&cancel, &ann, "c", json!({"reason": "too many"}))
            .await
            .expect(200);
        assert_eq!(canceled["status"], "canceled");
        // Without a body, too: all its fields may be left out.
        let bare = server
            .request(reqwest::Method::POST, &cancel)
            .bearer_auth(&ann)
            .header("idempotency-key", "c2");
        send(bare).await.problem(409, "invalid_state");
        let events = server.get(&format!("{path}/events"), &ann).await.expect(200);
        let kinds: Vec<_> = events["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["kind"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["placed", "canceled"]);
        assert_eq!(server.get("/v1/stock/MUG", "").await.expect(200)["available"], 10);
    })
    .await;
}
