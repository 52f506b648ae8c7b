//! HTTP basic authentication, in both directions.

use crate::crypto::{CryptoError, Hash, Key, hmac, verify_hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// The value of an `Authorization` header to send.
pub fn authorization(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
}

/// User and password of an `Authorization` header that came in; none when it is no basic authentication.
pub fn parse(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Whether `given` is the account's secret of this name. The secret does not enter the plugin, and the time that the
/// comparison takes says nothing of it: the host compares what both make of one message as keys.
pub fn is_secret(given: &str, name: &str) -> Result<bool, CryptoError> {
    const MESSAGE: &[u8] = b"one message under two keys";
    // An HMAC pads short keys with zeros and hashes long ones: these would be the same key as another text.
    if given.is_empty() || given.len() > 64 || given.contains('\0') {
        return Ok(false);
    }
    let made = hmac(Hash::Sha256, &Key::Bytes(given.as_bytes().to_vec()), MESSAGE)?;
    verify_hmac(Hash::Sha256, &Key::Secret(name.to_owned()), MESSAGE, &made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_can_be_read() {
        // The example of RFC 7617.
        let header = authorization("Aladdin", "open sesame");
        assert_eq!(header, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(parse(&header), Some(("Aladdin".into(), "open sesame".into())));
        assert_eq!(parse("basic dTpwOnE="), Some(("u".into(), "p:q".into())));
        for other in ["", "Basic", "Bearer dTpw", "Basic %%", "Basic dXA="] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
