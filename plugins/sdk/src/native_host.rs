//! A host in this process, for what is compiled for this machine: with the feature `native-host` a test or a fuzzer can
//! call a plugin's [`receive`](crate::Webhooks::receive) as the server would. A component is not touched by it.
//!
//! ```
//! use oms_plugin_sdk::native_host::{Hash, Host, Key, with};
//! use std::rc::Rc;
//!
//! struct Shop;
//!
//! impl Host for Shop {
//!     fn config(&self, name: &str) -> Option<String> {
//!         (name == "base-url").then(|| "https://bank.test".into())
//!     }
//!     fn secret(&self, _: &str) -> Option<String> {
//!         None
//!     }
//!     fn hmac(&self, _: Hash, _: &Key, _: &[u8]) -> Result<Vec<u8>, String> {
//!         Err("the account has no secrets".into())
//!     }
//! }
//!
//! let base_url = with(Rc::new(Shop), || oms_plugin_sdk::config::require("base-url"));
//! assert_eq!(base_url.as_deref(), Ok("https://bank.test"));
//! ```

use std::cell::RefCell;
use std::rc::Rc;

pub use crate::bindings::gateway::oms::payment::crypto::{Hash, Key, Scheme};
pub use crate::bindings::gateway::oms::payment::http::{HttpError, Request, Response};
pub use crate::bindings::gateway::oms::payment::log::Level;

/// What a plugin may ask of its host. What few plugins need is refused unless it is implemented.
pub trait Host {
    /// A setting of the account.
    fn config(&self, name: &str) -> Option<String>;

    /// A secret of the account, when the plugin asks to see it.
    fn secret(&self, name: &str) -> Option<String>;

    /// The keyed hash; an error when the account lacks the key, or it is not in the encoding that was named.
    fn hmac(&self, hash: Hash, key: &Key, message: &[u8]) -> Result<Vec<u8>, String>;

    /// Not in constant time: nobody measures a test.
    fn verify_hmac(&self, hash: Hash, key: &Key, message: &[u8], expected: &[u8]) -> Result<bool, String> {
        Ok(self.hmac(hash, key, message)? == expected)
    }

    /// A plain hash.
    fn digest(&self, _: Hash, _: &[u8]) -> Vec<u8> {
        unimplemented!("this host computes no digests")
    }

    /// Whether a signature fits a public key or a chain of certificates.
    fn verify_signature(
        &self,
        _scheme: Scheme,
        _public_key: &[u8],
        _chain_host: Option<&str>,
        _message: &[u8],
        _signature: &[u8],
    ) -> Result<bool, String> {
        Err("this host checks no signatures".into())
    }

    /// Random bytes, or whatever the test wants in their place.
    fn random_bytes(&self, _: u32) -> Vec<u8> {
        unimplemented!("this host has no random bytes")
    }

    /// Carries out a request.
    fn send(&self, _: &Request) -> Result<Response, HttpError> {
        Err(HttpError::Denied("this host sends nothing".into()))
    }

    /// Digits after the decimal point of a currency.
    fn exponent(&self, _: &str) -> Option<u8> {
        None
    }

    /// What was kept under this key.
    fn cached(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    /// Keeps something.
    fn cache(&self, _key: &str, _value: &[u8], _ttl_seconds: u32) {}

    /// A line of the log.
    fn log(&self, _: Level, _message: &str, _fields: &[(String, String)]) {}
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<dyn Host>>> = const { RefCell::new(None) };
}

/// Calls the plugin: what it asks meanwhile, in this thread, this host answers.
pub fn with<T>(host: Rc<dyn Host>, call: impl FnOnce() -> T) -> T {
    /// Puts back what was there, also when the plugin panics.
    struct Before(Option<Rc<dyn Host>>);

    impl Drop for Before {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }

    let _before = Before(CURRENT.replace(Some(host)));
    call()
}

fn current() -> Rc<dyn Host> {
    let host = CURRENT.with_borrow(Clone::clone);
    host.unwrap_or_else(|| panic!("a plugin asks its host outside of `native_host::with`"))
}

/// What a component imports, under the same names.
pub(crate) mod imports {
    pub(crate) mod cache {
        use super::super::current;

        pub(crate) fn get(key: &str) -> Option<Vec<u8>> {
            current().cached(key)
        }

        pub(crate) fn set(key: &str, value: &[u8], ttl_seconds: u32) {
            current().cache(key, value, ttl_seconds);
        }
    }

    pub(crate) mod config {
        use super::super::current;

        pub(crate) fn get(name: &str) -> Option<String> {
            current().config(name)
        }

        pub(crate) fn reveal_secret(name: &str) -> Option<String> {
            current().secret(name)
        }
    }

    pub(crate) mod crypto {
        use super::super::current;
        pub use super::super::{Hash, Key, Scheme};

        pub(crate) fn hmac(hash: Hash, key: &Key, message: &[u8]) -> Result<Vec<u8>, String> {
            current().hmac(hash, key, message)
        }

        pub(crate) fn verify_hmac(
            hash: Hash,
            key: &Key,
            message: &[u8],
            expected: &[u8],
        ) -> Result<bool, String> {
            current().verify_hmac(hash, key, message, expected)
        }

        pub(crate) fn digest(hash: Hash, message: &[u8]) -> Vec<u8> {
            current().digest(hash, message)
        }

        pub(crate) fn verify_signature(
            scheme: Scheme,
            public_key: &[u8],
            chain_host: Option<&str>,
            message: &[u8],
            signature: &[u8],
        ) -> Result<bool, String> {
            current().verify_signature(scheme, public_key, chain_host, message, signature)
        }

        pub(crate) fn random_bytes(n: u32) -> Vec<u8> {
            current().random_bytes(n)
        }
    }

    pub(crate) mod currency {
        pub(crate) fn exponent(code: &str) -> Option<u8> {
            super::super::current().exponent(code)
        }
    }

    pub(crate) mod http {
        pub(crate) use super::super::{HttpError, Request};
        use super::super::{Response, current};

        pub(crate) fn send(request: &Request) -> Result<Response, HttpError> {
            current().send(request)
        }
    }

    pub(crate) mod log {
        pub use super::super::Level;
        use super::super::current;

        pub(crate) fn write(level: Level, message: &str, fields: &[(String, String)]) {
            current().log(level, message, fields);
        }
    }
}
