//! The plugins that the stories load, and how they call them.

use std::cell::RefCell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use oms_core::payments::{
    Account, Call, CaptureMode, Customer, GatewayError, Grant, PaymentGateway, PaymentReport, StartRequest,
    SyncRequest,
};
use oms_core::testing::ManualClock;
use oms_core::{Actor, Money, Oms, OmsBuilder, PaymentId};
use tempfile::TempDir;

use crate::support::START;

/// Where `cargo xtask plugins` puts what it builds.
#[expect(
    clippy::disallowed_methods,
    reason = "the test command says here where it built the plugins"
)]
pub fn plugin_dir() -> PathBuf {
    std::env::var_os("OMS_TEST_PLUGIN_DIR")
        .expect("set OMS_TEST_PLUGIN_DIR to what `cargo xtask plugins` filled, or run `cargo xtask test`, which does")
        .into()
}

/// The same gateway in three languages: `plugins/mock` and `plugins/examples`.
pub const LANGUAGES: [&str; 3] = ["mock", "example-js", "example-python"];

/// The folder that holds a plugin of [`LANGUAGES`].
#[expect(
    clippy::disallowed_methods,
    reason = "the test command says here where it built the plugins"
)]
pub fn dir_of(plugin: &str) -> PathBuf {
    match plugin {
        "mock" => plugin_dir(),
        _ => std::env::var_os("OMS_TEST_EXAMPLES_DIR")
            .expect("set OMS_TEST_EXAMPLES_DIR to what `cargo xtask plugins --examples` filled, or run `cargo xtask test`")
            .into(),
    }
}

/// A folder of its own, so that no server loads it by chance.
pub fn hostile_dir() -> PathBuf {
    plugin_dir().with_file_name("plugins-test")
}

/// The mock plugin's component, as if it were of this version: it says so itself, in a text of the same length.
pub fn mock_of(version: &str) -> Vec<u8> {
    let mut component = std::fs::read(plugin_dir().join("mock/mock.wasm")).unwrap();
    let said = env!("CARGO_PKG_VERSION").as_bytes();
    assert_eq!(version.len(), said.len());
    let places: Vec<_> = (0..component.len() - said.len())
        .filter(|&at| component[at..].starts_with(said))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        component[at..at + said.len()].copy_from_slice(version.as_bytes());
    }
    component
}

/// Whether an error says this. A guest that loops may come to its deadline before it has computed for as long as it may:
/// on a machine that has much else to do.
pub fn says(cause: &str, what: &str) -> bool {
    cause.contains(what) || what.starts_with("computed") && cause.contains("did not answer in time")
}

/// Keeps compiled plugins for all stories: compiling takes most of their time.
pub fn cached(builder: OmsBuilder) -> OmsBuilder {
    builder.cache_dir(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled-plugins"))
}

/// A shop on SQLite with the hostile plugin loaded: what these stories are about does not touch the database.
pub struct Sandbox {
    pub oms: Oms,
    pub clock: ManualClock,
    pub gateway: Arc<dyn PaymentGateway>,
    _folder: TempDir,
}

impl Sandbox {
    pub async fn hostile() -> Self {
        Self::with(&hostile_dir(), "hostile").await
    }

    pub async fn with(dir: &Path, id: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(START);
        let url = format!("sqlite://{}", folder.path().join("oms.db").display());
        let builder = cached(Oms::builder(url)).clock(clock.clone());
        let oms = builder.connect().await.unwrap();
        oms.migrate().await.unwrap();
        // The one plugin alone: compiling the others would take longer than most stories.
        let alone = folder.path().join("plugins");
        std::fs::create_dir(&alone).unwrap();
        std::os::unix::fs::symlink(dir.join(id), alone.join(id)).unwrap();
        oms.plugins().load_dir(&Actor::System, &alone).await.unwrap();
        Self {
            gateway: oms.plugins().gateway(&Actor::System, id).await.unwrap(),
            oms,
            clock,
            _folder: folder,
        }
    }

    /// Starts a payment with an account that tells the hostile plugin what to do.
    pub async fn start(&self, account: &Account) -> Result<PaymentReport, GatewayError> {
        self.gateway.start(account, start_request(&self.oms)).await
    }

    /// What the plugin found out.
    pub async fn found(&self, account: &Account) -> String {
        self.start(account).await.unwrap().state.unwrap()
    }

    /// A call that behaves well.
    pub async fn neighbour(&self) -> Result<(), GatewayError> {
        let request = SyncRequest {
            call: call(&self.oms),
            payment: PaymentId::new(self.oms.now()),
            reference: Some("gw_1".into()),
            state: None,
        };
        let snapshot = self.gateway.sync(&hostile_account("none"), request).await?;
        assert_eq!(snapshot.payment.reference.as_deref(), Some("gw_1"));
        Ok(())
    }
}

pub fn hostile_account(behaviour: &str) -> Account {
    let mut account = Account::new("shop", "hostile");
    account.config.insert("behaviour".into(), behaviour.into());
    account
}

/// An account that asks `url` by this behaviour, with grants of (origin, private).
pub fn asking(behaviour: &str, url: &str, grants: &[(&str, bool)]) -> Account {
    let mut account = hostile_account(behaviour);
    account.config.insert("url".into(), url.into());
    account.config.insert("base-url".into(), url.into());
    account.grants = grants
        .iter()
        .map(|(origin, private)| Grant {
            origin: (*origin).into(),
            private: *private,
        })
        .collect();
    account
}

fn call(oms: &Oms) -> Call {
    Call {
        idempotency_key: "key-1".into(),
        attempt: 1,
        now: oms.now(),
        test_mode: true,
    }
}

pub fn start_request(oms: &Oms) -> StartRequest {
    StartRequest {
        call: call(oms),
        payment: PaymentId::new(oms.now()),
        order_number: "1001".into(),
        amount: Money::new(1_999, "EUR".parse().unwrap()).unwrap(),
        capture: CaptureMode::Automatic,
        instrument: None,
        instrument_data: Vec::new(),
        customer: Customer::default(),
        description: None,
        return_url: None,
        cancel_url: None,
        webhook_url: None,
        off_session: false,
        metadata: Vec::new(),
    }
}

thread_local! {
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What was logged on this thread since it was made: stories run on one thread each.
pub struct Logs(());

impl Logs {
    /// The subscriber is one for the program. One for each thread would be simpler, but then `tracing` may ask a thread
    /// that has none whether anybody is interested, and remember the answer.
    pub fn capture() -> Self {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            tracing_subscriber::fmt()
                .with_env_filter("oms_core=trace")
                .with_ansi(false)
                .with_writer(|| ThisThread)
                .init();
        });
        LOGGED.take();
        Self(())
    }

    pub fn text(&self) -> String {
        LOGGED.with_borrow(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

struct ThisThread;

impl Write for ThisThread {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
