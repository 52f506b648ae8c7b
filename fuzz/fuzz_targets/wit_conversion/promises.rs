//! What holds of every answer once it is one of the library's: whatever a guest said, a database can keep it, an
//! operator can read it and a browser may be sent there. And it is what the guest said.

use oms_core::payments::{
    Change, Features, GatewayError, GatewayEvent, GatewayStatus, NextAction, PaymentReport, RefundReport,
    RefundStatus, Reply, Totals, WebhookError,
};
use oms_core::plugins::fuzzing::{descriptor as wd, gateway as wg, types as wt, webhooks as ww};
use oms_core::{Currency, Money, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Debug;

use crate::guest::SECRET;

/// Texts for people are cut to this many characters, and two points.
const MAX_MESSAGE: usize = 1_000 + 2;

pub(crate) fn payment(said: &wg::PaymentResult, read: &PaymentReport) {
    assert_eq!(read.status, status(said.status));
    assert_eq!(read.reference, not_empty(said.reference.as_ref()));
    assert_eq!(
        read.operation_reference,
        not_empty(said.operation_reference.as_ref())
    );
    read.reference
        .iter()
        .chain(&read.operation_reference)
        .for_each(|text| name(text));
    totals(&said.totals, &read.totals);
    assert_eq!(read.next_action.is_some(), said.next_action.is_some());
    read.next_action.iter().for_each(next_action);
    assert_eq!(
        read.expires_at.map(Timestamp::as_millis),
        said.expires_at_ms.map(|ms| ms as i64)
    );
    read.expires_at.iter().for_each(|at| time(*at));
    assert_eq!(read.state, said.state);
    assert!(read.state.as_ref().is_none_or(|text| text.len() <= 8 << 10));
    assert_eq!(read.method, said.method);
    pairs(&read.method);
    assert_eq!(read.decline, None);
    can_be_kept(read);
}

pub(crate) fn refund(said: &wg::RefundResult, read: &RefundReport, currency: Option<Currency>) {
    assert_eq!(read.status, refund_status(said.status));
    assert_eq!(read.reference, not_empty(said.reference.as_ref()));
    read.reference.iter().for_each(|text| name(text));
    let id = said.refund_id.as_deref().and_then(|text| text.parse().ok());
    assert_eq!(read.refund, id);
    assert_eq!(read.amount, said.amount.as_ref().map(|money| money.minor));
    read.amount.iter().for_each(|minor| amount(*minor));
    if let (Some(money), Some(currency)) = (&said.amount, currency) {
        assert!(
            money.currency.eq_ignore_ascii_case(currency.code()),
            "{money:?} of a payment in {currency}"
        );
    }
    can_be_kept(read);
}

pub(crate) fn event(said: &ww::Event, read: &GatewayEvent) {
    assert_eq!((&read.id, &read.kind), (&said.id, &said.kind));
    name(&read.id);
    name(&read.kind);
    assert_eq!(read.reference, not_empty(said.reference.as_ref()));
    read.reference.iter().for_each(|text| name(text));
    let payment = said.payment_id.as_deref().and_then(|text| text.parse().ok());
    assert_eq!(read.payment, payment);
    read.occurred_at.iter().for_each(|at| time(*at));
    change(&said.change, &read.change);
    can_be_kept(read);
}

fn change(said: &ww::Change, read: &Change) {
    match (said, read) {
        (
            ww::Change::Payment(said),
            Change::Payment {
                status: at,
                totals: read,
                decline_code,
                operation_reference,
            },
        ) => {
            assert_eq!(*at, said.status.map(status));
            totals(&said.totals, read);
            assert_eq!(*decline_code, not_empty(said.decline_code.as_ref()));
            decline_code
                .iter()
                .chain(operation_reference)
                .for_each(|text| name(text));
        }
        (
            ww::Change::Refund(said),
            Change::Refund {
                reference,
                status,
                amount: read,
                ..
            },
        ) => {
            assert_eq!(*reference, said.reference);
            name(reference);
            assert_eq!(*status, refund_status(said.status));
            assert_eq!(
                read.as_ref().map(|(minor, _)| *minor),
                said.amount.as_ref().map(|money| money.minor)
            );
            if let Some((minor, code)) = read {
                amount(*minor);
                currency(code);
            }
        }
        (
            ww::Change::Dispute(said),
            Change::Dispute {
                reference,
                opened,
                won,
                reason,
            },
        ) => {
            assert_eq!(
                (reference, *opened, *won),
                (&said.reference, said.opened, said.won)
            );
            name(reference);
            assert_eq!(reason.is_some(), said.reason.is_some());
            reason.iter().for_each(|text| message(text));
        }
        (ww::Change::NeedsSync, Change::NeedsSync) | (ww::Change::Irrelevant, Change::Irrelevant) => {}
        other => panic!("another change: {other:?}"),
    }
}

/// Words for an operator: short, without what a database cannot keep and what the guest was to keep to itself.
pub(crate) fn payment_error(said: &wt::PaymentError, read: &GatewayError) {
    use GatewayError as R;
    use wt::PaymentError as S;
    match (said, read) {
        (S::Declined(_), R::Declined(decline)) => {
            assert!(decline.code.chars().count() <= 100, "{decline:?}");
            message(&decline.code);
            message(&decline.message);
        }
        (S::RateLimited(said), R::RateLimited(read)) => assert_eq!(said, read),
        (S::InvalidRequest(_), R::InvalidRequest(text))
        | (S::InvalidState(_), R::InvalidState(text))
        | (S::NotFound(_), R::NotFound(text))
        | (S::Unsupported(_), R::Unsupported(text))
        | (S::NotAuthenticated(_), R::NotAuthenticated(text))
        | (S::Unavailable(_), R::Unavailable(text))
        | (S::Indeterminate(_), R::Indeterminate(text))
        | (S::Misconfigured(_), R::Misconfigured(text))
        | (S::Internal(_), R::Internal(text)) => message(text),
        other => panic!("another error: {other:?}"),
    }
    assert!(!read.to_string().contains(SECRET), "{read:?}");
    can_be_kept(read);
}

pub(crate) fn webhook_error(said: &ww::WebhookError, read: &WebhookError) {
    use WebhookError as R;
    use ww::WebhookError as S;
    match (said, read) {
        (S::BadSignature, R::BadSignature) | (S::Stale(_), R::Stale) => {}
        (S::MissingSignature(_), R::MissingSignature(text))
        | (S::Malformed(_), R::Malformed(text))
        | (S::Misconfigured(_), R::Misconfigured(text))
        | (S::Unavailable(_), R::Unavailable(text)) => message(text),
        other => panic!("another error: {other:?}"),
    }
    assert!(!read.to_string().contains(SECRET), "{read:?}");
}

/// It goes out under the shop's own name.
pub(crate) fn reply(said: &ww::Reply, read: &Reply) {
    assert_eq!(
        (read.status, &read.content_type, &read.body),
        (said.status, &said.content_type, &said.body)
    );
    assert!((200..300).contains(&read.status));
    assert!(read.body.len() <= 16 << 10);
    if let Some(kind) = &read.content_type {
        assert!(kind.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{kind:?}");
        assert!(
            !kind.split(';').next().unwrap_or_default().contains("html"),
            "{kind:?}"
        );
    }
}

pub(crate) fn features(said: wd::Feature, read: Features) {
    use wd::Feature as F;
    for (flag, has) in [
        (F::MANUAL_CAPTURE, read.manual_capture),
        (F::PARTIAL_CAPTURE, read.partial_capture),
        (F::MULTIPLE_CAPTURE, read.multiple_capture),
        (F::CANCEL, read.cancel),
        (F::REFUND, read.refund),
        (F::PARTIAL_REFUND, read.partial_refund),
        (F::SYNC, read.sync),
        (F::COMPLETE, read.complete),
        (F::WEBHOOKS, read.webhooks),
        (F::CLIENT_TOKENS, read.client_tokens),
    ] {
        assert_eq!(said.contains(flag), has, "{flag:?}");
    }
}

fn totals(said: &wt::Totals, read: &Totals) {
    let pairs = [
        (said.authorized, read.authorized),
        (said.captured, read.captured),
        (said.refunded, read.refunded),
        (said.canceled, read.canceled),
    ];
    for (said, read) in pairs {
        assert_eq!(said, read);
        read.iter().for_each(|minor| amount(*minor));
    }
    assert_eq!(
        said.currency.as_ref().map(|code| code.to_ascii_uppercase()),
        read.currency
    );
    read.currency.iter().for_each(|code| currency(code));
}

fn next_action(read: &NextAction) {
    match read {
        NextAction::Redirect { url, form_fields, .. } => {
            let parsed = url::Url::parse(url).expect("the customer is sent there");
            assert!(matches!(parsed.scheme(), "https" | "http"), "{url:?}");
            assert!(url.len() <= 8 << 10);
            pairs(form_fields);
        }
        NextAction::ClientSdk { data } | NextAction::Present { data } | NextAction::Other { data } => {
            assert!(data.len() <= 32 << 10);
        }
        NextAction::Wait { .. } => {}
    }
}

fn pairs(read: &[(String, String)]) {
    assert!(read.len() <= 64);
    for (key, value) in read {
        name(key);
        assert!(value.len() <= 4 << 10);
    }
}

/// A text that names something.
pub(crate) fn name(text: &str) {
    assert!((1..=255).contains(&text.len()), "{text:?}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

fn message(text: &str) {
    assert!(
        text.chars().count() <= MAX_MESSAGE,
        "{} characters",
        text.chars().count()
    );
    assert!(!text.contains('\0'), "{text:?}");
}

fn amount(minor: i64) {
    assert!((0..=Money::MAX).contains(&minor), "{minor}");
}

fn currency(code: &str) {
    assert!(code.parse::<Currency>().is_ok(), "{code:?}");
}

fn time(at: Timestamp) {
    assert!((0..253_402_300_800_000).contains(&at.as_millis()), "{at:?}");
}

fn not_empty(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).cloned()
}

/// It is written down as JSON and read again, and PostgreSQL takes no NUL in it.
fn can_be_kept<T: Serialize + DeserializeOwned + PartialEq + Debug>(read: &T) {
    let json = serde_json::to_value(read).expect("answers are written as JSON");
    assert!(!holds_nul(&json), "{read:?}");
    let again: T = serde_json::from_value(json).expect("what was written can be read");
    assert_eq!(&again, read);
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

fn status(said: wt::PaymentStatus) -> GatewayStatus {
    match said {
        wt::PaymentStatus::Pending => GatewayStatus::Pending,
        wt::PaymentStatus::ActionRequired => GatewayStatus::ActionRequired,
        wt::PaymentStatus::Authorized => GatewayStatus::Authorized,
        wt::PaymentStatus::PartiallyCaptured => GatewayStatus::PartiallyCaptured,
        wt::PaymentStatus::Captured => GatewayStatus::Captured,
        wt::PaymentStatus::Canceled => GatewayStatus::Canceled,
        wt::PaymentStatus::Failed => GatewayStatus::Failed,
    }
}

fn refund_status(said: wt::RefundStatus) -> RefundStatus {
    match said {
        wt::RefundStatus::Pending => RefundStatus::Pending,
        wt::RefundStatus::Succeeded => RefundStatus::Succeeded,
        wt::RefundStatus::Failed => RefundStatus::Failed,
        wt::RefundStatus::Reversed => RefundStatus::Reversed,
    }
}
