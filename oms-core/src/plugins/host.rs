//! The functions that plugins may call. Each looks at the state of its own call alone.

use std::time::Duration;

use super::bindings::crypto::{Hash, Key, Scheme};
use super::bindings::log::Level;
use super::bindings::{cache, config, crypto as wit_crypto, currency, http as wit_http, log, types};
use super::crypto::{self, Signature};
use super::http;
use super::state::State;
use super::tape::{self, HostCall};
use crate::money::Currency;

type Trappable<T> = wasmtime::Result<T>;

/// Fields of one line; what is more is dropped.
const MAX_FIELDS: usize = 32;

impl types::Host for State {}

impl log::Host for State {
    fn write(&mut self, level: Level, message: String, fields: Vec<(String, String)>) -> Trappable<()> {
        // Redacted before it is quoted, which could change how a secret looks.
        let mut text = self.redact(&message, usize::MAX);
        for (name, value) in fields.iter().take(MAX_FIELDS) {
            let (name, value) = (self.redact(name, usize::MAX), self.redact(value, usize::MAX));
            text.push_str(&format!(" {name}={value:?}"));
        }
        if let Some(message) = self.for_log(&text) {
            tape::note(|| HostCall::Log {
                level: format!("{level:?}").to_lowercase(),
                message: message.clone(),
            });
            let (id, version, account) = (&self.plugin.id, &self.plugin.version, &self.account.name);
            macro_rules! line {
                ($level:ident) => {
                    tracing::$level!(plugin.id = %id, plugin.version = %version, %account, "{message}")
                };
            }
            match level {
                Level::Trace => line!(trace),
                Level::Debug => line!(debug),
                Level::Info => line!(info),
                Level::Warn => line!(warn),
                Level::Error => line!(error),
            }
        }
        Ok(())
    }
}

impl config::Host for State {
    fn get(&mut self, name: String) -> Trappable<Option<String>> {
        let value = self.account.config.get(&name).cloned();
        tape::note(|| HostCall::Config {
            found: value.is_some(),
            name,
        });
        Ok(value)
    }

    fn reveal_secret(&mut self, name: String) -> Trappable<Option<String>> {
        let secret = self
            .account
            .secrets
            .get(&name)
            .map(|secret| secret.reveal().to_owned());
        tape::note(|| HostCall::RevealSecret {
            name: name.clone(),
            found: secret.is_some(),
        });
        if let Some(secret) = &secret {
            self.reveal(secret);
            tracing::debug!(
                plugin.id = %self.plugin.id,
                account = %self.account.name,
                secret = %name,
                "a secret was revealed to a plugin"
            );
        }
        Ok(secret)
    }
}

impl wit_http::Host for State {
    async fn send(
        &mut self,
        request: wit_http::Request,
    ) -> Trappable<Result<wit_http::Response, wit_http::HttpError>> {
        Ok(Box::pin(http::send(self, request)).await)
    }
}

impl wit_crypto::Host for State {
    fn hmac(&mut self, hash: Hash, key: Key, message: Vec<u8>) -> Trappable<Result<Vec<u8>, String>> {
        let named = key_name(&key);
        let signed = crypto::key_bytes(&self.account, key).map(|key| crypto::sign(hash, &key, &message));
        note_crypto("hmac", Some(named), &message, signed.is_ok());
        Ok(signed)
    }

    fn verify_hmac(
        &mut self,
        hash: Hash,
        key: Key,
        message: Vec<u8>,
        expected: Vec<u8>,
    ) -> Trappable<Result<bool, String>> {
        let named = key_name(&key);
        let key = crypto::key_bytes(&self.account, key);
        let fits = key.map(|key| crypto::verify(hash, &key, &message, &expected));
        note_crypto("verify-hmac", Some(named), &message, fits == Ok(true));
        Ok(fits)
    }

    fn digest(&mut self, hash: Hash, message: Vec<u8>) -> Trappable<Vec<u8>> {
        note_crypto("digest", None, &message, true);
        Ok(crypto::digest(hash, &message))
    }

    fn verify_signature(
        &mut self,
        scheme: Scheme,
        public_key: Vec<u8>,
        chain_host: Option<String>,
        message: Vec<u8>,
        signature: Vec<u8>,
    ) -> Trappable<Result<bool, String>> {
        let signature = Signature {
            scheme,
            public_key: &public_key,
            chain_host: chain_host.as_deref(),
            message: &message,
            signature: &signature,
        };
        let fits = signature.verify(self.account.extra_roots.as_deref(), self.now);
        note_crypto("verify-signature", None, &message, fits == Ok(true));
        Ok(fits)
    }

    fn random_bytes(&mut self, n: u32) -> Trappable<Vec<u8>> {
        tape::note(|| HostCall::Random { bytes: n });
        if n > crypto::MAX_RANDOM {
            return Err(wasmtime::format_err!(
                "it asked for {n} random bytes at once; {} may be asked for",
                crypto::MAX_RANDOM
            ));
        }
        let mut bytes = vec![0; n as usize];
        crate::id::random_bytes(&mut bytes);
        Ok(bytes)
    }
}

impl currency::Host for State {
    fn exponent(&mut self, code: String) -> Trappable<Option<u8>> {
        tape::note(|| HostCall::Currency { code: code.clone() });
        Ok(code.parse::<Currency>().ok().map(|currency| currency.exponent()))
    }
}

impl cache::Host for State {
    fn get(&mut self, key: String) -> Trappable<Option<Vec<u8>>> {
        let owner = (self.plugin.id.as_str(), self.account.name.as_str());
        let value = self.shared.scratch.get(owner, &key, self.shared.clock.now());
        tape::note(|| HostCall::CacheGet {
            found: value.is_some(),
            key,
        });
        Ok(value)
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_seconds: u32) -> Trappable<()> {
        let owner = (self.plugin.id.as_str(), self.account.name.as_str());
        let ttl = Duration::from_secs(ttl_seconds.into());
        tape::note(|| HostCall::CacheSet {
            key: key.clone(),
            bytes: value.len(),
            seconds: ttl_seconds,
        });
        self.shared
            .scratch
            .set(owner, key, value, ttl, self.shared.clock.now());
        Ok(())
    }
}

/// Which secret a key is, never its bytes.
fn key_name(key: &Key) -> String {
    match key {
        Key::Secret(name) | Key::SecretHex(name) | Key::SecretBase64(name) => name.clone(),
        Key::Bytes(_) => "(bytes of the plugin)".into(),
    }
}

fn note_crypto(function: &str, key: Option<String>, message: &[u8], ok: bool) {
    tape::note(|| HostCall::Crypto {
        function: function.into(),
        key,
        bytes: message.len(),
        ok,
    });
}
