//! The account's settings, read and checked once for each call.

use oms_plugin_sdk::{PaymentError, config};

const DEFAULT_BASE_URL: &str = "https://api.stripe.com";
const DEFAULT_TIMEOUT_MS: u32 = 20_000;
/// Of the part that an account adds to its statement descriptor.
const MAX_SUFFIX: usize = 22;

/// What an account says beside its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) base_url: String,
    pub(crate) publishable_key: Option<String>,
    pub(crate) stripe_account: Option<String>,
    /// None: what the Dashboard says.
    pub(crate) payment_methods: Option<Vec<String>>,
    pub(crate) customer_action: CustomerAction,
    pub(crate) send: Send,
    pub(crate) statement_descriptor_suffix: Option<String>,
    pub(crate) timeout_ms: u32,
}

/// How a customer carries out what the bank asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CustomerAction {
    /// On a page of Stripe or of the bank, and back to the return URL.
    Redirect,
    /// In the shop's own page, by Stripe.js.
    Sdk,
}

/// What Stripe is told although it need not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Send {
    pub(crate) description: bool,
    pub(crate) receipt_email: bool,
    pub(crate) shipping: bool,
    pub(crate) reasons: bool,
}

impl Settings {
    pub(crate) fn load() -> Result<Self, PaymentError> {
        Self::read(config::get).map_err(PaymentError::misconfigured)
    }

    fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let get = |name: &str| {
            let value = get(name)?;
            Some(value.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let prefixed = |name: &str, prefix: &str| match get(name) {
            Some(value) if !value.starts_with(prefix) => {
                Err(format!("`{name}` does not begin with {prefix}"))
            }
            value => Ok(value),
        };
        let base_url = get("base-url").unwrap_or_else(|| DEFAULT_BASE_URL.into());
        let suffix = get("statement-descriptor-suffix");
        if suffix
            .as_ref()
            .is_some_and(|text| text.chars().count() > MAX_SUFFIX)
        {
            return Err(format!(
                "`statement-descriptor-suffix` has more than {MAX_SUFFIX} characters"
            ));
        }
        Ok(Self {
            base_url: base_url.trim_end_matches('/').to_owned(),
            publishable_key: prefixed("publishable-key", "pk_")?,
            stripe_account: prefixed("stripe-account", "acct_")?,
            payment_methods: payment_methods(get("payment-methods").as_deref())?,
            customer_action: match get("customer-action").as_deref() {
                None | Some("redirect") => CustomerAction::Redirect,
                Some("sdk") => CustomerAction::Sdk,
                Some(other) => return Err(format!("`customer-action` is {other:?}, not redirect or sdk")),
            },
            send: Send::read(get("send").as_deref().unwrap_or_default())?,
            statement_descriptor_suffix: suffix,
            timeout_ms: timeout(get("timeout-ms").as_deref())?,
        })
    }
}

fn payment_methods(setting: Option<&str>) -> Result<Option<Vec<String>>, String> {
    let Some(text) = setting.filter(|text| *text != "automatic") else {
        return Ok(None);
    };
    let names: Vec<_> = text.split(',').map(|name| name.trim().to_owned()).collect();
    let is_name = |name: &String| {
        let letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
        !name.is_empty() && name.bytes().all(letter)
    };
    if names.iter().all(is_name) && !names.iter().any(|name| name == "automatic") {
        Ok(Some(names))
    } else {
        Err(format!(
            "`payment-methods` is {text:?}, not `automatic` or names of Stripe such as `card, link`"
        ))
    }
}

impl Send {
    fn read(text: &str) -> Result<Self, String> {
        let mut send = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "description" => send.description = true,
                "receipt-email" => send.receipt_email = true,
                "shipping" => send.shipping = true,
                "reasons" => send.reasons = true,
                other => {
                    return Err(format!(
                        "`send` holds {other:?}, not description, receipt-email, shipping or reasons"
                    ));
                }
            }
        }
        Ok(send)
    }
}

fn timeout(setting: Option<&str>) -> Result<u32, String> {
    let Some(text) = setting else {
        return Ok(DEFAULT_TIMEOUT_MS);
    };
    text.parse()
        .ok()
        .filter(|ms| *ms > 0)
        .ok_or_else(|| "`timeout-ms` is not a number of milliseconds".into())
}

/// The key, of the mode that the account is for: a shop that is being tried out must not move money, and one that
/// sells must not believe payments that move none.
pub(crate) fn api_key(test_mode: bool) -> Result<String, PaymentError> {
    let key = config::secret("api-key")?;
    check_mode(key.trim(), test_mode).map_err(PaymentError::misconfigured)?;
    Ok(key.trim().to_owned())
}

fn check_mode(key: &str, test_mode: bool) -> Result<(), &'static str> {
    let rest = key.strip_prefix("sk_").or_else(|| key.strip_prefix("rk_"));
    let Some(rest) = rest else {
        return Err("`api-key` is no secret or restricted key of Stripe: these begin with sk_ or rk_");
    };
    if test_mode && rest.starts_with("live_") {
        return Err("`api-key` is a key of live mode, but the account is one for tests");
    }
    if !test_mode && rest.starts_with("test_") {
        return Err("`api-key` is a key of test mode, but the account is not one for tests");
    }
    Ok(())
}

#[cfg(test)]
pub(crate) fn of(pairs: &[(&str, &str)]) -> Settings {
    let get = |name: &str| {
        let pair = pairs.iter().find(|(key, _)| *key == name);
        pair.map(|(_, value)| (*value).to_owned())
    };
    Settings::read(get).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(name: &str, value: &str) -> String {
        let get = |asked: &str| (asked == name).then(|| value.to_owned());
        Settings::read(get).unwrap_err()
    }

    #[test]
    fn nothing_but_the_secrets_is_needed() {
        let settings = of(&[("publishable-key", "  "), ("payment-methods", "automatic")]);
        assert_eq!(settings.base_url, "https://api.stripe.com");
        assert_eq!(settings.payment_methods, None);
        assert_eq!(settings.customer_action, CustomerAction::Redirect);
        assert_eq!(settings.send, Send::default());
        assert_eq!((settings.publishable_key, settings.timeout_ms), (None, 20_000));
    }

    #[test]
    fn everything_can_be_said() {
        let settings = of(&[
            ("base-url", "http://127.0.0.1:8420/"),
            ("payment-methods", "card, sepa_debit"),
            ("customer-action", "sdk"),
            ("send", "description, reasons"),
            ("timeout-ms", " 2500 "),
        ]);
        assert_eq!(settings.base_url, "http://127.0.0.1:8420");
        assert_eq!(
            settings.payment_methods,
            Some(vec!["card".into(), "sepa_debit".into()])
        );
        assert_eq!(settings.customer_action, CustomerAction::Sdk);
        let expected = Send {
            description: true,
            reasons: true,
            ..Send::default()
        };
        assert_eq!((settings.send, settings.timeout_ms), (expected, 2500));
    }

    #[test]
    fn a_wrong_setting_is_named() {
        for (name, value) in [
            ("publishable-key", "sk_test_oops"),
            ("stripe-account", "cus_1"),
            ("payment-methods", "card,,link"),
            ("payment-methods", "Card"),
            ("payment-methods", "automatic,card"),
            ("customer-action", "popup"),
            ("send", "description, everything"),
            ("statement-descriptor-suffix", "123456789012345678901 3"),
            ("timeout-ms", "0"),
            ("timeout-ms", "10s"),
        ] {
            assert!(fault(name, value).contains(name), "{name}={value}");
        }
    }

    #[test]
    fn the_key_fits_the_mode() {
        for (key, test_mode, fits) in [
            ("sk_test_1", true, true),
            ("rk_test_1", true, true),
            ("sk_live_1", false, true),
            ("rk_live_1", false, true),
            ("sk_live_1", true, false),
            ("rk_live_1", true, false),
            ("sk_test_1", false, false),
            ("pk_test_1", true, false),
            ("whsec_1", true, false),
        ] {
            assert_eq!(check_mode(key, test_mode).is_ok(), fits, "{key} {test_mode}");
        }
    }
}
