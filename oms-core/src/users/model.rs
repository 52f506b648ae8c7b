//! Users and the rules for their names, addresses and passwords.

use std::fmt;
use std::str::FromStr;

use unicode_normalization::UnicodeNormalization;

use super::choice;
use crate::actor::{Actor, Roles};
use crate::error::{Check, Result};
use crate::id::{SessionId, UserId};
use crate::payments::Secret;
use crate::text;
use crate::time::Timestamp;

/// Somebody with an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// The name to log in with, as it was typed; unique without regard to case.
    pub username: String,
    /// The address, as it was typed; unique without regard to case.
    pub email: String,
    /// What it may do beyond a customer.
    pub roles: Roles,
    /// When the address was proven; none until then.
    pub email_verified_at: Option<Timestamp>,
    /// When an administrator shut the account; none while it is open.
    pub disabled_at: Option<Timestamp>,
    /// Rises with every change.
    pub version: i64,
    /// When it registered.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl User {
    /// Whether the address was proven.
    pub const fn is_verified(&self) -> bool {
        self.email_verified_at.is_some()
    }

    /// Whether an administrator shut the account.
    pub const fn is_disabled(&self) -> bool {
        self.disabled_at.is_some()
    }

    /// The user as the one who asks.
    pub const fn actor(&self) -> Actor {
        Actor::User {
            id: self.id,
            roles: self.roles,
            verified: self.is_verified(),
        }
    }
}

/// Makes an account.
#[derive(Clone)]
pub struct Register {
    /// 3 to 32 of `A-Z a-z 0-9 . _ -`.
    pub username: String,
    /// Where the verification mail goes.
    pub email: String,
    /// 8 to 128 characters, at most 1,024 bytes; neither the name, nor the address, nor one that everybody tries.
    pub password: String,
}

/// Without the password.
impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register")
            .field("username", &self.username)
            .field("email", &self.email)
            .finish_non_exhaustive()
    }
}

/// Changes the actor's own account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateMe {
    /// Another user name; none leaves it.
    pub username: Option<String>,
    /// The version that the change is based on.
    pub expected_version: i64,
}

/// A fresh or renewed session. `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// Who.
    pub user: User,
    /// Goes into access tokens: [`Users::authenticate`](super::Users::authenticate) wants it back.
    pub session: SessionId,
    /// Renews the session, once.
    pub refresh_token: Secret,
    /// When the session ends; renewing does not move it.
    pub refresh_expires_at: Timestamp,
}

/// A user name: 3 to 32 of `A-Z a-z 0-9 . _ -`. It holds no `@`, so that no name is another's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Username(String);

/// An e-mail address that a mail can be sent to: one `@`, no blanks, no characters that mean something in a header,
/// at most 254 bytes, and a domain with a dot (or `localhost`). Letters of all scripts are allowed on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Email(String);

/// A [`Register`] whose every rule holds.
pub(super) struct Registration {
    pub(super) username: Username,
    pub(super) email: Email,
    pub(super) password: String,
}

impl Register {
    /// Checks every rule and names all that are broken.
    pub(super) fn check(self) -> Result<Registration> {
        let mut check = Check::default();
        let username = check.take("/username", self.username.parse());
        let email = check.take("/email", self.email.parse());
        let password = check.take(
            "/password",
            choice::check(&self.password, &[&self.username, &self.email]),
        );
        check.done()?;
        match (username, email, password) {
            (Some(username), Some(email), Some(())) => Ok(Registration {
                username,
                email,
                password: self.password,
            }),
            _ => unreachable!("a part is missing only when its rule is broken"),
        }
    }
}

impl Username {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// What must be unique.
    pub(super) fn key(&self) -> String {
        text::fold(&self.0)
    }
}

impl FromStr for Username {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if (3..=32).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err("must be 3 to 32 letters (A-Z, a-z), digits, dots, underscores or hyphens".into())
        }
    }
}

impl Email {
    /// The address as it was typed.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// What must be unique. Some systems tell `Ann@` from `ann@`, but hardly any gives them to two people.
    pub(super) fn key(&self) -> String {
        text::fold(&self.0)
    }
}

impl FromStr for Email {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WRONG: &str = "must be an e-mail address such as ann@example.com";
        if text.len() > 254 {
            return Err("must have at most 254 bytes".into());
        }
        // A composed letter is one letter; a mark that stays alone is refused with what else no address has.
        let text: String = text.nfc().collect();
        match text.split_once('@') {
            Some((local, domain)) if is_local(local) && is_domain(domain) => Ok(Self(text)),
            _ => Err(WRONG.into()),
        }
    }
}

/// The form in which user names and e-mail addresses are looked up: whoever counts attempts to log in must count all
/// spellings of a name together. None for what no user can be called.
pub fn identifier_key(text: &str) -> Option<String> {
    typed_key(text)
}

/// The key of whatever somebody typed as a name or an address; none when no user can have it. PostgreSQL refuses
/// texts with a zero byte, even to look for them.
pub(super) fn typed_key(text: &str) -> Option<String> {
    (text.len() <= 1_024 && !text.contains('\0')).then(|| text::fold(text))
}

/// RFC 5321's dot-string with RFC 6531's letters; quoted forms are history.
fn is_local(text: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    text.len() <= 64
        && text
            .split('.')
            .all(|atom| !atom.is_empty() && atom.chars().all(allowed))
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let known = text.contains('.') || text.eq_ignore_ascii_case("localhost");
    known && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn user_names() {
        for good in ["ann", "A.n_n-1", &"x".repeat(32)] {
            assert!(good.parse::<Username>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "an",
            "ann@example.com",
            "änn",
            "a nn",
            "ann\n",
            &"x".repeat(33),
        ] {
            assert!(bad.parse::<Username>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        let long = format!("{}@{}.com", "l".repeat(64), "d".repeat(63));
        for good in [
            "a@b.c",
            "ann.o'hara+shop@mail.example.com",
            "root@localhost",
            "änne@bücher.example",
            &long,
        ] {
            assert!(good.parse::<Email>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "ann",
            "@b.c",
            "a@",
            "a@b",
            "a@@b.c",
            "a@b@c.d",
            "a b@c.d",
            " a@b.c",
            "a@b.c\r\nBcc: x@y.z",
            "a\0@b.c",
            "a\u{200b}@b.c",
            "a＠b.c",
            ".a@b.c",
            "a..b@c.d",
            "a@.b.c",
            "a@b..c",
            "a@b.c.",
            "a@-b.c",
            "\"a\"@b.c",
            "a@[127.0.0.1]",
            "Ann <a@b.c>",
            "a,b@c.d",
            &format!("{}@b.c", "l".repeat(65)),
            &format!("a@{}.c", "d".repeat(64)),
            &format!("a@{}c", "d.".repeat(126)),
        ] {
            assert!(bad.parse::<Email>().is_err(), "{bad}");
        }
        let (one, other): (Email, Email) = (
            "ÄNNE@example.com".parse().unwrap(),
            "a\u{308}nne@EXAMPLE.com".parse().unwrap(),
        );
        assert_eq!(one.key(), other.key());
    }

    #[test]
    fn all_broken_rules_are_named_and_no_password_is_shown() {
        let register = Register {
            username: "a b".into(),
            email: "nowhere".into(),
            password: "hunter2".into(),
        };
        assert!(!format!("{register:?}").contains("hunter2"));
        let Err(Error::Invalid(violations)) = register.check().map(drop) else {
            panic!("three rules are broken");
        };
        let pointers: Vec<_> = violations.iter().map(|v| v.pointer.as_str()).collect();
        assert_eq!(pointers, ["/username", "/email", "/password"]);
    }
}
