//! Payments and webhooks over HTTP, with a gateway in memory in the place of the plugin.

use oms_core::payments::{Delivery, GatewayError};
use oms_core::testing::{Ask, Fake};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, TestServer, send};

async fn order(server: &TestServer, token: &str, key: &str) -> String {
    let body = json!({"lines": [{"sku": "MUG", "quantity": 2}]});
    let order = server.post_once("/v1/orders", token, key, body).await.expect(201);
    format!("/v1/orders/{}", order["id"].as_str().unwrap())
}

async fn deliver(server: &TestServer, delivery: Delivery) -> Answer {
    let mut request = server.request(Method::POST, "/v1/webhooks/mock");
    for (name, value) in &delivery.headers {
        request = request.header(name, value.as_slice());
    }
    send(request.body(delivery.body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_anybody_may_send_is_bounded() {
    TestServer::each_db(async |server| {
        let (ann, root) = (server.customer("ann").await, server.administrator().await);
        for method in [Method::GET, Method::POST] {
            let request = server.request(method.clone(), "/v1/webhooks/mock");
            send(request.body(vec![b' '; 2 << 20]))
                .await
                .problem(413, "payload_too_large");
            let request = server.request(method.clone(), "/v1/webhooks/nobody");
            send(request.body("x")).await.problem(404, "not_found");
            // Nothing of this body is read, so it cannot be what is wrong.
            let request = server.request(method, "/v1/webhooks/nobody");
            if let Ok(answer) = request.body(vec![b' '; 2 << 20]).send().await {
                assert_eq!(answer.status(), 404);
                assert_eq!(answer.headers()["connection"], "close");
            }
        }
        server.product(&ann, "MUG", 10).await;
        let path = order(&server, &ann, "o").await;
        server.bank.plan(Ask::Start, Fake::Redirect);
        let payment = server
            .post_once(&format!("{path}/payments"), &ann, "p", json!({"account": "mock"}))
            .await
            .expect(201);
        let complete = format!("/v1/payments/{}/complete", payment["id"].as_str().unwrap());
        for odd in ["a\0b".to_owned(), "x".repeat(17_000)] {
            let params = json!({"params": {"q": odd}});
            server
                .post(&complete, &ann, params)
                .await
                .problem(422, "invalid_value");
        }
        server
            .get("/v1/admin/jobs?kind=%00", &root)
            .await
            .problem(400, "invalid_request");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_makes_the_order_paid_and_it_can_be_refunded() {
    TestServer::each_db(async |server| {
        let (ann, root) = (server.customer("ann").await, server.administrator().await);
        server.product(&ann, "MUG", 10).await;
        let path = order(&server, &ann, "o").await;
        let start = format!("{path}/payments");
        server.bank.plan(Ask::Start, Fake::Redirect);
        let payment = server
            .post_once(&start, &ann, "p", json!({"account": "mock"}))
            .await
            .expect(201);
        assert_eq!(payment["status"], "action_required");
        assert_eq!(payment["next_action"]["type"], "redirect");
        assert!(
            payment["next_action"]["url"]
                .as_str()
                .unwrap()
                .starts_with("http"),
            "{payment}"
        );
        assert_eq!(payment["amount"], json!({"amount": 2598, "currency": "EUR"}));
        let replayed = server
            .post_once(&start, &ann, "p", json!({"account": "mock"}))
            .await;
        assert_eq!(replayed.header("idempotency-replayed"), "true");
        server
            .post_once(&start, &ann, "p2", json!({"account": "mock"}))
            .await
            .problem(409, "payment_in_progress");

        let id = payment["id"].as_str().unwrap();
        server.bank.pay(id.parse().unwrap());
        let event = server.bank.event(id.parse().unwrap()).unwrap();
        let good = server.bank.delivery(server.oms.now(), &[event]);
        let mut tampered = good.clone();
        tampered.body.push(b' ');
        deliver(&server, tampered).await.problem(400, "invalid_request");
        assert_eq!(
            server.get(&path, &ann).await.expect(200)["status"],
            "awaiting_payment"
        );
        for _ in 0..2 {
            let answer = deliver(&server, good.clone()).await;
            assert!(answer.status.is_success(), "{}", answer.text);
        }
        let paid = server.get(&path, &ann).await.expect(200);
        assert_eq!(
            (&paid["status"], &paid["payments"][0]["status"]),
            (&json!("paid"), &json!("captured"))
        );

        let refunds = format!("/v1/payments/{id}/refunds");
        let part = json!({"amount": {"amount": 1299, "currency": "EUR"}, "reason": "broken"});
        server
            .post_once(&refunds, &ann, "r", part.clone())
            .await
            .problem(403, "forbidden");
        let refund = server.post_once(&refunds, &root, "r", part).await.expect(201);
        assert_eq!(
            (&refund["status"], &refund["amount"]["amount"]),
            (&json!("succeeded"), &json!(1299))
        );
        let negative = json!({"amount": {"amount": -1, "currency": "EUR"}});
        server
            .post_once(&refunds, &root, "r2", negative)
            .await
            .problem(422, "invalid_value");
        let shipped = server
            .post_once(
                &format!("{path}/fulfillments"),
                &root,
                "f",
                json!({"tracking": "T1"}),
            )
            .await;
        assert_eq!(
            shipped.expect(201)["lines"],
            json!([{"sku": "MUG", "quantity": 2}])
        );

        let inbox = server
            .get("/v1/admin/webhooks?status=applied", &root)
            .await
            .expect(200);
        let entry = inbox["data"][0]["id"].as_str().unwrap();
        let replay = format!("/v1/admin/webhooks/{entry}/replay");
        let again = server.post(&replay, &root, Value::Null).await;
        assert_ne!(again.status, 500);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn captures_cancellations_and_gateways_that_are_away() {
    TestServer::each_db(async |server| {
        let (ann, root) = (server.customer("ann").await, server.administrator().await);
        server.product(&ann, "MUG", 10).await;
        let start = format!("{}/payments", order(&server, &ann, "o1").await);
        server.bank.plan(
            Ask::Start,
            Fake::Fail(GatewayError::Unavailable("secret host".into())),
        );
        let body = json!({"account": "mock", "capture": "manual"});
        let away = server
            .post_once(&start, &ann, "p", body.clone())
            .await
            .problem(503, "gateway_unavailable");
        assert!(!away.to_string().contains("secret host"), "{away}");
        let payment = server.post_once(&start, &ann, "p", body).await.expect(201);
        assert_eq!(payment["status"], "authorized");
        let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
        let bob = server.customer("bob").await;
        server.get(&path, &bob).await.problem(404, "not_found");
        server
            .post(&format!("{path}/capture"), &root, json!({}))
            .await
            .problem(400, "idempotency_key_required");
        let part = json!({"amount": {"amount": 1000, "currency": "EUR"}, "final": false});
        let part = server
            .post_once(&format!("{path}/capture"), &root, "c1", part)
            .await
            .expect(200);
        assert_eq!(
            (&part["status"], &part["captured"]),
            (&json!("partially_captured"), &json!(1000))
        );
        let rest = server
            .post_once(&format!("{path}/capture"), &root, "c2", json!({}))
            .await
            .expect(200);
        assert_eq!(
            (&rest["status"], &rest["captured"]),
            (&json!("captured"), &json!(2598))
        );

        let start = format!("{}/payments", order(&server, &ann, "o2").await);
        let body = json!({"account": "mock", "capture": "manual"});
        let payment = server.post_once(&start, &ann, "p", body).await.expect(201);
        let cancel = format!("/v1/payments/{}/cancel", payment["id"].as_str().unwrap());
        let canceled = server.post_once(&cancel, &ann, "x", json!({})).await.expect(200);
        assert_eq!(canceled["status"], "canceled");
        let declined = {
            server.bank.plan(Ask::Start, Fake::Decline);
            server
                .post_once(&start, &ann, "p3", json!({"account": "mock"}))
                .await
                .expect(201)
        };
        assert_eq!(declined["status"], "failed");
        server
            .post_once(&start, &ann, "p4", json!({"account": "none"}))
            .await
            .problem(422, "invalid_value");
        server
            .post_once(&start, &ann, "p5", json!({"account": "mock", "capture": "later"}))
            .await
            .problem(400, "invalid_request");
        server
            .post("/v1/webhooks/nobody", "", json!({}))
            .await
            .problem(404, "not_found");
        deliver(
            &server,
            Delivery {
                headers: Vec::new(),
                ..server.bank.delivery(server.oms.now(), &[])
            },
        )
        .await
        .problem(400, "invalid_request");
    })
    .await;
}
