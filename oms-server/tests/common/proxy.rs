//! A plain TCP forwarder: a balancer between replicas, and the place where a network fails.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::server::client;

/// Forwards each connection to one of its targets, in turn. Everything ends when it is dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: AbortOnDropHandle<()>,
}

struct Shared {
    targets: Mutex<Targets>,
    /// Ends the forwarding of the connections that are open when it is cancelled, but not the connections.
    freeze: Mutex<CancellationToken>,
    /// Ends the connections that are open when it is cancelled.
    cut: Mutex<CancellationToken>,
    /// Whether new connections hang as well.
    dark: AtomicBool,
}

struct Targets {
    all: Vec<SocketAddr>,
    next: usize,
}

impl Proxy {
    pub(crate) async fn start(targets: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            targets: Mutex::new(Targets {
                all: targets,
                next: 0,
            }),
            freeze: Mutex::default(),
            cut: Mutex::default(),
            dark: AtomicBool::new(false),
        });
        let accepting = accept(listener, Arc::clone(&shared));
        Self {
            address,
            shared,
            _tasks: AbortOnDropHandle::new(tokio::spawn(accepting)),
        }
    }

    /// Stands before a database; and its address through here.
    pub(crate) async fn before(database_url: &str) -> (Self, String) {
        let mut url = url::Url::parse(database_url).unwrap();
        let place = (url.host_str().unwrap(), url.port().unwrap_or(5432));
        let found = tokio::net::lookup_host(place).await.unwrap();
        let proxy = Self::start(found.take(1).collect()).await;
        url.set_ip_host(proxy.address.ip()).unwrap();
        url.set_port(Some(proxy.address.port())).unwrap();
        (proxy, url.into())
    }

    /// From now on new connections go to these.
    pub(crate) fn retarget(&self, targets: Vec<SocketAddr>) {
        self.shared.targets.lock().unwrap().all = targets;
    }

    /// Every open connection falls silent for ever: both ends stay open, and nothing passes. New ones work.
    pub(crate) fn freeze(&self) {
        std::mem::take(&mut *self.shared.freeze.lock().unwrap()).cancel();
    }

    /// Every open connection ends: who comes again may come to another target.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.shared.cut.lock().unwrap()).cancel();
    }

    /// Whether nothing at all passes: connections are accepted and then ignored.
    pub(crate) fn go_dark(&self, dark: bool) {
        self.shared.dark.store(dark, Ordering::Release);
        if dark {
            self.freeze();
        }
    }
}

/// A balancer that sends connections only where `/readyz` says yes.
pub(crate) struct Balancer {
    pub(crate) proxy: Proxy,
    _asking: AbortOnDropHandle<()>,
}

impl Balancer {
    pub(crate) async fn start(replicas: Vec<SocketAddr>) -> Self {
        let proxy = Proxy::start(Vec::new()).await;
        let shared = Arc::clone(&proxy.shared);
        let asking = tokio::spawn(async move {
            loop {
                let asked = replicas.iter().map(|address| is_ready(*address));
                let answers = futures_util::future::join_all(asked).await;
                let ready = replicas.iter().zip(answers).filter(|(_, yes)| *yes);
                shared.targets.lock().unwrap().all = ready.map(|(address, _)| *address).collect();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Self {
            proxy,
            _asking: AbortOnDropHandle::new(asking),
        }
    }

    /// How many replicas are ready.
    pub(crate) fn ready(&self) -> usize {
        self.proxy.shared.targets.lock().unwrap().all.len()
    }
}

async fn is_ready(address: SocketAddr) -> bool {
    let asked = client().get(format!("http://{address}/readyz"));
    let answer = asked.timeout(Duration::from_secs(1)).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(forward(client, Arc::clone(&shared)));
    }
}

async fn forward(client: TcpStream, shared: Arc<Shared>) {
    let freeze = shared.freeze.lock().unwrap().clone();
    let cut = shared.cut.lock().unwrap().clone();
    if shared.dark.load(Ordering::Acquire) {
        // Held open, like a firewall that drops what it gets. Its client gives up.
        std::future::pending::<()>().await;
    }
    // A target that is gone is left to the others, as any balancer does.
    let mut server = None;
    for _ in 0..shared.count() {
        let Some(address) = shared.next() else { break };
        server = TcpStream::connect(address).await.ok();
        if server.is_some() {
            break;
        }
    }
    let Some(server) = server else { return };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (frozen, also) = (freeze.clone(), freeze);
    let both = async {
        tokio::join!(
            copy(from_client, to_server, frozen),
            copy(from_server, to_client, also)
        )
    };
    cut.run_until_cancelled(both).await;
}

impl Shared {
    fn count(&self) -> usize {
        self.targets.lock().unwrap().all.len()
    }

    fn next(&self) -> Option<SocketAddr> {
        let mut targets = self.targets.lock().unwrap();
        targets.next = targets.next.wrapping_add(1);
        let index = targets.next.checked_rem(targets.all.len())?;
        targets.all.get(index).copied()
    }
}

/// Until the sender ends, which is passed on. Frozen, it holds both halves and does nothing.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, freeze: CancellationToken) {
    let mut buffer = vec![0; 16 * 1024];
    let passing = async {
        while let Ok(count) = from.read(&mut buffer).await {
            if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        // Both directions end: neither end may wait for an answer that cannot come.
        let _ = to.shutdown().await;
    };
    tokio::select! {
        () = passing => {}
        () = freeze.cancelled() => std::future::pending().await,
    }
}
