//! The words of mails. Everything that can be wrong with a template is found at the start, because a mail that fails
//! later fails in the night.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::path::Path;

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, context};
use oms_core::mail::{Email, OrderMail};
use oms_core::{Money, Timestamp};

use super::sources::{Sources, place, sources, split};
use crate::config::ConfigError;

/// What names the folder.
const VARIABLE: &str = "OMS_MAIL_TEMPLATES";
/// Mails are short; whatever makes one this long is a fault.
const LARGEST_MAIL: usize = 1 << 20;
const LONGEST_SUBJECT: usize = 200;

/// Templates that were tried.
pub(super) struct Templates {
    environment: Environment<'static>,
    public_url: String,
    shop: String,
}

/// What a mail says.
#[derive(Debug)]
pub(super) struct Words {
    /// The template's name without its ending.
    pub(super) kind: &'static str,
    pub(super) subject: String,
    pub(super) text: String,
    /// None when the shop has words of its own only as text.
    pub(super) html: Option<String>,
}

impl Templates {
    /// What is compiled in, replaced by what the folder has. `shop` signs the mails.
    pub(super) fn load(folder: Option<&Path>, public_url: &str, shop: &str) -> Result<Self, ConfigError> {
        let sources = sources(folder).map_err(wrong)?;
        let mut environment = Environment::new();
        // A misspelled name must not become an empty place in a mail.
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        for (name, source) in &sources {
            for (name, text) in split(name, &source.text)
                .map_err(|e| wrong(format!("{}, line 1: {e}", place(&sources, name))))?
            {
                let added = environment.add_template_owned(name, text);
                added.map_err(|e| broken(&sources, &e))?;
            }
        }
        let templates = Self {
            environment,
            public_url: public_url.to_owned(),
            shop: shop.to_owned(),
        };
        for email in samples() {
            templates.render(&email).map_err(|e| broken(&sources, &e))?;
            templates.check_names(&email, &sources)?;
        }
        Ok(templates)
    }

    /// None when this program is older than the library and does not know the mail.
    pub(super) fn words(&self, email: &Email) -> anyhow::Result<Words> {
        let words = self.render(email)?;
        let length = words.text.len() + words.html.as_ref().map_or(0, String::len);
        anyhow::ensure!(
            length <= LARGEST_MAIL,
            "the mail has {length} bytes, and {LARGEST_MAIL} are the most"
        );
        Ok(words)
    }

    fn render(&self, email: &Email) -> Result<Words, minijinja::Error> {
        let (kind, facts) = self.facts(email)?;
        let facts = self.common(facts);
        let subject = self
            .environment
            .get_template(&format!("{kind}.subject"))?
            .render(facts.clone())?;
        let subject = one_line(&subject);
        let all = context! { subject => subject.as_str(), ..facts };
        let text = self.environment.get_template(&format!("{kind}.txt"))?;
        let html = self.environment.get_template(&format!("{kind}.html"));
        Ok(Words {
            kind,
            // The line of the subject leaves an empty one behind, so that errors name the right lines.
            text: text.render(all.clone())?.trim_start_matches('\n').to_owned(),
            html: match html {
                Ok(html) => Some(html.render(all)?),
                Err(e) if e.kind() == ErrorKind::TemplateNotFound => None,
                Err(e) => return Err(e),
            },
            subject,
        })
    }

    /// The variables of every mail.
    fn common(&self, facts: Value) -> Value {
        context! { public_url => self.public_url.as_str(), shop => self.shop.as_str(), ..facts }
    }

    /// The template and the variables of a mail. `docs/mail.md` lists them.
    fn facts(&self, email: &Email) -> Result<(&'static str, Value), minijinja::Error> {
        Ok(match email {
            Email::VerifyAddress {
                username,
                token,
                expires_at,
            } => {
                let link = format!("{}/verify?token={token}", self.public_url);
                let expires_at = expires_at.to_string();
                ("verify", context! { username, link, expires_at })
            }
            Email::OrderPaid(order) => ("order-paid", facts(order)),
            Email::OrderCanceled(order) => ("order-canceled", facts(order)),
            Email::OrderExpired(order) => ("order-expired", facts(order)),
            Email::OrderShipped { order, tracking } => {
                ("order-shipped", context! { tracking, ..facts(order) })
            }
            Email::Refunded { order, amount } => (
                "refunded",
                context! { amount => amount.to_string(), ..facts(order) },
            ),
            other => {
                let detail = format!("this program has no words for the mail {other:?}");
                return Err(minijinja::Error::new(ErrorKind::TemplateNotFound, detail));
            }
        })
    }

    /// Finds unknown names where the trial did not come by: in a branch that the sample does not take.
    fn check_names(&self, email: &Email, sources: &Sources) -> Result<(), ConfigError> {
        let (kind, facts) = self.facts(email).map_err(|e| broken(sources, &e))?;
        let facts = self.common(facts);
        let given = facts.try_iter().map_err(|e| broken(sources, &e))?;
        let mut known: BTreeSet<String> = given.map(|name| name.to_string()).collect();
        known.extend(self.environment.globals().map(|(name, _)| name.to_owned()));
        for ending in ["subject", "txt", "html"] {
            let Ok(template) = self.environment.get_template(&format!("{kind}.{ending}")) else {
                continue;
            };
            if ending != "subject" {
                known.insert("subject".into());
            }
            let unknown = template.undeclared_variables(false);
            if let Some(name) = unknown.iter().filter(|name| !known.contains(*name)).min() {
                let line = template.source().lines().position(|line| line.contains(name));
                return Err(wrong(format!(
                    "{}, line {}: there is no variable {name} in this mail; it has {}",
                    place(sources, template.name()),
                    line.map_or(1, |line| line + 1),
                    self.names(&known)
                )));
            }
        }
        Ok(())
    }

    /// For people: without the functions.
    fn names(&self, known: &BTreeSet<String>) -> String {
        let functions: BTreeSet<&str> = self.environment.globals().map(|(name, _)| name).collect();
        let names = known.iter().map(String::as_str);
        names
            .filter(|name| !functions.contains(name))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

fn facts(order: &OrderMail) -> Value {
    let lines: Vec<_> = order
        .lines
        .iter()
        .map(|(name, quantity, price)| context! { name, quantity, price => price.to_string() })
        .collect();
    context! { number => order.number, total => order.total.to_string(), lines }
}

/// One of each mail, with and without what may be missing.
fn samples() -> Vec<Email> {
    let price = "EUR"
        .parse()
        .and_then(|euro| Money::new(1299, euro))
        .unwrap_or_else(|e| unreachable!("an amount that is in every test: {e}"));
    let order = OrderMail {
        number: 1001,
        total: price,
        lines: vec![("Mug".into(), 1, price)],
    };
    let shipped = |tracking: Option<&str>| Email::OrderShipped {
        order: order.clone(),
        tracking: tracking.map(str::to_owned),
    };
    vec![
        Email::VerifyAddress {
            username: "ann".into(),
            token: "token".into(),
            expires_at: Timestamp::from_millis(1_767_225_600_000),
        },
        Email::OrderPaid(order.clone()),
        Email::OrderCanceled(order.clone()),
        Email::OrderExpired(order.clone()),
        shipped(Some("TRACK-1")),
        shipped(None),
        Email::Refunded {
            order: order.clone(),
            amount: price,
        },
    ]
}

/// No line break and no control character comes into a header; and no more than a mailbox shows.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text
        .split(|c: char| c.is_control() || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ").chars().take(LONGEST_SUBJECT).collect()
}

fn wrong(detail: impl AsRef<str>) -> ConfigError {
    ConfigError {
        variable: VARIABLE,
        detail: detail.as_ref().replace('\n', " "),
    }
}

/// One line that says where: an include reports itself, and what was wrong in it stands behind.
fn broken(sources: &Sources, error: &minijinja::Error) -> ConfigError {
    let mut cause = error;
    let mut next = error.source();
    while let Some(source) = next {
        if let Some(deeper) = source.downcast_ref::<minijinja::Error>() {
            cause = deeper;
        }
        next = source.source();
    }
    let place = place(sources, cause.name().or(error.name()).unwrap_or_default());
    let line = cause.line().or(error.line()).unwrap_or(1);
    let detail = cause.detail().map(|d| format!(": {d}")).unwrap_or_default();
    wrong(format!("{place}, line {line}: {}{detail}", cause.kind()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn load(files: &[(&str, &str)]) -> Result<Templates, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let loaded = Templates::load(Some(folder.path()), "https://shop.test", "Shop");
        loaded.map_err(|e| {
            let shown = e.to_string();
            assert_eq!(e.variable, VARIABLE);
            assert!(!shown.contains('\n'), "{shown}");
            shown.replace(&format!("{}/", folder.path().display()), "")
        })
    }

    #[test]
    fn a_folder_replaces_single_mails() {
        let ours = load(&[]).unwrap();
        let theirs = load(&[
            (
                "verify.txt",
                "Subject: Grüße, {{ username }}\n\n{% include \"_sign.txt\" %}\n{{ link }}\n",
            ),
            ("_sign.txt", "Dein {{ shop }}"),
            ("order-paid.html", "<p>{{ lines[0].name }} für {{ total }}</p>"),
            ("notes.md", "{{ no template"),
            (".verify.txt.swp", "{{ no template"),
        ])
        .unwrap();
        let verify = theirs.words(&samples()[0]).unwrap();
        assert_eq!(verify.subject, "Grüße, ann");
        assert_eq!(verify.text, "Dein Shop\nhttps://shop.test/verify?token=token");
        assert!(
            verify.html.is_none(),
            "our HTML went along with the shop's own text"
        );
        assert!(ours.words(&samples()[0]).unwrap().html.is_some());

        let paid = theirs.words(&samples()[1]).unwrap();
        assert_eq!(paid.html.as_deref(), Some("<p>Mug für 12.99 EUR</p>"));
        assert_eq!(paid.subject, "Your order 1001 is paid");
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_line() {
        for (name, text, expected) in [
            (
                "verify.txt",
                "Subject: x\n\n{{ nmae }}",
                "verify.txt, line 3: undefined value",
            ),
            (
                "verify.txt",
                "Subject: {{ nmae }}\n\nx",
                "verify.txt, line 1: undefined value",
            ),
            (
                "verify.txt",
                "Subject: x\n\n{% if %}",
                "verify.txt, line 3: syntax error",
            ),
            (
                "verify.txt",
                "Subject: x\n{% include \"_none.txt\" %}",
                "verify.txt, line 2: template not found",
            ),
            ("verify.txt", "Hello", "verify.txt, line 1: must be the subject"),
            (
                "_lines.txt",
                "a\nb\n{{ lnes }}",
                "_lines.txt, line 3: undefined value",
            ),
            (
                "order-paid.html",
                "<p>\n{% if number == 7 %}{{ trackng }}{% endif %}",
                "order-paid.html, line 2: there is no variable trackng in this mail; it has lines, number, public_url, shop, subject, total",
            ),
            (
                "order-paid.html",
                "{{ tracking }}",
                "order-paid.html, line 1: undefined value",
            ),
            (
                "order-payed.txt",
                "Subject: x\n",
                "order-payed.txt: there is no such mail",
            ),
        ] {
            let error = load(&[(name, text)]).map(drop).unwrap_err();
            assert!(
                error.starts_with(&format!("{VARIABLE}: {expected}")),
                "{error}\nfor {text:?}"
            );
        }
        let missing = Templates::load(Some(Path::new("/does/not/exist")), "", "");
        assert!(
            missing
                .map(drop)
                .unwrap_err()
                .detail
                .contains("cannot read /does/not/exist")
        );
    }

    #[test]
    fn markup_in_names_is_escaped_and_subjects_are_one_line() {
        let templates = load(&[("verify.txt", "Subject: Hello {{ username }}\n\n{{ username }}\n")]).unwrap();
        let email = Email::VerifyAddress {
            username: "x\r\nBcc: y@example.com\u{2028}<b>".into(),
            token: "t".into(),
            expires_at: Timestamp::from_millis(0),
        };
        let words = templates.words(&email).unwrap();
        assert_eq!(words.subject, "Hello x Bcc: y@example.com <b>");
        let ours = load(&[]).unwrap().words(&email).unwrap().html.unwrap();
        assert!(ours.contains("&lt;b&gt;") && !ours.contains("<b>"), "{ours}");
    }

    #[test]
    fn the_document_lists_every_mail_with_its_variables() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/mail.md");
        let document = fs::read_to_string(document).unwrap();
        let templates = load(&[]).unwrap();
        for email in samples() {
            let (kind, facts) = templates.facts(&email).unwrap();
            let row = document
                .lines()
                .find(|line| line.starts_with(&format!("| `{kind}`")))
                .unwrap_or_else(|| panic!("docs/mail.md has no row for {kind}"));
            for name in facts.try_iter().unwrap() {
                assert!(row.contains(&format!("`{name}`")), "{name} in {row}");
            }
        }
        for name in ["subject", "shop", "public_url"] {
            assert!(document.contains(&format!("`{name}`")), "{name}");
        }
    }
}
