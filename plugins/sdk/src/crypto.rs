//! Keyed hashes and signatures, computed by the host, so that keys need not enter the plugin and
//! comparisons take constant time in every guest language.

use crate::imports::crypto as host;
pub use host::{Hash, Key, Scheme};
use std::fmt;

/// An HMAC over `message`.
///
/// [`Key`] says where the key is: `Secret(name)` uses the account's secret as it stands,
/// `SecretHex(name)` and `SecretBase64(name)` decode it first (the last one without a leading
/// `whsec_`, which is how Standard Webhooks secrets are written), `Bytes` is a key of the plugin's own.
pub fn hmac(hash: Hash, key: &Key, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
    host::hmac(hash, key, message).map_err(CryptoError)
}

/// Whether `expected` is the HMAC of `message`, compared in constant time.
pub fn verify_hmac(hash: Hash, key: &Key, message: &[u8], expected: &[u8]) -> Result<bool, CryptoError> {
    host::verify_hmac(hash, key, message, expected).map_err(CryptoError)
}

/// A plain hash.
pub fn digest(hash: Hash, message: &[u8]) -> Vec<u8> {
    host::digest(hash, message)
}

/// Whether `signature` over `message` was made with the key's private half.
///
/// `public_key` is DER SubjectPublicKeyInfo or a PEM chain, leaf first; with `chain_host` the chain
/// is checked up to a public root and the leaf must be valid for that host name.
pub fn verify_signature(
    scheme: Scheme,
    public_key: &[u8],
    chain_host: Option<&str>,
    message: &[u8],
    signature: &[u8],
) -> Result<bool, CryptoError> {
    host::verify_signature(scheme, public_key, chain_host, message, signature).map_err(CryptoError)
}

/// `n` bytes from the host's secure random source.
pub fn random_bytes(n: u32) -> Vec<u8> {
    host::random_bytes(n)
}

/// The host could not compute: the named secret is absent or not in the stated encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CryptoError(pub String);

impl fmt::Display for CryptoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CryptoError {}
