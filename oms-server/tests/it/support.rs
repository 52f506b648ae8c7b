//! A server of the same parts as `oms-server serve`, for each database a fresh one, and the verbs of its clients.

use std::path::PathBuf;

use oms_core::testing::FakeGateway;
use oms_core::users::Register;
use oms_core::{Actor, Oms};
use oms_server::config::{Config, Options};
use oms_server::{http, setup};
use poem::Server;
use poem::listener::{Acceptor, Listener, TcpListener};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::common::fresh::with_postgres;

pub struct TestServer {
    pub url: String,
    pub oms: Oms,
    /// In the place of the plugin `mock`.
    pub bank: FakeGateway,
    pub client: Client,
    pub data_dir: PathBuf,
}

/// Names and values.
pub type Variables = &'static [(&'static str, &'static str)];

pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl TestServer {
    /// Plays the story on both databases.
    pub async fn each_db(story: impl AsyncFn(TestServer)) {
        Self::each_db_with(&[], story).await;
    }

    /// As [`Self::each_db`], with variables that the server is told.
    pub async fn each_db_with(variables: Variables, story: impl AsyncFn(TestServer)) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        println!("on SQLite");
        play(None, variables, &story).await;

        println!("on PostgreSQL");
        with_postgres(async |url| play(Some(url.to_owned()), variables, &story).await).await;
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        send(self.request(Method::GET, path).bearer_auth(token)).await
    }

    pub async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        send(self.request(Method::POST, path).bearer_auth(token).json(&body)).await
    }

    pub async fn post_once(&self, path: &str, token: &str, key: &str, body: Value) -> Answer {
        let request = self.request(Method::POST, path).bearer_auth(token).json(&body);
        send(request.header("idempotency-key", key)).await
    }

    /// Registers, reads the mail, verifies and logs in: the access token.
    pub async fn customer(&self, name: &str) -> String {
        self.register(name).await.expect(201);
        let token = self.mailed_token(name).await;
        self.post("/v1/users/verify", "", json!({"token": token}))
            .await
            .expect(204);
        self.log_in(name).await["access_token"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub async fn register(&self, name: &str) -> Answer {
        let body =
            json!({"username": name, "email": format!("{name}@example.com"), "password": password(name)});
        self.post("/v1/users", "", body).await
    }

    pub async fn log_in(&self, name: &str) -> Value {
        let body = json!({"identifier": name, "password": password(name)});
        self.post("/v1/sessions", "", body).await.expect(200)
    }

    /// Does what waits to be done and takes the token from the mail to this user.
    pub async fn mailed_token(&self, name: &str) -> String {
        self.oms.worker().drain().await.unwrap();
        let mails = std::fs::read_dir(self.data_dir.join("mail")).unwrap();
        let mut paths: Vec<_> = mails.map(|mail| mail.unwrap().path()).collect();
        paths.retain(|path| {
            path.to_string_lossy()
                .ends_with(&format!("-verify-{name}@example.com.eml"))
        });
        paths.sort();
        let text = std::fs::read_to_string(paths.last().unwrap()).unwrap();
        let link = format!("{}/verify?token=", self.url);
        let line = text.lines().find_map(|line| line.strip_prefix(&link)).unwrap();
        line.trim_end().to_owned()
    }

    pub async fn administrator(&self) -> String {
        let command = Register {
            username: "root".into(),
            email: "root@example.com".into(),
            password: password("root"),
        };
        self.oms
            .users()
            .create_admin(&Actor::System, command)
            .await
            .unwrap();
        self.log_in("root").await["access_token"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// A product of one variant, at 12.99 EUR, with so many units.
    pub async fn product(&self, seller: &str, sku: &str, units: i64) -> Value {
        let business = self
            .post("/v1/businesses", seller, json!({"name": "Shop"}))
            .await
            .expect(201);
        let product = json!({"business_id": business["id"], "name": format!("Product {sku}"), "sku": sku, "price": {"amount": 1299, "currency": "EUR"}});
        let product = self.post("/v1/products", seller, product).await.expect(201);
        let delivery = json!({"delta": units, "reason": "delivery"});
        let path = format!("/v1/stock/{sku}/adjustments");
        self.post_once(&path, seller, &format!("first-{sku}"), delivery)
            .await
            .expect(201);
        product
    }
}

impl Answer {
    /// The JSON body (null when there is none) of an answer with this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        match self.text.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap(),
        }
    }

    /// A problem document with this status and code; whatever else a problem must have is checked too.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        let kind = self.header("content-type").to_owned();
        assert_eq!(kind, "application/problem+json", "{} {}", self.status, self.text);
        let id = self.header("x-request-id").to_owned();
        assert_eq!(self.status == 401, self.headers.contains_key("www-authenticate"));
        if self.status == 503 || self.status == 429 {
            assert!(self.headers.contains_key("retry-after"));
        }
        let problem = self.expect(status);
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["request_id"], id, "{problem}");
        for text in ["type", "title", "detail"] {
            assert!(
                problem[text].as_str().is_some_and(|text| !text.is_empty()),
                "{problem}"
            );
        }
        problem
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map(|value| value.to_str().unwrap())
            .unwrap_or_default()
    }
}

pub async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    Answer {
        status: response.status(),
        headers: response.headers().clone(),
        text: response.text().await.unwrap(),
    }
}

/// Pointers of the parts at fault.
pub fn pointers(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    errors
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect()
}

pub fn password(name: &str) -> String {
    format!("secret of {name}")
}

async fn play(database_url: Option<String>, variables: Variables, story: &impl AsyncFn(TestServer)) {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        data_dir: Some(folder.path().to_str().unwrap().into()),
        database_url,
        ..Options::default()
    };
    let config = Config::new(&options, |name| {
        let found = variables.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    })
    .unwrap();
    let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.unwrap();
    let address = *acceptor.local_addr()[0].as_socket_addr().unwrap();
    let url = format!("http://{address}");
    let bank = FakeGateway::new("mock");
    let builder = setup::builder(&config, &url).unwrap().gateway(bank.clone());
    let oms = setup::connect(builder).await.unwrap();
    let app = http::app(setup::state(&config, oms.clone(), None).unwrap(), None);
    let server = tokio::spawn(Server::new_with_acceptor(acceptor).run(app));
    let client = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    story(TestServer {
        url,
        oms: oms.clone(),
        bank,
        client,
        data_dir: folder.path().into(),
    })
    .await;
    server.abort();
    let violations = oms.verify(&Actor::System).await.unwrap();
    assert!(violations.is_empty(), "{violations:?}");
    oms.shutdown().await;
}
