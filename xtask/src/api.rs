//! A small JSON client for the server's API.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use ureq::http::Request;

pub(crate) struct Api {
    agent: ureq::Agent,
    base: String,
    /// Access token of the signed-in user.
    pub(crate) token: Option<String>,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) text: String,
    request: String,
}

impl Api {
    pub(crate) fn new(address: &str) -> Self {
        // The walk judges statuses and redirects itself.
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        Self {
            agent: config.into(),
            base: format!("http://{address}"),
            token: None,
        }
    }

    /// `target` is a path at the server or a whole URL.
    pub(crate) fn get(&self, target: &str) -> Result<Reply> {
        self.send(target, "GET", None, ())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send(
            path,
            "POST",
            Some(("content-type", "application/json")),
            body.to_string(),
        )
    }

    /// Tells the server that a repetition of this request is the same one.
    pub(crate) fn post_once(&self, path: &str, key: &str, body: &Value) -> Result<Reply> {
        let url = self.url(path);
        let request = Request::post(&url)
            .header("content-type", "application/json")
            .header("idempotency-key", key);
        self.finish(request, body.to_string(), format!("POST {url}"))
    }

    /// What a browser sends when a button of the page at `url` is pressed.
    pub(crate) fn press(&self, url: &str, field: &str, value: &str) -> Result<Reply> {
        let form = Some(("content-type", "application/x-www-form-urlencoded"));
        self.send(url, "POST", form, format!("{field}={value}"))
    }

    fn send(
        &self,
        target: &str,
        method: &str,
        header: Option<(&str, &str)>,
        body: impl ureq::AsSendBody,
    ) -> Result<Reply> {
        let url = self.url(target);
        let mut request = Request::builder().method(method).uri(&url);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        self.finish(request, body, format!("{method} {url}"))
    }

    fn finish(
        &self,
        mut request: ureq::http::request::Builder,
        body: impl ureq::AsSendBody,
        description: String,
    ) -> Result<Reply> {
        // Pages outside the API, such as the bank's, must not see the token.
        let ours = description.contains(&format!(" {}/v1/", self.base));
        if let Some(token) = self.token.as_ref().filter(|_| ours) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response = self
            .agent
            .run(request.body(body)?)
            .with_context(|| description.clone())?;
        let text = response
            .body_mut()
            .read_to_string()
            .with_context(|| description.clone())?;
        Ok(Reply {
            status: response.status().as_u16(),
            text,
            request: description,
        })
    }

    fn url(&self, target: &str) -> String {
        if target.starts_with('/') {
            format!("{}{target}", self.base)
        } else {
            target.to_owned()
        }
    }
}

impl Reply {
    /// The JSON body (null when there is none) of a reply with exactly this status.
    pub(crate) fn expect(self, status: u16) -> Result<Value> {
        if self.status != status {
            bail!(
                "{} answered {} instead of {status}:\n{}",
                self.request,
                self.status,
                self.text
            );
        }
        if self.text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&self.text)
            .with_context(|| format!("{} did not answer JSON:\n{}", self.request, self.text))
    }

    /// The text of a page: any status below 400.
    pub(crate) fn expect_page(self) -> Result<String> {
        if self.status >= 400 {
            bail!("{} answered {}:\n{}", self.request, self.status, self.text);
        }
        Ok(self.text)
    }
}

/// The text at a JSON pointer.
pub(crate) fn text(value: &Value, pointer: &str) -> Result<String> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .with_context(|| missing(value, pointer))
}

/// The whole number at a JSON pointer.
pub(crate) fn number(value: &Value, pointer: &str) -> Result<i64> {
    value
        .pointer(pointer)
        .and_then(Value::as_i64)
        .with_context(|| missing(value, pointer))
}

/// The list of a page `{"data": [..]}`.
pub(crate) fn data(value: &Value) -> Result<&Vec<Value>> {
    value["data"].as_array().with_context(|| missing(value, "/data"))
}

fn missing(value: &Value, pointer: &str) -> String {
    format!("the answer has no {pointer} of the right kind:\n{value:#}")
}
