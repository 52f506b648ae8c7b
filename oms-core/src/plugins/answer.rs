//! What a guest answers, in the library's types. It is checked on its way: sizes, amounts, currencies, characters that a
//! database cannot keep.

use super::bindings::{descriptor as wd, gateway as wg, types as wt, webhooks as ww};
use crate::money::{Currency, Money};
use crate::payments::{
    Change, Decline, Features, GatewayError, GatewayEvent, GatewayStatus, Metadata, NextAction,
    PaymentReport, RedirectMethod, RefundReport, RefundStatus, Reply, Snapshot, Totals, WebhookError,
};
use crate::time::Timestamp;

const MAX_REFERENCE: usize = 255;
const MAX_URL: usize = 8 << 10;
const MAX_DATA: usize = 32 << 10;
const MAX_STATE: usize = 8 << 10;
const MAX_VALUE: usize = 4 << 10;
const MAX_PAIRS: usize = 64;
const MAX_REFUNDS: usize = 500;
const MAX_EVENTS: usize = 100;
const MAX_REPLY: usize = 16 << 10;
/// Texts for people are cut, not refused.
const MAX_MESSAGE: usize = 1_000;
const MAX_CODE: usize = 100;

/// What is wrong with an answer.
pub(super) type Checked<T> = Result<T, String>;

pub(super) fn features(flags: wd::Feature) -> Features {
    let has = |flag| flags.contains(flag);
    Features {
        manual_capture: has(wd::Feature::MANUAL_CAPTURE),
        partial_capture: has(wd::Feature::PARTIAL_CAPTURE),
        multiple_capture: has(wd::Feature::MULTIPLE_CAPTURE),
        cancel: has(wd::Feature::CANCEL),
        refund: has(wd::Feature::REFUND),
        partial_refund: has(wd::Feature::PARTIAL_REFUND),
        sync: has(wd::Feature::SYNC),
        complete: has(wd::Feature::COMPLETE),
        webhooks: has(wd::Feature::WEBHOOKS),
        client_tokens: has(wd::Feature::CLIENT_TOKENS),
    }
}

pub(super) fn payment_report(r: wg::PaymentResult) -> Checked<PaymentReport> {
    Ok(PaymentReport {
        status: status(r.status),
        reference: optional("reference", r.reference, MAX_REFERENCE)?,
        operation_reference: optional("operation-reference", r.operation_reference, MAX_REFERENCE)?,
        totals: totals(r.totals)?,
        next_action: r.next_action.map(next_action).transpose()?,
        expires_at: r.expires_at_ms.map(timestamp).transpose()?,
        state: r.state.map(|text| sized("state", text, MAX_STATE)).transpose()?,
        method: pairs("method", r.method)?,
        decline: None,
    })
}

pub(super) fn refund_report(r: wg::RefundResult, currency: Option<Currency>) -> Checked<RefundReport> {
    if let (Some(amount), Some(currency)) = (&r.amount, currency)
        && self::currency(&amount.currency)? != currency
    {
        return Err(format!(
            "a refund in {} of a payment in {currency}",
            amount.currency
        ));
    }
    Ok(RefundReport {
        refund: r.refund_id.and_then(|text| text.parse().ok()),
        status: refund_status(r.status),
        reference: optional("refund reference", r.reference, MAX_REFERENCE)?,
        amount: r.amount.map(|money| amount("refund", money.minor)).transpose()?,
    })
}

pub(super) fn snapshot(s: wg::Snapshot) -> Checked<Snapshot> {
    if s.refunds.len() > MAX_REFUNDS {
        return Err(format!("{} refunds, {MAX_REFUNDS} are read", s.refunds.len()));
    }
    let payment = payment_report(s.payment)?;
    let currency = payment.totals.currency.as_deref().map(currency).transpose()?;
    let refunds = s
        .refunds
        .into_iter()
        .map(|refund| refund_report(refund, currency));
    Ok(Snapshot {
        refunds: refunds.collect::<Checked<_>>()?,
        payment,
    })
}

/// `text` takes the guest's secrets out of what it says.
pub(super) fn payment_error(error: wt::PaymentError, text: impl Fn(&str) -> String) -> GatewayError {
    use wt::PaymentError as E;

    let cut = |said: String| shorten(&text(&said));
    let detail = |d: wt::Detail| {
        let mut words = format!("{}: {}", d.code, d.message);
        if let Some(status) = d.http_status {
            words.push_str(&format!(" (HTTP {status})"));
        }
        if let Some(code) = d.gateway_code.filter(|code| *code != d.code) {
            words.push_str(&format!(" (gateway code {code})"));
        }
        cut(words)
    };
    match error {
        E::Declined(d) => GatewayError::Declined(Decline {
            code: without_nul(&text(&d.code)).chars().take(MAX_CODE).collect(),
            message: cut(d.message),
        }),
        E::InvalidRequest(d) => GatewayError::InvalidRequest(detail(d)),
        E::InvalidState(d) => GatewayError::InvalidState(detail(d)),
        E::NotFound(said) => GatewayError::NotFound(cut(said)),
        E::Unsupported(said) => GatewayError::Unsupported(cut(said)),
        E::NotAuthenticated(d) => GatewayError::NotAuthenticated(detail(d)),
        E::RateLimited(seconds) => GatewayError::RateLimited(seconds),
        E::Unavailable(d) => GatewayError::Unavailable(detail(d)),
        E::Indeterminate(d) => GatewayError::Indeterminate(detail(d)),
        E::Misconfigured(said) => GatewayError::Misconfigured(cut(said)),
        E::Internal(said) => GatewayError::Internal(cut(said)),
    }
}

/// `text` takes the guest's secrets out of what it says.
pub(super) fn webhook_error(error: ww::WebhookError, text: impl Fn(&str) -> String) -> WebhookError {
    use ww::WebhookError as E;

    let cut = |said: String| shorten(&text(&said));
    match error {
        E::MissingSignature(said) => WebhookError::MissingSignature(cut(said)),
        E::BadSignature => WebhookError::BadSignature,
        E::Stale(_) => WebhookError::Stale,
        E::Malformed(said) => WebhookError::Malformed(cut(said)),
        E::Misconfigured(said) => WebhookError::Misconfigured(cut(said)),
        E::Unavailable(said) => WebhookError::Unavailable(cut(said)),
    }
}

pub(super) fn events(events: Vec<ww::Event>) -> Checked<Vec<GatewayEvent>> {
    if events.len() > MAX_EVENTS {
        return Err(format!(
            "{} events in one delivery, {MAX_EVENTS} are read",
            events.len()
        ));
    }
    events.into_iter().map(event).collect()
}

fn event(e: ww::Event) -> Checked<GatewayEvent> {
    Ok(GatewayEvent {
        id: named("event id", e.id, MAX_REFERENCE)?,
        kind: named("event kind", e.kind, MAX_REFERENCE)?,
        occurred_at: e.occurred_at_ms.map(timestamp).transpose()?,
        reference: optional("reference", e.reference, MAX_REFERENCE)?,
        // Another shop may use the same account at the gateway: its ids are none of ours.
        payment: e.payment_id.and_then(|text| text.parse().ok()),
        change: change(e.change)?,
    })
}

fn change(change: ww::Change) -> Checked<Change> {
    Ok(match change {
        ww::Change::Payment(p) => Change::Payment {
            status: p.status.map(status),
            totals: totals(p.totals)?,
            decline_code: optional("decline-code", p.decline_code, MAX_REFERENCE)?,
            operation_reference: optional("operation-reference", p.operation_reference, MAX_REFERENCE)?,
        },
        ww::Change::Refund(r) => Change::Refund {
            refund: r.refund_id.and_then(|text| text.parse().ok()),
            reference: named("refund reference", r.reference, MAX_REFERENCE)?,
            status: refund_status(r.status),
            amount: match r.amount {
                Some(money) => Some((
                    amount("refund", money.minor)?,
                    currency(&money.currency)?.to_string(),
                )),
                None => None,
            },
        },
        ww::Change::Dispute(d) => Change::Dispute {
            reference: named("dispute reference", d.reference, MAX_REFERENCE)?,
            opened: d.opened,
            won: d.won,
            reason: d.reason.as_deref().map(shorten),
        },
        ww::Change::NeedsSync => Change::NeedsSync,
        ww::Change::Irrelevant => Change::Irrelevant,
    })
}

pub(super) fn hints(references: Vec<String>) -> Checked<Vec<String>> {
    if references.len() > MAX_EVENTS {
        return Err(format!(
            "{} references in one delivery, {MAX_EVENTS} are read",
            references.len()
        ));
    }
    let named = |reference| named("reference", reference, MAX_REFERENCE);
    references.into_iter().map(named).collect()
}

/// Only success, and only types that no browser runs: the answer goes out under the shop's own name.
pub(super) fn reply(r: ww::Reply) -> Checked<Reply> {
    const TYPES: [&str; 4] = [
        "text/plain",
        "application/json",
        "application/xml",
        "application/x-www-form-urlencoded",
    ];

    if !(200..300).contains(&r.status) {
        return Err(format!("a reply with status {}, only 2xx may be sent", r.status));
    }
    if r.body.len() > MAX_REPLY {
        return Err(format!(
            "a reply of {} bytes, {MAX_REPLY} may be sent",
            r.body.len()
        ));
    }
    if let Some(kind) = &r.content_type {
        let base = kind.split(';').next().unwrap_or_default().trim();
        let clean = kind.len() <= 100 && kind.bytes().all(|b| (b' '..=b'~').contains(&b));
        if !clean || !TYPES.contains(&base) {
            return Err(format!(
                "a reply of type {kind:?}, only {} may be sent",
                TYPES.join(", ")
            ));
        }
    }
    Ok(Reply {
        status: r.status,
        content_type: r.content_type,
        body: r.body,
    })
}

fn status(status: wt::PaymentStatus) -> GatewayStatus {
    match status {
        wt::PaymentStatus::Pending => GatewayStatus::Pending,
        wt::PaymentStatus::ActionRequired => GatewayStatus::ActionRequired,
        wt::PaymentStatus::Authorized => GatewayStatus::Authorized,
        wt::PaymentStatus::PartiallyCaptured => GatewayStatus::PartiallyCaptured,
        wt::PaymentStatus::Captured => GatewayStatus::Captured,
        wt::PaymentStatus::Canceled => GatewayStatus::Canceled,
        wt::PaymentStatus::Failed => GatewayStatus::Failed,
    }
}

fn refund_status(status: wt::RefundStatus) -> RefundStatus {
    match status {
        wt::RefundStatus::Pending => RefundStatus::Pending,
        wt::RefundStatus::Succeeded => RefundStatus::Succeeded,
        wt::RefundStatus::Failed => RefundStatus::Failed,
        wt::RefundStatus::Reversed => RefundStatus::Reversed,
    }
}

fn totals(t: wt::Totals) -> Checked<Totals> {
    let checked = |name, value: Option<i64>| value.map(|minor| amount(name, minor)).transpose();
    Ok(Totals {
        currency: match t.currency {
            Some(code) => Some(currency(&code)?.to_string()),
            None => None,
        },
        authorized: checked("authorized", t.authorized)?,
        captured: checked("captured", t.captured)?,
        refunded: checked("refunded", t.refunded)?,
        canceled: checked("canceled", t.canceled)?,
    })
}

fn next_action(action: wt::NextAction) -> Checked<NextAction> {
    Ok(match action {
        wt::NextAction::Redirect(r) => NextAction::Redirect {
            url: redirect_url(r.url)?,
            method: match r.method {
                wt::RedirectMethod::Get => RedirectMethod::Get,
                wt::RedirectMethod::Post => RedirectMethod::Post,
            },
            form_fields: pairs("form-fields", r.form_fields)?,
        },
        wt::NextAction::ClientSdk(data) => NextAction::ClientSdk {
            data: sized("client-sdk", data, MAX_DATA)?,
        },
        wt::NextAction::Present(data) => NextAction::Present {
            data: sized("present", data, MAX_DATA)?,
        },
        wt::NextAction::Wait(seconds) => NextAction::Wait { seconds },
        wt::NextAction::Other(data) => NextAction::Other {
            data: sized("other", data, MAX_DATA)?,
        },
    })
}

/// The customer is sent there: an address on the web, not `javascript:`.
fn redirect_url(text: String) -> Checked<String> {
    let text = sized("redirect url", text, MAX_URL)?;
    match url::Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "https" | "http") => Ok(text),
        _ => Err("a redirect url that is not http or https".into()),
    }
}

fn amount(name: &str, minor: i64) -> Checked<i64> {
    if (0..=Money::MAX).contains(&minor) {
        Ok(minor)
    } else {
        Err(format!("{name} is {minor}, outside 0 to {}", Money::MAX))
    }
}

/// Gateways like lower case.
fn currency(code: &str) -> Checked<Currency> {
    let upper = code.to_ascii_uppercase();
    upper
        .parse()
        .map_err(|_| format!("{code:?} is no ISO 4217 currency"))
}

fn timestamp(ms: u64) -> Checked<Timestamp> {
    // The year 9999: later ones no database keeps.
    match i64::try_from(ms) {
        Ok(ms @ 0..253_402_300_800_000) => Ok(Timestamp::from_millis(ms)),
        _ => Err(format!("{ms} ms is no time")),
    }
}

fn pairs(name: &str, pairs: Metadata) -> Checked<Metadata> {
    if pairs.len() > MAX_PAIRS {
        return Err(format!(
            "{name} has {} entries, {MAX_PAIRS} are read",
            pairs.len()
        ));
    }
    pairs
        .into_iter()
        .map(|(key, value)| Ok((named(name, key, MAX_REFERENCE)?, sized(name, value, MAX_VALUE)?)))
        .collect()
}

fn optional(name: &str, text: Option<String>, max: usize) -> Checked<Option<String>> {
    text.filter(|text| !text.is_empty())
        .map(|text| named(name, text, max))
        .transpose()
}

/// A text that names something: not empty, printable.
fn named(name: &str, text: String, max: usize) -> Checked<String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(format!("{name} is empty or holds control characters"));
    }
    sized(name, text, max)
}

/// PostgreSQL keeps no NUL in a text.
fn sized(name: &str, text: String, max: usize) -> Checked<String> {
    if text.len() > max {
        return Err(format!("{name} has {} bytes, {max} are taken", text.len()));
    }
    if text.contains('\0') {
        return Err(format!("{name} holds a NUL character"));
    }
    Ok(text)
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => without_nul(&format!("{}..", &text[..end])),
        None => without_nul(text),
    }
}

fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_totals() -> wt::Totals {
        wt::Totals {
            currency: None,
            authorized: None,
            captured: None,
            refunded: None,
            canceled: None,
        }
    }

    fn payment_event(id: &str, payment_id: &str) -> ww::Event {
        ww::Event {
            id: id.into(),
            kind: "paid".into(),
            occurred_at_ms: None,
            reference: Some(String::new()),
            payment_id: Some(payment_id.into()),
            change: ww::Change::NeedsSync,
        }
    }

    #[test]
    fn totals_are_amounts_of_a_currency() {
        let with = |currency: &str, captured| {
            totals(wt::Totals {
                currency: Some(currency.into()),
                captured: Some(captured),
                ..no_totals()
            })
        };
        let read = with("eur", 1_999).unwrap();
        assert_eq!(
            (read.currency.as_deref(), read.captured),
            (Some("EUR"), Some(1_999))
        );
        for (currency, captured) in [("EURO", 1), ("", 1), ("EUR", -1), ("EUR", Money::MAX + 1)] {
            assert!(with(currency, captured).is_err(), "{captured} {currency}");
        }
    }

    #[test]
    fn events_are_named_and_other_shops_ids_are_not_ours() {
        let read = events(vec![payment_event("evt_1", "order-of-another-shop")]).unwrap();
        assert_eq!((read[0].payment, read[0].reference.as_deref()), (None, None));
        for id in ["", "a\nb", &"x".repeat(256)] {
            assert!(events(vec![payment_event(id, "")]).is_err(), "{id:?}");
        }
    }

    #[test]
    fn a_refund_has_the_currency_of_its_payment() {
        let refund = |currency: &str| wg::RefundResult {
            refund_id: None,
            status: wt::RefundStatus::Succeeded,
            reference: None,
            amount: Some(wt::Money {
                minor: 5,
                currency: currency.into(),
                exponent: 2,
            }),
            raw: None,
        };
        let euro = Some("EUR".parse().unwrap());
        assert_eq!(refund_report(refund("EUR"), euro).unwrap().amount, Some(5));
        assert!(refund_report(refund("USD"), euro).is_err());
    }

    #[test]
    fn replies_are_success_of_a_harmless_type() {
        let with = |status, kind: Option<&str>, size| {
            reply(ww::Reply {
                status,
                content_type: kind.map(Into::into),
                body: vec![b'x'; size],
            })
        };
        assert!(with(202, Some("application/json; charset=utf-8"), 10).is_ok());
        assert!(with(200, None, 0).is_ok());
        for (status, kind, size) in [
            (302, None, 0),
            (500, None, 0),
            (200, Some("text/html"), 1),
            (200, Some("text/plain\r\nset-cookie: a=b"), 1),
            (200, None, MAX_REPLY + 1),
        ] {
            assert!(with(status, kind, size).is_err(), "{status} {kind:?} {size}");
        }
    }

    #[test]
    fn a_decline_can_be_kept_by_every_database() {
        let said = wt::PaymentError::Declined(wt::Decline {
            code: format!("do_not\0honor{}", "x".repeat(200)),
            message: "no\0".into(),
            gateway_code: None,
            customer_can_retry: true,
        });
        let GatewayError::Declined(decline) = payment_error(said, str::to_owned) else {
            panic!("another case");
        };
        assert!(decline.code.starts_with("do_not\u{fffd}honor"), "{decline:?}");
        assert_eq!(decline.code.chars().count(), MAX_CODE);
        assert_eq!(decline.message, "no\u{fffd}");
    }

    #[test]
    fn what_an_error_says_is_cleaned_and_cut() {
        let said = wt::PaymentError::Unavailable(wt::Detail {
            code: "busy".into(),
            message: format!("key s3cret {}", "long ".repeat(1_000)),
            http_status: Some(503),
            gateway_code: None,
        });
        let GatewayError::Unavailable(text) = payment_error(said, |text| text.replace("s3cret", "***"))
        else {
            panic!("another case");
        };
        assert!(text.starts_with("busy: key *** long"), "{text}");
        assert!(text.chars().count() <= MAX_MESSAGE + 2);
    }
}
