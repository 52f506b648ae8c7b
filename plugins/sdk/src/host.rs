//! The small host interfaces: settings, log, scratch memory, currencies. Each is a module of its
//! own to the plugin (`oms_plugin_sdk::config`, ..).

/// Settings and secrets of the one merchant account that this call is for.
pub mod config {
    use crate::error::MissingSetting;
    use crate::imports::config as host;

    /// A setting that may be left out.
    pub fn get(name: &str) -> Option<String> {
        host::get(name)
    }

    /// A setting that must be there and not blank.
    pub fn require(name: &str) -> Result<String, MissingSetting> {
        present(name, host::get(name))
    }

    /// Reveals a secret. Only for what must be sent, such as a bearer token: to compute with a
    /// secret, name it in a [`Key`](crate::crypto::Key) instead, and it stays in the host.
    pub fn secret(name: &str) -> Result<String, MissingSetting> {
        present(name, host::reveal_secret(name))
    }

    fn present(name: &str, value: Option<String>) -> Result<String, MissingSetting> {
        value
            .filter(|value| !value.trim().is_empty())
            .ok_or_else(|| MissingSetting(name.to_owned()))
    }
}

/// Lines in the host's log, with the plugin, account and call added by the host. Secrets that were
/// revealed in this call are redacted.
pub mod log {
    use crate::imports::log as host;
    pub use host::Level;

    /// Writes one line. The message must be readable without the fields.
    pub fn write(level: Level, message: &str, fields: &[(&str, &str)]) {
        let fields: Vec<(String, String)> = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        host::write(level, message, &fields);
    }

    /// Steps, for whoever looks for a defect in the plugin.
    pub fn debug(message: &str, fields: &[(&str, &str)]) {
        write(Level::Debug, message, fields);
    }

    /// What an operator wants to read once.
    pub fn info(message: &str, fields: &[(&str, &str)]) {
        write(Level::Info, message, fields);
    }

    /// Something is odd, and the plugin went on.
    pub fn warn(message: &str, fields: &[(&str, &str)]) {
        write(Level::Warn, message, fields);
    }

    /// Somebody must look at this.
    pub fn error(message: &str, fields: &[(&str, &str)]) {
        write(Level::Error, message, fields);
    }
}

/// Scratch memory per plugin and account, with expiry: access tokens, certificates. It may be
/// emptied at any time.
pub mod cache {
    use crate::imports::cache as host;

    /// What was stored under this key, unless it expired or was dropped.
    pub fn get(key: &str) -> Option<Vec<u8>> {
        host::get(key)
    }

    /// Keeps a value for at most this long.
    pub fn set(key: &str, value: &[u8], ttl_seconds: u32) {
        host::set(key, value, ttl_seconds);
    }
}

/// ISO 4217.
pub mod currency {
    use crate::imports::currency as host;

    /// Digits after the decimal point: 2 for EUR, 0 for JPY, 3 for KWD; none for an unknown code.
    pub fn exponent(code: &str) -> Option<u8> {
        host::exponent(code)
    }
}
