//! Webhooks out: signed as Standard Webhooks says, sent from the outbox until they are accepted.

use super::faults::{Flaw, tamper};
use super::{Inner, now_ms, store};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A request whose client went away right at its commit rings no bell.
const POLL: Duration = Duration::from_secs(5);
/// With the pauses above, most of an hour.
const MAX_ATTEMPTS: u32 = 60;
const MAX_AT_ONCE: usize = 16;
/// How far a stale or future timestamp is off.
const CLOCK_SHIFT_S: i64 = 600;

pub(super) fn client() -> anyhow::Result<reqwest::Client> {
    // The program may have chosen already; either choice is good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .user_agent("oms-fake-bank")
        .build()?;
    Ok(client)
}

/// Sends what is due, one webhook at a time for each payment and several payments at once, so that
/// one slow merchant does not hold up the others. What was being sent when this stops is sent again.
pub(super) async fn run(bank: &Arc<Inner>, stop: CancellationToken) {
    let mut sending = JoinSet::new();
    let mut busy = HashSet::new();
    loop {
        let pause = match start_due(bank, &mut sending, &mut busy).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "cannot read the bank's outbox");
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = bank.outbox.notified() => {}
            () = tokio::time::sleep(pause) => {}
            Some(done) = sending.join_next() => match done {
                Ok(payment_id) => drop(busy.remove(&payment_id)),
                // A panic says no payment's name: look at all of them again.
                Err(error) => {
                    tracing::error!(%error, "sending a webhook failed");
                    busy.clear();
                }
            },
        }
    }
}

/// Starts what is due and may start; answers how long there is nothing else to do.
async fn start_due(
    bank: &Arc<Inner>,
    sending: &mut JoinSet<String>,
    busy: &mut HashSet<String>,
) -> anyhow::Result<Duration> {
    let now = now_ms();
    for delivery in store::due(&bank.db, now).await? {
        if sending.len() >= MAX_AT_ONCE {
            break;
        }
        if busy.insert(delivery.payment_id.clone()) {
            sending.spawn(send(Arc::clone(bank), delivery));
        }
    }
    let next = store::next_due(&bank.db, now).await?;
    let until_next = next.map_or(i64::MAX, |at| at - now);
    let pause = Duration::from_millis(u64::try_from(until_next).unwrap_or(0));
    Ok(pause.min(POLL))
}

/// One attempt, written down whatever comes of it.
async fn send(bank: Arc<Inner>, delivery: store::Delivery) -> String {
    let result = attempt(&bank, &delivery).await;
    let accepted = matches!(result, Ok(status) if (200..300).contains(&status));
    let text = match result {
        Ok(status) => status.to_string(),
        Err(error) => error,
    };
    let over = accepted || delivery.flaw.is_some() || delivery.attempts + 1 >= MAX_ATTEMPTS;
    let pause = retry_after(bank.timing.first_retry, delivery.attempts);
    let next = (!over).then(|| now_ms().saturating_add_unsigned(pause));
    tracing::debug!(
        message = "webhook sent",
        webhook.id = delivery.message_id,
        webhook.result = text,
        webhook.attempt = delivery.attempts + 1,
        webhook.flaw = ?delivery.flaw,
    );
    if let Err(error) = store::record_attempt(&bank.db, delivery.id, &text, next).await {
        tracing::error!(
            error = format!("{error:#}"),
            "cannot write down a webhook attempt"
        );
    }
    delivery.payment_id
}

async fn attempt(bank: &Inner, delivery: &store::Delivery) -> Result<u16, String> {
    let shift = match delivery.flaw {
        Some(Flaw::Stale) => -CLOCK_SHIFT_S,
        Some(Flaw::Future) => CLOCK_SHIFT_S,
        Some(Flaw::Tampered) | None => 0,
    };
    let timestamp = now_ms() / 1000 + shift;
    let signature = sign(&bank.webhook_key, &delivery.message_id, timestamp, &delivery.body);
    let body = match delivery.flaw {
        Some(Flaw::Tampered) => tamper(&delivery.body),
        _ => delivery.body.clone(),
    };
    let response = bank
        .http
        .post(reachable(bank, &delivery.url))
        .header("content-type", "application/json")
        .header("webhook-id", &delivery.message_id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature)
        .body(body)
        .send()
        .await
        .map_err(|error| error.to_string())?;
    Ok(response.status().as_u16())
}

/// Where the merchant's address leads to from here.
fn reachable(bank: &Inner, url: &str) -> String {
    let inside = bank.internal.as_ref().and_then(|(public, internal)| {
        let path = url.strip_prefix(public)?;
        path.starts_with('/').then(|| format!("{internal}{path}"))
    });
    inside.unwrap_or_else(|| url.to_owned())
}

/// Doubles with every attempt.
fn retry_after(first: Duration, attempts: u32) -> u64 {
    let pause = first.saturating_mul(1 << attempts.min(16)).min(LONGEST_PAUSE);
    u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
}

fn sign(key: &[u8], id: &str, timestamp: i64, body: &str) -> String {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
    let mac = mac.chain_update(format!("{id}.{timestamp}.{body}"));
    format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known from two official libraries.
    #[test]
    fn the_signature_is_the_one_of_the_specification() {
        let key = BASE64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = sign(
            &key,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        let pauses: Vec<u64> = (0..8).map(|n| retry_after(Duration::from_secs(1), n)).collect();
        assert_eq!(pauses, [1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]);
        assert_eq!(retry_after(Duration::from_secs(1), 60), 60_000);
    }
}
