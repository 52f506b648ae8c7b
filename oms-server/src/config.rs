//! Settings: flags before the environment before `.env` before defaults. The only reader of the environment.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use lettre::message::Mailbox;
use oms_core::payments::Secret;

use crate::client::Proxies;
use crate::mailer::Smtp;
use crate::media::MediaPlace;
use crate::{limits, production, redis, sight};

/// What every command may be told, as it was written: [`Config`] is what it means.
#[derive(Clone, Default, clap::Args)]
#[command(next_help_heading = "Settings")]
#[group(skip)]
pub struct Options {
    /// Address and port to listen on [default: 127.0.0.1:8000]
    #[arg(
        long,
        global = true,
        env = "OMS_LISTEN",
        hide_env_values = true,
        value_name = "ADDRESS"
    )]
    pub listen: Option<String>,
    /// sqlite:///path/to/oms.db or postgres://user:password@host/database [default: <data dir>/oms.db]
    #[arg(
        long,
        global = true,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,
    /// Folder of the SQLite database, media, mails, caches and development secrets [default: oms-data]
    #[arg(
        long,
        global = true,
        env = "OMS_DATA_DIR",
        hide_env_values = true,
        value_name = "FOLDER"
    )]
    pub data_dir: Option<String>,
    /// Folder of payment plugins [default: <data dir>/plugins, then target/plugins]
    #[arg(
        long,
        global = true,
        env = "OMS_PLUGIN_DIR",
        hide_env_values = true,
        value_name = "FOLDER"
    )]
    pub plugin_dir: Option<String>,
    /// Address under which customers and gateways reach the server [default: from the address it listens on]
    #[arg(
        long,
        global = true,
        env = "OMS_PUBLIC_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub public_url: Option<String>,
    /// development (fake bank, random secrets, mails as files) or production [default: development]
    #[arg(
        long,
        global = true,
        env = "OMS_ENV",
        hide_env_values = true,
        value_name = "ENVIRONMENT"
    )]
    pub env: Option<String>,
    /// File that declares the accounts at payment gateways [default: <data dir>/accounts.toml]
    #[arg(
        long,
        global = true,
        env = "OMS_ACCOUNTS",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub accounts: Option<String>,
    /// How long the server goes on after it was asked to stop, for balancers to notice [default: 5 in production, else 0]
    #[arg(
        long,
        global = true,
        env = "OMS_DRAIN_SECONDS",
        hide_env_values = true,
        value_name = "SECONDS"
    )]
    pub drain_seconds: Option<String>,
}

/// Settings that were checked.
#[derive(Clone)]
pub struct Config {
    pub production: bool,
    pub listen: SocketAddr,
    /// Without a slash at the end; none to derive it from the address that is listened on.
    pub public_url: Option<String>,
    /// Without a slash at the end; none when the public address is reachable from here as well.
    pub internal_url: Option<String>,
    pub database_url: String,
    pub data_dir: PathBuf,
    pub plugin_dir: PathBuf,
    /// The file and whether it was named: one that was named must exist.
    pub accounts: (PathBuf, bool),
    /// Signs access tokens. None in development, where a random one is kept in the data folder.
    pub secret_key: Option<Secret>,
    /// None: each mail becomes a file.
    pub smtp: Option<Smtp>,
    pub mail_from: Mailbox,
    /// From the wish to stop until no more connections are accepted.
    pub drain: Duration,
    /// Shared by several servers and workers.
    pub redis_url: Option<Secret>,
    pub limits: limits::Settings,
    pub trusted_proxies: Proxies,
    /// Measurements and traces.
    pub sight: sight::Settings,
    /// What is let pass in production: names of [`production::OVERRIDES`].
    pub allowed: BTreeSet<String>,
    /// Files here replace the words of mails.
    pub mail_templates: Option<PathBuf>,
    pub media: MediaPlace,
    /// Whether the calls of all accounts' plugins are recorded.
    pub record_plugins: bool,
}

/// Without the database's address, which may hold a password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("data_dir", &self.data_dir)
            .field("plugin_dir", &self.plugin_dir)
            .field("public_url", &self.public_url)
            .field("env", &self.env)
            .field("accounts", &self.accounts)
            .field("drain_seconds", &self.drain_seconds)
            .finish_non_exhaustive()
    }
}

/// Without the addresses of the database and of Redis, which may hold passwords, and the secret key.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("production", &self.production)
            .field("listen", &self.listen)
            .field("public_url", &self.public_url)
            .field("data_dir", &self.data_dir)
            .field("plugin_dir", &self.plugin_dir)
            .field("accounts", &self.accounts)
            .field("smtp", &self.smtp)
            .field("drain", &self.drain)
            .field("limits", &self.limits)
            .field("trusted_proxies", &self.trusted_proxies)
            .field("sight", &self.sight)
            .field("mail_templates", &self.mail_templates)
            .field("media", &self.media)
            .finish_non_exhaustive()
    }
}

/// A setting that cannot be used. Printed as one line that names the variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub variable: &'static str,
    pub detail: String,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.detail)
    }
}

pub(crate) fn wrong(variable: &'static str, detail: impl Into<String>) -> ConfigError {
    ConfigError {
        variable,
        detail: detail.into(),
    }
}

impl Config {
    /// Checks the options and reads what has no flag through `lookup`, which is [`variable`] outside of tests. Refuses
    /// what must not start in production.
    pub fn new(
        options: &Options,
        lookup: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let config = Self::read(options, lookup)?;
        match production::refusals(&config).into_iter().next() {
            Some(problem) => Err(problem.into()),
            None => Ok(config),
        }
    }

    /// As [`Config::new`], whether it may start or not: for commands that look after a server or mend it.
    pub fn read(
        options: &Options,
        lookup: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        // Container set-ups pass variables that are not set as empty ones.
        let given = |option: &Option<String>| option.clone().filter(|text| !text.is_empty());
        let lookup = |name| lookup(name).filter(|text| !text.is_empty());
        let production = match given(&options.env).as_deref() {
            None | Some("development") => false,
            Some("production") => true,
            Some(other) => {
                return Err(wrong(
                    "OMS_ENV",
                    format!("{other:?} must be development or production"),
                ));
            }
        };
        let data_dir = PathBuf::from(given(&options.data_dir).unwrap_or_else(|| "oms-data".into()));
        let accounts = match given(&options.accounts) {
            Some(path) => (PathBuf::from(path), true),
            None => (data_dir.join("accounts.toml"), false),
        };
        Ok(Self {
            production,
            listen: parse_or(
                given(&options.listen).as_deref(),
                "OMS_LISTEN",
                "127.0.0.1:8000",
                "an IP address with a port, such as 127.0.0.1:8000",
            )?,
            public_url: given(&options.public_url)
                .map(|url| own_url("OMS_PUBLIC_URL", &url))
                .transpose()?,
            internal_url: lookup("OMS_INTERNAL_URL")
                .map(|url| own_url("OMS_INTERNAL_URL", &url))
                .transpose()?,
            database_url: database_url(given(&options.database_url), &data_dir)?,
            plugin_dir: plugin_dir(given(&options.plugin_dir), &data_dir),
            accounts,
            secret_key: lookup("SECRET_KEY").map(Secret::new),
            smtp: Smtp::read(&lookup)?,
            sight: sight::Settings::read(&lookup)?,
            mail_from: parse_or(
                lookup("MAIL_FROM").as_deref(),
                "MAIL_FROM",
                "OMS <no-reply@localhost>",
                "a sender, such as Shop <shop@example.com>",
            )?,
            drain: drain(given(&options.drain_seconds).as_deref(), production)?,
            redis_url: redis_url(lookup("REDIS_URL"))?,
            limits: limits::Settings::new(lookup)?,
            trusted_proxies: lookup("OMS_TRUSTED_PROXIES")
                .unwrap_or_default()
                .parse()
                .map_err(|detail: String| wrong("OMS_TRUSTED_PROXIES", detail))?,
            allowed: allowed(lookup("OMS_ALLOW"))?,
            mail_templates: lookup("OMS_MAIL_TEMPLATES").map(PathBuf::from),
            media: MediaPlace::read(&lookup, &data_dir)?,
            record_plugins: match lookup("OMS_PLUGIN_RECORD").as_deref() {
                None | Some("" | "0" | "false") => false,
                Some("1" | "true") => true,
                Some(other) => {
                    return Err(wrong(
                        "OMS_PLUGIN_RECORD",
                        format!("{other:?} must be true or false"),
                    ));
                }
            },
            data_dir,
        })
    }
}

/// Adds what `.env` in the working folder says to the environment, where real variables win, and returns the names that
/// came from there. Call it while the program still has one thread.
pub fn load_dotenv() -> Result<BTreeSet<String>, ConfigError> {
    let path = Path::new(".env");
    let read = || -> dotenvy::Result<_> {
        let mut names = BTreeSet::new();
        for entry in dotenvy::from_path_iter(path)? {
            names.insert(entry?.0);
        }
        names.retain(|name| variable(name).is_none());
        dotenvy::from_path(path)?;
        Ok(names)
    };
    match read() {
        Ok(names) => Ok(names),
        Err(e) if e.not_found() => Ok(BTreeSet::new()),
        // The error quotes the line, which may hold a secret.
        Err(dotenvy::Error::LineParse(_, at)) => Err(wrong(
            ".env",
            format!("cannot be read from character {at} of a line on"),
        )),
        Err(e) => Err(wrong(".env", e.to_string())),
    }
}

/// A variable of the environment.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The secret behind `env:NAME` or `file:PATH`, as the accounts file names them.
pub fn resolve_secret(source: &str) -> Result<String, String> {
    if let Some(name) = source.strip_prefix("env:") {
        return variable(name)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| format!("the variable {name} is not set"));
    }
    let path = source
        .strip_prefix("file:")
        .ok_or("a secret is named as env:NAME or file:PATH")?;
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {path}: {e}"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

pub(crate) fn parse_or<T: FromStr>(
    given: Option<&str>,
    variable: &'static str,
    default: &str,
    expected: &str,
) -> Result<T, ConfigError> {
    let text = given.unwrap_or(default);
    text.parse()
        .map_err(|_| wrong(variable, format!("{text:?} is not {expected}")))
}

fn own_url(variable: &'static str, text: &str) -> Result<String, ConfigError> {
    let usable = url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    });
    if usable {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        // Somebody may have put a password into it.
        let given = if text.contains('@') {
            "this".into()
        } else {
            format!("{text:?}")
        };
        let detail = format!("{given} is not an address such as https://shop.example.com");
        Err(wrong(variable, detail))
    }
}

fn database_url(given: Option<String>, data_dir: &Path) -> Result<String, ConfigError> {
    let Some(url) = given else {
        return Ok(format!("sqlite://{}", data_dir.join("oms.db").display()));
    };
    // Never repeated in a message: it may hold a password.
    if ["sqlite:", "postgres:", "postgresql:"]
        .iter()
        .any(|s| url.starts_with(s))
    {
        Ok(url)
    } else {
        Err(wrong(
            "DATABASE_URL",
            "must begin with sqlite: or postgres:, as in postgres://user:password@host/database",
        ))
    }
}

fn redis_url(given: Option<String>) -> Result<Option<Secret>, ConfigError> {
    if let Some(url) = &given {
        redis::check_url(url).map_err(|detail| wrong("REDIS_URL", detail))?;
    }
    Ok(given.map(Secret::new))
}

fn plugin_dir(given: Option<String>, data_dir: &Path) -> PathBuf {
    // `cargo xtask plugins` fills the second one.
    let candidates = [data_dir.join("plugins"), PathBuf::from("target/plugins")];
    given.map_or_else(
        || {
            let found = candidates.iter().find(|path| path.is_dir());
            found.unwrap_or(&candidates[0]).clone()
        },
        PathBuf::from,
    )
}

/// A list with commas between.
fn allowed(given: Option<String>) -> Result<BTreeSet<String>, ConfigError> {
    let names = given.unwrap_or_default();
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    let known = production::OVERRIDES.map(|(name, _)| name);
    let check = |name: &str| match known.contains(&name) {
        true => Ok(name.to_owned()),
        false => Err(wrong(
            "OMS_ALLOW",
            format!("{name:?} is none of {}", known.join(", ")),
        )),
    };
    names.map(check).collect()
}

fn drain(given: Option<&str>, production: bool) -> Result<Duration, ConfigError> {
    let default = if production { "5" } else { "0" };
    let expected = "a number of seconds, at most 300";
    let seconds: u64 = parse_or(given, "OMS_DRAIN_SECONDS", default, expected)?;
    if seconds > 300 {
        return Err(wrong("OMS_DRAIN_SECONDS", format!("{seconds} is not {expected}")));
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(options: &Options, variables: &[(&'static str, &str)]) -> Result<Config, ConfigError> {
        Config::new(options, |name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn defaults_suit_development() {
        let config = config(&Options::default(), &[("MAIL_SERVER", "")]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
        assert_eq!(config.database_url, "sqlite://oms-data/oms.db");
        assert!(!config.production && config.smtp.is_none() && config.secret_key.is_none());
    }

    #[test]
    fn a_wrong_value_names_its_variable() {
        let with = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            config(&options, &[]).unwrap_err().variable
        };
        assert_eq!(with(|o| o.listen = Some("8000".into())), "OMS_LISTEN");
        assert_eq!(with(|o| o.env = Some("staging".into())), "OMS_ENV");
        assert_eq!(with(|o| o.public_url = Some("shop".into())), "OMS_PUBLIC_URL");
        assert_eq!(with(|o| o.drain_seconds = Some("-1".into())), "OMS_DRAIN_SECONDS");
        assert_eq!(
            with(|o| o.drain_seconds = Some("301".into())),
            "OMS_DRAIN_SECONDS"
        );
        assert_eq!(
            with(|o| o.database_url = Some("mysql://x:secret@y".into())),
            "DATABASE_URL"
        );
        assert_eq!(with(|o| o.env = Some("production".into())), "SECRET_KEY");
        let of =
            |variables: &[(&'static str, &str)]| config(&Options::default(), variables).unwrap_err().variable;
        assert_eq!(of(&[("MAIL_PORT", "smtp")]), "MAIL_PORT");
        assert_eq!(of(&[("MAIL_USERNAME", "me")]), "MAIL_PASSWORD");
        assert_eq!(of(&[("MAIL_FROM", "nobody")]), "MAIL_FROM");
        assert_eq!(of(&[("REDIS_URL", "localhost:6379")]), "REDIS_URL");
        assert_eq!(of(&[("OMS_RATE_LIMIT", "sometimes")]), "OMS_RATE_LIMIT");
        assert_eq!(of(&[("OMS_RATE_LIMIT_SIGN_IN", "7")]), "OMS_RATE_LIMIT_SIGN_IN");
        assert_eq!(of(&[("OMS_TRUSTED_PROXIES", "proxy")]), "OMS_TRUSTED_PROXIES");
    }

    #[test]
    fn production_is_refused_by_its_first_problem() {
        let options = Options {
            env: Some("production".into()),
            ..Options::default()
        };
        assert_eq!(config(&options, &[]).unwrap_err().variable, "SECRET_KEY");
        assert!(Config::read(&options, |_| None).is_ok());
        let key = "kW3k0c9cJ7rC1dX8fQ2mZ5vB6nL4pT0a";
        let config = Config::read(&options, |name| (name == "SECRET_KEY").then(|| key.into()));
        let shown = format!("{:?} {options:?}", config.unwrap());
        assert!(!shown.contains(key), "{shown}");
    }

    #[test]
    fn passwords_are_not_shown() {
        let options = Options {
            database_url: Some("postgres://oms:geheim@db/oms".into()),
            ..Options::default()
        };
        let config = config(&options, &[("REDIS_URL", "redis://:geheim@localhost/1")]).unwrap();
        let shown = format!("{options:?} {config:?}");
        assert!(!shown.contains("geheim"), "{shown}");
        let wrong = self::config(&options, &[("REDIS_URL", "redis://:geheim@host:port")]);
        let wrong = format!("{:?}", wrong.unwrap_err());
        assert!(!wrong.contains("geheim"), "{wrong}");
    }
}
