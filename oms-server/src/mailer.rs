//! Mails: words, form and delivery, by SMTP or as files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{Body, Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use minijinja::{Environment, context};
use oms_core::mail::{Email, MailError, Mailer, Message, OrderMail};
use oms_core::{Clock, SystemClock};

use crate::config::Smtp;
use crate::secrets;

const TEMPLATES: [(&str, &str); 5] = [
    ("page.html", include_str!("../templates/mail/page.html")),
    ("verify.txt", include_str!("../templates/mail/verify.txt")),
    ("verify.html", include_str!("../templates/mail/verify.html")),
    ("order.txt", include_str!("../templates/mail/order.txt")),
    ("order.html", include_str!("../templates/mail/order.html")),
];

/// Turns what the library wants to say into mails and sends them.
pub struct MailSender {
    templates: Environment<'static>,
    from: Mailbox,
    public_url: String,
    transport: Transport,
}

enum Transport {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    /// One file per mail in this folder.
    Folder(PathBuf),
}

/// What a mail says.
struct Words {
    kind: &'static str,
    subject: String,
    text: String,
    html: String,
}

impl MailSender {
    /// Sends by SMTP, or writes into the folder when there is no server. Call it inside of the runtime.
    pub fn new(smtp: Option<&Smtp>, folder: &Path, from: Mailbox, public_url: &str) -> Result<Self> {
        let mut templates = Environment::new();
        for (name, text) in TEMPLATES {
            templates.add_template(name, text)?;
        }
        let transport = match smtp {
            Some(smtp) => Transport::Smtp(connect(smtp)?),
            None => {
                for path in [folder.to_owned(), drafts(folder)] {
                    std::fs::create_dir_all(&path)
                        .with_context(|| format!("cannot make {}", path.display()))?;
                }
                Transport::Folder(folder.to_owned())
            }
        };
        Ok(Self {
            templates,
            from,
            public_url: public_url.to_owned(),
            transport,
        })
    }

    fn words(&self, email: &Email) -> Result<Words> {
        let order = |kind, happened: &str, order: &OrderMail, more: Option<String>| {
            let lines: Vec<_> = order
                .lines
                .iter()
                .map(|(name, quantity, price)| context! { name, quantity, price => price.to_string() })
                .collect();
            let subject = format!("Your order {} {happened}", order.number);
            let context =
                context! { subject => subject.as_str(), more, lines, total => order.total.to_string() };
            self.render(kind, "order", subject, &context)
        };
        match email {
            Email::VerifyAddress {
                username,
                token,
                expires_at,
            } => {
                let subject = "Verify your e-mail address".to_owned();
                let link = format!("{}/verify?token={token}", self.public_url);
                let context = context! { subject => subject.as_str(), username, link, expires_at => expires_at.to_string() };
                self.render("verify", "verify", subject, &context)
            }
            Email::OrderPaid(mail) => order("order-paid", "is paid", mail, None),
            Email::OrderCanceled(mail) => order("order-canceled", "was canceled", mail, None),
            Email::OrderExpired(mail) => {
                let more = "It was not paid in time, so we could not keep the goods for you.".to_owned();
                order("order-expired", "has expired", mail, Some(more))
            }
            Email::OrderShipped {
                order: mail,
                tracking,
            } => {
                let more = tracking.as_ref().map(|code| format!("Tracking code: {code}"));
                order("order-shipped", "is on its way", mail, more)
            }
            Email::Refunded { order: mail, amount } => {
                let more = format!("We are sending back {amount}.");
                order("refunded", "is refunded", mail, Some(more))
            }
            other => anyhow::bail!("this program has no words for the mail {other:?}"),
        }
    }

    fn render(
        &self,
        kind: &'static str,
        template: &str,
        subject: String,
        context: &minijinja::Value,
    ) -> Result<Words> {
        let render = |ending: &str| {
            let template = self.templates.get_template(&format!("{template}.{ending}"))?;
            template.render(context)
        };
        Ok(Words {
            kind,
            text: render("txt")?,
            html: render("html")?,
            subject,
        })
    }

    fn build(&self, message: &Message, words: &Words) -> Result<lettre::Message> {
        let to: Address = message.to.parse().context("the recipient's address")?;
        let (text, html) = match self.transport {
            Transport::Smtp(_) => (
                SinglePart::plain(words.text.clone()),
                SinglePart::html(words.html.clone()),
            ),
            // Files are for people and scripts to read: no line is broken, no letter replaced.
            Transport::Folder(_) => (
                readable(ContentType::TEXT_PLAIN, &words.text)?,
                readable(ContentType::TEXT_HTML, &words.html)?,
            ),
        };
        let parts = MultiPart::alternative().singlepart(text).singlepart(html);
        Ok(lettre::Message::builder()
            .message_id(Some(format!("<{}@oms>", message.id)))
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(&words.subject)
            .multipart(parts)?)
    }
}

#[async_trait]
impl Mailer for MailSender {
    async fn send(&self, message: Message) -> Result<(), MailError> {
        let permanent = |e: anyhow::Error| MailError::Permanent(format!("{e:#}"));
        let words = self.words(&message.email).map_err(permanent)?;
        let mail = self.build(&message, &words).map_err(permanent)?;
        match &self.transport {
            Transport::Smtp(transport) => transport.send(mail).await.map(drop).map_err(|e| {
                // 5xx, and what no server could be asked to send.
                if e.is_permanent() || e.is_client() {
                    MailError::Permanent(e.to_string())
                } else {
                    MailError::Transient(e.to_string())
                }
            }),
            Transport::Folder(folder) => {
                let path = folder.join(file_name(words.kind, &message.to));
                write(folder, &path, &mail.formatted()).map_err(|e| MailError::Transient(format!("{e:#}")))
            }
        }
    }
}

fn connect(smtp: &Smtp) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
    let local = matches!(smtp.server.as_str(), "localhost" | "127.0.0.1" | "::1");
    let parameters = || TlsParameters::new(smtp.server.clone()).context("MAIL_SERVER");
    let tls = match smtp.port {
        465 => Tls::Wrapper(parameters()?),
        587 if !local => Tls::Required(parameters()?),
        // Passwords never cross a network in clear.
        _ if smtp.credentials.is_some() && !local => Tls::Required(parameters()?),
        _ if local => Tls::None,
        _ => Tls::Opportunistic(parameters()?),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.server)
        .port(smtp.port)
        .tls(tls)
        .timeout(Some(Duration::from_secs(20)));
    if let Some((user, password)) = &smtp.credentials {
        builder = builder.credentials(Credentials::new(user.clone(), password.reveal().into()));
    }
    Ok(builder.build())
}

/// As it is: the library would encode lines of more than 76 characters, and so break links.
fn readable(content_type: ContentType, text: &str) -> Result<SinglePart> {
    anyhow::ensure!(
        text.lines().all(|line| line.len() <= 998) && !text.contains('\0'),
        "a line of the mail is too long"
    );
    let encoding = if text.is_ascii() {
        ContentTransferEncoding::SevenBit
    } else {
        ContentTransferEncoding::EightBit
    };
    let lines: String = text.lines().map(|line| format!("{line}\r\n")).collect();
    let body = Body::dangerous_pre_encoded(lines.into_bytes(), encoding);
    Ok(SinglePart::builder().header(content_type).body(body))
}

/// Sorts by time; the recipient in letters that every file system takes.
fn file_name(kind: &str, to: &str) -> String {
    let time = SystemClock.now().to_string().replace(':', "-");
    let plain = |c: char| c.is_ascii_alphanumeric() || "@._-+".contains(c);
    let to: String = to
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .take(100)
        .collect();
    format!("{time}-{kind}-{to}.eml")
}

/// Whole or not at all: whoever looks into the folder sees no half mails. Only the owner can read the links in them.
fn write(folder: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let draft = drafts(folder).join(secrets::random_text(12)?);
    secrets::write_private(&draft, bytes)?;
    std::fs::rename(&draft, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Beside the folder, on the same disk.
fn drafts(folder: &Path) -> PathBuf {
    folder.with_extension("drafts")
}

#[cfg(test)]
mod tests {
    use super::*;
    use oms_core::Timestamp;

    fn message(username: &str) -> Message {
        Message {
            id: "job_01h455vb4pex5vsknk084sn02q".into(),
            to: "ann+1@example.com".into(),
            email: Email::VerifyAddress {
                username: username.into(),
                token: "Ab-_9".repeat(20),
                expires_at: Timestamp::from_millis(1_767_225_600_000),
            },
        }
    }

    async fn written(message: Message) -> (String, String) {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("mail");
        let from = "Shop <shop@example.com>".parse().unwrap();
        let sender = MailSender::new(None, &folder, from, "http://shop.test").unwrap();
        sender.send(message).await.unwrap();
        let mut files = std::fs::read_dir(&folder).unwrap();
        let file = files.next().unwrap().unwrap();
        assert!(files.next().is_none());
        let text = std::fs::read_to_string(file.path()).unwrap();
        (file.file_name().into_string().unwrap(), text)
    }

    #[tokio::test]
    async fn a_mail_becomes_a_file_with_its_link_on_one_line() {
        let (name, text) = written(message("Ännchen")).await;
        assert!(name.ends_with("Z-verify-ann+1@example.com.eml"), "{name}");
        let link = format!("http://shop.test/verify?token={}", "Ab-_9".repeat(20));
        assert!(text.lines().any(|line| line.trim_end() == link), "{text}");
        assert!(
            text.contains("Message-ID: <job_01h455vb4pex5vsknk084sn02q@oms>"),
            "{text}"
        );
        assert!(
            text.contains("Ännchen") && text.contains("From: Shop <shop@example.com>"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn names_cannot_add_headers_or_markup() {
        let (_, text) = written(message("x\r\nBcc: victim@example.com\r\n\r\n<script>")).await;
        let (headers, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(!headers.contains("victim"), "{headers}");
        let (_, html) = text.split_once("text/html").unwrap();
        assert!(!html.contains("<script>"), "{html}");
    }

    #[tokio::test]
    async fn every_mail_about_an_order_has_words() {
        let order = OrderMail {
            number: 1001,
            total: oms_core::Money::new(2598, "EUR".parse().unwrap()).unwrap(),
            lines: vec![(
                "Mug".into(),
                2,
                oms_core::Money::new(1299, "EUR".parse().unwrap()).unwrap(),
            )],
        };
        let shipped = Email::OrderShipped {
            order: order.clone(),
            tracking: Some("TRACK-1".into()),
        };
        let refunded = Email::Refunded {
            order: order.clone(),
            amount: order.total,
        };
        for (email, words) in [
            (Email::OrderPaid(order.clone()), "is paid"),
            (Email::OrderCanceled(order.clone()), "was canceled"),
            (Email::OrderExpired(order), "has expired"),
            (shipped, "TRACK-1"),
            (refunded, "sending back 25.98 EUR"),
        ] {
            let (_, text) = written(Message {
                email,
                ..message("ann")
            })
            .await;
            assert!(text.contains("Subject: Your order 1001"), "{text}");
            assert!(text.contains(words) && text.contains("2 x Mug"), "{text}");
        }
    }
}
