//! Deliveries that are signed by the Standard Webhooks specification, for the two plugins that use it.

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oms_plugin_sdk::{Delivery, Event, WebhookError, Webhooks};

use crate::delivery::{Control, NOW_MS, Signing, only_header};
use crate::host::{Account, hmac_sha256};
use crate::webhook::{Known, damaged, judge, only_event, receive, verified};

pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const IDS: [&str; 4] = [
    "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "m",
    "msg.1767323045",
    "évènement 1",
];

/// Delivers the body to the plugin, and returns the event if it was believed.
pub fn deliver<P: Webhooks>(control: &Control, account: &Account, body: Vec<u8>) -> Option<Event> {
    let delivery = sign(control, body);
    let known = Known {
        authentic: is_authentic(&delivery),
        proper: matches!(control.signing(), Signing::Genuine | Signing::AmongOthers)
            && control.leaves_headers(),
        in_time: control.leaves_headers().then(|| control.is_in_time()),
    };
    let ask = |delivery: &Delivery| receive::<P>(account, Rc::new(account.clone()), delivery);
    let answer = ask(&delivery);
    judge(&answer, known, &delivery);
    let event = only_event(verified(&answer)?).clone();

    let seconds: u64 = only_header(&delivery, "webhook-timestamp")?
        .parse()
        .expect("a signed time is a number");
    let verified = verified(&answer)?;
    assert_eq!(verified.signed_at_ms, Some(seconds * 1000));
    assert!((seconds * 1000).abs_diff(NOW_MS / 1000 * 1000) <= u64::from(delivery.tolerance_seconds) * 1000);
    assert_eq!(Some(event.id.as_str()), only_header(&delivery, "webhook-id"));
    assert_eq!(verified.reply, None);

    if let Some(damaged) = damaged(&delivery, control.damage) {
        assert_eq!(ask(&damaged), Err(WebhookError::BadSignature), "{damaged:?}");
    }
    assert_eq!(ask(&delivery), answer, "the same delivery twice");
    Some(event)
}

fn sign(control: &Control, body: Vec<u8>) -> Delivery {
    let id = IDS[usize::from(control.account / 16) % IDS.len()];
    let time = control.signed_seconds().to_string();
    let genuine = signature(&key(), id, &time, &body);
    let signature = match control.signing() {
        Signing::Genuine => genuine,
        Signing::AmongOthers => format!("v1a,AAAA v1,AAAA v1,%% garbage {genuine} v2,BBBB"),
        Signing::OldKey => signature(b"the key before this one", id, &time, &body),
        Signing::WrongKey => signature(b"", id, &time, &body),
        Signing::OtherBody => {
            let mut other = body.clone();
            other.push(b' ');
            signature(&key(), id, &time, &other)
        }
        Signing::Garbage => String::from_utf8_lossy(&body).into_owned(),
        Signing::Absent => String::new(),
    };
    let headers = vec![
        ("webhook-id", id.as_bytes().to_vec()),
        ("webhook-timestamp", time.into_bytes()),
        ("webhook-signature", signature.into_bytes()),
        ("content-type", b"application/json".to_vec()),
    ];
    control.delivery(headers, body)
}

fn key() -> Vec<u8> {
    BASE64.decode(&SECRET[6..]).expect("the secret is base64")
}

fn signature(key: &[u8], id: &str, time: &str, body: &[u8]) -> String {
    let message = [id.as_bytes(), b".", time.as_bytes(), b".", body].concat();
    format!("v1,{}", BASE64.encode(hmac_sha256(key, &message)))
}

/// Whether the one signature that fits is among those in the one header.
fn is_authentic(delivery: &Delivery) -> bool {
    let parts =
        ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| only_header(delivery, name));
    let [Some(id), Some(time), Some(signatures)] = parts else {
        return false;
    };
    let fits = signature(&key(), id, time, &delivery.body);
    signatures.split(' ').any(|given| given == fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oms_plugin_sdk::crypto::Key;
    use oms_plugin_sdk::{Change, Outcome, standard_webhooks};

    /// Verifies as it should.
    struct Careful;
    /// Believes whatever comes.
    struct Credulous;
    /// Says more than it should.
    struct Talkative;

    fn event() -> Outcome {
        Outcome::event(
            Event::new(IDS[0], "paid", Change::Irrelevant),
            Some(NOW_MS / 1000 * 1000),
        )
    }

    impl Webhooks for Careful {
        fn receive(delivery: Delivery) -> Result<Outcome, WebhookError> {
            standard_webhooks::verify(&delivery, &Key::SecretBase64("webhook-secret".into()))?;
            Ok(event())
        }
    }

    impl Webhooks for Credulous {
        fn receive(_: Delivery) -> Result<Outcome, WebhookError> {
            Ok(event())
        }
    }

    impl Webhooks for Talkative {
        fn receive(_: Delivery) -> Result<Outcome, WebhookError> {
            let secret = oms_plugin_sdk::config::secret("webhook-secret")?;
            Err(WebhookError::Malformed(format!("it is not signed by {secret}")))
        }
    }

    fn try_out<P: Webhooks>(control: &[u8]) -> Option<Event> {
        let account = Account::new(&[], &[("webhook-secret", SECRET)]);
        let (control, _) = Control::read(control);
        deliver::<P>(&control, &account, b"{}".to_vec())
    }

    #[test]
    fn zeros_are_a_genuine_delivery() {
        assert!(try_out::<Careful>(&[]).is_some());
        for signing in 2..7 {
            assert!(try_out::<Careful>(&[signing]).is_none(), "{signing}");
        }
    }

    #[test]
    #[should_panic(expected = "a forgery was believed")]
    fn who_believes_a_wrong_key_is_found() {
        try_out::<Credulous>(&[3]);
    }

    #[test]
    #[should_panic(expected = "an old delivery was believed")]
    fn who_does_not_look_at_the_time_is_found() {
        try_out::<Credulous>(&[0, 0, 0, 0, 0, 0x2d, 1]);
    }

    #[test]
    #[should_panic(expected = "BadSignature")]
    fn who_does_not_look_at_the_body_is_found() {
        try_out::<Credulous>(&[]);
    }

    #[test]
    #[should_panic(expected = "the secret `webhook-secret` was said")]
    fn who_says_a_secret_is_found() {
        try_out::<Talkative>(&[]);
    }
}
