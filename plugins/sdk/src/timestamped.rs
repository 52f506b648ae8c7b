//! Signature headers that carry their own time: `t=1700000000,v1=<hex>`, HMAC-SHA256 over `time.body`.
//!
//! Stripe made the shape known; others use it under names of their own for the header and its parts.

use crate::crypto::{CryptoError, Hash, Key, verify_hmac};
use crate::{Delivery, WebhookError, required_header};

/// No sender puts more than the keys of one rotation into the list.
const MAX_SIGNATURES: usize = 16;

/// How the gateway names things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// The header.
    pub header: &'static str,
    /// The part with the Unix time in seconds.
    pub time: &'static str,
    /// The parts with a signature, in lower-case hexadecimal. Parts with other names are skipped.
    pub signature: &'static str,
}

/// Checks such a header and the time in it, and returns that time in Unix milliseconds.
///
/// One signature that fits is enough (keys rotate). The parts are taken as they stand, without trimming.
/// The time must be within the delivery's tolerance of its arrival, in both directions; it is looked at
/// only after the signature, so that `stale` is said of genuine deliveries alone. A key that is missing or
/// blank is `misconfigured`, never an empty key.
///
/// ```no_run
/// use oms_plugin_sdk::{Delivery, WebhookError, crypto::Key, timestamped::{self, Names}};
///
/// fn check(delivery: &Delivery) -> Result<u64, WebhookError> {
///     let names = Names { header: "acme-signature", time: "t", signature: "v1" };
///     timestamped::verify(delivery, names, &Key::Secret("webhook-secret".into()))
/// }
/// ```
pub fn verify(delivery: &Delivery, names: Names, key: &Key) -> Result<u64, WebhookError> {
    verify_with(delivery, names, |message, expected| {
        verify_hmac(Hash::Sha256, key, message, expected)
    })
}

fn verify_with(
    delivery: &Delivery,
    names: Names,
    check: impl Fn(&[u8], &[u8]) -> Result<bool, CryptoError>,
) -> Result<u64, WebhookError> {
    let header = required_header(delivery, names.header)?;
    let signed = parse(header, names)?;

    let time = signed.seconds.to_string();
    let mut message = Vec::with_capacity(time.len() + 1 + delivery.body.len());
    message.extend_from_slice(time.as_bytes());
    message.push(b'.');
    message.extend_from_slice(&delivery.body);

    let mut genuine = false;
    for signature in signed.signatures.iter().take(MAX_SIGNATURES) {
        // What is not the hexadecimal of a signature fits nothing, but the key must be there all the same.
        let expected = decode_hex(signature).unwrap_or_default();
        genuine |= check(&message, &expected)?;
    }
    if !genuine {
        return Err(WebhookError::BadSignature);
    }

    let at_ms = signed.seconds.saturating_mul(1000);
    // The sender cuts the time to whole seconds, so compare in whole seconds as well.
    let arrived_ms = delivery.received_at_ms / 1000 * 1000;
    if at_ms.abs_diff(arrived_ms) > u64::from(delivery.tolerance_seconds) * 1000 {
        return Err(WebhookError::Stale(at_ms));
    }
    Ok(at_ms)
}

struct Signed<'a> {
    seconds: u64,
    signatures: Vec<&'a str>,
}

fn parse<'a>(header: &'a str, names: Names) -> Result<Signed<'a>, WebhookError> {
    let malformed = |what: &str| WebhookError::Malformed(format!("header `{}`: {what}", names.header));
    let (mut time, mut signatures) = (None, Vec::new());
    for part in header.split(',') {
        let mut words = part.split('=');
        let name = words.next().unwrap_or_default();
        if name != names.time && name != names.signature {
            continue;
        }
        let value = words
            .next()
            .ok_or_else(|| malformed(&format!("`{name}` has no value")))?;
        if name == names.signature {
            signatures.push(value);
        } else if time.replace(value).is_some() {
            return Err(malformed("two times"));
        }
    }
    let time = time.ok_or_else(|| malformed(&format!("no `{}`", names.time)))?;
    // Digits only: `parse` alone would take a plus sign.
    let digits = !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = time.parse().ok().filter(|_| digits);
    if signatures.is_empty() {
        let none = format!("header `{}` has no `{}`", names.header, names.signature);
        return Err(WebhookError::MissingSignature(none));
    }
    Ok(Signed {
        seconds: seconds.ok_or_else(|| malformed("the time is not a number of seconds"))?,
        signatures,
    })
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let bytes = text.as_bytes();
    if bytes.is_empty() || !bytes.len().is_multiple_of(2) {
        return None;
    }
    bytes
        .chunks_exact(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use sha2::Sha256;

    // Made by two official libraries of other languages, so not our own idea of the scheme.
    const SECRET: &str = "whsec_test_secret";
    const AT: u64 = 1_700_000_000;
    const BODY: &str = r#"{"id":"evt_1","object":"event"}"#;
    const SIGNATURE: &str = "0c8670ed117751cc551a20e35839447075c42800ea3cf3e8a2fbda99cd1e6edd";
    const NAMES: Names = Names {
        header: "stripe-signature",
        time: "t",
        signature: "v1",
    };

    fn delivery(header: &str, received_seconds: u64) -> Delivery {
        Delivery {
            method: "POST".into(),
            url: "https://shop.test/v1/webhooks/stripe".into(),
            query: String::new(),
            headers: vec![("stripe-signature".into(), header.as_bytes().to_vec())],
            body: BODY.as_bytes().to_vec(),
            received_at_ms: received_seconds * 1000 + 999,
            remote_ip: None,
            tolerance_seconds: 300,
        }
    }

    fn check(message: &[u8], expected: &[u8]) -> Result<bool, CryptoError> {
        let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        Ok(mac.chain_update(message).verify_slice(expected).is_ok())
    }

    fn receive(header: &str) -> Result<u64, WebhookError> {
        verify_with(&delivery(header, AT), NAMES, check)
    }

    #[test]
    fn the_official_vector_is_accepted() {
        let other = "0".repeat(64);
        for header in [
            format!("t={AT},v1={SIGNATURE}"),
            format!("v1={SIGNATURE},t={AT}"),
            format!("t={AT},v1={other},v1={SIGNATURE}"),
            format!("t={AT},v0={other},unknown,v2=x,v1={SIGNATURE}"),
            format!("t=0{AT},v1={SIGNATURE}"),
        ] {
            assert_eq!(receive(&header), Ok(AT * 1000), "{header}");
        }
    }

    #[test]
    fn other_headers_are_refused_for_their_reason() {
        use WebhookError as E;
        let upper = SIGNATURE.to_uppercase();
        let many = format!("v1=00,{}", "v1=00,".repeat(MAX_SIGNATURES));
        for (header, expected) in [
            (format!("t={AT},v1={upper}"), E::BadSignature),
            (format!("t={AT},v1="), E::BadSignature),
            (format!("t={},v1={SIGNATURE}", AT + 1), E::BadSignature),
            (format!("{many}t={AT},v1={SIGNATURE}"), E::BadSignature),
            (
                format!("t={AT},v0={SIGNATURE}"),
                E::MissingSignature(String::new()),
            ),
            (
                format!("t={AT}, v1={SIGNATURE}"),
                E::MissingSignature(String::new()),
            ),
            (String::new(), E::MissingSignature(String::new())),
            (format!("v1={SIGNATURE}"), E::Malformed(String::new())),
            (format!("t=,v1={SIGNATURE}"), E::Malformed(String::new())),
            (format!("t=+{AT},v1={SIGNATURE}"), E::Malformed(String::new())),
            (format!("t={AT},v1"), E::Malformed(String::new())),
            (
                format!("t={AT},t={AT},v1={SIGNATURE}"),
                E::Malformed(String::new()),
            ),
            (
                format!("t={}0,v1={SIGNATURE}", u64::MAX),
                E::Malformed(String::new()),
            ),
        ] {
            let refused = receive(&header).unwrap_err();
            let same = std::mem::discriminant(&refused) == std::mem::discriminant(&expected);
            assert!(same, "{header}: {refused:?}");
        }
    }

    #[test]
    fn the_time_is_checked_in_both_directions() {
        let header = format!("t={AT},v1={SIGNATURE}");
        for (received, accepted) in [
            (AT - 301, false),
            (AT - 300, true),
            (AT + 300, true),
            (AT + 301, false),
        ] {
            let result = verify_with(&delivery(&header, received), NAMES, check);
            assert_eq!(result.is_ok(), accepted, "{received}");
            if !accepted {
                assert_eq!(result, Err(WebhookError::Stale(AT * 1000)));
            }
        }
    }

    #[test]
    fn two_headers_and_a_missing_key_are_no_signature() {
        let header = format!("t={AT},v1={SIGNATURE}");
        let mut twice = delivery(&header, AT);
        twice.headers.push(twice.headers[0].clone());
        let refused = verify_with(&twice, NAMES, check);
        assert!(matches!(refused, Err(WebhookError::Malformed(_))));
        // Whatever the signature looks like.
        for header in [header, format!("t={AT},v1=zz")] {
            let no_key = |_: &[u8], _: &[u8]| Err(CryptoError("no secret".into()));
            let refused = verify_with(&delivery(&header, AT), NAMES, no_key);
            assert!(matches!(refused, Err(WebhookError::Misconfigured(_))));
        }
    }
}
