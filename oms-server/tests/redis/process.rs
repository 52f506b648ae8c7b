//! Servers and workers of one shop, each in a folder of its own.

use std::fs;
use std::ops::Deref;
use std::time::{Duration, Instant, UNIX_EPOCH};

use oms_core::Timestamp;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use crate::common::server::Server;

/// What every process of a shop is told.
pub(crate) struct Shop {
    pub(crate) database_url: String,
    pub(crate) redis_url: String,
    pub(crate) variables: Vec<(&'static str, &'static str)>,
}

pub(crate) struct Process {
    server: Server,
    /// After its server, which logs there.
    _folder: tempfile::TempDir,
}

impl Shop {
    /// `serve` with these arguments, once it is ready.
    pub(crate) async fn serve(&self, args: &[&str]) -> Process {
        let mut process = self.spawn("serve", args);
        process.server.ready().await;
        process
    }

    /// `worker`, which has no address.
    pub(crate) fn worker(&self) -> Process {
        self.spawn("worker", &[])
    }

    fn spawn(&self, command: &str, args: &[&str]) -> Process {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::new(folder.path(), &self.database_url)
            .without_plugins()
            .with("REDIS_URL", &self.redis_url)
            .with("SECRET_KEY", "shared by all the servers of one shop")
            .with_all(&self.variables);
        server.spawn(&[&[command], args].concat());
        Process {
            server,
            _folder: folder,
        }
    }
}

impl Deref for Process {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Process {
    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    /// How long after this time the mail to this user was written here, if it was.
    pub(crate) fn mailed(&self, name: &str, since: Timestamp) -> Option<Duration> {
        let end = format!("-verify-{name}@example.com.eml");
        let mails = fs::read_dir(self.folder.join("mail")).ok()?;
        let mut mails = mails.map(|mail| mail.unwrap().path());
        let mail = mails.find(|path| path.to_str().unwrap().ends_with(&end))?;
        let at = fs::metadata(mail)
            .unwrap()
            .modified()
            .unwrap()
            .duration_since(UNIX_EPOCH)
            .unwrap();
        let since = u64::try_from(since.as_micros()).unwrap();
        Some(at.saturating_sub(Duration::from_micros(since)))
    }

    /// What it says of Redis. It is ready whatever that is.
    pub(crate) async fn redis(&self) -> String {
        let answer = self.get("/readyz").await;
        assert_eq!(answer.status(), StatusCode::OK);
        let text = answer.text().await.unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix("redis: "))
            .unwrap()
            .to_owned()
    }

    /// Waits until it says so of Redis; how long that took.
    pub(crate) async fn until_redis_is(&self, state: &str) -> Duration {
        let since = Instant::now();
        while self.redis().await != state {
            assert!(
                since.elapsed() < Duration::from_secs(20),
                "Redis did not become {state}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        since.elapsed()
    }

    /// Lines of its log with this word.
    pub(crate) fn log_of(&self, word: &str) -> Vec<String> {
        let log = self.logged();
        let lines = log.lines().filter(|line| line.contains(word));
        lines.map(ToOwned::to_owned).collect()
    }
}

/// A problem document, and the headers of a refusal.
pub(crate) async fn refused(answer: Response) -> Value {
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/problem+json");
    assert!(header("retry-after").parse::<u64>().unwrap() >= 1);
    let (state, policy) = (header("ratelimit"), header("ratelimit-policy"));
    assert!(
        state.contains(";r=0;t=") && policy.contains(";q="),
        "{state} {policy}"
    );
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["code"], "rate_limited", "{problem}");
    problem
}
