//! Accounts: one merchant's credentials at one gateway. They live in a file of the operator, never in the database.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// One merchant's credentials and settings at one gateway.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its name in the API, in webhook addresses and in the database: `[a-z0-9-]{1,32}`.
    pub name: String,
    /// The id of the adapter.
    pub plugin: String,
    /// Whether no real money moves.
    pub test_mode: bool,
    /// How far a webhook's signed time may be off, in both directions; seconds, at least 1.
    pub tolerance_seconds: u32,
    /// How long an order is held for a payment that was started here; none for ever (bank transfer).
    pub order_hold: Option<Duration>,
    /// Hosts that the adapter may reach.
    pub grants: Vec<Grant>,
    /// Settings that are no secret.
    pub config: BTreeMap<String, String>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Secret>,
    /// PEM certificates that are trusted beside the public ones.
    pub extra_roots: Option<String>,
    /// Whether what its plugin asks and answers is written down for two weeks, without secrets and personal data.
    pub record: bool,
}

/// A host that the operator lets an account's adapter reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// An origin, such as `https://api.example.com`.
    pub origin: String,
    /// Whether plain http and private, loopback and link-local addresses are meant: for local fakes.
    pub private: bool,
}

/// A secret text that no `Debug` or log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Account {
    /// An account with safe defaults: test mode, five minutes of tolerance, an order held for 30 minutes, no hosts.
    pub fn new(name: impl Into<String>, plugin: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            plugin: plugin.into(),
            test_mode: true,
            tolerance_seconds: 300,
            order_hold: Some(Duration::from_secs(30 * 60)),
            grants: Vec::new(),
            config: BTreeMap::new(),
            secrets: BTreeMap::new(),
            extra_roots: None,
            record: false,
        }
    }

    /// Reads `accounts.toml`. `resolve` turns `env:NAME` and `file:PATH` into secrets; any other form is refused, so
    /// that no secret stands in the file itself.
    ///
    /// ```
    /// let text = r#"
    /// [mock]
    /// plugin = "mock"
    /// order_hold_minutes = 30            # or "never"
    /// grants = ["https://api.example.com"]
    /// private_grants = ["http://127.0.0.1:8000"]
    /// config = { base-url = "http://127.0.0.1:8000/mock-gateway" }
    /// secrets = { api-key = "env:MOCK_API_KEY" }
    /// "#;
    /// let accounts = oms_core::payments::Account::parse_all(text, |_| Ok("s3cret".into()))?;
    /// assert_eq!(accounts[0].name, "mock");
    /// # Ok::<(), String>(())
    /// ```
    pub fn parse_all(
        text: &str,
        resolve: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Vec<Self>, String> {
        let file: BTreeMap<String, AccountEntry> = toml::from_str(text).map_err(|e| e.to_string())?;
        file.into_iter()
            .map(|(name, entry)| entry.into_account(name, &resolve))
            .collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountEntry {
    plugin: String,
    #[serde(default = "yes")]
    test_mode: bool,
    #[serde(default = "five_minutes")]
    tolerance_seconds: u32,
    order_hold_minutes: Option<Hold>,
    #[serde(default)]
    grants: Vec<String>,
    #[serde(default)]
    private_grants: Vec<String>,
    #[serde(default)]
    config: BTreeMap<String, String>,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    extra_roots: Option<String>,
    #[serde(default)]
    record: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Hold {
    Minutes(u32),
    Word(String),
}

const fn yes() -> bool {
    true
}

const fn five_minutes() -> u32 {
    300
}

impl AccountEntry {
    fn into_account(
        self,
        name: String,
        resolve: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Account, String> {
        let named = |what: &str| format!("account {name}: {what}");
        let well_named = (1..=32).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !well_named {
            return Err(named("the name must be 1 to 32 of a-z, 0-9 and -"));
        }
        if self.tolerance_seconds == 0 {
            return Err(named("tolerance_seconds must be at least 1"));
        }
        let order_hold = match self.order_hold_minutes {
            None => Some(Duration::from_secs(30 * 60)),
            Some(Hold::Minutes(minutes @ 1..)) => Some(Duration::from_secs(u64::from(minutes) * 60)),
            Some(Hold::Word(word)) if word == "never" => None,
            Some(_) => {
                return Err(named("order_hold_minutes must be a number above 0 or \"never\""));
            }
        };
        let mut secrets = BTreeMap::new();
        for (key, source) in self.secrets {
            if !source.starts_with("env:") && !source.starts_with("file:") {
                return Err(named(&format!(
                    "secret {key} must be given as env:NAME or file:PATH"
                )));
            }
            secrets.insert(key, Secret::new(resolve(&source).map_err(|e| named(&e))?));
        }
        let grant = |private| move |origin| Grant { origin, private };
        let grants = self.grants.into_iter().map(grant(false));
        Ok(Account {
            plugin: self.plugin,
            test_mode: self.test_mode,
            tolerance_seconds: self.tolerance_seconds,
            order_hold,
            grants: grants
                .chain(self.private_grants.into_iter().map(grant(true)))
                .collect(),
            config: self.config,
            secrets,
            extra_roots: self.extra_roots,
            record: self.record,
            name,
        })
    }
}
