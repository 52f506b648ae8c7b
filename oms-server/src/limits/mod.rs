//! How often somebody may ask: the classes of requests, their limits, and who counts.
//!
//! Redis counts for all servers together. While it is away, or when there is none, each process counts for itself: never
//! does a request pass uncounted, and never is one refused because nobody could count.

mod local;

use std::str::FromStr;
use std::time::Duration;

use crate::config::ConfigError;
use crate::redis::Redis;
use local::Local;

/// Requests that share a limit. Each client, account or name has the limit of a class for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Everything that no other class is for, by user or, before log-in, by address.
    Client,
    /// Webhooks, by payment account and sender: a stranger cannot use up what the gateway may send.
    Webhook,
    /// Log-in, registration and requests for mails, by address.
    SignIn,
    /// The same, by the name or mail address that is given: so many addresses do not help to guess one password.
    SignInName,
}

/// All there is to know about a class.
struct Row {
    class: Class,
    /// In headers, keys and metrics.
    name: &'static str,
    variable: &'static str,
    default: &'static str,
}

/// The one table of classes. A route says which it is in with [`Class`]; whatever else is to be limited begins here.
const CLASSES: [Row; 4] = [
    Row {
        class: Class::Client,
        name: "client",
        variable: "OMS_RATE_LIMIT_CLIENT",
        default: "12000/1m",
    },
    Row {
        class: Class::Webhook,
        name: "webhook",
        variable: "OMS_RATE_LIMIT_WEBHOOK",
        default: "60000/1m",
    },
    Row {
        class: Class::SignIn,
        name: "sign-in",
        variable: "OMS_RATE_LIMIT_SIGN_IN",
        default: "60/1m",
    },
    Row {
        class: Class::SignInName,
        name: "sign-in-name",
        variable: "OMS_RATE_LIMIT_SIGN_IN_NAME",
        default: "15/1m",
    },
];

impl Class {
    pub fn name(self) -> &'static str {
        CLASSES[self.index()].name
    }

    fn index(self) -> usize {
        CLASSES
            .iter()
            .position(|row| row.class == self)
            .unwrap_or_default()
    }
}

/// So many requests in such a time: all at once, or evenly, or anything between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub quota: u32,
    pub window: Duration,
}

/// What became of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    /// How many more are possible at once.
    pub remaining: u32,
    /// Until the whole quota is there again; when refused, until the next request is possible.
    pub reset: Duration,
}

/// The limits of all classes; a class without one is not counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings([Option<Limit>; CLASSES.len()]);

impl Settings {
    /// Reads the variables that are set.
    pub fn new(lookup: impl Fn(&'static str) -> Option<String>) -> Result<Self, ConfigError> {
        let all = match lookup("OMS_RATE_LIMIT").as_deref() {
            None | Some("on") => true,
            Some("off") => false,
            Some(other) => {
                return Err(ConfigError {
                    variable: "OMS_RATE_LIMIT",
                    detail: format!("{other:?} must be on or off"),
                });
            }
        };
        let mut limits = [None; CLASSES.len()];
        for (limit, row) in limits.iter_mut().zip(&CLASSES) {
            let given = lookup(row.variable);
            let parsed = parse(given.as_deref().unwrap_or(row.default)).map_err(|detail| ConfigError {
                variable: row.variable,
                detail,
            })?;
            *limit = parsed.filter(|_| all);
        }
        Ok(Self(limits))
    }

    fn of(&self, class: Class) -> Option<Limit> {
        self.0[class.index()]
    }
}

/// Counts requests.
pub struct Limits {
    settings: Settings,
    local: [Option<Local>; CLASSES.len()],
    shared: Option<Redis>,
}

impl Limits {
    pub fn new(settings: Settings, shared: Option<Redis>) -> Self {
        Self {
            local: settings.0.map(|limit| limit.map(Local::new)),
            settings,
            shared,
        }
    }

    /// What counts for several servers, if there is such.
    pub fn shared(&self) -> Option<&Redis> {
        self.shared.as_ref()
    }

    /// Counts a request of `who`; none when the class has no limit.
    pub async fn take(&self, class: Class, who: &str) -> Option<(Limit, Verdict)> {
        let limit = self.settings.of(class)?;
        let local = self.local[class.index()].as_ref()?;
        let shared = match &self.shared {
            Some(redis) => redis.take(&format!("{}:{who}", class.name()), limit).await,
            None => None,
        };
        let verdict = shared.unwrap_or_else(|| local.take(who));
        if !verdict.allowed {
            metrics::counter!("oms_rate_limited_total", "class" => class.name()).increment(1);
        }
        Some((limit, verdict))
    }
}

/// `600/1m`, `10/s`, `5/1h` or `off`.
fn parse(text: &str) -> Result<Option<Limit>, String> {
    match text {
        "off" => Ok(None),
        text => text.parse().map(Some),
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} must be off or requests per time, such as 600/1m (s, m, h or d)");
        let (quota, window) = text.split_once('/').ok_or_else(wrong)?;
        let unit = window.chars().next_back().ok_or_else(wrong)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 24 * 3600,
            _ => return Err(wrong()),
        };
        let count: u64 = match window.strip_suffix(unit) {
            Some("") => 1,
            Some(digits) => digits.parse().map_err(|_| wrong())?,
            None => return Err(wrong()),
        };
        let limit = Self {
            quota: quota.parse().map_err(|_| wrong())?,
            window: Duration::from_secs(count.checked_mul(seconds).ok_or_else(wrong)?),
        };
        // The counters work in microseconds, and nothing is remembered for longer than a month.
        let sane =
            (1..=1_000_000).contains(&limit.quota) && (1..=31 * 24 * 3600).contains(&limit.window.as_secs());
        if sane {
            Ok(limit)
        } else {
            Err(format!(
                "{text:?} must allow 1 to 1000000 requests in at most 31 days"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        Settings::new(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn every_class_has_a_limit_unless_it_is_turned_off() {
        let defaults = settings(&[]).unwrap();
        assert!(CLASSES.iter().all(|row| defaults.of(row.class).is_some()));
        let one = settings(&[("OMS_RATE_LIMIT_SIGN_IN", "off")]).unwrap();
        assert_eq!(
            (one.of(Class::SignIn), one.of(Class::Client).is_some()),
            (None, true)
        );
        let none = settings(&[("OMS_RATE_LIMIT", "off"), ("OMS_RATE_LIMIT_CLIENT", "1/s")]).unwrap();
        assert!(CLASSES.iter().all(|row| none.of(row.class).is_none()));
    }

    #[test]
    fn limits_are_read() {
        let limit = |quota, seconds| Limit {
            quota,
            window: Duration::from_secs(seconds),
        };
        assert_eq!("600/1m".parse(), Ok(limit(600, 60)));
        assert_eq!("10/s".parse(), Ok(limit(10, 1)));
        assert_eq!("5/2h".parse(), Ok(limit(5, 7200)));
        for wrong in [
            "",
            "5",
            "/s",
            "5/",
            "5/x",
            "0/s",
            "5/0s",
            "-1/s",
            "5/1µ",
            "1000001/s",
            "5/32d",
        ] {
            assert!(wrong.parse::<Limit>().is_err(), "{wrong}");
        }
        let error = settings(&[("OMS_RATE_LIMIT_WEBHOOK", "many")]).unwrap_err();
        assert_eq!(error.variable, "OMS_RATE_LIMIT_WEBHOOK");
        assert_eq!(
            settings(&[("OMS_RATE_LIMIT", "no")]).unwrap_err().variable,
            "OMS_RATE_LIMIT"
        );
    }

    #[tokio::test]
    async fn each_client_has_its_own() {
        let settings = settings(&[("OMS_RATE_LIMIT_CLIENT", "2/1h")]).unwrap();
        let limits = Limits::new(settings, None);
        for (who, allowed) in [("a", true), ("a", true), ("a", false), ("b", true)] {
            let (_, verdict) = limits.take(Class::Client, who).await.unwrap();
            assert_eq!(verdict.allowed, allowed, "{who} {verdict:?}");
        }
    }
}
