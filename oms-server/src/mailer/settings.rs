//! `MAIL_*`: how to reach the mail server.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use lettre::transport::smtp::client::Certificate;
use oms_core::payments::Secret;

use crate::config::{ConfigError, parse_or, wrong};

/// How to reach the mail server.
#[derive(Debug, Clone)]
pub struct Smtp {
    pub server: String,
    pub port: u16,
    pub tls: MailTls,
    /// A certificate in this file is trusted as well.
    pub ca_file: Option<PathBuf>,
    /// For one mail, from the first packet to the last answer.
    pub timeout: Duration,
    pub credentials: Option<(String, Secret)>,
}

/// What protects the way to the mail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// Nothing.
    None,
    /// In clear first, then TLS; a server that has none gets no mail.
    StartTls,
    /// TLS from the first byte.
    Implicit,
}

impl Smtp {
    /// None without `MAIL_SERVER`: then mails are files.
    pub(crate) fn read(
        lookup: &impl Fn(&'static str) -> Option<String>,
    ) -> Result<Option<Self>, ConfigError> {
        let port = port(lookup("MAIL_PORT"))?;
        let timeout = timeout(lookup("MAIL_TIMEOUT").as_deref())?;
        let tls = tls(lookup("MAIL_TLS").as_deref())?;
        let credentials = credentials(lookup("MAIL_USERNAME"), lookup("MAIL_PASSWORD"))?;
        let ca_file = lookup("MAIL_CA_FILE").map(PathBuf::from);
        let Some(server) = lookup("MAIL_SERVER") else {
            return Ok(None);
        };
        let tls = tls.unwrap_or_else(|| safe_default(&server, port));
        if tls == MailTls::None && credentials.is_some() && !is_loopback(&server) {
            let detail = "none would send MAIL_PASSWORD over the network in clear: leave one of them away";
            return Err(wrong("MAIL_TLS", detail));
        }
        let usual = if tls == MailTls::Implicit { 465 } else { 587 };
        let smtp = Self {
            port: port.unwrap_or(usual),
            server,
            tls,
            ca_file,
            timeout,
            credentials,
        };
        smtp.extra_root()?;
        Ok(Some(smtp))
    }

    /// The certificates of `MAIL_CA_FILE`.
    pub(super) fn extra_root(&self) -> Result<Option<Certificate>, ConfigError> {
        let Some(path) = &self.ca_file else {
            return Ok(None);
        };
        let cannot = |e: &dyn std::fmt::Display| wrong("MAIL_CA_FILE", format!("{}: {e}", path.display()));
        let pem = std::fs::read(path).map_err(|e| cannot(&e))?;
        // The parser finds none in a file without any, and says nothing.
        if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
            return Err(cannot(&"holds no certificate in PEM"));
        }
        Certificate::from_pem(&pem).map(Some).map_err(|e| cannot(&e))
    }
}

/// Plain text only where nobody listens. Port 465 has been for TLS from the first byte ever since RFC 8314.
fn safe_default(server: &str, port: Option<u16>) -> MailTls {
    match port {
        Some(465) => MailTls::Implicit,
        _ if is_loopback(server) => MailTls::None,
        _ => MailTls::StartTls,
    }
}

fn is_loopback(server: &str) -> bool {
    server == "localhost" || server.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn port(given: Option<String>) -> Result<Option<u16>, ConfigError> {
    let expected = "a port between 1 and 65535";
    match given {
        None => Ok(None),
        Some(text) => match parse_or(Some(&text), "MAIL_PORT", "", expected)? {
            0 => Err(wrong("MAIL_PORT", format!("0 is not {expected}"))),
            port => Ok(Some(port)),
        },
    }
}

fn timeout(given: Option<&str>) -> Result<Duration, ConfigError> {
    let expected = "a number of seconds between 1 and 240";
    match parse_or(given, "MAIL_TIMEOUT", "30", expected)? {
        // Less than the five minutes after which the worker gives a job up.
        seconds @ 1..=240_u64 => Ok(Duration::from_secs(seconds)),
        other => Err(wrong("MAIL_TIMEOUT", format!("{other} is not {expected}"))),
    }
}

fn tls(given: Option<&str>) -> Result<Option<MailTls>, ConfigError> {
    match given {
        None => Ok(None),
        Some("starttls") => Ok(Some(MailTls::StartTls)),
        Some("tls") => Ok(Some(MailTls::Implicit)),
        Some("none") => Ok(Some(MailTls::None)),
        Some(other) => {
            let detail = format!("{other:?} must be starttls, tls or none");
            Err(wrong("MAIL_TLS", detail))
        }
    }
}

fn credentials(
    user: Option<String>,
    password: Option<String>,
) -> Result<Option<(String, Secret)>, ConfigError> {
    match (user, password) {
        (Some(user), Some(password)) => Ok(Some((user, Secret::new(password)))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(wrong("MAIL_PASSWORD", "is not set, but MAIL_USERNAME is")),
        (None, Some(_)) => Err(wrong("MAIL_USERNAME", "is not set, but MAIL_PASSWORD is")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Smtp, &'static str> {
        let lookup = |name: &'static str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Smtp::read(&lookup).map(Option::unwrap).map_err(|e| {
            assert!(!e.to_string().contains("geheim"), "{e}");
            e.variable
        })
    }

    #[test]
    fn the_way_is_protected_unless_it_does_not_leave_the_machine() {
        let way = |variables: &[(&str, &str)]| read(variables).map(|smtp| (smtp.tls, smtp.port)).unwrap();
        let server = ("MAIL_SERVER", "mail.example.com");
        assert_eq!(way(&[server]), (MailTls::StartTls, 587));
        assert_eq!(way(&[server, ("MAIL_PORT", "25")]), (MailTls::StartTls, 25));
        assert_eq!(way(&[server, ("MAIL_PORT", "465")]), (MailTls::Implicit, 465));
        assert_eq!(way(&[server, ("MAIL_TLS", "tls")]), (MailTls::Implicit, 465));
        assert_eq!(way(&[server, ("MAIL_TLS", "none")]), (MailTls::None, 587));
        for here in ["localhost", "127.0.0.1", "127.9.9.9", "::1"] {
            assert_eq!(
                way(&[("MAIL_SERVER", here), ("MAIL_PORT", "1025")]),
                (MailTls::None, 1025)
            );
            assert_eq!(
                way(&[("MAIL_SERVER", here), ("MAIL_TLS", "starttls")]).0,
                MailTls::StartTls
            );
        }
        for private in ["mail", "10.0.0.7", "localhost.example.com"] {
            assert_eq!(way(&[("MAIL_SERVER", private)]).0, MailTls::StartTls);
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let server = ("MAIL_SERVER", "mail.example.com");
        let of = |more: &[(&str, &str)]| read(&[&[server], more].concat()).map(drop).unwrap_err();
        let login = [("MAIL_USERNAME", "me"), ("MAIL_PASSWORD", "geheim")];
        assert_eq!(of(&[login[0], login[1], ("MAIL_TLS", "none")]), "MAIL_TLS");
        assert_eq!(of(&[("MAIL_TLS", "ssl")]), "MAIL_TLS");
        assert_eq!(of(&[("MAIL_PORT", "0")]), "MAIL_PORT");
        assert_eq!(of(&[("MAIL_TIMEOUT", "0")]), "MAIL_TIMEOUT");
        assert_eq!(of(&[("MAIL_TIMEOUT", "241")]), "MAIL_TIMEOUT");
        assert_eq!(of(&[("MAIL_CA_FILE", "/does/not/exist.pem")]), "MAIL_CA_FILE");
        assert_eq!(
            of(&[("MAIL_CA_FILE", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))]),
            "MAIL_CA_FILE"
        );
        let local = [("MAIL_SERVER", "127.0.0.1"), login[0], login[1]];
        assert_eq!(read(&local).unwrap().tls, MailTls::None);
    }
}
