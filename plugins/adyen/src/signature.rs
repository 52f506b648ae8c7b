//! Whether a notification comes from Adyen: an HMAC over eight fields of each item, and basic authentication of the
//! whole when the account asks for it. No time is signed, so a repeated item is known by its id alone.

use crate::notification::Item;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oms_plugin_sdk::{
    Delivery, WebhookError, basic, config,
    crypto::{CryptoError, Hash, Key, verify_hmac},
};

/// The key in use, and the one before it while it is being replaced.
const KEYS: [&str; 2] = ["hmac-key", "hmac-key-old"];

pub(crate) fn verify(item: &Item) -> Result<(), WebhookError> {
    verify_with(item, |key, message, expected| {
        verify_hmac(Hash::Sha256, &Key::SecretHex(key.into()), message, expected)
    })
}

fn verify_with(
    item: &Item,
    check: impl Fn(&str, &[u8], &[u8]) -> Result<bool, CryptoError>,
) -> Result<(), WebhookError> {
    let missing = || WebhookError::MissingSignature("an item has no additionalData.hmacSignature".into());
    let signature = item
        .signature()
        .filter(|text| !text.is_empty())
        .ok_or_else(missing)?;
    let Ok(expected) = BASE64.decode(signature) else {
        return Err(WebhookError::BadSignature);
    };
    let message = message(item);
    let [current, old] = KEYS;
    if check(current, message.as_bytes(), &expected)? {
        return Ok(());
    }
    // Most accounts have no old key, which the host reports as an error.
    match check(old, message.as_bytes(), &expected) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(WebhookError::BadSignature),
    }
}

/// The fields in Adyen's order, joined by colons. Nothing is escaped, as in Adyen's own libraries.
fn message(item: &Item) -> String {
    [
        &item.psp_reference,
        item.original_reference.as_deref().unwrap_or_default(),
        &item.merchant_account_code,
        &item.merchant_reference,
        &item.amount.value.to_string(),
        &item.amount.currency,
        &item.event_code,
        &item.success,
    ]
    .join(":")
}

pub(crate) fn check_basic_auth(delivery: &Delivery) -> Result<(), WebhookError> {
    let Some(user) = config::get("notification-user").filter(|user| !user.is_empty()) else {
        return Ok(());
    };
    let header = oms_plugin_sdk::header(&delivery.headers, "authorization");
    let given = header.ok_or_else(|| WebhookError::MissingSignature("no basic authentication".into()))?;
    // The user name is no secret.
    match basic::parse(given) {
        Some((name, password)) if name == user && basic::is_secret(&password, "notification-password")? => {
            Ok(())
        }
        _ => Err(WebhookError::BadSignature),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notification::items;

    /// From the tests of Adyen's own libraries.
    fn vector(signature: &str, success: &str) -> Item {
        let body = format!(
            r#"{{"live":"false","notificationItems":[{{"NotificationRequestItem":{{"pspReference":"7914073381342284",
                "originalReference":"","merchantAccountCode":"TestMerchant","merchantReference":"TestPayment-1407325143704",
                "amount":{{"value":1130,"currency":"EUR"}},"eventCode":"AUTHORISATION","success":"{success}",
                "eventDate":"2014-08-06T17:15:34.121+02:00","paymentMethod":"visa",
                "additionalData":{{"hmacSignature":"{signature}"}}}}}}]}}"#
        );
        items(body.as_bytes()).unwrap().remove(0)
    }

    const SIGNED: &str =
        "7914073381342284::TestMerchant:TestPayment-1407325143704:1130:EUR:AUTHORISATION:true";

    #[test]
    fn eight_fields_are_signed() {
        assert_eq!(message(&vector("AAAA", "true")), SIGNED);
    }

    #[test]
    fn one_of_two_keys_must_fit() {
        let by = |fits: &'static str| {
            move |key: &str, message: &[u8], expected: &[u8]| {
                assert_eq!(message, SIGNED.as_bytes());
                Ok(key == fits && expected == [0, 0, 0])
            }
        };
        let item = vector("AAAA", "true");
        assert_eq!(verify_with(&item, by("hmac-key")), Ok(()));
        assert_eq!(verify_with(&item, by("hmac-key-old")), Ok(()));
        assert_eq!(verify_with(&item, by("none")), Err(WebhookError::BadSignature));
        assert_eq!(
            verify_with(&vector("%%", "true"), by("hmac-key")),
            Err(WebhookError::BadSignature)
        );
        let unsigned = verify_with(&vector("", "true"), by("hmac-key"));
        assert!(matches!(unsigned, Err(WebhookError::MissingSignature(_))));
        let no_key = verify_with(&item, |key, _, _| Err(CryptoError(format!("no secret {key}"))));
        assert_eq!(
            no_key,
            Err(WebhookError::Misconfigured("no secret hmac-key".into()))
        );
    }
}
