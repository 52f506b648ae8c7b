//! Whether a webhook comes from PayPal: an RSA signature over `id|time|webhook id|CRC-32 of the body`, by a certificate
//! that the delivery names. Its address is pinned, and its chain must lead to a public root and name PayPal.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oms_plugin_sdk::{
    Delivery, WebhookError, cache, config, crc32,
    crypto::{Scheme, verify_signature},
    http, log, required_header,
};

/// Where certificates lie on the pinned host.
const PATH: &str = "/v1/notifications/certs/";
/// PayPal renews them rarely, under new addresses.
const KEPT_SECONDS: u32 = 24 * 3600;
const TIMEOUT_MS: u32 = 5_000;

/// Where PayPal keeps its certificates, and whom they must name.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    origin: String,
    name: &'static str,
}

pub(crate) fn verify(delivery: &Delivery) -> Result<(), WebhookError> {
    let webhook_id = config::require("webhook-id")?;
    let signed = Signed::read(delivery, &webhook_id)?;
    let place = place(&config::require("base-url")?, config::get("certificate-origin"));
    check_address(&place.origin, signed.certificate_url)?;
    let pem = fetch(signed.certificate_url)?;
    let checked = verify_signature(
        Scheme::RsaPkcs1Sha256,
        &pem,
        Some(place.name),
        signed.message.as_bytes(),
        &signed.signature,
    );
    match checked {
        Ok(true) => {
            // Only one that was good is worth keeping.
            cache::set(signed.certificate_url, &pem, KEPT_SECONDS);
            Ok(())
        }
        Ok(false) => Err(WebhookError::BadSignature),
        Err(why) => {
            log::warn(
                "a webhook came with a certificate that is not good",
                &[("why", &why.to_string())],
            );
            Err(WebhookError::BadSignature)
        }
    }
}

fn place(base_url: &str, setting: Option<String>) -> Place {
    let sandbox = base_url.contains(".sandbox.paypal.com");
    let (origin, name) = match sandbox {
        true => (
            "https://api.sandbox.paypal.com",
            "messageverificationcerts.sandbox.paypal.com",
        ),
        false => ("https://api.paypal.com", "messageverificationcerts.paypal.com"),
    };
    let setting = setting.filter(|text| !text.trim().is_empty());
    Place {
        origin: setting.map_or_else(|| origin.to_owned(), |text| text.trim_end_matches('/').to_owned()),
        name,
    }
}

/// Compared as text: whatever a parser of addresses would have to explain is refused.
fn check_address(origin: &str, url: &str) -> Result<(), WebhookError> {
    let name = url.strip_prefix(origin).and_then(|rest| rest.strip_prefix(PATH));
    let plain = |name: &str| {
        (1..=128).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if origin.starts_with("https://") && name.is_some_and(plain) {
        return Ok(());
    }
    log::warn(
        "a webhook names a certificate that is not PayPal's",
        &[("origin", origin)],
    );
    Err(WebhookError::BadSignature)
}

fn fetch(url: &str) -> Result<Vec<u8>, WebhookError> {
    if let Some(pem) = cache::get(url) {
        return Ok(pem);
    }
    let response = http::get(url).timeout_ms(TIMEOUT_MS).send()?;
    match response.status {
        200 => Ok(response.body),
        // There is none of this name, so that nothing genuine names it.
        404 => Err(WebhookError::BadSignature),
        status => Err(WebhookError::Unavailable(format!(
            "the certificate's server answered with status {status}"
        ))),
    }
}

/// What the headers say.
#[derive(Debug)]
struct Signed<'a> {
    certificate_url: &'a str,
    signature: Vec<u8>,
    message: String,
}

impl<'a> Signed<'a> {
    fn read(delivery: &'a Delivery, webhook_id: &str) -> Result<Self, WebhookError> {
        let id = required_header(delivery, "paypal-transmission-id")?;
        let time = required_header(delivery, "paypal-transmission-time")?;
        let certificate_url = required_header(delivery, "paypal-cert-url")?;
        let algorithm = required_header(delivery, "paypal-auth-algo")?;
        let signature = required_header(delivery, "paypal-transmission-sig")?;
        // With a bar inside one of them, another split of the same text would say something else.
        if id.contains('|') || time.contains('|') {
            return Err(WebhookError::BadSignature);
        }
        if !algorithm.eq_ignore_ascii_case("SHA256withRSA") {
            return Err(WebhookError::BadSignature);
        }
        Ok(Self {
            certificate_url,
            signature: BASE64.decode(signature).map_err(|_| WebhookError::BadSignature)?,
            message: format!("{id}|{time}|{webhook_id}|{}", crc32(&delivery.body)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "69cd13f0-d67a-11e5-baa3-778b53f4ae55";
    const BODY: &str = r#"{"id":"WH-1","event_type":"PAYMENT.CAPTURE.COMPLETED"}"#;

    fn delivery(change: impl Fn(&str, &str) -> Option<String>) -> Delivery {
        let headers = [
            ("paypal-transmission-id", ID),
            ("paypal-transmission-time", "2016-02-18T20:01:35Z"),
            (
                "paypal-cert-url",
                "https://api.paypal.com/v1/notifications/certs/CERT-360caa42",
            ),
            ("paypal-auth-algo", "SHA256withRSA"),
            ("paypal-transmission-sig", "AAAA"),
        ];
        let headers = headers.iter().filter_map(|(name, value)| {
            let value = change(name, value)?;
            Some(((*name).to_owned(), value.into_bytes()))
        });
        Delivery {
            method: "POST".into(),
            url: "https://shop.test/v1/webhooks/paypal".into(),
            query: String::new(),
            headers: headers.collect(),
            body: BODY.into(),
            received_at_ms: 1_455_825_695_000,
            remote_ip: None,
            tolerance_seconds: 300,
        }
    }

    #[test]
    fn the_signed_text_is_that_of_paypals_library() {
        let delivery = delivery(|_, value| Some(value.to_owned()));
        let signed = Signed::read(&delivery, "1JE4291016473214C").unwrap();
        assert_eq!(
            signed.message,
            format!("{ID}|2016-02-18T20:01:35Z|1JE4291016473214C|2325436976")
        );
    }

    #[test]
    fn headers_must_be_there_and_plain() {
        for missing in [
            "paypal-transmission-id",
            "paypal-cert-url",
            "paypal-auth-algo",
            "paypal-transmission-sig",
        ] {
            let delivery = delivery(|name, value| (name != missing).then(|| value.to_owned()));
            assert!(
                matches!(
                    Signed::read(&delivery, "W"),
                    Err(WebhookError::MissingSignature(_))
                ),
                "{missing}"
            );
        }
        for (header, odd) in [
            ("paypal-transmission-id", "a|b"),
            ("paypal-auth-algo", "SHA1withRSA"),
            ("paypal-transmission-sig", "%%"),
        ] {
            let delivery = delivery(|name, value| Some(if name == header { odd } else { value }.to_owned()));
            assert_eq!(
                Signed::read(&delivery, "W").unwrap_err(),
                WebhookError::BadSignature,
                "{header}"
            );
        }
        let plain = || delivery(|_, value| Some(value.to_owned()));
        let (mut doubled, mut no_text) = (plain(), plain());
        doubled.headers.push(doubled.headers[0].clone());
        no_text.headers[0].1 = vec![0xff];
        for odd in [doubled, no_text] {
            assert!(matches!(Signed::read(&odd, "W"), Err(WebhookError::Malformed(_))));
        }
    }

    #[test]
    fn sandbox_and_live_have_their_own_places() {
        let live = place("https://api-m.paypal.com", None);
        assert_eq!(
            (live.origin.as_str(), live.name),
            ("https://api.paypal.com", "messageverificationcerts.paypal.com")
        );
        let sandbox = place("https://api-m.sandbox.paypal.com", Some(" ".into()));
        assert_eq!(sandbox.origin, "https://api.sandbox.paypal.com");
        assert_eq!(sandbox.name, "messageverificationcerts.sandbox.paypal.com");
    }
}
