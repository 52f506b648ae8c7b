//! Rate limits of one process: whom they count for, what they refuse and what they never refuse.

use oms_core::{Actor, PageRequest};
use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, TestServer, send};

const SIGN_IN: &[(&str, &str)] = &[
    ("OMS_RATE_LIMIT_SIGN_IN", "8/1h"),
    ("OMS_RATE_LIMIT_SIGN_IN_NAME", "3/1h"),
];
const CLIENTS: &[(&str, &str)] = &[
    ("OMS_RATE_LIMIT_CLIENT", "10/1h"),
    ("OMS_RATE_LIMIT_WEBHOOK", "2/1h"),
    ("OMS_TRUSTED_PROXIES", "127.0.0.0/8"),
];

async fn log_in(server: &TestServer, name: &str) -> Answer {
    let body = json!({"identifier": name, "password": "a guess of mine"});
    server.post("/v1/sessions", "", body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_counted_by_name_and_by_address() {
    TestServer::each_db_with(SIGN_IN, async |server| {
        for _ in 0..3 {
            log_in(&server, "ann").await.problem(401, "unauthorized");
        }
        // However it is written, and whether there is such a user or not.
        let refused = log_in(&server, " ANN ").await;
        assert_eq!(refused.header("ratelimit-policy"), "\"sign-in-name\";q=3;w=3600");
        assert!(refused.header("ratelimit").starts_with("\"sign-in-name\";r=0;t="));
        let wait: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1_190..=1_200).contains(&wait), "{wait}");
        refused.problem(429, "rate_limited");
        for name in ["bob", "bob"] {
            log_in(&server, name).await.problem(401, "unauthorized");
        }
        // Registrations and mails count, too, and nothing was done by one that is refused.
        server.register("carl").await.expect(201);
        let resend = json!({"email": "carl@example.com"});
        let path = "/v1/users/verify/resend";
        server.post(path, "", resend.clone()).await.expect(204);
        let refused = server.post(path, "", resend).await;
        assert_eq!(refused.header("ratelimit-policy"), "\"sign-in\";q=8;w=3600");
        refused.problem(429, "rate_limited");
        server.register("dora").await.problem(429, "rate_limited");
        let users = server.oms.users();
        let users = users.list(&Actor::System, PageRequest::default()).await.unwrap();
        assert!(users.data.iter().all(|user| user.username != "dora"));
        // Whoever is at the door may still look around.
        server.get("/v1/products", "").await.expect(200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_has_a_budget_and_every_answer_tells_it() {
    TestServer::each_db_with(CLIENTS, async |server| {
        let from = async |address: &str, path: &str| {
            let request = server.request(Method::GET, path);
            send(request.header("x-forwarded-for", address)).await
        };
        for left in (0..10).rev() {
            // Errors count and tell as well.
            let path = if left % 2 == 0 { "/v1/nope" } else { "/v1/products" };
            let answer = from("192.0.2.1", path).await;
            assert_eq!(answer.header("ratelimit-policy"), "\"client\";q=10;w=3600");
            let state = answer.header("ratelimit");
            assert!(state.starts_with(&format!("\"client\";r={left};t=")), "{state}");
            assert_ne!(answer.status, 429);
        }
        from("192.0.2.1", "/v1/products")
            .await
            .problem(429, "rate_limited");
        // What a client writes itself stands left of what the proxy adds.
        from("192.0.2.7, 192.0.2.1", "/docs")
            .await
            .problem(429, "rate_limited");
        from("192.0.2.2", "/v1/products").await.expect(200);
        // Two addresses of one /64.
        for _ in 0..10 {
            from("2001:db8::1", "/v1/products").await.expect(200);
        }
        from("2001:db8::2", "/v1/products")
            .await
            .problem(429, "rate_limited");
        for path in ["/livez", "/readyz"] {
            let answer = from("192.0.2.1", path).await;
            assert_eq!(answer.header("ratelimit"), "");
            assert_eq!(answer.status, 200);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_gateways_have_budgets_of_their_own() {
    TestServer::each_db_with(CLIENTS, async |server| {
        let token = server.administrator().await;
        for _ in 0..9 {
            server.get("/v1/products", "").await.expect(200);
        }
        server.get("/v1/products", "").await.problem(429, "rate_limited");
        // Signed in, the same address is somebody else; a token of somebody else's making is nobody.
        for _ in 0..10 {
            server.get("/v1/me", &token).await.expect(200);
        }
        server.get("/v1/me", &token).await.problem(429, "rate_limited");
        server
            .get("/v1/me", &format!("{token}x"))
            .await
            .problem(429, "rate_limited");
        let webhook = async |account: &str| {
            let path = format!("/v1/webhooks/{account}");
            send(server.request(Method::POST, &path).body("{}")).await
        };
        for _ in 0..2 {
            assert_ne!(webhook("mock").await.status, 429);
        }
        let refused = webhook("mock").await;
        assert_eq!(refused.header("ratelimit-policy"), "\"webhook\";q=2;w=3600");
        refused.problem(429, "rate_limited");
        // Accounts that do not exist have none.
        webhook("nobody").await.problem(429, "rate_limited");
        // Whoever is still sending hears the refusal, too.
        let large = server
            .request(Method::POST, "/v1/webhooks/mock")
            .body(vec![0; 7 << 20]);
        send(large).await.problem(429, "rate_limited");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sends_much_to_nobody_hears_the_answer() {
    TestServer::each_db(async |server| {
        let large = server
            .request(Method::POST, "/v1/webhooks/nobody")
            .body(vec![0; 7 << 20]);
        send(large).await.problem(404, "not_found");
    })
    .await;
}
