//! The compiled program as operators meet it, on a database of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::each_db;
use crate::common::server::{Server, client};

/// For what happens in the background, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A password that the test's PostgreSQL does not ask for, so that every URL may hold it.
pub const DATABASE_PASSWORD: &str = "database-password-3f9a";

pub struct Program {
    pub url: String,
    pub client: reqwest::Client,
    server: Server,
}

pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, status: u16) -> serde_json::Value {
        assert_eq!(self.status, status, "{}", self.text);
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// Plays a story on both databases; it is given the URL of an empty one.
pub async fn on_both(story: impl AsyncFn(&str)) {
    each_db::on_sqlite(async |_, url| story(url).await).await;
    on_postgres(story).await;
}

/// Plays a story on an empty database of the test's PostgreSQL.
pub async fn on_postgres(story: impl AsyncFn(&str)) {
    each_db::on_postgres(async |_, url| {
        let mut url = url::Url::parse(url).unwrap();
        url.set_password(Some(DATABASE_PASSWORD)).unwrap();
        story(url.as_str()).await;
    })
    .await;
}

impl Program {
    /// Starts `serve` in this folder, which may hold an accounts file, and waits until it is ready.
    pub async fn start(folder: &Path, database_url: &str, variables: &[(&str, &str)]) -> Self {
        share_compiled_plugins(folder);
        let mut server = Server::new(folder, database_url).with_all(variables);
        server.start().await;
        Self {
            url: server.url.clone(),
            client: client(),
            server,
        }
    }

    pub fn log(&self) -> String {
        self.server.logged()
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.timeout(Duration::from_secs(40)).send().await.unwrap();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await.unwrap(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.client.get(format!("{}{path}", self.url))).await
    }

    /// Asks it to stop and waits for its end; how long that took.
    pub async fn stop(mut self) -> (Duration, String) {
        let started = Instant::now();
        let ended = self.server.terminate(PATIENCE).await;
        assert!(ended.success(), "{ended}");
        (started.elapsed(), self.log())
    }
}

/// Asks until there is an answer.
pub async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(seen) if Instant::now() > end => panic!("waited in vain for {what}: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Compiling the plugin takes longer than most stories.
fn share_compiled_plugins(data_dir: &Path) {
    let shared = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled-plugins");
    std::fs::create_dir_all(&shared).unwrap();
    let link = data_dir.join("cache");
    if !link.exists() {
        std::os::unix::fs::symlink(shared, link).unwrap();
    }
}
