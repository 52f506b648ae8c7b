//! A shop of the same parts as `oms-server serve`, whose clock can be moved. [`on_both`] hands a story one on each
//! database and closes it afterwards, which checks all books.

mod books;
mod verbs;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use oms_core::users::Register;
use oms_core::{Actor, Clock, Oms, Roles, SystemClock, Timestamp};
use oms_server::config::{Config, Options};
use oms_server::{http, setup};
use poem::Server;
use poem::listener::{Acceptor, Listener, TcpListener};
use reqwest::Client;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fresh::with_postgres;

pub use books::{OTHER_SECRET, Webhook};
pub use verbs::{Order, Payment, euros};

/// For what happens in the background, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse battery";

/// The plugin of most stories, in Rust, which was written for the bank.
pub const MOCK: &str = "mock";

/// What a story wants to be different.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The plugin that talks to the bank: [`MOCK`], an example in another language, or one that learns from settings how to.
    pub plugin: &'static str,
    /// How long the plugin waits for the bank.
    pub timeout_ms: u32,
    /// How far a webhook's time may be off; a story that moves the shop's clock moves it away from the bank's.
    pub tolerance_seconds: u32,
    /// Without one, jobs run only when the story says [`Shop::work`].
    pub worker: bool,
    /// Whether the accounts have their plugin's calls recorded.
    pub record: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            plugin: MOCK,
            timeout_ms: 10_000,
            tolerance_seconds: 300,
            worker: true,
            record: false,
        }
    }
}

/// The system's time, and how far the story has moved it.
#[derive(Debug, Clone, Default)]
struct ShopClock(Arc<AtomicI64>);

impl Clock for ShopClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(SystemClock.now().as_micros() + self.0.load(Ordering::SeqCst))
    }
}

pub struct Shop {
    pub url: String,
    pub oms: Oms,
    pub http: Client,
    /// The customer's and the operator's access tokens; the operator sells too.
    customer: Mutex<String>,
    operator: Mutex<String>,
    clock: ShopClock,
    folder: tempfile::TempDir,
    keys: AtomicU32,
    stop: CancellationToken,
    parts: Vec<JoinHandle<()>>,
}

/// Plays the story on both databases at once: most of its time is waiting.
pub async fn on_both(terms: Terms, story: impl AsyncFn(&Shop)) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let on_sqlite = async {
        play(None, terms, &story).await;
        println!("right on SQLite");
    };
    let on_postgres = async {
        with_postgres(async |url| play(Some(url.to_owned()), terms, &story).await).await;
        println!("right on PostgreSQL");
    };
    tokio::join!(on_sqlite, on_postgres);
}

async fn play(database_url: Option<String>, terms: Terms, story: &impl AsyncFn(&Shop)) {
    let shop = Shop::start(database_url, terms).await;
    story(&shop).await;
    shop.close().await;
}

impl Shop {
    async fn start(database_url: Option<String>, terms: Terms) -> Self {
        let folder = tempfile::tempdir().unwrap();
        share_compiled_plugins(folder.path());
        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.unwrap();
        let url = format!("http://{}", acceptor.local_addr()[0].as_socket_addr().unwrap());
        let options = Options {
            data_dir: Some(folder.path().to_str().unwrap().into()),
            database_url,
            plugin_dir: Some(plugins(folder.path(), terms.plugin)),
            ..Options::default()
        };
        let config = Config::new(&options, |_| None).unwrap();
        // The bank first: it makes the secrets that the accounts name.
        let bank = setup::bank(&config, &format!("{url}/mock-gateway"))
            .await
            .unwrap();
        let accounts = accounts(&folder, &url, terms);
        std::fs::write(folder.path().join("accounts.toml"), accounts).unwrap();
        let clock = ShopClock::default();
        let builder = setup::builder(&config, &url).unwrap().clock(clock.clone());
        let oms = setup::connect(builder).await.unwrap();
        setup::load_plugins(&config, &oms).await.unwrap();
        let state = setup::state(&config, oms.clone(), None).unwrap();

        let stop = CancellationToken::new();
        let app = http::app(state, bank.as_ref().map(oms_server::Bank::routes));
        let serve = Server::new_with_acceptor(acceptor).run_with_graceful_shutdown(
            app,
            stop.clone().cancelled_owned(),
            Some(Duration::from_secs(5)),
        );
        let (bank, stopped) = (bank.unwrap(), stop.clone());
        let mut parts = vec![
            tokio::spawn(async move { serve.await.unwrap() }),
            tokio::spawn(async move { bank.deliver(stopped).await }),
        ];
        if terms.worker {
            let (oms, stopped) = (oms.clone(), stop.clone());
            parts.push(tokio::spawn(
                async move { oms.worker().run(stopped).await.unwrap() },
            ));
        }
        let shop = Self {
            url,
            oms,
            http: Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
            customer: Mutex::default(),
            operator: Mutex::default(),
            clock,
            folder,
            keys: AtomicU32::new(0),
            stop,
            parts,
        };
        shop.make_users().await;
        shop
    }

    /// A file of its data folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Moves the shop's clock, not the bank's.
    pub async fn later(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap();
        self.clock.0.fetch_add(micros, Ordering::SeqCst);
        // Their tokens may be too old by now.
        self.log_everybody_in().await;
    }

    /// Runs the jobs that are due, where no worker does.
    pub async fn work(&self) {
        self.oms.worker().drain().await.unwrap();
    }

    /// Ends everything, and checks that the shop's books are right and agree with the bank's.
    async fn close(self) {
        self.check_books().await;
        self.stop.cancel();
        for part in self.parts {
            part.await.unwrap();
        }
        self.oms.shutdown().await;
    }

    async fn make_users(&self) {
        let register = |name: &str| Register {
            username: name.into(),
            email: format!("{name}@example.com"),
            password: PASSWORD.into(),
        };
        let users = self.oms.users();
        let operator = users.create_admin(&Actor::System, register("operator"));
        operator.await.unwrap();
        let customer = users.create_admin(&Actor::System, register("customer"));
        let customer = customer.await.unwrap();
        users
            .set_roles(&Actor::System, customer.id, Roles::NONE)
            .await
            .unwrap();
        self.log_everybody_in().await;
    }

    async fn log_everybody_in(&self) {
        *self.customer.lock().await = self.log_in("customer", PASSWORD).await;
        *self.operator.lock().await = self.log_in("operator", PASSWORD).await;
    }
}

/// `mock` is at the fake bank; `other` too, with a secret of its own; at `closed` nobody listens.
fn accounts(folder: &tempfile::TempDir, url: &str, terms: Terms) -> String {
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("other-webhook.key"), OTHER_SECRET).unwrap();
    let settings = match terms.plugin {
        crate::generic::PLUGIN => format!(", {}", crate::generic::SETTINGS.trim().replace('\n', " ")),
        _ => String::new(),
    };
    let account = |name: &str, base: &str, secret: &str| {
        format!(
            "[{name}]\nplugin = \"{}\"\nrecord = {}\ntolerance_seconds = {}\nprivate_grants = [\"{base}\"]\n\
             config = {{ base-url = \"{base}/mock-gateway\", timeout-ms = \"{}\"{settings} }}\n\
             secrets = {{ api-key = \"file:{}\", webhook-secret = \"file:{}\" }}\n\n",
            terms.plugin,
            terms.record,
            terms.tolerance_seconds,
            terms.timeout_ms,
            path("mock-api.key"),
            path(secret),
        )
    };
    [
        account("mock", url, "mock-webhook.key"),
        account("other", url, "other-webhook.key"),
        account("closed", "http://127.0.0.1:1", "mock-webhook.key"),
    ]
    .concat()
}

/// A folder with the one plugin that the shop needs: compiling others would take longer than the story.
fn plugins(data_dir: &std::path::Path, id: &str) -> String {
    let built = variable(match id {
        MOCK | crate::generic::PLUGIN => "OMS_TEST_PLUGIN_DIR",
        _ => "OMS_TEST_EXAMPLES_DIR",
    });
    let dir = data_dir.join("plugins");
    std::fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink(PathBuf::from(built).join(id), dir.join(id)).unwrap();
    dir.to_str().unwrap().into()
}

/// Compiling the plugin takes longer than most stories.
fn share_compiled_plugins(data_dir: &std::path::Path) {
    let shared = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled-plugins");
    std::fs::create_dir_all(&shared).unwrap();
    std::os::unix::fs::symlink(shared, data_dir.join("cache")).unwrap();
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

/// A part that cannot run fails: there is no test without PostgreSQL and the plugins.
#[expect(
    clippy::disallowed_methods,
    reason = "the test command says here where its parts are"
)]
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("set {name}, or run `cargo xtask test`, which does"))
}
