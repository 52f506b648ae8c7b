//! `crypto`: keyed hashes and signatures, so that keys need not enter a plugin and comparisons take constant time.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, ServerName, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime,
};
use webpki::{EndEntityCert, KeyUsage, RawPublicKeyEntity};

use super::bindings::crypto::{Hash, Key, Scheme};
use super::tls;
use crate::payments::Account;
use crate::time::Timestamp;

/// The most random bytes that one call hands out.
pub(super) const MAX_RANDOM: u32 = 4 << 10;
/// The largest public key or chain that is read.
const MAX_PUBLIC_KEY: usize = 64 << 10;

/// The bytes of a key. A secret that is missing, empty or not in the stated encoding is named, never shown.
pub(super) fn key_bytes(account: &Account, key: Key) -> Result<Vec<u8>, String> {
    let named = |name: &str| {
        let secret = account.secrets.get(name).map(|secret| secret.reveal());
        secret
            .filter(|text| !text.trim().is_empty())
            .ok_or_else(|| format!("the account has no secret `{name}`"))
    };
    match key {
        Key::Bytes(bytes) => Ok(bytes),
        Key::Secret(name) => Ok(named(&name)?.as_bytes().to_vec()),
        Key::SecretHex(name) => {
            decode_hex(named(&name)?.trim()).ok_or_else(|| format!("the secret `{name}` is not hexadecimal"))
        }
        Key::SecretBase64(name) => {
            let text = named(&name)?.trim();
            // How Standard Webhooks write a key.
            let text = text.strip_prefix("whsec_").unwrap_or(text);
            BASE64
                .decode(text)
                .ok()
                .filter(|key| !key.is_empty())
                .ok_or_else(|| format!("the secret `{name}` is not base64"))
        }
    }
}

pub(super) fn sign(hash: Hash, key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac_key(hash, key), message).as_ref().to_vec()
}

/// In constant time.
pub(super) fn verify(hash: Hash, key: &[u8], message: &[u8], expected: &[u8]) -> bool {
    hmac::verify(&hmac_key(hash, key), message, expected).is_ok()
}

pub(super) fn digest(hash: Hash, message: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha256 => &digest::SHA256,
        Hash::Sha384 => &digest::SHA384,
        Hash::Sha512 => &digest::SHA512,
    };
    digest::digest(algorithm, message).as_ref().to_vec()
}

fn hmac_key(hash: Hash, key: &[u8]) -> hmac::Key {
    let algorithm = match hash {
        Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha256 => hmac::HMAC_SHA256,
        Hash::Sha384 => hmac::HMAC_SHA384,
        Hash::Sha512 => hmac::HMAC_SHA512,
    };
    hmac::Key::new(algorithm, key)
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let pairs = digits.chunks_exact(2).map(std::str::from_utf8);
    pairs
        .map(|pair| u8::from_str_radix(pair.ok()?, 16).ok())
        .collect()
}

/// A signature to check, and by which key.
pub(super) struct Signature<'a> {
    pub(super) scheme: Scheme,
    /// DER SubjectPublicKeyInfo, or PEM: a public key or a chain of certificates, leaf first.
    pub(super) public_key: &'a [u8],
    /// The host for which the leaf must be valid, and then the chain is checked up to a root.
    pub(super) chain_host: Option<&'a str>,
    pub(super) message: &'a [u8],
    pub(super) signature: &'a [u8],
}

impl Signature<'_> {
    /// Whether it fits; an error when the key cannot be read or its chain is not trusted.
    pub(super) fn verify(&self, extra_roots: Option<&str>, now: Timestamp) -> Result<bool, String> {
        if self.public_key.len() > MAX_PUBLIC_KEY {
            return Err(format!("the public key has more than {MAX_PUBLIC_KEY} bytes"));
        }
        if !self.public_key.trim_ascii_start().starts_with(b"-----BEGIN") {
            return self.by_bare_key(&SubjectPublicKeyInfoDer::from(self.public_key));
        }
        let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(self.public_key)
            .collect::<Result<_, _>>()
            .map_err(|e| format!("the PEM cannot be read: {e}"))?;
        let Some((leaf, intermediates)) = chain.split_first() else {
            let key = SubjectPublicKeyInfoDer::from_pem_slice(self.public_key)
                .map_err(|e| format!("the PEM holds neither a certificate nor a public key: {e}"))?;
            return self.by_bare_key(&key);
        };
        let leaf =
            EndEntityCert::try_from(leaf).map_err(|e| format!("the certificate cannot be read: {e}"))?;
        if let Some(host) = self.chain_host {
            check_chain(&leaf, intermediates, host, extra_roots, now)?;
        }
        Ok(leaf
            .verify_signature(algorithm(self.scheme), self.message, self.signature)
            .is_ok())
    }

    fn by_bare_key(&self, key: &SubjectPublicKeyInfoDer<'_>) -> Result<bool, String> {
        if self.chain_host.is_some() {
            return Err(
                "a bare public key cannot be checked for a host: give the chain of certificates".into(),
            );
        }
        let key =
            RawPublicKeyEntity::try_from(key).map_err(|e| format!("the public key cannot be read: {e}"))?;
        Ok(key
            .verify_signature(algorithm(self.scheme), self.message, self.signature)
            .is_ok())
    }
}

fn algorithm(scheme: Scheme) -> &'static dyn SignatureVerificationAlgorithm {
    match scheme {
        Scheme::RsaPkcs1Sha256 => webpki::ring::RSA_PKCS1_2048_8192_SHA256,
        Scheme::Ed25519 => webpki::ring::ED25519,
        Scheme::EcdsaP256Sha256 => webpki::ring::ECDSA_P256_SHA256,
    }
}

fn check_chain(
    leaf: &EndEntityCert<'_>,
    intermediates: &[CertificateDer<'_>],
    host: &str,
    extra_roots: Option<&str>,
    now: Timestamp,
) -> Result<(), String> {
    let extra = tls::extra_certificates(extra_roots)?;
    let mut anchors = webpki_roots::TLS_SERVER_ROOTS.to_vec();
    for root in &extra {
        anchors.push(
            webpki::anchor_from_trusted_cert(root).map_err(|e| format!("extra_roots of the account: {e}"))?,
        );
    }
    let seconds = u64::try_from(now.as_secs()).unwrap_or(0);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let algorithms = rustls::crypto::ring::default_provider()
        .signature_verification_algorithms
        .all;
    leaf.verify_for_usage(
        algorithms,
        &anchors,
        intermediates,
        now,
        KeyUsage::server_auth(),
        None,
        None,
    )
    .map_err(|e| format!("the chain of certificates is not trusted: {e}"))?;
    let name = ServerName::try_from(host).map_err(|_| format!("{host:?} is no host name"))?;
    leaf.verify_is_valid_for_subject_name(&name)
        .map_err(|_| format!("the certificate is not valid for {host}"))
}
