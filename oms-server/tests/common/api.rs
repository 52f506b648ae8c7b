//! Requests, as a client sends them that must know how they ended.

use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::server::client;

/// Longer than the server makes a retried payment wait.
const TIMEOUT: Duration = Duration::from_secs(20);

/// After so long without an answer the server is not coming back.
const PATIENCE: Duration = Duration::from_secs(90);

/// One client with its connections.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The server says that the key was used before.
    pub(crate) replayed: bool,
    /// It is a problem document that says when to come back.
    pub(crate) says_later: bool,
    pub(crate) body: Value,
    /// How often the request was sent.
    pub(crate) sends: u32,
    /// When the request that was answered was sent.
    pub(crate) sent: Instant,
    /// How long that answer took.
    pub(crate) took: Duration,
}

impl Api {
    /// Somebody who is not signed in.
    pub(crate) fn anonymous(base: &str) -> Self {
        Self {
            http: client(),
            base: base.into(),
            token: String::new(),
        }
    }

    pub(crate) async fn log_in(base: &str, username: &str, password: &str) -> Self {
        let api = Self::anonymous(base);
        let body = json!({"identifier": username, "password": password});
        let session = api.post("/v1/sessions", None, &body).await.expect(200);
        api.signed_in(session["access_token"].as_str().unwrap())
    }

    pub(crate) fn signed_in(mut self, token: &str) -> Self {
        self.token = token.into();
        self
    }

    /// The same person at another address.
    pub(crate) fn at(&self, base: &str) -> Self {
        Self::anonymous(base).signed_in(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.insist(|| self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, key: Option<&str>, body: &Value) -> Answer {
        self.insist(|| self.posting(path, key, body)).await
    }

    /// One try, whatever comes of it.
    pub(crate) async fn try_get(&self, path: &str) -> reqwest::Result<Answer> {
        send(self.request(Method::GET, path)).await
    }

    /// One try, whatever comes of it.
    pub(crate) async fn try_post(
        &self,
        path: &str,
        key: Option<&str>,
        body: &Value,
    ) -> reqwest::Result<Answer> {
        send(self.posting(path, key, body)).await
    }

    pub(crate) async fn try_delete(&self, path: &str) -> reqwest::Result<Answer> {
        send(self.request(Method::DELETE, path)).await
    }

    /// Presses the approving button of the bank's page.
    pub(crate) async fn approve(&self, page: &str) -> Answer {
        let request = || {
            self.http
                .post(page)
                .header("content-type", "application/x-www-form-urlencoded")
                .body("decision=approve")
        };
        self.insist(request).await
    }

    fn posting(&self, path: &str, key: Option<&str>, body: &Value) -> RequestBuilder {
        let request = self.request(Method::POST, path).json(body);
        match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match self.token.as_str() {
            "" => request,
            token => request.bearer_auth(token),
        }
    }

    /// The same request again and again until there is an answer: none, or 503, says "later, with the same key".
    async fn insist(&self, request: impl Fn() -> RequestBuilder) -> Answer {
        let first = Instant::now();
        let mut sends = 0;
        loop {
            sends += 1;
            if let Ok(answer) = send(request()).await
                && answer.status != 503
            {
                return Answer { sends, ..answer };
            }
            assert!(
                first.elapsed() < PATIENCE,
                "no answer in {} s",
                PATIENCE.as_secs()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{:#}", self.body);
        self.body
    }
}

/// An answer that broke off is none.
async fn send(request: RequestBuilder) -> reqwest::Result<Answer> {
    let sent = Instant::now();
    let response = request.timeout(TIMEOUT).send().await?;
    let headers = response.headers();
    let answer = Answer {
        status: response.status().as_u16(),
        replayed: headers.contains_key("idempotency-replayed"),
        says_later: headers.contains_key(RETRY_AFTER)
            && headers
                .get(CONTENT_TYPE)
                .is_some_and(|kind| kind == "application/problem+json"),
        body: Value::Null,
        sends: 1,
        sent,
        took: Duration::ZERO,
    };
    let text = response.text().await?;
    // The bank's page is no JSON.
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    let took = sent.elapsed();
    Ok(Answer { body, took, ..answer })
}
