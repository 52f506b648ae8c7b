//! The bank's side: its books, the webhooks that it could send, and how both books are compared.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use oms_core::{Actor, Clock as _, SystemClock};
use serde_json::{Value, json};
use sha2::Sha256;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use super::verbs::Answer;
use super::{Payment, Shop, eventually};

/// Of the account `other`.
pub const OTHER_SECRET: &str = "whsec_b3RoZXItc2VjcmV0LW9mLXRoZS1vdGhlci1hY2NvdW50";

/// A webhook to be sent, signed as the bank signs.
#[derive(Clone)]
pub struct Webhook {
    pub account: String,
    pub id: String,
    pub body: String,
    pub secret: String,
    /// Seconds from now.
    pub shift: i64,
    pub signed: bool,
}

impl Shop {
    pub fn secret(&self, file: &str) -> String {
        let text = std::fs::read_to_string(self.folder.path().join(file)).unwrap();
        text.trim_end().to_owned()
    }

    /// By the shop's id of the payment.
    pub async fn bank_payment(&self, id: &str) -> Answer {
        let url = format!("{}/mock-gateway/v1/payments?merchant_payment_id={id}", self.url);
        let request = self.http.get(url).bearer_auth(self.secret("mock-api.key"));
        self.send(request).await
    }

    /// Every payment that the bank has, read from its file past its answers, which may be slow on purpose.
    pub async fn bank_books(&self) -> Vec<Value> {
        let file = self.folder.path().join("mock-gateway.db");
        let mut connection = SqliteConnectOptions::new()
            .filename(file)
            .read_only(true)
            .connect()
            .await
            .unwrap();
        let rows: Vec<(String,)> = sqlx::query_as("SELECT document FROM payment")
            .fetch_all(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        let read = |(document,): &(String,)| serde_json::from_str(document).unwrap();
        rows.iter().map(read).collect()
    }

    /// Posts a webhook as it is.
    pub async fn deliver(&self, webhook: &Webhook) -> Answer {
        self.send(webhook.request(self)).await
    }

    /// Events in the inbox, the newest first.
    pub async fn inbox(&self) -> Vec<Value> {
        let page = self
            .operator_gets("/v1/admin/webhooks?limit=100")
            .await
            .expect(200);
        page["data"].as_array().unwrap().clone()
    }

    /// Waits until there are so many events, and a moment more in which there must be no other.
    pub async fn inbox_of(&self, count: usize) -> Vec<Value> {
        let wanted = format!("{count} events in the inbox");
        let found = eventually(&wanted, async || {
            let inbox = self.inbox().await;
            if inbox.len() >= count {
                Ok(inbox)
            } else {
                Err(format!("{inbox:?}"))
            }
        });
        found.await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let inbox = self.inbox().await;
        assert_eq!(inbox.len(), count, "{inbox:?}");
        inbox
    }

    /// The shop's own books are right, it says the same as the bank of each payment, and no order was charged twice.
    pub async fn check_books(&self) {
        let violations = self.oms.verify(&Actor::System).await.unwrap();
        assert_eq!(violations, Vec::<String>::new());
        let mut charged = BTreeMap::<String, i64>::new();
        for at_bank in self.bank_books().await {
            let id = at_bank["merchant_payment_id"].as_str().unwrap();
            let path = format!("/v1/payments/{id}");
            let here = self.operator_gets(&path).await.expect(200);
            for total in ["captured", "refunded"] {
                assert_eq!(here[total], at_bank[total], "{total} of\n{here:#}\n{at_bank:#}");
            }
            if at_bank["captured"].as_i64() > at_bank["refunded"].as_i64() {
                *charged
                    .entry(here["order_id"].as_str().unwrap().to_owned())
                    .or_default() += 1;
            }
        }
        for (order, times) in charged {
            assert_eq!(times, 1, "{order} was charged more than once");
        }
    }
}

impl Payment<'_> {
    /// What the bank would tell of this payment if it stood like that.
    pub async fn webhook(&self, id: &str, kind: &str, status: &str, captured: i64) -> Webhook {
        let mut payment = self.at_bank().await;
        payment["status"] = json!(status);
        payment["authorized"] = payment["amount"].clone();
        payment["captured"] = json!(captured);
        let body = json!({
            "id": id,
            "type": kind,
            "created_at_ms": SystemClock.now().as_millis(),
            "data": {"payment": payment},
        });
        Webhook {
            account: "mock".into(),
            id: id.into(),
            body: body.to_string(),
            secret: self.shop.secret("mock-webhook.key"),
            shift: 0,
            signed: true,
        }
    }
}

impl Webhook {
    fn request(&self, shop: &Shop) -> reqwest::RequestBuilder {
        let url = format!("{}/v1/webhooks/{}", shop.url, self.account);
        let at = SystemClock.now().as_secs() + self.shift;
        let request = shop.http.post(url).body(self.body.clone());
        if !self.signed {
            return request.header("content-type", "application/json");
        }
        request
            .header("content-type", "application/json")
            .header("webhook-id", &self.id)
            .header("webhook-timestamp", at)
            .header("webhook-signature", self.signature(at))
    }

    fn signature(&self, at: i64) -> String {
        let key = BASE64
            .decode(self.secret.strip_prefix("whsec_").unwrap())
            .unwrap();
        let mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        let mac = mac.chain_update(format!("{}.{at}.{}", self.id, self.body));
        format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
    }

    /// Posts it with a body that was changed after it was signed.
    pub async fn tampered(&self, shop: &Shop) -> Answer {
        let request = self.request(shop);
        shop.send(request.body(self.body.replacen("\"amount\":", "\"amount\":1", 1)))
            .await
    }
}
