//! The account's settings: which gateway this is.

use oms_plugin_sdk::{PaymentError, PaymentStatus, RefundStatus};
use std::collections::BTreeMap;

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) String);

impl From<Fault> for PaymentError {
    fn from(fault: Fault) -> Self {
        Self::misconfigured(fault.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Start,
    /// By the gateway's reference.
    Sync,
    /// By our payment id, when the answer to the start was lost.
    Find,
    Capture,
    Cancel,
    Refund,
}

/// How the API key is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Auth {
    Bearer,
    /// As the user name, with an empty password.
    Basic,
    Header(String),
}

pub(crate) struct Settings {
    pub(crate) base_url: String,
    pub(crate) timeout_ms: u32,
    pub(crate) auth: Auth,
    pub(crate) idempotency_header: String,
    pub(crate) decimal_amounts: bool,
    pub(crate) declined_status: u16,
    lower_currency: bool,
    paths: BTreeMap<Operation, String>,
    bodies: BTreeMap<Operation, String>,
    pointers: BTreeMap<&'static str, String>,
    payment_words: Vec<(PaymentStatus, Vec<String>)>,
    refund_words: Vec<(RefundStatus, Vec<String>)>,
}

const OPERATIONS: [(Operation, &str); 6] = [
    (Operation::Start, "start"),
    (Operation::Sync, "sync"),
    (Operation::Find, "find"),
    (Operation::Capture, "capture"),
    (Operation::Cancel, "cancel"),
    (Operation::Refund, "refund"),
];

/// JSON pointers and their defaults; an empty one is the whole value. Where there is no default the gateway does not
/// say it, unless the account tells where.
const POINTERS: [(&str, Option<&str>); 22] = [
    ("answer-payment", Some("")),
    ("answer-refund", Some("")),
    ("event-kind", Some("/type")),
    ("event-time", None),
    ("event-payment", Some("/data")),
    ("event-refund", None),
    ("error-code", Some("/error/code")),
    ("error-message", Some("/error/message")),
    // Within a payment.
    ("field-reference", Some("/id")),
    ("field-payment-id", None),
    ("field-status", Some("/status")),
    ("field-currency", Some("/currency")),
    ("field-authorized", None),
    ("field-captured", None),
    ("field-refunded", None),
    ("field-canceled", None),
    ("field-redirect", None),
    ("field-decline-code", None),
    ("field-refunds", None),
    // Within a refund.
    ("refund-reference", Some("/id")),
    ("refund-id", None),
    ("refund-amount", Some("/amount")),
];

const PAYMENT_WORDS: [(PaymentStatus, &str, &str); 7] = [
    (PaymentStatus::Pending, "word-pending", "pending, processing"),
    (
        PaymentStatus::ActionRequired,
        "word-action-required",
        "action_required, requires_action",
    ),
    (PaymentStatus::Authorized, "word-authorized", "authorized"),
    (
        PaymentStatus::PartiallyCaptured,
        "word-partially-captured",
        "partially_captured",
    ),
    (
        PaymentStatus::Captured,
        "word-captured",
        "captured, succeeded, paid",
    ),
    (
        PaymentStatus::Canceled,
        "word-canceled",
        "canceled, cancelled, expired, voided",
    ),
    (PaymentStatus::Failed, "word-failed", "failed, declined"),
];

const REFUND_WORDS: [(RefundStatus, &str, &str); 4] = [
    (
        RefundStatus::Pending,
        "refund-word-pending",
        "pending, processing",
    ),
    (
        RefundStatus::Succeeded,
        "refund-word-succeeded",
        "succeeded, refunded, completed",
    ),
    (
        RefundStatus::Failed,
        "refund-word-failed",
        "failed, declined, canceled",
    ),
    (
        RefundStatus::Reversed,
        "refund-word-reversed",
        "reversed, returned",
    ),
];

impl Settings {
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, Fault> {
        let text = |name: &str| {
            get(name)
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
        };
        let base_url =
            text("base-url").ok_or_else(|| Fault("the account has no setting `base-url`".into()))?;
        let mut this = Self {
            base_url: base_url.trim_end_matches('/').to_owned(),
            timeout_ms: number("timeout-ms", text("timeout-ms"), 20_000)?,
            declined_status: number("declined-status", text("declined-status"), 402)?,
            auth: auth(text("auth").as_deref())?,
            idempotency_header: text("idempotency-header").unwrap_or_else(|| "idempotency-key".into()),
            decimal_amounts: one_of("amounts", text("amounts").as_deref(), ["minor", "decimal"])?,
            lower_currency: one_of(
                "currency-case",
                text("currency-case").as_deref(),
                ["upper", "lower"],
            )?,
            paths: BTreeMap::new(),
            bodies: BTreeMap::new(),
            pointers: BTreeMap::new(),
            payment_words: words(text, &PAYMENT_WORDS)?,
            refund_words: words(text, &REFUND_WORDS)?,
        };
        for (operation, name) in OPERATIONS {
            if let Some(path) = text(&format!("{name}-path")) {
                if !path.starts_with('/') {
                    return Err(Fault(format!("`{name}-path` must begin with a slash")));
                }
                this.paths.insert(operation, path);
            }
            if let Some(body) = text(&format!("{name}-body")) {
                this.bodies.insert(operation, body);
            }
        }
        // The one pointer that has the name of its words.
        for (name, default) in POINTERS.into_iter().chain([("refund-status", Some("/status"))]) {
            // An empty setting is the whole value, so blanks count here.
            let Some(pointer) = get(name).or_else(|| default.map(str::to_owned)) else {
                continue;
            };
            if !pointer.is_empty() && !pointer.starts_with('/') {
                return Err(Fault(format!(
                    "`{name}` is no JSON pointer: it must begin with a slash"
                )));
            }
            this.pointers.insert(name, pointer);
        }
        Ok(this)
    }

    pub(crate) fn path(&self, operation: Operation) -> Option<&str> {
        self.paths.get(&operation).map(String::as_str)
    }

    pub(crate) fn body(&self, operation: Operation) -> &str {
        self.bodies.get(&operation).map_or("{}", String::as_str)
    }

    pub(crate) fn pointer(&self, name: &str) -> Option<&str> {
        self.pointers.get(name).map(String::as_str)
    }

    pub(crate) fn currency(&self, code: &str) -> String {
        match self.lower_currency {
            true => code.to_ascii_lowercase(),
            false => code.to_ascii_uppercase(),
        }
    }

    pub(crate) fn payment_status(&self, word: &str) -> Option<PaymentStatus> {
        find(&self.payment_words, word)
    }

    pub(crate) fn refund_status(&self, word: &str) -> Option<RefundStatus> {
        find(&self.refund_words, word)
    }
}

fn find<T: Copy>(words: &[(T, Vec<String>)], word: &str) -> Option<T> {
    let mut known = words.iter();
    known
        .find(|(_, words)| words.iter().any(|known| known == word))
        .map(|(status, _)| *status)
}

/// Lists separated by commas. One word cannot mean two states.
fn words<T: Copy>(
    text: impl Fn(&str) -> Option<String>,
    table: &[(T, &str, &str)],
) -> Result<Vec<(T, Vec<String>)>, Fault> {
    let mut seen = Vec::new();
    let mut all = Vec::new();
    for (status, name, default) in table {
        let list = text(name).unwrap_or_else(|| (*default).to_owned());
        let list: Vec<String> = list.split(',').map(|word| word.trim().to_owned()).collect();
        if let Some(twice) = list.iter().find(|word| seen.contains(*word)) {
            return Err(Fault(format!(
                "the word {twice:?} of `{name}` means another state too"
            )));
        }
        seen.extend(list.iter().cloned());
        all.push((*status, list));
    }
    Ok(all)
}

fn auth(setting: Option<&str>) -> Result<Auth, Fault> {
    match setting {
        None | Some("bearer") => Ok(Auth::Bearer),
        Some("basic") => Ok(Auth::Basic),
        Some(other) => match other.strip_prefix("header:") {
            Some(name) if !name.trim().is_empty() => Ok(Auth::Header(name.trim().to_owned())),
            _ => Err(Fault("`auth` must be bearer, basic or header:NAME".into())),
        },
    }
}

/// Whether it is the second of two words; the first is the default.
fn one_of(name: &str, setting: Option<&str>, [first, second]: [&str; 2]) -> Result<bool, Fault> {
    match setting {
        None => Ok(false),
        Some(word) if word == first => Ok(false),
        Some(word) if word == second => Ok(true),
        Some(_) => Err(Fault(format!("`{name}` must be {first} or {second}"))),
    }
}

fn number<T: std::str::FromStr>(name: &str, setting: Option<String>, default: T) -> Result<T, Fault> {
    match setting {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| Fault(format!("`{name}` is not a number that fits"))),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The fake bank of the development server.
    pub(crate) const BANK: [(&str, &str); 12] = [
        ("base-url", "http://127.0.0.1:8000/mock-gateway/"),
        ("start-path", "/v1/payments"),
        ("event-payment", "/data/payment"),
        ("event-refund", "/data/refund"),
        ("event-time", "/created_at_ms"),
        ("field-payment-id", "/merchant_payment_id"),
        ("field-authorized", "/authorized"),
        ("field-captured", "/captured"),
        ("field-refunded", "/refunded"),
        ("field-redirect", "/redirect_url"),
        ("field-refunds", "/refunds"),
        ("refund-id", "/merchant_refund_id"),
    ];

    pub(crate) fn settings(more: &[(&str, &str)]) -> Result<Settings, Fault> {
        Settings::read(|name| {
            let mut given = more.iter().chain(&BANK);
            given
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn defaults_and_what_overrides_them() {
        let plain = settings(&[]).unwrap();
        assert_eq!(plain.base_url, "http://127.0.0.1:8000/mock-gateway");
        assert_eq!(
            (plain.path(Operation::Start), plain.path(Operation::Sync)),
            (Some("/v1/payments"), None)
        );
        assert_eq!(plain.payment_status("paid"), Some(PaymentStatus::Captured));
        assert_eq!(plain.payment_status("CAPTURED"), None);
        assert_eq!(
            (plain.pointer("field-status"), plain.pointer("field-canceled")),
            (Some("/status"), None)
        );
        let other = settings(&[
            ("word-captured", "DONE,SETTLED"),
            ("field-status", "/state/name"),
            ("auth", "header: X-Key"),
            ("amounts", "decimal"),
            ("currency-case", "lower"),
        ])
        .unwrap();
        assert_eq!(other.payment_status("SETTLED"), Some(PaymentStatus::Captured));
        assert_eq!(other.payment_status("paid"), None);
        assert_eq!(other.auth, Auth::Header("X-Key".into()));
        assert_eq!(
            (other.decimal_amounts, other.currency("EUR").as_str()),
            (true, "eur")
        );
    }

    #[test]
    fn faults_are_named() {
        for (name, value) in [
            ("base-url", " "),
            ("start-path", "v1/payments"),
            ("field-status", "status"),
            ("auth", "digest"),
            ("amounts", "cents"),
            ("timeout-ms", "soon"),
            ("word-failed", "failed, captured"),
        ] {
            let Err(Fault(said)) = settings(&[(name, value)]) else {
                panic!("{name} = {value:?} was taken");
            };
            assert!(said.contains(name), "{said}");
        }
    }
}
