//! The account and the host of the plugins that are fuzzed.

use std::cell::RefCell;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oms_plugin_sdk::Delivery;
use oms_plugin_sdk::native_host::{Hash, Host, HttpError, Key, Request, Response};
use ring::hmac;

/// An account: its settings, and its secrets, none of which a plugin may say aloud.
#[derive(Debug, Clone, Default)]
pub struct Account {
    config: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
}

impl Account {
    pub fn new(config: &[(&str, &str)], secrets: &[(&str, &str)]) -> Self {
        let owned = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        Self {
            config: owned(config),
            secrets: owned(secrets),
        }
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.config.insert(name.to_owned(), value.into());
        self
    }

    /// Looks that an answer gives no secret away that was not in the question: fuzzers learn to guess.
    pub fn must_keep_secrets(&self, question: &Delivery, answer: &str) {
        let values = question.headers.iter().map(|(_, value)| value);
        let told: Vec<_> = values
            .chain([&question.body])
            .map(|bytes| String::from_utf8_lossy(bytes))
            .collect();
        for (name, secret) in &self.secrets {
            let was_told = told.iter().any(|text| text.contains(secret));
            assert!(
                was_told || !answer.contains(secret),
                "the secret `{name}` was said: {answer}"
            );
        }
    }

    fn key(&self, key: &Key) -> Result<Vec<u8>, String> {
        let named = |name: &String| {
            let secret = self.secrets.get(name);
            secret.ok_or_else(|| format!("the account has no secret `{name}`"))
        };
        match key {
            Key::Bytes(bytes) => Ok(bytes.clone()),
            Key::Secret(name) => Ok(named(name)?.as_bytes().to_vec()),
            Key::SecretHex(name) => Ok(from_hex(named(name)?)),
            Key::SecretBase64(name) => {
                let text = named(name)?;
                let text = text.strip_prefix("whsec_").unwrap_or(text);
                Ok(BASE64
                    .decode(text)
                    .expect("the secrets of the targets are well formed"))
            }
        }
    }
}

impl Host for Account {
    fn config(&self, name: &str) -> Option<String> {
        self.config.get(name).cloned()
    }

    fn secret(&self, name: &str) -> Option<String> {
        self.secrets.get(name).cloned()
    }

    fn hmac(&self, hash: Hash, key: &Key, message: &[u8]) -> Result<Vec<u8>, String> {
        assert_eq!(hash, Hash::Sha256, "no shipped plugin uses another");
        Ok(hmac_sha256(&self.key(key)?, message))
    }

    fn exponent(&self, code: &str) -> Option<u8> {
        exponent(code)
    }

    fn send(&self, request: &Request) -> Result<Response, HttpError> {
        panic!("a stranger's message made the plugin ask {}", request.url);
    }
}

pub fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, message).as_ref().to_vec()
}

/// As the host of the server knows them.
pub fn exponent(code: &str) -> Option<u8> {
    let known = iso_currency::Currency::from_code(code)?;
    known.exponent().and_then(|digits| u8::try_from(digits).ok())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn from_hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks_exact(2);
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .expect("the keys of the targets are hexadecimal")
    };
    pairs
        .map(|pair| (digit(pair[0]) << 4 | digit(pair[1])) as u8)
        .collect()
}

/// A cache that is filled beforehand, and what was put into it.
#[derive(Debug, Default)]
pub struct Cache(RefCell<BTreeMap<String, Vec<u8>>>);

impl Cache {
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.borrow().get(key).cloned()
    }

    pub fn set(&self, key: &str, value: &[u8]) {
        self.0.borrow_mut().insert(key.to_owned(), value.to_vec());
    }
}
