//! What these stories have in common: servers that play a gateway and find fault with every request that the real one
//! would refuse, the gateways' own libraries in other processes, and a shop with one plugin.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oms_core::orders::{Order, OrderState};
use oms_core::payments::{
    Account, CaptureMode, Delivery, Grant, InboxStatus, Payment, Payments, Received, Secret, StartPayment,
    WebhookError, WebhookOutcome,
};
use oms_core::{Actor, Money, OmsBuilder, PageRequest, Timestamp};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use tempfile::TempDir;

use crate::orders::order as cart;
use crate::plugins::guests::{Sandbox, cached, plugin_dir};
use crate::support::{TestOms, each_db_with};

pub const PRICE: i64 = 5_000;

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What a fake answers.
pub enum Answer {
    Json(u16, Value),
    Text(u16, String),
    /// It did what was asked, and the connection broke.
    Lost,
}

/// Plays a gateway. What it would not take is a fault, which fails the story at its end.
pub struct Fake {
    pub origin: String,
    faults: Arc<Mutex<Vec<String>>>,
    log: Arc<Mutex<Vec<Request>>>,
}

/// A request is answered, or it is a fault.
pub type Play = Result<Answer, String>;

impl Fake {
    pub fn start(play: impl FnMut(&Request) -> Play + Send + 'static) -> Self {
        Self::start_with(None, play)
    }

    pub fn start_with(
        tls: Option<Arc<ServerConfig>>,
        mut play: impl FnMut(&Request) -> Play + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let origin = format!("{scheme}://localhost:{}", listener.local_addr().unwrap().port());
        let faults = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (found, seen) = (Arc::clone(&faults), Arc::clone(&log));
        let mut answer = move |stream: &mut dyn ReadWrite| {
            let Ok(request) = read_request(stream) else {
                return;
            };
            seen.lock().unwrap().push(request.clone());
            let answer = play(&request).unwrap_or_else(|fault| {
                let fault = format!("{} {}: {fault}", request.method, request.path);
                found.lock().unwrap().push(fault.clone());
                Answer::Text(400, fault)
            });
            let (status, kind, body) = match answer {
                Answer::Json(status, value) => (status, "application/json", value.to_string()),
                Answer::Text(status, text) => (status, "text/plain", text),
                Answer::Lost => return,
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.flush();
        };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                match &tls {
                    None => answer(&mut stream),
                    Some(config) => {
                        let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                        let mut stream = StreamOwned::new(connection, stream);
                        answer(&mut stream);
                        stream.conn.send_close_notify();
                        let _ = stream.flush();
                    }
                }
            }
        });
        Self { origin, faults, log }
    }

    #[track_caller]
    pub fn no_faults(&self) {
        assert_eq!(*self.faults.lock().unwrap(), Vec::<String>::new());
    }

    /// How often it was asked so.
    pub fn asked(&self, method: &str, path: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter()
            .filter(|r| r.method == method && r.path == path)
            .count()
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

fn read_request(stream: &mut dyn ReadWrite) -> std::io::Result<Request> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .map_or(0, |digits| digits.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Request {
        method,
        path,
        headers,
        body,
    })
}

/// What a gateway remembers of keys: the same request again gets the same answer, another one is a fault.
#[derive(Default)]
pub struct Keys(HashMap<String, (String, u16, Value)>);

impl Keys {
    pub fn once(
        &mut self,
        header: &str,
        request: &Request,
        act: impl FnOnce() -> Result<(u16, Value), String>,
    ) -> Play {
        let key = request.header(header).to_owned();
        if key.is_empty() || key.len() > 64 {
            return Err(format!("no good {header}: {key:?}"));
        }
        let print = format!(
            "{} {} {}",
            request.method,
            request.path,
            String::from_utf8_lossy(&request.body)
        );
        if let Some((before, status, answer)) = self.0.get(&key) {
            return match *before == print {
                true => Ok(Answer::Json(*status, answer.clone())),
                false => Err(format!("{header} was used for {before}, now for {print}")),
            };
        }
        let (status, answer) = act()?;
        self.0.insert(key, (print, status, answer.clone()));
        Ok(Answer::Json(status, answer))
    }
}

/// Runs a program of the gateway's own library: JSON in, JSON out.
pub fn python(script: &str, jobs: &Value) -> Value {
    talk(
        Command::new(variable("OMS_TEST_PYTHON")).args(["-c", script]),
        jobs,
    )
}

pub fn node(script: &str, jobs: &Value) -> Value {
    let folder = variable("OMS_TEST_NODE_DIR");
    talk(
        Command::new("node").current_dir(folder).args(["-e", script]),
        jobs,
    )
}

fn talk(command: &mut Command, jobs: &Value) -> Value {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    let text = jobs.to_string();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test command says here where it installed the libraries"
)]
fn variable(name: &str) -> PathBuf {
    let value = std::env::var_os(name);
    value
        .unwrap_or_else(|| panic!("set {name}, or run `cargo xtask test`, which does"))
        .into()
}

pub fn account(plugin: &str, config: &[(&str, &str)], secrets: &[(&str, &str)]) -> Account {
    let mut account = Account::new("shop", plugin);
    for (name, value) in config {
        account.config.insert((*name).into(), (*value).into());
        if value.starts_with("http") {
            account.grants.push(Grant {
                origin: (*value).into(),
                private: true,
            });
        }
    }
    for (name, value) in secrets {
        account.secrets.insert((*name).into(), Secret::new(*value));
    }
    account
}

/// A folder with this plugin alone: compiling all of them would take most of a story's time.
pub fn only(plugin: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join(plugin);
    std::fs::create_dir(&to).unwrap();
    for file in std::fs::read_dir(plugin_dir().join(plugin)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    folder
}

pub async fn sandbox(plugin: &str) -> Sandbox {
    Sandbox::with(only(plugin).path(), plugin).await
}

pub fn delivery(headers: &[(&str, &str)], body: &[u8], received_at: Timestamp) -> Delivery {
    let header = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
    Delivery {
        method: "POST".into(),
        url: "https://shop.example/v1/webhooks/shop".into(),
        query: String::new(),
        headers: headers.iter().map(header).collect(),
        body: body.to_vec(),
        received_at,
        remote_ip: None,
        tolerance_seconds: 300,
    }
}

pub async fn receive(t: &Sandbox, account: &Account, delivery: Delivery) -> Result<Received, WebhookError> {
    let tried = t
        .oms
        .plugins()
        .try_webhook(&Actor::System, account, delivery)
        .await;
    tried.unwrap()
}

/// A shop whose account `shop` is at a gateway, and an order of 50 euros that waits for its payment.
pub struct Shop {
    pub t: TestOms,
    pub buyer: Actor,
    pub operator: Actor,
    pub order: Order,
}

/// Boxed: the stories are long, and so are their futures. `prepare` makes the gateway anew for each database.
pub fn each_shop<G>(
    plugin: &'static str,
    prepare: impl Fn() -> (G, Account),
    story: impl AsyncFn(Shop, &G),
) -> Pin<Box<impl Future<Output = ()>>> {
    Box::pin(async move {
        let folder = only(plugin);
        let gateway = std::cell::RefCell::new(None);
        let setup = |builder: OmsBuilder| {
            let (fresh, account) = prepare();
            gateway.replace(Some(fresh));
            cached(builder)
                .account(account)
                .public_url("https://shop.example")
        };
        each_db_with(setup, async |t| {
            let fresh = gateway.take().unwrap();
            story(Shop::open(t, folder.path()).await, &fresh).await;
        })
        .await;
    })
}

impl Shop {
    async fn open(t: TestOms, plugins: &Path) -> Self {
        t.oms.plugins().load_dir(&Actor::System, plugins).await.unwrap();
        t.seller_with("mug", PRICE, 10).await;
        let buyer = t.user("ann").await;
        let order = t.oms.orders().place(&buyer, cart("order", &[("mug", 1)])).await;
        Self {
            order: order.unwrap().value,
            operator: t.operator(),
            buyer,
            t,
        }
    }

    pub fn payments(&self) -> Payments<'_> {
        self.t.oms.payments()
    }

    pub async fn start(&self, key: &str, capture: CaptureMode, instrument: Option<&str>) -> Payment {
        let command = StartPayment {
            idempotency_key: key.parse().unwrap(),
            account: "shop".into(),
            return_url: Some("https://shop.example/thanks".into()),
            capture,
            instrument: instrument.map(str::to_owned),
            instrument_data: Vec::new(),
            customer_ip: Some("203.0.113.7".into()),
        };
        let started = self.payments().start(&self.buyer, self.order.id, command).await;
        started.unwrap().value
    }

    pub async fn payment(&self, payment: &Payment) -> Payment {
        self.payments().get(&self.buyer, payment.id).await.unwrap()
    }

    pub async fn order_state(&self) -> OrderState {
        let order = self.t.oms.orders().get(&self.buyer, self.order.id).await;
        order.unwrap().state
    }

    pub async fn deliver(&self, delivery: Delivery) -> WebhookOutcome {
        self.payments().receive_webhook("shop", delivery).await.unwrap()
    }

    pub async fn pass(&self, seconds: u64) {
        self.t.clock.advance(Duration::from_secs(seconds));
        self.t.oms.worker().drain().await.unwrap();
    }

    pub async fn inbox(&self, status: InboxStatus) -> usize {
        let page = PageRequest::default();
        let inbox = self.payments().inbox(&self.operator, &page, Some(status)).await;
        inbox.unwrap().data.len()
    }
}

pub fn eur(minor: i64) -> Money {
    Money::new(minor, "EUR".parse().unwrap()).unwrap()
}
