//! Accounts and sessions over HTTP.

use reqwest::Method;
use serde_json::json;

use crate::support::{TestServer, password, pointers, send};

#[tokio::test(flavor = "multi_thread")]
async fn register_verify_log_in_and_out() {
    TestServer::each_db(async |server| {
        let user = server.register("ann").await.expect(201);
        assert!(user["id"].as_str().unwrap().starts_with("usr_"), "{user}");
        assert_eq!(
            (&user["username"], &user["email_verified"]),
            (&json!("ann"), &json!(false))
        );
        server.register("ann").await.problem(409, "duplicate");

        let session = server.log_in("ann").await;
        assert_eq!(
            (&session["token_type"], &session["expires_in"]),
            (&json!("Bearer"), &json!(900))
        );
        let token = session["access_token"].as_str().unwrap();
        let shop = json!({"name": "Shop"});
        server
            .post("/v1/businesses", token, shop.clone())
            .await
            .problem(403, "email_not_verified");

        let mailed = server.mailed_token("ann").await;
        server
            .post("/v1/users/verify", "", json!({"token": mailed}))
            .await
            .expect(204);
        let again = server
            .post("/v1/users/verify", "", json!({"token": mailed}))
            .await
            .problem(422, "invalid_value");
        assert_eq!(pointers(&again), ["/token"]);
        assert_eq!(
            server.get("/v1/me", token).await.expect(200)["email_verified"],
            true
        );
        server.post("/v1/businesses", token, shop).await.expect(201);

        let refresh = json!({"refresh_token": session["refresh_token"]});
        let next = server.post("/v1/sessions/refresh", "", refresh).await.expect(200);
        assert_ne!(next["refresh_token"], session["refresh_token"]);
        send(
            server
                .request(Method::DELETE, "/v1/sessions/current")
                .bearer_auth(token),
        )
        .await
        .expect(204);
        server.get("/v1/me", token).await.problem(401, "unauthorized");
        let refresh = json!({"refresh_token": next["refresh_token"]});
        server
            .post("/v1/sessions/refresh", "", refresh)
            .await
            .problem(401, "unauthorized");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_accounts_and_credentials() {
    TestServer::each_db(async |server| {
        let wrong = json!({"username": "a b", "email": "nowhere", "password": "short"});
        let problem = server
            .post("/v1/users", "", wrong)
            .await
            .problem(422, "invalid_value");
        assert_eq!(pointers(&problem), ["/username", "/email", "/password"]);
        server.register("ann").await.expect(201);
        for (identifier, secret) in [("ann", "wrong"), ("nobody", "wrong"), ("", "")] {
            let body = json!({"identifier": identifier, "password": secret});
            server
                .post("/v1/sessions", "", body)
                .await
                .problem(401, "unauthorized");
        }
        for identifier in ["ANN", "Ann@Example.com"] {
            let body = json!({"identifier": identifier, "password": password("ann")});
            server.post("/v1/sessions", "", body).await.expect(200);
        }
        let known = server
            .post("/v1/users/verify/resend", "", json!({"email": "ann@example.com"}))
            .await;
        let unknown = server
            .post("/v1/users/verify/resend", "", json!({"email": "eve@example.com"}))
            .await;
        assert_eq!((known.status, known.text), (unknown.status, unknown.text));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_the_mail_uses_the_token_by_its_button_only() {
    TestServer::each_db(async |server| {
        server.register("ann").await.expect(201);
        let token = server.mailed_token("ann").await;
        for _ in 0..3 {
            let page = server.get(&format!("/verify?token={token}"), "").await;
            assert_eq!(page.status, 200);
            assert!(page.text.contains(&format!("value=\"{token}\"")), "{}", page.text);
            assert!(
                page.header("content-security-policy")
                    .contains("form-action 'self'")
            );
        }
        let press = || {
            send(
                server
                    .request(Method::POST, "/verify")
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(format!("token={token}")),
            )
        };
        let page = press().await;
        assert!(
            page.status == 200 && page.text.contains("Verified"),
            "{}",
            page.text
        );
        assert_eq!(press().await.status, 422);
        let page = server
            .get("/verify?token=%22%3E%3Cscript%3Ealert(1)%3C/script%3E", "")
            .await;
        assert!(!page.text.contains("<script"), "{}", page.text);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_for_administrators() {
    TestServer::each_db(async |server| {
        let ann = server.customer("ann").await;
        let me = server.get("/v1/me", &ann).await.expect(200);
        for path in [
            "/v1/admin/users",
            "/v1/admin/jobs",
            "/v1/admin/plugins",
            "/v1/admin/webhooks",
            "/v1/admin/payments",
        ] {
            server.get(path, &ann).await.problem(403, "forbidden");
        }
        let root = server.administrator().await;
        let path = format!("/v1/admin/users/{}", me["id"].as_str().unwrap());
        let patch = |token: &str, body| {
            send(
                server
                    .request(Method::PATCH, &path)
                    .bearer_auth(token)
                    .json(&body),
            )
        };
        patch(&ann, json!({"roles": ["admin"]}))
            .await
            .problem(403, "forbidden");
        patch(&root, json!({"roles": ["king"]}))
            .await
            .problem(400, "invalid_request");
        let changed = patch(&root, json!({"roles": ["operator"]})).await.expect(200);
        assert_eq!(changed["roles"], json!(["operator"]));
        for path in [
            "/v1/admin/jobs",
            "/v1/admin/jobs?state=ready",
            "/v1/admin/plugins",
            "/v1/admin/webhooks",
            "/v1/admin/payments",
        ] {
            server.get(path, &ann).await.expect(200);
        }
        server
            .get("/v1/admin/jobs?state=lazy", &ann)
            .await
            .problem(400, "invalid_request");
        assert_eq!(
            server.get("/v1/admin/users", &root).await.expect(200)["data"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
    })
    .await;
}
