//! `http.send`: what a plugin may reach, and what is said when it does not answer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use oms_core::payments::{GatewayError, GatewayStatus, NextAction};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::guests::{Sandbox, asking, plugin_dir, start_request};

/// A server of one answer, on a port of its own. Its thread ends with the test program.
pub struct Server {
    pub origin: String,
    requests: Arc<AtomicU32>,
}

impl Server {
    pub fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start("http", move |stream| {
            let _ = read_request(stream).and_then(|()| stream.write_all(&answer));
        })
    }

    fn start(scheme: &str, mut serve: impl FnMut(&mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let origin = format!("{scheme}://localhost:{}", listener.local_addr().unwrap().port());
        let requests = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                serve(&mut stream.unwrap());
            }
        });
        Self { origin, requests }
    }

    fn by_address(&self) -> String {
        self.origin.replace("localhost", "127.0.0.1")
    }

    fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }
}

/// The head of a request and as much of the body as it announces.
fn read_request(stream: &mut impl Read) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |digits| digits.trim().parse().unwrap());
    stream.read_exact(&mut vec![0; length])
}

pub fn answer(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_granted_host_answers() {
    let t = Sandbox::hostile().await;
    let server = Server::answering(answer("418 I'm a teapot", "", "short and stout"));
    for url in [&server.origin, &server.by_address()] {
        let said = t.found(&asking("request", url, &[(url, true)])).await;
        assert_eq!(said, "418 short and stout");
    }
}

#[tokio::test]
async fn nothing_reaches_a_host_that_is_not_granted() {
    let t = Sandbox::hostile().await;
    let server = Server::answering(answer("200 OK", "", "hello"));
    let (name, address) = (server.origin.clone(), server.by_address());
    let secure = name.replace("http:", "https:");
    for (url, grants, says) in [
        (&name, vec![], "does not grant"),
        (&name, vec![("https://public.test", true)], "does not grant"),
        (&name, vec![(name.as_str(), false)], "is not https"),
        (&address, vec![(name.as_str(), true)], "does not grant"),
        // A name that stands for this machine, granted as a public one: caught when it is resolved.
        (&secure, vec![(secure.as_str(), false)], "has no public address"),
    ] {
        let said = t.found(&asking("request", url, &grants)).await;
        assert!(
            said.starts_with("not allowed: ") && said.contains(says),
            "{url} {grants:?}: {said}"
        );
    }
    // Granted, but the plugin's manifest does not ask for it.
    let mut account = asking(
        "request",
        "https://elsewhere.test/",
        &[("https://elsewhere.test", false)],
    );
    account.config.insert("base-url".into(), name);
    let said = t.found(&account).await;
    assert!(
        said.contains("not among the hosts of the plugin's plugin.toml"),
        "{said}"
    );
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_private_connection_is_not_lent_to_a_public_grant() {
    let t = Sandbox::hostile().await;
    let secure = tls_server();
    let roots = Some(ROOT.to_owned());
    let mut trusted = asking("request", &secure.origin, &[(&secure.origin, true)]);
    trusted.extra_roots.clone_from(&roots);
    assert_eq!(t.found(&trusted).await, "200 secure");
    let mut public = asking("request", &secure.origin, &[(&secure.origin, false)]);
    public.extra_roots = roots;
    let said = t.found(&public).await;
    assert!(said.contains("has no public address"), "{said}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let t = Sandbox::hostile().await;
    let hidden = Server::answering(answer("200 OK", "", "hidden"));
    let location = format!("location: {}/\r\n", hidden.origin);
    let server = Server::answering(answer("302 Found", &location, "moved"));
    let said = t
        .found(&asking("request", &server.origin, &[(&server.origin, true)]))
        .await;
    assert_eq!(said, "302 moved");
    assert_eq!(hidden.requests(), 0);
    // Nor may the guest go there itself, where only the first one is granted.
    let said = t
        .found(&asking("request", &hidden.origin, &[(&server.origin, true)]))
        .await;
    assert!(said.starts_with("not allowed: "), "{said}");
    assert_eq!(hidden.requests(), 0);
}

#[tokio::test]
async fn requests_are_counted() {
    let t = Sandbox::hostile().await;
    let server = Server::answering(answer("200 OK", "", ""));
    let said = t
        .found(&asking("requests", &server.origin, &[(&server.origin, true)]))
        .await;
    assert_eq!(said, "16");
    assert_eq!(server.requests(), 16);
}

#[tokio::test]
async fn sizes_are_bounded() {
    let t = Sandbox::hostile().await;
    let server = Server::answering(answer("200 OK", "", &"x".repeat(2 << 20)));
    let grants = [(server.origin.as_str(), true)];
    let said = t.found(&asking("request", &server.origin, &grants)).await;
    assert!(said.starts_with("too large: "), "{said}");
    let said = t.found(&asking("large-request", &server.origin, &grants)).await;
    assert_eq!(said, format!("too large: {} bytes", 300 << 10));
    assert_eq!(server.requests(), 1, "the large request did not leave");
}

#[tokio::test]
async fn not_sent_is_told_from_outcome_unknown() {
    let t = Sandbox::hostile().await;
    let asked = async |origin: &str| t.found(&asking("request", origin, &[(origin, true)])).await;
    // A port on which nobody listens any more.
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let said = asked(&format!("http://{closed}")).await;
    assert!(said.starts_with("not sent: "), "{said}");
    let said = asked("http://no-such-host.invalid").await;
    assert!(said.starts_with("not sent: "), "{said}");
    let hangs_up = Server::start("http", |stream| drop(read_request(stream)));
    let said = asked(&hangs_up.origin).await;
    assert!(said.starts_with("sent, but no complete answer: "), "{said}");
    let half = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    let said = asked(&half.origin).await;
    assert!(said.starts_with("sent, but no complete answer: "), "{said}");
    // The guest is told while it has time to say so.
    let silent = Server::start("http", |stream| {
        let _ = read_request(stream).and_then(|()| stream.read_to_end(&mut Vec::new()).map(drop));
    });
    let said = asked(&silent.origin).await;
    assert_eq!(said, "sent, but no complete answer: timed out");
}

#[tokio::test]
async fn what_a_failure_leaves_open_depends_on_what_was_sent() {
    let t = Sandbox::hostile().await;
    let server = Server::answering(answer("200 OK", "", ""));
    let grants = [(server.origin.as_str(), true)];
    let after = t
        .start(&asking("charge-then-panic", &server.origin, &grants))
        .await
        .unwrap_err();
    let GatewayError::Indeterminate(cause) = after else {
        panic!("{after:?}");
    };
    assert!(cause.contains("it broke after the charge"), "{cause}");
    let before = t
        .start(&asking("unsent-then-panic", &server.origin, &grants))
        .await
        .unwrap_err();
    assert!(matches!(before, GatewayError::Unavailable(_)), "{before:?}");
}

const ROOT: &str = include_str!("../../fixtures/tls/root.pem");

/// Serves https with a certificate for localhost that the root of the fixtures signed.
fn tls_server() -> Server {
    let chain = CertificateDer::from_pem_slice(include_bytes!("../../fixtures/tls/localhost.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../fixtures/tls/localhost.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .unwrap();
    let config = Arc::new(config);
    Server::start("https", move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let _ = read_request(&mut stream).and_then(|()| {
            stream.write_all(answer("200 OK", "", "secure").as_bytes())?;
            stream.conn.send_close_notify();
            stream.flush()
        });
    })
}

#[tokio::test]
async fn a_certificate_must_lead_to_a_trusted_root() {
    let t = Sandbox::hostile().await;
    let server = tls_server();
    let mut account = asking("request", &server.origin, &[(&server.origin, true)]);
    let said = t.found(&account).await;
    assert!(
        said.starts_with("not sent: ") && said.contains("certificate"),
        "{said}"
    );
    account.extra_roots = Some(ROOT.into());
    assert_eq!(t.found(&account).await, "200 secure");
    account.extra_roots = Some("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".into());
    let said = t.found(&account).await;
    assert!(said.contains("extra_roots of the account"), "{said}");
}

#[tokio::test]
async fn the_mock_gateway_starts_a_payment() {
    let t = Sandbox::with(&plugin_dir(), "mock").await;
    let body = r#"{"id":"bp_1","merchant_payment_id":"pay_1","status":"action_required","currency":"EUR","exponent":2,
        "authorized":0,"captured":0,"refunded":0,"canceled":0,"redirect_url":"https://bank.test/pay","decline_code":null}"#;
    let bank = Server::answering(answer("201 Created", "content-type: application/json\r\n", body));
    let mut account = asking("", &bank.origin, &[(&bank.origin, true)]);
    account.plugin = "mock".into();
    account
        .secrets
        .insert("api-key".into(), oms_core::payments::Secret::new("sk_1"));
    let report = t.gateway.start(&account, start_request(&t.oms)).await.unwrap();
    assert_eq!(report.status, GatewayStatus::ActionRequired);
    assert_eq!(report.reference.as_deref(), Some("bp_1"));
    let action = report.next_action.unwrap();
    assert!(
        matches!(&action, NextAction::Redirect { url, .. } if url == "https://bank.test/pay"),
        "{action:?}"
    );
}
