//! The bank on a real port, with a merchant that listens on another.

mod faults;
mod story;

use super::{Bank, BankConfig, Timing};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use poem::http::{HeaderMap, StatusCode};
use poem::listener::{Acceptor as _, Listener as _, TcpListener};
use poem::web::Data;
use poem::{Endpoint, EndpointExt as _, Route, Server, handler};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

const API_KEY: &str = "test-key-0123456789";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const TIMING: Timing = Timing {
    faults: super::faults::Delays {
        follow_up_ms: 100,
        hold_back_ms: 300,
    },
    withhold: Duration::from_secs(60),
    slow: Duration::from_millis(300),
    first_retry: Duration::from_millis(20),
};

/// A bank and a merchant. Both stop when it is dropped; the file stays with `folder`.
struct Town {
    base: String,
    hook: String,
    merchant: Arc<Merchant>,
    client: reqwest::Client,
    bank: Bank,
    folder: tempfile::TempDir,
    _stop: DropGuard,
}

/// What the merchant was told, and what it answers; 204 when nothing is said.
#[derive(Default)]
struct Merchant {
    told: Mutex<Vec<Told>>,
    answers: Mutex<VecDeque<u16>>,
}

#[derive(Debug, Clone)]
struct Told {
    id: String,
    body: Value,
    genuine: bool,
    /// Seconds between signing and arrival.
    age: i64,
}

impl Told {
    fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap()
    }
}

impl Town {
    async fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap()).await
    }

    /// With a file that may hold payments already.
    async fn on(folder: tempfile::TempDir) -> Self {
        let stop = CancellationToken::new();
        let merchant = Arc::new(Merchant::default());
        let shop = Route::new().at("/hook", poem::post(listen).data(Arc::clone(&merchant)));
        let shop = serve(stop.clone(), |_| async { shop }).await;
        let (mut opened, database) = (None, folder.path().join("bank.db"));
        let base = serve(stop.clone(), |address| {
            let opened = &mut opened;
            async move {
                let bank = Bank::open_with(
                    BankConfig {
                        database,
                        public_url: format!("{address}/mock-gateway/"),
                        internal: None,
                        api_key: API_KEY.into(),
                        webhook_secret: SECRET.into(),
                    },
                    TIMING,
                )
                .await
                .unwrap();
                let routes = Route::new().nest("/mock-gateway", bank.routes());
                *opened = Some(bank);
                routes
            }
        })
        .await;
        let bank = opened.unwrap();
        let (deliverer, until) = (bank.clone(), stop.clone());
        tokio::spawn(async move { deliverer.deliver(until).await });
        Self {
            base: format!("{base}/mock-gateway"),
            hook: format!("{shop}/hook"),
            merchant,
            client: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(Duration::from_secs(20))
                .build()
                .unwrap(),
            bank,
            folder,
            _stop: stop.drop_guard(),
        }
    }

    fn request(&self, amount: i64) -> Value {
        json!({
            "merchant_payment_id": "pay_1", "order_number": "1001", "amount": amount,
            "currency": "EUR", "exponent": 2, "capture": "automatic", "description": "Two <b>mugs</b>",
            "return_url": "http://shop.test/back?a=1", "webhook_url": self.hook,
        })
    }

    fn post(&self, path: &str, key: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/v1/payments{path}", self.base);
        self.client
            .post(url)
            .bearer_auth(API_KEY)
            .header("idempotency-key", key)
    }

    async fn change(&self, path: &str, key: &str, body: &Value) -> (u16, Value) {
        answer(self.post(path, key).json(body)).await
    }

    async fn start(&self, amount: i64) -> Value {
        let (status, payment) = self.change("", "start-1", &self.request(amount)).await;
        assert_eq!(status, 201, "{payment}");
        payment
    }

    async fn find(&self) -> Value {
        let url = format!("{}/v1/payments?merchant_payment_id=pay_1", self.base);
        let (status, payment) = answer(self.client.get(url).bearer_auth(API_KEY)).await;
        assert_eq!(status, 200, "{payment}");
        payment
    }

    async fn decide(&self, payment: &Value, form: &[(&str, &str)]) -> reqwest::Response {
        let url = payment["redirect_url"].as_str().unwrap();
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        self.client.post(url).body(form).send().await.unwrap()
    }

    /// Started and approved on the page.
    async fn paid(&self, amount: i64) -> Value {
        let payment = self.start(amount).await;
        let response = self.decide(&payment, &[("decision", "approve")]).await;
        assert_eq!(response.status(), 303);
        payment
    }

    /// Waits until the merchant was told this often.
    async fn told(&self, times: usize) -> Vec<Told> {
        let started = Instant::now();
        loop {
            let told = self.merchant.told.lock().unwrap().clone();
            if told.len() >= times {
                assert_eq!(told.len(), times, "{told:#?}");
                return told;
            }
            let waited = started.elapsed();
            assert!(waited < Duration::from_secs(10), "only {told:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Nothing more comes for longer than any fault holds a webhook back.
    async fn told_in_all(&self, times: usize) -> Vec<Told> {
        self.told(times).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.told(times).await
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// Serves on a free port and answers with `http://127.0.0.1:<port>`.
async fn serve<E, F>(stop: CancellationToken, make: impl FnOnce(String) -> F) -> String
where
    E: Endpoint + 'static,
    F: Future<Output = E>,
{
    let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.unwrap();
    let address = acceptor.local_addr()[0].as_socket_addr().copied().unwrap();
    let address = format!("http://{address}");
    let endpoint = make(address.clone()).await;
    let server = Server::new_with_acceptor(acceptor);
    tokio::spawn(async move {
        let until = stop.cancelled_owned();
        server
            .run_with_graceful_shutdown(endpoint, until, Some(Duration::ZERO))
            .await
    });
    address
}

#[handler]
async fn listen(merchant: Data<&Arc<Merchant>>, headers: &HeaderMap, body: String) -> StatusCode {
    let header = |name: &str| headers[name].to_str().unwrap();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let key = BASE64.decode(SECRET.trim_start_matches("whsec_")).unwrap();
    let mac = hmac_sha256(&key, format!("{id}.{timestamp}.{body}").as_bytes());
    let told = Told {
        id: id.into(),
        genuine: header("webhook-signature") == format!("v1,{}", BASE64.encode(mac)),
        age: super::now_ms() / 1000 - timestamp.parse::<i64>().unwrap(),
        body: serde_json::from_str(&body).unwrap(),
    };
    merchant.told.lock().unwrap().push(told);
    let answer = merchant.answers.lock().unwrap().pop_front();
    StatusCode::from_u16(answer.unwrap_or(204)).unwrap()
}

/// RFC 2104 by hand, so that the bank is not checked with the code it signs with.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}
