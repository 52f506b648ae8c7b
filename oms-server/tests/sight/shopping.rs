//! A whole purchase from outside: register, verify, log in, refresh, sell, order, pay by a plugin, webhook, paid. What
//! is secret of it is kept, for those who look for it where it must not be.

use std::sync::Mutex;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::smtp::Mailbox;
use crate::support::{Answer, Program, eventually};

pub const PASSWORD: &str = "correct horse 7 battery";
pub const WRONG_PASSWORD: &str = "incorrect donkey 8 staple";

pub struct Shopping<'a> {
    program: &'a Program,
    mailbox: &'a Mailbox,
    token: Mutex<String>,
    pub secrets: Mutex<Vec<(&'static str, String)>>,
    /// Added to every request of the purchase.
    pub headers: fn(step: &str) -> Option<(&'static str, String)>,
}

/// What a purchase made.
pub struct Bought {
    pub order: String,
    pub payment: String,
}

impl<'a> Shopping<'a> {
    pub fn new(program: &'a Program, mailbox: &'a Mailbox) -> Self {
        Self {
            program,
            mailbox,
            token: Mutex::default(),
            secrets: Mutex::default(),
            headers: |_| None,
        }
    }

    fn remember(&self, what: &'static str, secret: &Value) -> String {
        let secret = secret.as_str().unwrap().to_owned();
        self.secrets.lock().unwrap().push((what, secret.clone()));
        secret
    }

    fn request(&self, step: &str, method: Method, path: &str) -> RequestBuilder {
        let mut request = self
            .program
            .client
            .request(method, format!("{}{path}", self.program.url));
        if let Some((name, value)) = (self.headers)(step) {
            request = request.header(name, value);
        }
        let token = self.token.lock().unwrap().clone();
        match token.is_empty() {
            true => request,
            false => request.bearer_auth(token),
        }
    }

    async fn post(&self, step: &str, path: &str, body: &Value) -> Answer {
        let request = self.request(step, Method::POST, path).json(body);
        self.program
            .send(request.header("idempotency-key", format!("key-{step}")))
            .await
    }

    pub async fn play(&self) -> Bought {
        self.become_customer().await;
        self.sell().await;
        let line = json!({"lines": [{"sku": "MUG", "quantity": 1}], "shipping_address":
            {"name": "Ada", "line1": "1 Main Street", "city": "Oslo", "country": "NO"}});
        let order = self.post("order", "/v1/orders", &line).await.expect(201);
        let order = order["id"].as_str().unwrap().to_owned();
        let too_many = json!({"lines": [{"sku": "MUG", "quantity": 1000}]});
        self.post("too-many", "/v1/orders", &too_many).await.expect(409);

        let path = format!("/v1/orders/{order}/payments");
        let payment = self
            .post("pay", &path, &json!({"account": "mock"}))
            .await
            .expect(201);
        let page = payment["next_action"]["url"].as_str().unwrap();
        let press = self.program.client.post(page).body("decision=approve");
        self.program.send(press).await.expect(200);
        let path = format!("/v1/orders/{order}");
        eventually("the order to be paid", async || {
            let order = self
                .program
                .send(self.request("look", Method::GET, &path))
                .await
                .expect(200);
            (order["status"] == "paid")
                .then_some(())
                .ok_or(order["status"].to_string())
        })
        .await;
        let forged = self
            .program
            .client
            .post(format!("{}/v1/webhooks/mock", self.program.url));
        let forged = forged
            .header("webhook-signature", "v1,bm90IHJlYWxseQ==")
            .body("{}");
        assert_eq!(self.program.send(forged).await.status, 400);
        let leave = self.request("leave", Method::DELETE, "/v1/sessions/current");
        self.program.send(leave).await.expect(204);
        Bought {
            order,
            payment: payment["id"].as_str().unwrap().to_owned(),
        }
    }

    async fn become_customer(&self) {
        let ada = json!({"username": "ada", "email": "ada@example.com", "password": PASSWORD});
        self.post("register", "/v1/users", &ada).await.expect(201);
        let token = eventually("the mail", async || {
            self.mailbox.token_for("ada@example.com").ok_or("no mail".into())
        })
        .await;
        self.remember("verification token", &json!(token));
        // The page that the mail links to, as a browser and as a scanner open it.
        self.program
            .get(&format!("/verify?token={token}"))
            .await
            .expect(200);
        self.post("verify", "/v1/users/verify", &json!({"token": token}))
            .await
            .expect(204);
        let wrong = json!({"identifier": "ada", "password": WRONG_PASSWORD});
        self.post("wrong", "/v1/sessions", &wrong).await.expect(401);
        let right = json!({"identifier": "ada", "password": PASSWORD});
        let session = self.post("log-in", "/v1/sessions", &right).await.expect(200);
        self.remember("access token", &session["access_token"]);
        let refresh = json!({"refresh_token": self.remember("refresh token", &session["refresh_token"])});
        let session = self
            .post("refresh", "/v1/sessions/refresh", &refresh)
            .await
            .expect(200);
        self.remember("second refresh token", &session["refresh_token"]);
        *self.token.lock().unwrap() = self.remember("second access token", &session["access_token"]);
    }

    async fn sell(&self) {
        let business = self
            .post("business", "/v1/businesses", &json!({"name": "Mugs"}))
            .await
            .expect(201);
        let product = json!({"business_id": business["id"], "name": "Mug", "sku": "MUG",
            "price": {"amount": 1299, "currency": "EUR"}});
        self.post("product", "/v1/products", &product).await.expect(201);
        let delivery = json!({"delta": 10, "reason": "delivery"});
        self.post("delivery", "/v1/stock/MUG/adjustments", &delivery)
            .await
            .expect(201);
    }
}
