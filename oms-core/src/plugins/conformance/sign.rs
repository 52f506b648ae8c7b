//! Webhooks as the gateway would sign them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;

use super::fixtures::{Algorithm, Encoding, Fixtures, KeyEncoding, Sign, Texts, Webhook, Words};
use crate::payments::Delivery;
use crate::plugins::bindings::crypto::Hash;
use crate::plugins::crypto;
use crate::time::Timestamp;

/// A delivery to be made: what differs from the gateway's own is set by the rule that wants it so.
pub(super) struct Draft<'a> {
    pub(super) fixtures: &'a Fixtures,
    pub(super) webhook: &'a Webhook,
    /// What the body's placeholders stand for, without those of the delivery.
    pub(super) words: Words,
    pub(super) event_id: String,
    pub(super) signed_at: Timestamp,
    pub(super) received_at: Timestamp,
    pub(super) tolerance_seconds: u32,
    /// Another body than that of `[webhook]`; placeholders work in it.
    pub(super) body: Option<String>,
    pub(super) headers: Option<Texts>,
    /// Signed with another key than the account's.
    pub(super) wrong_key: bool,
    /// Nothing stands where the signature would.
    pub(super) unsigned: bool,
}

impl Draft<'_> {
    /// Renders and signs.
    pub(super) fn sign(&self) -> Result<Delivery, String> {
        let webhook = self.webhook;
        let template = match &self.body {
            Some(body) => body.clone(),
            None => self.fixtures.text(&webhook.body, webhook.body_file.as_ref())?,
        };
        self.finish(|words| words.render(&template).map(String::into_bytes))
    }

    /// Signs these bytes, as a gateway would that has lost its mind.
    pub(super) fn sign_bytes(&self, body: &[u8]) -> Result<Delivery, String> {
        self.finish(|_| Ok(body.to_vec()))
    }

    fn finish(&self, body: impl Fn(&Words) -> Result<Vec<u8>, String>) -> Result<Delivery, String> {
        let mut words = self.words.clone();
        words.set("event_id", &self.event_id);
        words.set("timestamp", self.signed_at.as_secs().to_string());
        let whole = Timestamp::from_millis(self.signed_at.as_secs() * 1_000);
        words.set("timestamp.iso", whole.to_string());
        let bytes = match &self.webhook.sign {
            // Some put the signature into the body: then it is not made over the body.
            Some(sign) if !sign.message.contains("{{body") => {
                let signature = self.signature(sign, &words, sign.message.as_bytes())?;
                words.set("signature", signature);
                body(&words)?
            }
            Some(sign) => {
                let bytes = body(&words)?;
                words.set("body.crc32", crc32(&bytes).to_string());
                let message = spliced(&sign.message, &bytes);
                let signature = self.signature(sign, &words, &message)?;
                words.set("signature", signature);
                bytes
            }
            None => body(&words)?,
        };
        let headers = words.render_all(self.headers.as_ref().unwrap_or(&self.webhook.headers))?;
        let header = |(name, value): (String, String)| (name.to_ascii_lowercase(), value.into_bytes());
        Ok(Delivery {
            method: self.webhook.method.clone(),
            url: words.render(&self.webhook.url)?,
            query: words.render(&self.webhook.query)?,
            headers: headers.into_iter().map(header).collect(),
            body: bytes,
            received_at: self.received_at,
            remote_ip: None,
            tolerance_seconds: self.tolerance_seconds,
        })
    }

    /// `message` has its placeholders still, but for the body, whose bytes need not be text.
    fn signature(&self, sign: &Sign, words: &Words, message: &[u8]) -> Result<String, String> {
        if self.unsigned {
            return Ok(String::new());
        }
        let message = rendered(words, message)?;
        let bytes = match sign.algorithm {
            Algorithm::RsaSha256 => self.rsa(sign, &message)?,
            Algorithm::HmacSha1 => crypto::sign(Hash::Sha1, &self.key(sign)?, &message),
            Algorithm::HmacSha256 => crypto::sign(Hash::Sha256, &self.key(sign)?, &message),
            Algorithm::HmacSha512 => crypto::sign(Hash::Sha512, &self.key(sign)?, &message),
        };
        Ok(match sign.encoding {
            Encoding::Base64 => BASE64.encode(bytes),
            Encoding::Hex => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    fn key(&self, sign: &Sign) -> Result<Vec<u8>, String> {
        let name = sign
            .key
            .strip_prefix("secret:")
            .ok_or("webhook.sign.key must be `secret:NAME`, a secret of the account")?;
        let secrets = &self.fixtures.suite.account.secrets;
        let text = secrets.get(name).ok_or_else(|| {
            format!("webhook.sign.key names the secret {name:?}, which [account] does not have")
        })?;
        let mut key = match sign.key_encoding {
            KeyEncoding::Utf8 => text.as_bytes().to_vec(),
            KeyEncoding::Sha1 => crypto::digest(Hash::Sha1, text.as_bytes()),
            KeyEncoding::Base64 => BASE64
                .decode(text.strip_prefix("whsec_").unwrap_or(text))
                .map_err(|_| format!("the secret {name:?} is not base64"))?,
            KeyEncoding::Hex => hex(text).ok_or_else(|| format!("the secret {name:?} is not hexadecimal"))?,
        };
        if self.wrong_key
            && let Some(byte) = key.first_mut()
        {
            *byte ^= 1;
        }
        Ok(key)
    }

    fn rsa(&self, sign: &Sign, message: &[u8]) -> Result<Vec<u8>, String> {
        let file = sign
            .key_file
            .as_ref()
            .ok_or("rsa-sha256 needs webhook.sign.key_file")?;
        let pem = self.fixtures.file(file)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| format!("{file}: {e}"))?;
        let pair = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).map_err(|e| format!("{file}: {e}"))?;
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| format!("{file}: it cannot sign"))?;
        if self.wrong_key
            && let Some(byte) = signature.first_mut()
        {
            *byte ^= 1;
        }
        Ok(signature)
    }
}

/// Marks where the body stands while the rest is rendered: its own braces are not placeholders.
const BODY: &str = "{{body}}";

fn spliced(message: &str, body: &[u8]) -> Vec<u8> {
    match message.split_once(BODY) {
        // A length in front tells the two parts of the template from the body between them.
        Some((before, after)) => [
            before.as_bytes(),
            b"\0body\0",
            body,
            b"\0body\0",
            after.as_bytes(),
        ]
        .concat(),
        None => message.as_bytes().to_vec(),
    }
}

fn rendered(words: &Words, message: &[u8]) -> Result<Vec<u8>, String> {
    const MARK: &[u8] = b"\0body\0";
    let text = |bytes: &[u8]| {
        words
            .render(&String::from_utf8_lossy(bytes))
            .map(String::into_bytes)
    };
    let find = |bytes: &[u8]| bytes.windows(MARK.len()).position(|window| window == MARK);
    let Some(begin) = find(message) else {
        return text(message);
    };
    let rest = &message[begin + MARK.len()..];
    // From behind: the body may hold anything, the template none of these.
    let end = rest
        .windows(MARK.len())
        .rposition(|window| window == MARK)
        .unwrap_or(rest.len());
    let after = rest.get(end + MARK.len()..).unwrap_or_default();
    Ok([text(&message[..begin])?, rest[..end].to_vec(), text(after)?].concat())
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits
        .len()
        .is_multiple_of(2)
        .then(|| digits.chunks(2).map(pair).collect())?
}

/// The checksum of zip files, which one gateway signs in the place of the body.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            1 => (crc >> 1) ^ 0xedb8_8320,
            _ => crc >> 1,
        })
    };
    !bytes.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let paypal = br#"{"id":"WH-1","event_type":"PAYMENT.CAPTURE.COMPLETED"}"#;
        assert_eq!(crc32(paypal), 2_325_436_976);
    }

    #[test]
    fn a_body_is_signed_byte_by_byte() {
        let mut words = Words::default();
        words.set("timestamp", "17");
        for body in [&b"{{timestamp}}"[..], b"\0body\0", &[0xff, 0], b""] {
            let message = rendered(&words, &spliced("{{timestamp}}.{{body}}!", body)).unwrap();
            assert_eq!(message, [b"17.", body, b"!"].concat());
        }
    }
}
