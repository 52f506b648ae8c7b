//! Stripe's PaymentIntent, and what it means in the words of the contract.

use oms_plugin_sdk::{NextAction, PaymentError, PaymentResult, PaymentStatus, Totals};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::currency::Units;
use crate::settings::Settings;

/// Keys of ours in Stripe's metadata, which come back in answers and events.
pub(crate) mod tag {
    pub(crate) const PAYMENT: &str = "oms_payment";
    pub(crate) const ORDER: &str = "oms_order";
    pub(crate) const REFUND: &str = "oms_refund";
    pub(crate) const REASON: &str = "oms_reason";
    /// Set to [`FLOW_CLIENT`] on payments that the customer's browser confirms.
    pub(crate) const FLOW: &str = "oms_flow";
    pub(crate) const FLOW_CLIENT: &str = "client";
}

/// A payment at Stripe: what is read of it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Intent {
    pub(crate) id: String,
    pub(crate) status: Status,
    pub(crate) amount: i64,
    pub(crate) amount_received: Option<i64>,
    pub(crate) currency: String,
    pub(crate) capture_method: Option<String>,
    pub(crate) client_secret: Option<String>,
    pub(crate) next_action: Option<Map<String, Value>>,
    pub(crate) latest_charge: Option<Expandable<Charge>>,
    pub(crate) last_payment_error: Option<Failure>,
    #[serde(default)]
    pub(crate) metadata: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    RequiresCapture,
    Succeeded,
    Canceled,
    /// Stripe may learn more than this plugin understands.
    #[serde(other)]
    Unknown,
}

/// Why a try to pay failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Failure {
    pub(crate) code: Option<String>,
    pub(crate) decline_code: Option<String>,
    pub(crate) message: Option<String>,
}

/// An id, or the object itself where it was asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Expandable<T> {
    Id(String),
    Object(Box<T>),
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Charge {
    pub(crate) id: String,
    payment_method_details: Option<Map<String, Value>>,
}

impl Intent {
    /// Our id of the payment.
    pub(crate) fn payment_id(&self) -> Option<&str> {
        text(&self.metadata, tag::PAYMENT)
    }

    pub(crate) fn charge_id(&self) -> Option<&str> {
        match self.latest_charge.as_ref()? {
            Expandable::Id(id) => Some(id),
            Expandable::Object(charge) => Some(&charge.id),
        }
    }

    fn charge(&self) -> Option<&Charge> {
        match self.latest_charge.as_ref()? {
            Expandable::Id(_) => None,
            Expandable::Object(charge) => Some(charge),
        }
    }

    pub(crate) fn is_manual(&self) -> bool {
        self.capture_method.as_deref() == Some("manual")
    }

    /// Where it stands. After a failed try Stripe waits for another means of payment. So does the browser of a customer
    /// who is still there; a payment that the server confirmed has failed, and the customer starts another one.
    pub(crate) fn standing(&self) -> PaymentStatus {
        let by_browser = text(&self.metadata, tag::FLOW) == Some(tag::FLOW_CLIENT);
        match self.status {
            Status::RequiresPaymentMethod if self.last_payment_error.is_some() && !by_browser => {
                PaymentStatus::Failed
            }
            Status::RequiresPaymentMethod | Status::RequiresConfirmation | Status::RequiresAction => {
                PaymentStatus::ActionRequired
            }
            Status::Processing | Status::Unknown => PaymentStatus::Pending,
            Status::RequiresCapture if self.amount_received.is_some_and(|amount| amount > 0) => {
                PaymentStatus::PartiallyCaptured
            }
            Status::RequiresCapture => PaymentStatus::Authorized,
            Status::Succeeded => PaymentStatus::Captured,
            Status::Canceled => PaymentStatus::Canceled,
        }
    }

    /// What is refunded is not said here: a charge's own total counts what a partial capture released as well.
    pub(crate) fn totals(&self, units: &Units) -> Result<Totals, PaymentError> {
        let amount = units.read(self.amount)?;
        let received = self.amount_received.map(|amount| units.read(amount));
        let captured = received.transpose()?;
        let authorized = match self.status {
            Status::RequiresCapture | Status::Succeeded => Some(amount),
            // It may have been authorized before.
            Status::Canceled | Status::Unknown => None,
            _ => Some(0),
        };
        let released = match (self.status, captured) {
            (Status::Succeeded, Some(captured)) if self.is_manual() => Some((amount - captured).max(0)),
            // With a charge something was held.
            (Status::Canceled, captured) if self.is_manual() && self.latest_charge.is_some() => {
                Some((amount - captured.unwrap_or(0)).max(0))
            }
            _ => None,
        };
        Ok(Totals {
            currency: Some(units.code().to_owned()),
            authorized,
            captured,
            refunded: None,
            canceled: released,
        })
    }

    pub(crate) fn result(
        &self,
        units: &Units,
        settings: &Settings,
        request_id: Option<&str>,
    ) -> Result<PaymentResult, PaymentError> {
        let status = self.standing();
        let asks = status == PaymentStatus::ActionRequired;
        Ok(PaymentResult {
            reference: Some(self.id.clone()),
            operation_reference: self.charge_id().map(str::to_owned),
            totals: self.totals(units)?,
            next_action: asks.then(|| self.next_action(settings)),
            expires_at_ms: self.capture_before_ms(),
            method: self.method(),
            raw: Some(self.summary(request_id)),
            ..PaymentResult::new(status)
        })
    }

    fn next_action(&self, settings: &Settings) -> NextAction {
        let Some(action) = self
            .next_action
            .as_ref()
            .filter(|_| self.status == Status::RequiresAction)
        else {
            return self.client_sdk("confirm", settings);
        };
        match text(action, "type") {
            Some("redirect_to_url") => {
                let redirect = action.get("redirect_to_url").and_then(Value::as_object);
                match redirect.and_then(|redirect| text(redirect, "url")) {
                    Some(url) => NextAction::redirect_to(url),
                    None => self.client_sdk("handle_next_action", settings),
                }
            }
            Some("use_stripe_sdk") | None => self.client_sdk("handle_next_action", settings),
            // A voucher, bank details, a QR code: its type says which.
            Some(_) => NextAction::Present(Value::Object(action.clone()).to_string()),
        }
    }

    /// What Stripe.js in the shop's page needs.
    fn client_sdk(&self, step: &str, settings: &Settings) -> NextAction {
        let mut data = json!({
            "gateway": "stripe",
            "step": step,
            "payment_intent": self.id,
            "client_secret": self.client_secret,
        });
        if let Some(key) = &settings.publishable_key {
            data["publishable_key"] = key.as_str().into();
        }
        if let Some(account) = &settings.stripe_account {
            data["stripe_account"] = account.as_str().into();
        }
        NextAction::ClientSdk(data.to_string())
    }

    fn method(&self) -> Vec<(String, String)> {
        let details = self
            .charge()
            .and_then(|charge| charge.payment_method_details.as_ref());
        let Some(details) = details else {
            return Vec::new();
        };
        let kind = text(details, "type").unwrap_or_default();
        let of_kind = details.get(kind).and_then(Value::as_object);
        let known = |name| of_kind.and_then(|details| text(details, name));
        let wallet = of_kind
            .and_then(|details| details.get("wallet")?.as_object())
            .and_then(|wallet| text(wallet, "type"));
        [
            ("type", Some(kind)),
            ("brand", known("brand")),
            ("last4", known("last4")),
            ("wallet", wallet),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect()
    }

    fn capture_before_ms(&self) -> Option<u64> {
        if self.status != Status::RequiresCapture {
            return None;
        }
        let card = self.charge()?.payment_method_details.as_ref()?.get("card")?;
        card.get("capture_before")?.as_u64()?.checked_mul(1000)
    }

    /// For support. Made of chosen fields, so that no secret and nothing about the customer gets in.
    fn summary(&self, request_id: Option<&str>) -> String {
        let failure = self.last_payment_error.as_ref();
        json!({
            "id": self.id,
            "amount": self.amount,
            "amount_received": self.amount_received,
            "currency": self.currency,
            "latest_charge": self.charge_id(),
            "error": failure.and_then(|failure| failure.code.as_deref()),
            "decline_code": failure.and_then(|failure| failure.decline_code.as_deref()),
            "request_id": request_id,
        })
        .to_string()
    }
}

/// A text of an object that is not blank.
pub(crate) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str().filter(|text| !text.is_empty())
}

#[cfg(test)]
pub(crate) fn sample(status: &str, more: &str) -> Intent {
    let text = format!(
        r#"{{"id":"pi_1","object":"payment_intent","amount":1999,"currency":"eur","status":"{status}",
            "client_secret":"pi_1_secret_x","metadata":{{"oms_payment":"pay_1"}}{more}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    fn eur() -> Units {
        Units::of("EUR", 2).unwrap()
    }

    fn result(intent: &Intent) -> PaymentResult {
        intent.result(&eur(), &settings::of(&[]), Some("req_1")).unwrap()
    }

    #[test]
    fn every_status_has_its_meaning() {
        let failed = r#","last_payment_error":{"code":"card_declined"}"#;
        let client = r#","last_payment_error":{"code":"card_declined"},"metadata":{"oms_flow":"client"}"#;
        for (status, more, expected) in [
            ("requires_payment_method", "", PaymentStatus::ActionRequired),
            ("requires_payment_method", failed, PaymentStatus::Failed),
            ("requires_confirmation", "", PaymentStatus::ActionRequired),
            ("requires_action", "", PaymentStatus::ActionRequired),
            ("processing", "", PaymentStatus::Pending),
            (
                "requires_capture",
                r#","amount_received":0"#,
                PaymentStatus::Authorized,
            ),
            (
                "requires_capture",
                r#","amount_received":500"#,
                PaymentStatus::PartiallyCaptured,
            ),
            ("succeeded", "", PaymentStatus::Captured),
            ("canceled", "", PaymentStatus::Canceled),
            ("something_new", "", PaymentStatus::Pending),
        ] {
            assert_eq!(sample(status, more).standing(), expected, "{status} {more}");
        }
        // Serde takes the last of two keys of a map, so that this one is a payment of the browser.
        let text = format!(
            r#"{{"id":"pi_1","amount":1,"currency":"eur","status":"requires_payment_method"{client}}}"#
        );
        let intent: Intent = serde_json::from_str(&text).unwrap();
        assert_eq!(intent.standing(), PaymentStatus::ActionRequired);
    }

    #[test]
    fn a_partial_capture_releases_the_rest() {
        let part = sample(
            "succeeded",
            r#","amount_received":1500,"capture_method":"manual""#,
        );
        let totals = part.totals(&eur()).unwrap();
        assert_eq!(
            (totals.authorized, totals.captured, totals.canceled),
            (Some(1999), Some(1500), Some(499))
        );
        assert_eq!(totals.currency.as_deref(), Some("EUR"));
        let canceled = sample("canceled", r#","capture_method":"manual","latest_charge":"ch_1""#);
        assert_eq!(canceled.totals(&eur()).unwrap().canceled, Some(1999));
        let never_held = sample("canceled", r#","capture_method":"manual","latest_charge":null"#);
        assert_eq!(never_held.totals(&eur()).unwrap().canceled, None);
        let silent = sample("succeeded", r#","capture_method":"manual""#);
        let totals = silent.totals(&eur()).unwrap();
        assert_eq!(
            (totals.captured, totals.canceled, totals.refunded),
            (None, None, None)
        );
    }

    #[test]
    fn the_customer_learns_what_to_do() {
        let redirect = r#","next_action":{"type":"redirect_to_url","redirect_to_url":{"url":"https://hooks.stripe.com/3d"}}"#;
        let action = result(&sample("requires_action", redirect)).next_action;
        assert_eq!(
            action,
            Some(NextAction::redirect_to("https://hooks.stripe.com/3d"))
        );

        let sdk = r#","next_action":{"type":"use_stripe_sdk","use_stripe_sdk":{}}"#;
        let Some(NextAction::ClientSdk(data)) = result(&sample("requires_action", sdk)).next_action else {
            panic!("an action for the browser expected");
        };
        let data: Value = serde_json::from_str(&data).unwrap();
        assert_eq!(data["step"], "handle_next_action");
        assert_eq!(data["client_secret"], "pi_1_secret_x");

        let voucher = r#","next_action":{"type":"multibanco_display_details","multibanco_display_details":{"entity":"1"}}"#;
        let action = result(&sample("requires_action", voucher)).next_action;
        assert!(matches!(action, Some(NextAction::Present(data)) if data.contains("\"entity\":\"1\"")));

        let settings = settings::of(&[("publishable-key", "pk_test_1"), ("stripe-account", "acct_1")]);
        let fresh = sample("requires_payment_method", "").result(&eur(), &settings, None);
        let Some(NextAction::ClientSdk(data)) = fresh.unwrap().next_action else {
            panic!("an action for the browser expected");
        };
        let data: Value = serde_json::from_str(&data).unwrap();
        assert_eq!(
            (&data["step"], &data["publishable_key"]),
            (&"confirm".into(), &"pk_test_1".into())
        );
        assert_eq!(result(&sample("succeeded", "")).next_action, None);
    }

    #[test]
    fn a_charge_tells_how_was_paid_and_until_when() {
        let charge = r#","latest_charge":{"id":"ch_1","payment_method_details":{"type":"card","card":{
            "brand":"visa","last4":"4242","capture_before":1700000000,"wallet":{"type":"apple_pay"}}}}"#;
        let authorized = result(&sample("requires_capture", charge));
        assert_eq!(authorized.operation_reference.as_deref(), Some("ch_1"));
        assert_eq!(authorized.expires_at_ms, Some(1_700_000_000_000));
        let method: Vec<_> = authorized
            .method
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(
            method,
            ["type=card", "brand=visa", "last4=4242", "wallet=apple_pay"]
        );
        let id = result(&sample("succeeded", r#","latest_charge":"ch_2""#));
        assert_eq!(id.operation_reference.as_deref(), Some("ch_2"));
        assert_eq!((id.expires_at_ms, id.method), (None, Vec::new()));
    }

    #[test]
    fn what_is_kept_for_support_holds_no_secret() {
        let raw = result(&sample("requires_action", "")).raw.unwrap();
        assert!(!raw.contains("secret") && raw.contains("req_1"), "{raw}");
    }
}
