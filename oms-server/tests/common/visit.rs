//! What a visitor does at a server that is a process: registers, logs in.

use std::fs;

use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::database::PASSWORD;
use super::server::Server;

impl Server {
    /// Registers somebody, which is a job for a worker: a mail.
    pub(crate) async fn register(&self, name: &str) {
        let body = json!({"username": name, "email": format!("{name}@example.com"), "password": PASSWORD});
        let answer = self.request(Method::POST, "/v1/users").json(&body).send().await;
        expect(answer.unwrap(), 201).await;
    }

    pub(crate) async fn log_in(&self, name: &str, password: &str) -> String {
        let body = json!({"identifier": name, "password": password});
        let request = self.request(Method::POST, "/v1/sessions").json(&body);
        let session = expect(request.send().await.unwrap(), 200).await;
        session["access_token"].as_str().unwrap().to_owned()
    }

    /// The administrator that a development server makes.
    pub(crate) async fn administrator(&self) -> String {
        let kept = fs::read_to_string(self.folder.join("admin.txt")).unwrap();
        let password = kept
            .lines()
            .find_map(|line| line.strip_prefix("password: "))
            .unwrap();
        self.log_in("admin", password).await
    }
}

/// The JSON of an answer with this status.
pub(crate) async fn expect(answer: Response, status: u16) -> Value {
    let found = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(found, status, "{text}");
    serde_json::from_str(&text).unwrap_or(Value::Null)
}
