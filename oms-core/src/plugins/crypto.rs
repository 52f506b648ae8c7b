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
use crate::payments::{Account, Secret};
use crate::time::Timestamp;

/// The most random bytes that one call hands out.
pub(super) const MAX_RANDOM: u32 = 4 << 10;
/// The largest public key or chain that is read.
const MAX_PUBLIC_KEY: usize = 64 << 10;

/// The bytes of a key. A secret that is missing, empty or not in the stated encoding is named, never shown.
pub(super) fn key_bytes(account: &Account, key: Key) -> Result<Vec<u8>, String> {
    let named = |name: &str| {
        let secret = account.secrets.get(name).map(Secret::reveal);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn account(secret: &str) -> Account {
        let mut account = Account::new("shop", "acme");
        account.secrets.insert("key".into(), Secret::new(secret));
        account
    }

    type MakeKey = fn(String) -> Key;

    fn hmac(hash: Hash, secret: &str, key: MakeKey, message: &str) -> Vec<u8> {
        let key = key_bytes(&account(secret), key("key".into())).unwrap();
        sign(hash, &key, message.as_bytes())
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    const SQUARE_BODY: &str =
        r#"{"merchant_id":"ML8M1AQ1GQG2K","type":"payment.updated","event_id":"d8e9c1b7"}"#;
    const ADYEN_KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";

    /// Made by the gateways' own libraries, or published by them.
    #[test]
    fn signatures_of_real_gateways_in_hexadecimal() {
        let stripe = r#"1700000000.{"id":"evt_1","object":"event"}"#;
        for (secret, message, expected) in [
            (
                "whsec_test_secret",
                stripe,
                "0c8670ed117751cc551a20e35839447075c42800ea3cf3e8a2fbda99cd1e6edd",
            ),
            (
                "It's a Secret to Everybody",
                "Hello, World!",
                "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            ),
            (
                "wh_secret",
                r#"{"entity":"event","event":"payment.captured"}"#,
                "56fbd6b250266efc68deda79e699f329c70d0107135515c05ba7e378693f49e0",
            ),
            (
                "rzp_secret",
                "order_1|pay_1",
                "15e54fc994958b03e5d550900551f2224e4bc3f71ed65272552271e2d4c1b713",
            ),
            (
                "mollie_secret",
                r#"{"resource":"event"}"#,
                "01fa09f45bb9b07c30fbe6467f114e8a650dcfe0ea98144c16aef49f50343a11",
            ),
        ] {
            assert_eq!(
                hex(&hmac(Hash::Sha256, secret, Key::Secret, message)),
                expected,
                "{message}"
            );
        }
    }

    #[test]
    fn signatures_of_real_gateways_in_base64() {
        let square = format!("https://example.com/webhook{SQUARE_BODY}");
        let adyen = "7914073381342284::TestMerchant:TestPayment-1407325143704:1130:EUR:AUTHORISATION:true";
        let standard = r#"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}"#;
        let svix = r#"msg_1.1614265330.{"test": 2432232314}"#;
        let whsec = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let cases: [(&str, MakeKey, &str, &str); 7] = [
            (
                "hush",
                Key::Secret,
                r#"{"id":1}"#,
                "VnKUjZsLuN5iZWjn5EntcBVCF9kMN43LglzCE1/GSeY=",
            ),
            (
                "Ibxx_5AKakO-3qeNVR61Dw",
                Key::Secret,
                &square,
                "3thBguZ7K7iKFQcXc7kWtivdrvgEstZBX5j7hqp0qiw=",
            ),
            (
                ADYEN_KEY,
                Key::SecretHex,
                adyen,
                "coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0=",
            ),
            (
                ADYEN_KEY,
                Key::SecretHex,
                r#"{"type":"balancePlatform.transfer.created"}"#,
                "dHUnFCWH926aP0TyUjn01+mlkLvdPbn5rgnz80rwTM4=",
            ),
            (
                whsec,
                Key::SecretBase64,
                standard,
                "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                &whsec[6..],
                Key::SecretBase64,
                standard,
                "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                whsec,
                Key::SecretBase64,
                svix,
                "9o7UeFkn1GjVbcY4emAJruJCYqgH2EIf8u/slvVRBZI=",
            ),
        ];
        for (secret, key, message, expected) in cases {
            assert_eq!(
                BASE64.encode(hmac(Hash::Sha256, secret, key, message)),
                expected,
                "{message}"
            );
        }
    }

    /// Braintree: the key is the SHA-1 of the private key, as bytes of the plugin's own.
    #[test]
    fn a_key_that_the_plugin_derives() {
        let key = digest(Hash::Sha1, b"integration_private_key");
        let key = key_bytes(&account("unused"), Key::Bytes(key)).unwrap();
        let mac = sign(Hash::Sha1, &key, b"20f9f8ed05f77439fe955c977e4c8a53");
        assert_eq!(hex(&mac), "d9b899556c966b3f06945ec21311865d35df3ce4");
        assert!(verify(
            Hash::Sha1,
            &key,
            b"20f9f8ed05f77439fe955c977e4c8a53",
            &mac
        ));
        assert!(!verify(
            Hash::Sha1,
            &key,
            b"20f9f8ed05f77439fe955c977e4c8a54",
            &mac
        ));
        assert!(
            !verify(Hash::Sha1, &key, b"20f9f8ed05f77439fe955c977e4c8a53", &mac[..10]),
            "a part is not enough"
        );
    }

    /// FIPS 180: "abc".
    #[test]
    fn digests() {
        assert_eq!(
            hex(&digest(Hash::Sha1, b"abc")),
            "a9993e364706816aba3e25717850c26c9cd0d89d"
        );
        assert_eq!(
            hex(&digest(Hash::Sha256, b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(hex(&digest(Hash::Sha384, b"abc")).starts_with("cb00753f45a35e8bb5a03d699ac65007"));
        assert!(hex(&digest(Hash::Sha512, b"abc")).starts_with("ddaf35a193617abacc417349ae204131"));
    }

    #[test]
    fn a_secret_that_cannot_be_used_is_named_and_not_shown() {
        let error = |secret: &str, key: Key| key_bytes(&account(secret), key).unwrap_err();
        assert_eq!(
            error("x", Key::Secret("other".into())),
            "the account has no secret `other`"
        );
        assert_eq!(
            error("  ", Key::Secret("key".into())),
            "the account has no secret `key`"
        );
        assert_eq!(
            error("s3cr3t", Key::SecretHex("key".into())),
            "the secret `key` is not hexadecimal"
        );
        assert_eq!(
            error("äääää", Key::SecretHex("key".into())),
            "the secret `key` is not hexadecimal"
        );
        assert_eq!(
            error("s3cr3t!", Key::SecretBase64("key".into())),
            "the secret `key` is not base64"
        );
        assert_eq!(
            error("whsec_", Key::SecretBase64("key".into())),
            "the secret `key` is not base64"
        );
    }

    // Made with the openssl program; the files hold a root and a certificate of it for localhost.
    const ROOT: &str = include_str!("../../tests/fixtures/tls/root.pem");
    const LEAF: &str = include_str!("../../tests/fixtures/tls/localhost.pem");
    const MESSAGE: &[u8] = b"signed by the leaf";
    const BY_LEAF: &str =
        "MEUCIQDQbeJuTF9MDNcm/ttz6Z1ECSvJIgSn1DU/YkHr/Qi2VAIgAiHp1GYEEvvYozkAgYlcVOGwnu4Eftrg3fXzWNLNbuY=";
    const RSA_KEY: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAq9C+mtQhrbX9mju8Ieo4Zf+xMz51tOS2WYD6Bd5OPAedgCV3V49ueATCapMw1tEqlmG19OmpInqoydbmldXewgRANPWoV6uM3N+VqEShGzDQzUU8lEzPSzgvGpuje9c/5e58dUy1twgunmoz93jXFUtGisnv1LB36Jxcq34DTDyU99ACyPPdw3y4G5siSfMtUKu2l6S+wySxE0AM3WMW7peXasIc1W1K4d3OGEmHsTHmoVIVFGEUqaoLwzuKahprUFyVnfKWJdTLeAErMumGXaRn6fxCg+DIhgMaSzaa2p56KYdXh/WIePF/tiWThqLdJRcmcV8VC39fvA9vci2XjwIDAQAB";
    const BY_RSA: &str = "Whk1hZKPxsGdqc+C0NFR6YurNrBnCvrD5zvRzoM0vADUVLvf+Qjc/itNxjhlAF9XsYKT8HPIDQHlDkzXOqqg/FJfBjCiJsPGmq1y5nCCK8WS9UkCBhtxpYdzb3S+ZQgqFSsdqCTR7BT+oV2Q58WIYnuJlX74PoG09vpU5SYRguTbLyPB+c/9QcA1AGjysisZtyxW/1GH1SD0dEkef3UdQVsJoJh3ljVrC2NaYBGXrN/7GtUgQHlXeerDG16IfoOKnNLPer+TIuvj6wLNYpqCEbkGtIIe/ILMx2DRW2Ibz386sev23Sdbd+EAqW5wtPHwswvP66e82kyIfR+bl7ivLg==";
    const ED_KEY: &str = "MCowBQYDK2VwAyEASWnRSLwkwdQSxjC/UJLPnASxz/xD64aBOJdbqPVlGKQ=";
    const BY_ED: &str =
        "xlI5M7/RF6OsMyU71jnc2wa12892Tx5dDywXo+UlW6u9QImwx5mJQpIQ5EpJLPc8e6LaEUkpdL3a0BN3DyWNCw==";
    /// 2027: within the certificates' time.
    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn check(
        scheme: Scheme,
        key: &[u8],
        host: Option<&str>,
        message: &[u8],
        signature: &str,
    ) -> Result<bool, String> {
        let signature = BASE64.decode(signature).unwrap();
        let signature = Signature {
            scheme,
            public_key: key,
            chain_host: host,
            message,
            signature: &signature,
        };
        signature.verify(Some(ROOT), NOW)
    }

    #[test]
    fn bare_keys() {
        for (scheme, key, signature) in [
            (Scheme::RsaPkcs1Sha256, RSA_KEY, BY_RSA),
            (Scheme::Ed25519, ED_KEY, BY_ED),
        ] {
            let der = BASE64.decode(key).unwrap();
            let pem = format!("-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n");
            assert_eq!(check(scheme, &der, None, MESSAGE, signature), Ok(true));
            assert_eq!(check(scheme, pem.as_bytes(), None, MESSAGE, signature), Ok(true));
            assert_eq!(
                check(scheme, &der, None, b"another message", signature),
                Ok(false)
            );
            assert_eq!(
                check(Scheme::EcdsaP256Sha256, &der, None, MESSAGE, signature),
                Ok(false),
                "another scheme"
            );
            assert!(
                check(scheme, &der, Some("localhost"), MESSAGE, signature).is_err(),
                "no chain to check"
            );
        }
        assert!(check(Scheme::Ed25519, b"no key", None, MESSAGE, BY_ED).is_err());
    }

    #[test]
    fn a_chain_is_checked_up_to_a_root_and_for_its_host() {
        let by = |key: &str, host| check(Scheme::EcdsaP256Sha256, key.as_bytes(), host, MESSAGE, BY_LEAF);
        assert_eq!(by(LEAF, Some("localhost")), Ok(true));
        assert_eq!(by(&format!("{LEAF}{ROOT}"), Some("localhost")), Ok(true));
        let error = by(LEAF, Some("api.paypal.com")).unwrap_err();
        assert!(error.contains("not valid for api.paypal.com"), "{error}");
        let changed = check(
            Scheme::EcdsaP256Sha256,
            LEAF.as_bytes(),
            Some("localhost"),
            b"other",
            BY_LEAF,
        );
        assert_eq!(changed, Ok(false));
    }

    #[test]
    fn a_chain_needs_its_root_and_its_time() {
        let signature = BASE64.decode(BY_LEAF).unwrap();
        let signature = Signature {
            scheme: Scheme::EcdsaP256Sha256,
            public_key: LEAF.as_bytes(),
            chain_host: Some("localhost"),
            message: MESSAGE,
            signature: &signature,
        };
        let error = signature.verify(None, NOW).unwrap_err();
        assert!(error.contains("not trusted"), "no extra roots: {error}");
        let before = Timestamp::from_millis(1_700_000_000_000);
        let error = signature.verify(Some(ROOT), before).unwrap_err();
        assert!(error.contains("not trusted"), "not valid yet: {error}");
    }
}
