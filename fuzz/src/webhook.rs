//! What every plugin promises of its webhooks, whichever gateway it is for.

use std::rc::Rc;

use oms_plugin_sdk::native_host::{self, Host};
use oms_plugin_sdk::{Delivery, Event, Outcome, Verified, WebhookError, Webhooks};

use crate::host::Account;

pub type Answer = Result<Outcome, WebhookError>;

/// Calls the plugin as the server would, and looks that no secret of the account is in what it says.
pub fn receive<P: Webhooks>(account: &Account, host: Rc<dyn Host>, delivery: &Delivery) -> Answer {
    let answer = native_host::with(host, || P::receive(delivery.clone()));
    account.must_keep_secrets(delivery, &format!("{answer:?}"));
    answer
}

/// What is known of a delivery apart from the plugin.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Somebody who has the key signed exactly this.
    pub authentic: bool,
    /// It is as the gateway sends it: well formed headers, one signature that fits.
    pub proper: bool,
    /// None where the scheme signs no time.
    pub in_time: Option<bool>,
}

/// Holds the answer against what is known.
pub fn judge(answer: &Answer, known: Known, delivery: &Delivery) {
    use WebhookError as E;
    match answer {
        Ok(Outcome::Verified(_)) => {
            assert!(known.authentic, "a forgery was believed: {delivery:?}");
            assert_ne!(
                known.in_time,
                Some(false),
                "an old delivery was believed: {delivery:?}"
            );
        }
        Ok(other) => panic!("no shipped plugin answers {other:?}"),
        // Only of a genuine delivery may be said that it is too old: a forger learns nothing by it.
        Err(E::Stale(_)) => {
            assert!(known.authentic, "a forgery was called old: {delivery:?}");
            assert_ne!(
                known.in_time,
                Some(true),
                "a fresh delivery was called old: {delivery:?}"
            );
        }
        Err(E::Malformed(_)) => {}
        Err(refused) => assert!(
            !known.proper,
            "a genuine delivery was refused: {refused:?}: {delivery:?}"
        ),
    }
    if known.proper && known.in_time == Some(false) {
        assert!(
            matches!(answer, Err(E::Stale(_))),
            "an old delivery got {answer:?}"
        );
    }
}

/// What was verified, if it was.
pub fn verified(answer: &Answer) -> Option<&Verified> {
    match answer {
        Ok(Outcome::Verified(verified)) => Some(verified),
        _ => None,
    }
}

/// The one event of plugins whose gateways send one at a time.
pub fn only_event(verified: &Verified) -> &Event {
    match verified.events.as_slice() {
        [event] => event,
        events => panic!("{} events in a delivery of one", events.len()),
    }
}

/// A body that was believed, with one bit turned over, must not be.
pub fn damaged(delivery: &Delivery, damage: u16) -> Option<Delivery> {
    if delivery.body.is_empty() {
        return None;
    }
    let mut damaged = delivery.clone();
    let bits = damaged.body.len() * 8;
    let bit = usize::from(damage) % bits;
    damaged.body[bit / 8] ^= 1 << (bit % 8);
    Some(damaged)
}
