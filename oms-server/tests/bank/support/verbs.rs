//! What customers, operators and the bank's page do, over HTTP alone.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

use super::{Shop, eventually};

pub struct Answer {
    pub status: u16,
    pub location: Option<String>,
    pub text: String,
}

/// An order of the customer.
pub struct Order<'a> {
    pub shop: &'a Shop,
    pub id: String,
}

/// A payment of such an order, as it was when it was started.
pub struct Payment<'a> {
    pub shop: &'a Shop,
    pub id: String,
    pub started: Value,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// A problem of this status and code.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        let problem = self.expect(status);
        assert_eq!(problem["code"], code, "{problem}");
        problem
    }
}

impl Shop {
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let location = response.headers().get("location");
        Answer {
            status: response.status().as_u16(),
            location: location.map(|location| location.to_str().unwrap().to_owned()),
            text: response.text().await.unwrap(),
        }
    }

    fn request(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        let key = format!("key-{}", self.keys.fetch_add(1, Ordering::Relaxed));
        let request = self.http.request(method, format!("{}{path}", self.url));
        request.bearer_auth(token).header("idempotency-key", key)
    }

    /// As the customer.
    pub async fn get(&self, path: &str) -> Answer {
        let token = self.customer.lock().await.clone();
        self.send(self.request(Method::GET, path, &token)).await
    }

    /// As the customer.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        let token = self.customer.lock().await.clone();
        self.send(self.request(Method::POST, path, &token).json(&body))
            .await
    }

    pub async fn operator_gets(&self, path: &str) -> Answer {
        let token = self.operator.lock().await.clone();
        self.send(self.request(Method::GET, path, &token)).await
    }

    pub async fn operator_posts(&self, path: &str, body: Value) -> Answer {
        let token = self.operator.lock().await.clone();
        self.send(self.request(Method::POST, path, &token).json(&body))
            .await
    }

    pub async fn log_in(&self, name: &str, password: &str) -> String {
        let body = json!({"identifier": name, "password": password});
        let request = self.http.post(format!("{}/v1/sessions", self.url)).json(&body);
        let session = self.send(request).await.expect(200);
        session["access_token"].as_str().unwrap().to_owned()
    }

    /// Puts a product on sale, at a price in cents.
    pub async fn sells(&self, sku: &str, price: i64, units: i64) {
        let business = self
            .operator_posts("/v1/businesses", json!({"name": "Shop"}))
            .await;
        let business = business.expect(201);
        let product = json!({
            "business_id": business["id"], "name": format!("Product {sku}"), "sku": sku,
            "price": {"amount": price, "currency": "EUR"},
        });
        self.operator_posts("/v1/products", product).await.expect(201);
        let path = format!("/v1/stock/{sku}/adjustments");
        let delivery = json!({"delta": units, "reason": "delivery"});
        self.operator_posts(&path, delivery).await.expect(201);
    }

    pub async fn available(&self, sku: &str) -> i64 {
        let stock = self.operator_gets(&format!("/v1/stock/{sku}")).await.expect(200);
        stock["available"].as_i64().unwrap()
    }

    /// The customer orders one unit.
    pub async fn order(&self, sku: &str) -> Order<'_> {
        let body = json!({
            "lines": [{"sku": sku, "quantity": 1}],
            "shipping_address": {"name": "Ada", "line1": "1 Main Street", "city": "Oslo", "country": "NO"},
        });
        let order = self.post("/v1/orders", body).await.expect(201);
        assert_eq!(order["status"], "awaiting_payment");
        Order {
            shop: self,
            id: order["id"].as_str().unwrap().to_owned(),
        }
    }

    /// Orders and starts to pay a new product of this price.
    pub async fn checkout(&self, price: i64) -> (Order<'_>, Payment<'_>) {
        let sku = format!("SKU-{}", self.keys.fetch_add(1, Ordering::Relaxed));
        self.sells(&sku, price, 5).await;
        let order = self.order(&sku).await;
        let payment = order.pay().await;
        (order, payment)
    }
}

impl<'a> Order<'a> {
    /// Of something beneath it.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/orders/{}{rest}", self.id)
    }

    pub async fn now(&self) -> Value {
        self.shop.get(&self.path("")).await.expect(200)
    }

    pub async fn status(&self) -> String {
        self.now().await["status"].as_str().unwrap().to_owned()
    }

    /// Waits until the order and its payments are in these states.
    pub async fn becomes(&self, status: &str, payment_status: &str) -> Value {
        let wanted = format!("order {status}, payment {payment_status}");
        eventually(&wanted, async || {
            let order = self.now().await;
            if order["status"] == status && order["payment_status"] == payment_status {
                Ok(order)
            } else {
                Err(order.to_string())
            }
        })
        .await
    }

    /// What the timeline names, the oldest first.
    pub async fn timeline(&self) -> Vec<String> {
        let events = self.shop.get(&self.path("/events")).await.expect(200);
        let events = events["data"].as_array().or(events.as_array()).unwrap();
        let kind = |event: &Value| event["kind"].as_str().unwrap().to_owned();
        events.iter().map(kind).collect()
    }

    pub async fn pay(&self) -> Payment<'a> {
        self.pay_by(json!({"account": "mock"})).await
    }

    pub async fn pay_manually(&self) -> Payment<'a> {
        self.pay_by(json!({"account": "mock", "capture": "manual"})).await
    }

    pub async fn pay_by(&self, how: Value) -> Payment<'a> {
        let started = self.shop.post(&self.path("/payments"), how).await.expect(201);
        Payment {
            shop: self.shop,
            id: started["id"].as_str().unwrap().to_owned(),
            started,
        }
    }
}

impl Payment<'_> {
    pub async fn now(&self) -> Value {
        let path = format!("/v1/payments/{}", self.id);
        self.shop.operator_gets(&path).await.expect(200)
    }

    pub async fn becomes(&self, status: &str) -> Value {
        eventually(&format!("payment {status}"), async || {
            let payment = self.now().await;
            if payment["status"] == status {
                Ok(payment)
            } else {
                Err(payment.to_string())
            }
        })
        .await
    }

    /// Waits until so many minor units came and went.
    pub async fn moves(&self, captured: i64, refunded: i64) -> Value {
        eventually(&format!("{captured} captured, {refunded} refunded"), async || {
            let payment = self.now().await;
            if payment["captured"] == captured && payment["refunded"] == refunded {
                Ok(payment)
            } else {
                Err(payment.to_string())
            }
        })
        .await
    }

    /// Sends the form of the bank's page.
    pub async fn press(&self, form: &[(&str, &str)]) -> Answer {
        let url = self.started["next_action"]["url"].as_str().unwrap();
        self.shop.send(self.shop.http.post(url).body(encoded(form))).await
    }

    pub async fn approve(&self) {
        self.press(&[("decision", "approve")]).await.expect(200);
    }

    pub async fn decline(&self) {
        self.press(&[("decision", "decline")]).await.expect(200);
    }

    /// The customer comes back to the shop.
    pub async fn complete(&self) -> Value {
        let path = format!("/v1/payments/{}/complete", self.id);
        self.shop.post(&path, json!({})).await.expect(200)
    }

    pub async fn capture(&self, body: Value) -> Value {
        let path = format!("/v1/payments/{}/capture", self.id);
        self.shop.operator_posts(&path, body).await.expect(200)
    }

    pub async fn cancel(&self) -> Value {
        let path = format!("/v1/payments/{}/cancel", self.id);
        self.shop.operator_posts(&path, json!({})).await.expect(200)
    }

    pub async fn refund(&self, body: Value) -> Value {
        let path = format!("/v1/payments/{}/refunds", self.id);
        self.shop.operator_posts(&path, body).await.expect(201)
    }

    pub async fn review(&self, decision: &str) -> Answer {
        let path = format!("/v1/admin/payments/{}/review", self.id);
        self.shop
            .operator_posts(&path, json!({"decision": decision}))
            .await
    }

    /// What the bank's API says of it.
    pub async fn at_bank(&self) -> Value {
        self.shop.bank_payment(&self.id).await.expect(200)
    }
}

pub fn euros(cents: i64) -> Value {
    json!({"amount": {"amount": cents, "currency": "EUR"}})
}

fn encoded(form: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish()
}
