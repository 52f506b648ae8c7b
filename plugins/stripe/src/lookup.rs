//! Finding a payment whose reference was lost together with the answer to `start`.
//!
//! Stripe's search would find it by our id, but may lag behind by minutes and is not offered everywhere. The list is
//! exact at once, so it is read around the time at which the payment was made: our ids tell it.

use oms_plugin_sdk::{Detail, PaymentError, SyncRequest, form::Form};

use crate::api::Api;
use crate::intent::Intent;
use crate::refund::Page;

/// Stripe's largest page.
const PAGE: usize = 100;
/// The host lets a call make sixteen requests, and sync makes some more.
const MAX_PAGES: usize = 8;
/// Clocks differ, and a start is sent again for an hour.
const BEFORE_S: u64 = 5 * 60;
const AFTER_S: u64 = 2 * 3600;

/// `not-found` only when the list was read to its end.
pub(crate) fn by_payment_id(api: &Api<'_>, request: &SyncRequest) -> Result<Intent, PaymentError> {
    let wanted = request.payment_id.as_str();
    let Some(made_s) = made_at_ms(wanted).map(|ms| ms / 1000) else {
        return Err(PaymentError::unavailable(Detail::new(
            "no_reference",
            "Stripe's id is not known, and our own does not tell when to look for it",
        )));
    };
    let mut after: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let query = Form::new()
            .field("limit", PAGE)
            .entry("created", "gte", made_s.saturating_sub(BEFORE_S))
            .entry("created", "lte", made_s + AFTER_S)
            .optional("starting_after", after.as_deref());
        let page: Page<Intent> = api.get("/v1/payment_intents", &query)?.json()?;
        after = page.data.last().map(|intent| intent.id.clone());
        if let Some(found) = page
            .data
            .into_iter()
            .find(|intent| intent.payment_id() == Some(wanted))
        {
            return Ok(found);
        }
        if !page.has_more || after.is_none() {
            return Err(PaymentError::not_found(format!("Stripe has no payment {wanted}")));
        }
    }
    Err(PaymentError::unavailable(Detail::new(
        "too_many",
        format!("Stripe has more than {} payments of that time", PAGE * MAX_PAGES),
    )))
}

/// The time in one of our ids: `pay_` and a UUIDv7 in 26 digits of Crockford's base 32.
fn made_at_ms(id: &str) -> Option<u64> {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let digits = id.rsplit('_').next()?.as_bytes();
    if digits.len() != 26 || digits[0] > b'7' {
        return None;
    }
    let mut uuid = 0_u128;
    for digit in digits {
        let value = DIGITS.iter().position(|known| known == digit)?;
        uuid = (uuid << 5) | u128::try_from(value).ok()?;
    }
    let version = (uuid >> 76) & 0xf;
    (version == 7).then(|| u64::try_from(uuid >> 80).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_ids_tell_their_time() {
        // The example of the specification of these ids, whose UUID is 01890a5d-ac96-774b-bcce-b302099a8057.
        let made = made_at_ms("pay_01h455vb4pex5vsknk084sn02q");
        assert_eq!(made, Some(0x0189_0a5d_ac96));
        for other in [
            "pay_1",
            "",
            "pay_01h455vb4pex5vsknk084sn02",
            "pay_81h455vb4pex5vsknk084sn02q",
            "pay_01h455vb4pux5vsknk084sn02q",
            // Version 4.
            "pay_01h455vb4p8x5vsknk084sn02q",
        ] {
            assert_eq!(made_at_ms(other), None, "{other}");
        }
    }
}
