//! What a server must not do where it counts. Each refusal names the variable that mends it and, where somebody may
//! know better, the name under which `OMS_ALLOW` lets it pass.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::config::{Config, ConfigError};
use crate::{setup, sqlite_file};

/// What `OMS_ALLOW` may name.
pub const OVERRIDES: [(&str, &str); 4] = [
    ("http-public-url", "an OMS_PUBLIC_URL without TLS"),
    (
        "mail-files",
        "mails that are written to files instead of being sent",
    ),
    ("mock-gateway", "an account at the fake bank"),
    ("open-data-dir", "a data folder that others can look into"),
];

/// Words that stand in examples and in nobody's random key.
const PLACEHOLDERS: [&str; 6] = [
    "changeme",
    "change-me",
    "change_me",
    "example",
    "password",
    "placeholder",
];

/// A reason not to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub variable: &'static str,
    pub detail: String,
    /// Its name in `OMS_ALLOW`; none for what nobody should want.
    pub allow: Option<&'static str>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.detail)?;
        match self.allow {
            Some(name) => write!(f, " (OMS_ALLOW={name} lets it pass)"),
            None => Ok(()),
        }
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        let text = problem.to_string();
        Self {
            variable: problem.variable,
            detail: text[problem.variable.len() + 2..].to_owned(),
        }
    }
}

/// Why these settings must not start: nothing in development.
pub fn refusals(config: &Config) -> Vec<Problem> {
    match config.production {
        true => problems(config),
        false => Vec::new(),
    }
}

/// Why these settings would not start in production, without what was allowed.
pub fn problems(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    found.extend(secret_key(config));
    found.extend(public_url(config));
    found.extend(mail(config));
    found.extend(accounts(config));
    found.extend(folders(config));
    found.retain(|problem| problem.allow.is_none_or(|name| !config.allowed.contains(name)));
    found
}

/// Says in the log what should be looked at; in development nothing need be.
pub(crate) fn warn(config: &Config) {
    if config.production {
        for warning in warnings(config) {
            tracing::warn!("{warning}");
        }
    }
}

/// What may be meant so, but should be looked at.
pub fn warnings(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    if !config.plugin_dir.is_dir() {
        let detail = format!(
            "there is no folder {}: no plugin can be loaded",
            config.plugin_dir.display()
        );
        found.push(problem("OMS_PLUGIN_DIR", detail));
    }
    if !config.accounts.0.exists() {
        let detail = format!("there is no file {}: nobody can pay", config.accounts.0.display());
        found.push(problem("OMS_ACCOUNTS", detail));
    }
    if let Ok(url) = url::Url::parse(&config.database_url)
        && url.scheme().starts_with("postgres")
    {
        let user = url.username();
        if url.password() == Some(user) || url.password() == Some("postgres") {
            found.push(problem("DATABASE_URL", "the password can be guessed".into()));
        }
        let encrypted = url
            .query_pairs()
            .any(|(key, value)| key == "sslmode" && value != "disable");
        if !encrypted && !url.host_str().is_none_or(is_local) {
            let detail =
                "the database is on another machine: sslmode=verify-full keeps others from listening";
            found.push(problem("DATABASE_URL", detail.into()));
        }
    }
    found
}

fn problem(variable: &'static str, detail: String) -> Problem {
    Problem {
        variable,
        detail,
        allow: None,
    }
}

fn allowable(variable: &'static str, allow: &'static str, detail: String) -> Problem {
    Problem {
        variable,
        detail,
        allow: Some(allow),
    }
}

fn secret_key(config: &Config) -> Option<Problem> {
    const NEEDED: &str = "at least 32 random bytes are needed in production (openssl rand -base64 48)";
    let why = match config.secret_key.as_ref().map(oms_core::payments::Secret::reveal) {
        None => "is not set".into(),
        Some(key) if key.len() < 32 => format!("has {} bytes", key.len()),
        // No random key is of so few kinds of bytes; a placeholder is.
        Some(key) if key.bytes().collect::<std::collections::BTreeSet<_>>().len() < 8 => {
            "has fewer than 8 different bytes".into()
        }
        Some(key) => {
            let folded = key.to_lowercase();
            let word = PLACEHOLDERS.into_iter().find(|word| folded.contains(word))?;
            format!("holds the word {word}")
        }
    };
    Some(problem("SECRET_KEY", format!("{why}: {NEEDED}")))
}

fn public_url(config: &Config) -> Option<Problem> {
    let Some(url) = &config.public_url else {
        let detail = "is not set, but needed in production: links in mails and webhooks lead there";
        return Some(problem("OMS_PUBLIC_URL", detail.into()));
    };
    if url.starts_with("https:") {
        return None;
    }
    let detail = format!("{url:?} is not https: passwords and tokens would pass in the clear");
    Some(allowable("OMS_PUBLIC_URL", "http-public-url", detail))
}

fn mail(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    if config.smtp.is_none() {
        let detail = "is not set, but needed in production: mails go there".to_owned();
        found.push(allowable("MAIL_SERVER", "mail-files", detail));
    }
    // The sender of development, or one that nobody could answer.
    if config.mail_from.email.domain() == "localhost" {
        let detail = "is not set, but needed in production: mails come from there".to_owned();
        found.push(allowable("MAIL_FROM", "mail-files", detail));
    }
    found
}

/// The fake bank itself does not run in production; an account at one that runs elsewhere would sell for nothing.
fn accounts(config: &Config) -> Vec<Problem> {
    let declared = match setup::declared(config) {
        Ok(declared) => declared,
        Err(e) => return vec![problem(e.variable, e.detail)],
    };
    let fake = declared.iter().filter(|account| account.plugin == "mock");
    fake.map(|account| {
        let detail = format!(
            "the account {:?} is at the fake bank, where nobody really pays",
            account.name
        );
        allowable("OMS_ACCOUNTS", "mock-gateway", detail)
    })
    .collect()
}

/// A whole shop lies there when the database is a file: its customers, what they ordered, who may log in. Beside a
/// PostgreSQL it holds caches, and a container's empty volume is open to all who are in the container.
fn folders(config: &Config) -> Vec<Problem> {
    // An address that cannot be read is refused when the database is opened.
    let Ok(Some(file)) = sqlite_file::path(&config.database_url) else {
        return Vec::new();
    };
    let mut folders = vec![("OMS_DATA_DIR", config.data_dir.as_path())];
    // The file may lie elsewhere.
    let its = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if its != config.data_dir {
        folders.push(("DATABASE_URL", its));
    }
    let open = folders
        .into_iter()
        .filter_map(|(variable, folder)| open_folder(variable, folder));
    open.collect()
}

fn open_folder(variable: &'static str, folder: &Path) -> Option<Problem> {
    // One that is not there is made for its owner alone.
    let mode = std::fs::metadata(folder).ok()?.permissions().mode() & 0o777;
    let what = match (mode & 0o002 != 0, mode & 0o005 != 0) {
        (true, _) => "write to",
        (false, true) => "look into",
        (false, false) => return None,
    };
    let detail = format!(
        "every user of this machine can {what} {} (mode {mode:03o}): chmod 700 it",
        folder.display()
    );
    Some(allowable(variable, "open-data-dir", detail))
}

fn is_local(host: &str) -> bool {
    // Names without a dot are of the own network: a container beside this one.
    host.is_empty()
        || host.starts_with('/')
        || host.starts_with("127.")
        || host == "[::1]"
        || !host.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;

    const KEY: &str = "kW3k0c9cJ7rC1dX8fQ2mZ5vB6nL4pT0a";

    fn private_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
        folder
    }

    /// Problems of production settings with these changes to good ones.
    fn found(folder: &Path, changes: &[(&'static str, &str)]) -> Vec<Problem> {
        let mut given = std::collections::BTreeMap::from([
            ("SECRET_KEY", KEY),
            ("OMS_PUBLIC_URL", "https://shop.example.com"),
            ("MAIL_SERVER", "mail.example.com"),
            ("MAIL_FROM", "shop@example.com"),
        ]);
        given.extend(changes.iter().copied());
        let options = Options {
            env: Some("production".into()),
            public_url: Some(given["OMS_PUBLIC_URL"].into()),
            data_dir: Some(folder.display().to_string()),
            ..Options::default()
        };
        let config = Config::read(&options, |name| given.get(name).map(|value| (*value).to_owned()));
        refusals(&config.unwrap())
    }

    #[test]
    fn good_settings_pass_and_each_bad_one_is_told() {
        let folder = private_folder();
        assert_eq!(found(folder.path(), &[]), []);
        for (variable, value) in [
            ("SECRET_KEY", ""),
            ("SECRET_KEY", "too short"),
            ("SECRET_KEY", "abababababababababababababababababababababab"),
            ("SECRET_KEY", "ChangeMe-0123456789-abcdefghijklmnopqrstuvwxyz"),
            ("OMS_PUBLIC_URL", ""),
            ("OMS_PUBLIC_URL", "http://shop.example.com"),
            ("MAIL_SERVER", ""),
            ("MAIL_FROM", ""),
        ] {
            let found = found(folder.path(), &[(variable, value)]);
            assert_eq!(found.len(), 1, "{variable}={value}: {found:?}");
            assert_eq!(found[0].variable, variable);
            if variable == "SECRET_KEY" && !value.is_empty() {
                assert!(!found[0].to_string().contains(value));
            }
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let folder = private_folder();
        let bad = [
            ("SECRET_KEY", ""),
            ("OMS_PUBLIC_URL", ""),
            ("MAIL_SERVER", ""),
            ("MAIL_FROM", ""),
        ];
        assert_eq!(found(folder.path(), &bad).len(), 4);
    }

    #[test]
    fn what_is_named_passes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let accounts = "[till]\nplugin = \"mock\"\n";
        std::fs::write(folder.path().join("accounts.toml"), accounts).unwrap();
        let bad = [
            ("OMS_PUBLIC_URL", "http://shop"),
            ("MAIL_SERVER", ""),
            ("MAIL_FROM", ""),
        ];
        let all = found(folder.path(), &bad);
        let mut names: Vec<_> = all.iter().filter_map(|problem| problem.allow).collect();
        names.dedup();
        assert_eq!(names, OVERRIDES.map(|(name, _)| name), "{all:?}");
        let allowed = names.join(", ");
        let allowing: Vec<_> = bad.into_iter().chain([("OMS_ALLOW", allowed.as_str())]).collect();
        assert_eq!(found(folder.path(), &allowing), []);
    }

    #[test]
    fn the_folder_of_the_database_is_judged_wherever_it_is() {
        let (folder, elsewhere) = (private_folder(), private_folder());
        let url = format!("sqlite://{}", elsewhere.path().join("shop.db").display());
        let options = Options {
            data_dir: Some(folder.path().display().to_string()),
            database_url: Some(url),
            ..Options::default()
        };
        let config = Config::read(&options, |_| None).unwrap();
        assert_eq!(folders(&config), []);
        std::fs::set_permissions(elsewhere.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let found = folders(&config);
        assert_eq!(
            (found.len(), found[0].variable, found[0].allow),
            (1, "DATABASE_URL", Some("open-data-dir"))
        );
    }

    #[test]
    fn only_known_names_are_allowed() {
        let config = Config::read(&Options::default(), |name| {
            (name == "OMS_ALLOW").then(|| "everything".to_owned())
        });
        assert_eq!(config.map(drop).unwrap_err().variable, "OMS_ALLOW");
    }
}
