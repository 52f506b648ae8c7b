//! Connections to the mail server: kept for the next mail, each step bounded in time.
//!
//! lettre's own pool is not used: it waits for answers without an end, and takes a connection back that was given up
//! in the middle of a mail, where the next mail would be told the answers to the last one.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use oms_core::mail::MailError;

use super::settings::{MailTls, Smtp};

/// Connections that wait for the next mail; no more mails than these are sent at once.
const MOST_IDLE: usize = 8;
/// Servers close what is idle, usually after minutes.
const LONGEST_IDLE: Duration = Duration::from_secs(60);
/// Mails on one connection: some servers refuse more than a hundred.
const MOST_MAILS: u32 = 50;
/// A connection that was idle has this long to show that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);
/// Answers that speak of the way and not of the mail: authentication is wanted, too weak or has failed.
const ABOUT_THE_WAY: [u16; 5] = [530, 534, 535, 538, 421];

pub(super) struct SmtpClient {
    server: String,
    port: u16,
    tls: MailTls,
    parameters: TlsParameters,
    credentials: Option<Credentials>,
    timeout: Duration,
    hello: ClientId,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: AsyncSmtpConnection,
    since: Instant,
    mails: u32,
}

impl SmtpClient {
    pub(super) fn new(smtp: &Smtp) -> Result<Self> {
        let mut parameters = TlsParameters::builder(smtp.server.clone());
        if let Some(root) = smtp.extra_root()? {
            parameters = parameters.add_root_certificate(root);
        }
        let login = smtp.credentials.as_ref();
        Ok(Self {
            server: smtp.server.clone(),
            port: smtp.port,
            tls: smtp.tls,
            parameters: parameters.build().context("MAIL_CA_FILE")?,
            credentials: login
                .map(|(user, password)| Credentials::new(user.clone(), password.reveal().into())),
            timeout: smtp.timeout,
            hello: ClientId::default(),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// A time-out may come after the server has taken the mail: the mail's id is the same when it is sent again.
    pub(super) async fn send(&self, mail: &lettre::Message) -> Result<(), MailError> {
        let sent = tokio::time::timeout(self.timeout, self.try_send(mail)).await;
        sent.unwrap_or_else(|_| {
            Err(MailError::Transient(format!(
                "the mail server did not finish within {} s (MAIL_TIMEOUT)",
                self.timeout.as_secs()
            )))
        })
    }

    /// A connection comes back only after a mail that went well: whatever else happens to this future drops it.
    async fn try_send(&self, mail: &lettre::Message) -> Result<(), MailError> {
        let (mut connection, mails) = match self.kept().await {
            Some(kept) => kept,
            None => (self.connect().await?, 0),
        };
        let sent = connection.send(mail.envelope(), &mail.formatted()).await;
        sent.map_err(|e| refusal(&e))?;
        self.keep(connection, mails + 1);
        Ok(())
    }

    /// A connection that still answers.
    async fn kept(&self) -> Option<(AsyncSmtpConnection, u32)> {
        while let Some(mut idle) = self.take() {
            let lives = tokio::time::timeout(SIGN_OF_LIFE, idle.connection.test_connected());
            if lives.await == Ok(true) {
                return Some((idle.connection, idle.mails));
            }
        }
        None
    }

    fn take(&self) -> Option<Idle> {
        let mut all = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|idle| idle.since.elapsed() < LONGEST_IDLE);
        all.pop()
    }

    fn keep(&self, connection: AsyncSmtpConnection, mails: u32) {
        let mut all = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if mails < MOST_MAILS && all.len() < MOST_IDLE {
            all.push(Idle {
                connection,
                since: Instant::now(),
                mails,
            });
        }
    }

    /// Whatever fails here says nothing against the mail: an operator may yet mend the password or the certificate.
    async fn connect(&self) -> Result<AsyncSmtpConnection, MailError> {
        let away = |what: &str, e: &Error| {
            let place = format_args!("{}:{}", self.server, self.port);
            MailError::Transient(format!("the mail server {place} {what}: {e}"))
        };
        let wrapped = (self.tls == MailTls::Implicit).then(|| self.parameters.clone());
        let address = (self.server.as_str(), self.port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(address, Some(self.timeout), &self.hello, wrapped, None)
                .await
                .map_err(|e| away("cannot be reached", &e))?;
        if self.tls == MailTls::StartTls {
            let upgraded = connection.starttls(self.parameters.clone(), &self.hello).await;
            upgraded.map_err(|e| away("does not do STARTTLS (MAIL_TLS)", &e))?;
        }
        if let Some(credentials) = &self.credentials {
            let known = connection.auth(DEFAULT_MECHANISMS, credentials).await;
            known.map_err(|e| away("does not let us in (MAIL_USERNAME)", &e))?;
        }
        Ok(connection)
    }
}

/// What the server said of the mail; a 5xx will be said of it again.
fn refusal(error: &Error) -> MailError {
    let code = error.status().map(u16::from);
    let about_the_way = code.is_some_and(|code| ABOUT_THE_WAY.contains(&code));
    // `is_client`: what no server could be asked to send, such as an address that this one has no letters for.
    if (error.is_permanent() || error.is_client()) && !about_the_way {
        MailError::Permanent(error.to_string())
    } else {
        MailError::Transient(error.to_string())
    }
}
