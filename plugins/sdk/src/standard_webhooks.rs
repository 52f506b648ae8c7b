//! The signature scheme of the Standard Webhooks specification: headers `webhook-id`,
//! `webhook-timestamp` (Unix seconds) and `webhook-signature` (a list, separated by spaces, of
//! `v1,<base64>`), HMAC-SHA256 over `id.timestamp.body`.

use crate::crypto::{CryptoError, Hash, Key, verify_hmac};
use crate::{Delivery, WebhookError, required_header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// No sender puts more than the keys of one rotation into the list.
const MAX_SIGNATURES: usize = 16;

/// What the signature vouches for besides the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The sender's id of the message, the same in every attempt.
    pub id: String,
    /// When this attempt was signed, Unix milliseconds.
    pub at_ms: u64,
}

/// Checks the signature and the time of signing of a delivery.
///
/// The key is usually `Key::SecretBase64("webhook-secret".into())`, and the account's secret the
/// string that the gateway shows, `whsec_` and all: the host strips the prefix before it decodes.
/// Signatures of versions other than `v1` are skipped, one that fits is enough (keys rotate). The
/// time must be within the delivery's tolerance of its arrival, in both directions; it is looked at
/// only after the signature, so that `stale` is said of genuine deliveries alone.
pub fn verify(delivery: &Delivery, key: &Key) -> Result<Signed, WebhookError> {
    verify_with(delivery, |message, expected| {
        verify_hmac(Hash::Sha256, key, message, expected)
    })
}

fn verify_with(
    delivery: &Delivery,
    check: impl Fn(&[u8], &[u8]) -> Result<bool, CryptoError>,
) -> Result<Signed, WebhookError> {
    let id = required_header(delivery, "webhook-id")?;
    let timestamp = required_header(delivery, "webhook-timestamp")?;
    let signatures = required_header(delivery, "webhook-signature")?;
    let seconds = parse_timestamp(timestamp)?;

    let mut message = Vec::with_capacity(id.len() + timestamp.len() + delivery.body.len() + 2);
    message.extend_from_slice(id.as_bytes());
    message.push(b'.');
    message.extend_from_slice(timestamp.as_bytes());
    message.push(b'.');
    message.extend_from_slice(&delivery.body);

    let mut genuine = false;
    for signature in signatures.split(' ').take(MAX_SIGNATURES) {
        let Some(("v1", encoded)) = signature.split_once(',') else {
            continue;
        };
        let Ok(expected) = BASE64.decode(encoded) else {
            continue;
        };
        genuine |= check(&message, &expected)?;
    }
    if !genuine {
        return Err(WebhookError::BadSignature);
    }

    let tolerance_ms = u64::from(delivery.tolerance_seconds) * 1000;
    let at_ms = seconds.saturating_mul(1000);
    // The sender cuts the time to whole seconds, so compare in whole seconds as well.
    let arrived_ms = delivery.received_at_ms / 1000 * 1000;
    if at_ms.abs_diff(arrived_ms) > tolerance_ms {
        return Err(WebhookError::Stale(at_ms));
    }
    Ok(Signed {
        id: id.to_owned(),
        at_ms,
    })
}

/// Digits only: `parse` alone would take a plus sign.
fn parse_timestamp(text: &str) -> Result<u64, WebhookError> {
    if text.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(seconds) = text.parse()
    {
        return Ok(seconds);
    }
    Err(WebhookError::Malformed(
        "`webhook-timestamp` is not a number of seconds".into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use sha2::Sha256;

    // Made by two official libraries of other languages, so not our own idea of the scheme.
    const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: u64 = 1_614_265_330;
    const BODY: &str = r#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn delivery(signature: &str, body: &str, received_seconds: u64) -> Delivery {
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        Delivery {
            method: "POST".into(),
            url: "https://shop.test/v1/webhooks/mock".into(),
            query: String::new(),
            headers: vec![
                header("webhook-id", ID),
                header("webhook-timestamp", &AT.to_string()),
                header("webhook-signature", signature),
            ],
            body: body.as_bytes().to_vec(),
            received_at_ms: received_seconds * 1000,
            remote_ip: None,
            tolerance_seconds: 300,
        }
    }

    fn check(message: &[u8], expected: &[u8]) -> Result<bool, CryptoError> {
        let key = BASE64.decode(SECRET).unwrap();
        let mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        Ok(mac.chain_update(message).verify_slice(expected).is_ok())
    }

    #[test]
    fn the_official_vector_is_accepted() {
        let signed = verify_with(&delivery(SIGNATURE, BODY, AT), check).unwrap();
        assert_eq!(signed.id, ID);
        assert_eq!(signed.at_ms, AT * 1000);
    }

    #[test]
    fn one_of_several_signatures_is_enough() {
        let list = format!("v1a,AAAA v1,AAAA garbage v1,%% {SIGNATURE}");
        assert!(verify_with(&delivery(&list, BODY, AT), check).is_ok());
    }

    #[test]
    fn a_changed_body_or_foreign_version_is_refused() {
        for (signature, body) in [
            (SIGNATURE, r#"{"test": 2432232315}"#),
            ("v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", BODY),
            ("v1,", BODY),
            ("g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", BODY),
        ] {
            let refused = verify_with(&delivery(signature, body, AT), check);
            assert_eq!(refused, Err(WebhookError::BadSignature), "{signature} {body}");
        }
    }

    #[test]
    fn the_time_is_checked_in_both_directions() {
        for (received, accepted) in [
            (AT - 301, false),
            (AT - 300, true),
            (AT + 300, true),
            (AT + 301, false),
        ] {
            let result = verify_with(&delivery(SIGNATURE, BODY, received), check);
            assert_eq!(result.is_ok(), accepted, "{received}");
            if !accepted {
                assert_eq!(result, Err(WebhookError::Stale(AT * 1000)));
            }
        }
    }

    #[test]
    fn absent_doubled_and_odd_headers_are_named() {
        let mut missing = delivery(SIGNATURE, BODY, AT);
        missing.headers.remove(0);
        let mut doubled = delivery(SIGNATURE, BODY, AT);
        doubled.headers.push(doubled.headers[2].clone());
        let mut signed_number = delivery(SIGNATURE, BODY, AT);
        signed_number.headers[1].1 = b"+1614265330".to_vec();
        assert!(matches!(
            verify_with(&missing, check),
            Err(WebhookError::MissingSignature(_))
        ));
        let mut no_text = delivery(SIGNATURE, BODY, AT);
        no_text.headers[0].1 = vec![0xff];
        for odd in [doubled, signed_number, no_text] {
            assert!(matches!(
                verify_with(&odd, check),
                Err(WebhookError::Malformed(_))
            ));
        }
    }
}
