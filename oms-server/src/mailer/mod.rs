//! Mails: words, form and delivery, by SMTP or as files.

mod folder;
mod settings;
mod smtp;
mod sources;
mod templates;

use std::path::Path;

use anyhow::{Context, Result};
use async_trait::async_trait;
use lettre::Address;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use oms_core::mail::{MailError, Mailer, Message};

use crate::config::ConfigError;

pub use self::settings::{MailTls, Smtp};

use self::folder::{MailFolder, readable};
use self::smtp::SmtpClient;
use self::templates::{Templates, Words};

/// Turns what the library wants to say into mails and sends them.
pub struct MailSender {
    templates: Templates,
    from: Mailbox,
    transport: Transport,
}

enum Transport {
    Smtp(SmtpClient),
    Folder(MailFolder),
}

/// Whether the words of mails can be used. The message names the file and the line.
pub(crate) fn check_templates(
    templates: Option<&Path>,
    from: &Mailbox,
    public_url: &str,
) -> Result<(), ConfigError> {
    Templates::load(templates, public_url, shop(from)).map(drop)
}

/// What mails are signed with.
fn shop(from: &Mailbox) -> &str {
    from.name.as_deref().unwrap_or_else(|| from.email.domain())
}

impl MailSender {
    /// Sends by SMTP, or writes into the folder when there is no server. `templates` is a folder whose files replace
    /// the words that are compiled in.
    pub fn new(
        smtp: Option<&Smtp>,
        folder: &Path,
        templates: Option<&Path>,
        from: Mailbox,
        public_url: &str,
    ) -> Result<Self> {
        Ok(Self {
            templates: Templates::load(templates, public_url, shop(&from))?,
            from,
            transport: match smtp {
                Some(smtp) => Transport::Smtp(SmtpClient::new(smtp)?),
                None => Transport::Folder(MailFolder::open(folder)?),
            },
        })
    }

    fn build(&self, message: &Message, words: &Words) -> Result<lettre::Message> {
        let to: Address = message.to.parse().context("the recipient's address")?;
        let part = |content_type, text: &str| match self.transport {
            Transport::Smtp(_) => Ok(SinglePart::builder().header(content_type).body(text.to_owned())),
            // Files are for people and scripts to read: no line is broken, no letter replaced.
            Transport::Folder(_) => readable(content_type, text),
        };
        let text = part(ContentType::TEXT_PLAIN, &words.text)?;
        // The same for every attempt: whoever gets a mail twice can tell.
        let id = format!("<{}@{}>", message.id, self.from.email.domain());
        let builder = lettre::Message::builder()
            .message_id(Some(id))
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(&words.subject);
        let mut mail = match &words.html {
            Some(html) => {
                let html = part(ContentType::TEXT_HTML, html)?;
                builder.multipart(MultiPart::alternative().singlepart(text).singlepart(html))?
            }
            None => builder.singlepart(text)?,
        };
        // RFC 3834: holiday notices do not answer it.
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        mail.headers_mut()
            .insert_raw(HeaderValue::new(automatic, "auto-generated".into()));
        Ok(mail)
    }
}

#[async_trait]
impl Mailer for MailSender {
    async fn send(&self, message: Message) -> Result<(), MailError> {
        let permanent = |e: anyhow::Error| MailError::Permanent(format!("{e:#}"));
        let words = self.templates.words(&message.email).map_err(permanent)?;
        let mail = self.build(&message, &words).map_err(permanent)?;
        match &self.transport {
            Transport::Smtp(client) => client.send(&mail).await,
            Transport::Folder(folder) => folder
                .write(&message.id, words.kind, &message.to, &mail.formatted())
                .map_err(|e| MailError::Transient(format!("{e:#}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oms_core::Timestamp;
    use oms_core::mail::{Email, OrderMail};

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
        let sender = MailSender::new(None, &folder, None, from, "http://shop.test").unwrap();
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
        let end = "Z-job_01h455vb4pex5vsknk084sn02q-verify-ann+1@example.com.eml";
        assert!(name.ends_with(end), "{name}");
        let link = format!("http://shop.test/verify?token={}", "Ab-_9".repeat(20));
        assert!(text.lines().any(|line| line.trim_end() == link), "{text}");
        assert!(
            text.contains("Message-ID: <job_01h455vb4pex5vsknk084sn02q@example.com>"),
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
