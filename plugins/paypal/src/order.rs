//! PayPal's order with its authorization, its capture and their refunds, and what it means in the words of the contract.

use crate::amounts::Amount;
use crate::api::{Api, segment};
use oms_plugin_sdk::{
    Detail, Money, NextAction, PaymentError, PaymentResult, PaymentStatus, RefundResult, RefundStatus,
    Totals, currency, rfc3339,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    status: String,
    #[serde(default)]
    pub(crate) intent: Intent,
    #[serde(default)]
    purchase_units: Vec<Unit>,
    #[serde(default)]
    links: Vec<Link>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Intent {
    #[default]
    Capture,
    Authorize,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Unit {
    custom_id: Option<String>,
    payments: Payments,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Payments {
    authorizations: Vec<Part>,
    captures: Vec<Part>,
    refunds: Vec<Part>,
}

/// An authorization, a capture or a refund.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Part {
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) amount: Option<Amount>,
    custom_id: Option<String>,
    expiration_time: Option<String>,
    status_details: Option<StatusDetails>,
    processor_response: Option<Processor>,
}

#[derive(Debug, Clone, Deserialize)]
struct StatusDetails {
    reason: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Processor {
    response_code: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Link {
    rel: String,
    href: String,
}

/// What is kept with the payment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) authorization: Option<String>,
    pub(crate) capture: Option<String>,
    /// The payment was canceled: an approval that comes later is not used.
    pub(crate) given_up: bool,
}

impl State {
    pub(crate) fn read(text: Option<String>) -> Self {
        text.and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default()
    }

    pub(crate) fn write(&self) -> String {
        // Two texts and a boolean can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

pub(crate) fn read(api: &Api, id: &str) -> Result<Order, PaymentError> {
    api.get(&format!("/v2/checkout/orders/{}", segment(id)))?.read()
}

impl Order {
    pub(crate) fn with_intent(mut self, intent: Intent) -> Self {
        self.intent = intent;
        self
    }

    /// The customer has said yes, and nothing was done with it yet.
    pub(crate) fn is_approved(&self) -> bool {
        self.status == "APPROVED"
    }

    pub(crate) fn check_owner(&self, payment_id: &str) -> Result<(), PaymentError> {
        let custom = self
            .purchase_units
            .iter()
            .find_map(|unit| unit.custom_id.as_deref());
        match custom {
            Some(other) if other != payment_id => Err(PaymentError::internal(format!(
                "PayPal's order {} belongs to {other}, asked for {payment_id}",
                self.id
            ))),
            _ => Ok(()),
        }
    }

    fn payments(&self) -> Option<&Payments> {
        self.purchase_units.first().map(|unit| &unit.payments)
    }

    fn authorization(&self) -> Option<&Part> {
        self.payments()?.authorizations.last()
    }

    /// The one that succeeded, else the last one that was tried.
    fn capture(&self) -> Option<&Part> {
        let captures = &self.payments()?.captures;
        let done = |part: &&Part| part.capture_status() == PaymentStatus::Captured;
        captures.iter().find(done).or_else(|| captures.last())
    }

    pub(crate) fn authorization_id(&self) -> Result<String, PaymentError> {
        let none = || PaymentError::invalid_state(("not_authorized", "PayPal's order has no authorization"));
        self.authorization().map(|part| part.id.clone()).ok_or_else(none)
    }

    pub(crate) fn capture_id(&self) -> Result<String, PaymentError> {
        let none = || PaymentError::invalid_state(("not_captured", "PayPal's order has no capture"));
        self.capture().map(|part| part.id.clone()).ok_or_else(none)
    }

    fn status(&self) -> PaymentStatus {
        if let Some(capture) = self.capture() {
            return match (capture.capture_status(), self.intent) {
                // Not the end: the authorization stands, and may be captured again.
                (PaymentStatus::Failed | PaymentStatus::Pending, Intent::Authorize) => {
                    PaymentStatus::Authorized
                }
                (status, _) => status,
            };
        }
        if let Some(authorization) = self.authorization() {
            return authorization.authorization_status();
        }
        match self.status.as_str() {
            "CREATED" | "SAVED" | "PAYER_ACTION_REQUIRED" => PaymentStatus::ActionRequired,
            "VOIDED" => PaymentStatus::Canceled,
            // Approved, or completed and not shown yet.
            _ => PaymentStatus::Pending,
        }
    }

    pub(crate) fn result(&self, state: &State) -> Result<PaymentResult, PaymentError> {
        let status = self.status();
        let kept = State {
            authorization: self
                .authorization()
                .map(|part| part.id.clone())
                .or_else(|| state.authorization.clone()),
            capture: self
                .capture()
                .map(|part| part.id.clone())
                .or_else(|| state.capture.clone()),
            given_up: state.given_up,
        };
        let page = self
            .links
            .iter()
            .find(|link| matches!(link.rel.as_str(), "payer-action" | "approve"));
        let expires = self
            .authorization()
            .and_then(|part| part.expiration_time.as_deref());
        Ok(PaymentResult {
            reference: Some(self.id.clone()),
            totals: self.totals()?,
            next_action: match status {
                PaymentStatus::ActionRequired => page.map(|link| NextAction::redirect_to(&link.href)),
                _ => None,
            },
            expires_at_ms: expires.and_then(rfc3339::parse_ms),
            state: Some(kept.write()),
            ..PaymentResult::new(status)
        })
    }

    fn totals(&self) -> Result<Totals, PaymentError> {
        let held = self
            .authorization()
            .filter(|part| part.authorization_status() != PaymentStatus::Canceled);
        let taken = self
            .capture()
            .filter(|part| part.capture_status() == PaymentStatus::Captured);
        let given = self
            .payments()
            .map(|payments| payments.refunds.as_slice())
            .unwrap_or_default();
        let given = given
            .iter()
            .filter(|part| part.refund_status() == RefundStatus::Succeeded);
        let refunded: i64 = given
            .map(|part| Ok(part.money()?.map_or(0, |m| m.minor)))
            .sum::<Result<_, PaymentError>>()?;
        let (held, taken) = (amount_of(held)?, amount_of(taken)?);
        Ok(Totals {
            currency: taken
                .as_ref()
                .or(held.as_ref())
                .map(|money| money.currency.clone()),
            authorized: held.map(|money| money.minor),
            refunded: taken.is_some().then_some(refunded),
            captured: taken.map(|money| money.minor),
            canceled: None,
        })
    }

    pub(crate) fn refunds(&self) -> Result<Vec<RefundResult>, PaymentError> {
        let refunds = self
            .payments()
            .map(|payments| payments.refunds.as_slice())
            .unwrap_or_default();
        refunds
            .iter()
            .map(|part| {
                Ok(RefundResult {
                    refund_id: part.custom_id.clone(),
                    status: part.refund_status(),
                    reference: Some(part.id.clone()),
                    amount: part.money()?,
                    raw: None,
                })
            })
            .collect()
    }
}

fn amount_of(part: Option<&Part>) -> Result<Option<Money>, PaymentError> {
    part.map_or(Ok(None), Part::money)
}

impl Part {
    pub(crate) fn capture_status(&self) -> PaymentStatus {
        match self.status.as_str() {
            // A refund does not undo a capture.
            "COMPLETED" | "PARTIALLY_REFUNDED" | "REFUNDED" => PaymentStatus::Captured,
            "DECLINED" | "FAILED" | "DENIED" => PaymentStatus::Failed,
            _ => PaymentStatus::Pending,
        }
    }

    pub(crate) fn authorization_status(&self) -> PaymentStatus {
        match self.status.as_str() {
            "CREATED" | "CAPTURED" | "PARTIALLY_CAPTURED" => PaymentStatus::Authorized,
            "VOIDED" | "EXPIRED" => PaymentStatus::Canceled,
            "DENIED" => PaymentStatus::Failed,
            _ => PaymentStatus::Pending,
        }
    }

    pub(crate) fn refund_status(&self) -> RefundStatus {
        match self.status.as_str() {
            "COMPLETED" => RefundStatus::Succeeded,
            "FAILED" | "CANCELLED" => RefundStatus::Failed,
            _ => RefundStatus::Pending,
        }
    }

    pub(crate) fn declined(&self) -> PaymentError {
        let reason = self
            .status_details
            .as_ref()
            .and_then(|details| details.reason.clone());
        let code = self
            .processor_response
            .as_ref()
            .and_then(|said| said.response_code.clone());
        let mut error =
            match PaymentError::declined("declined", reason.unwrap_or_else(|| self.status.clone())) {
                PaymentError::Declined(decline) => decline,
                other => return other,
            };
        error.gateway_code = code;
        PaymentError::Declined(error)
    }

    fn money(&self) -> Result<Option<Money>, PaymentError> {
        let Some(amount) = &self.amount else {
            return Ok(None);
        };
        let money = currency::exponent(&amount.currency_code).and_then(|exponent| amount.money(exponent));
        money.map(Some).ok_or_else(|| odd(amount))
    }

    /// Its amount, or the one that was asked for where PayPal does not repeat it.
    pub(crate) fn minor(&self, asked: &Money) -> Result<i64, PaymentError> {
        let Some(amount) = &self.amount else {
            return Ok(asked.minor);
        };
        let money = amount
            .money(asked.exponent)
            .filter(|money| money.currency == asked.currency);
        money.map(|money| money.minor).ok_or_else(|| odd(amount))
    }
}

fn odd(amount: &Amount) -> PaymentError {
    let Amount { value, currency_code } = amount;
    PaymentError::indeterminate(Detail::new(
        "amount",
        format!("PayPal reports {value:?} {currency_code:?}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(status: &str, intent: &str, payments: &str) -> Order {
        let text = format!(
            r#"{{"id":"5O1","status":"{status}","intent":"{intent}",
                "purchase_units":[{{"custom_id":"pay_1","payments":{payments}}}],
                "links":[{{"rel":"self","href":"https://api/x"}},{{"rel":"payer-action","href":"https://paypal/pay"}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn part(status: &str) -> String {
        format!(r#"[{{"id":"P-{status}","status":"{status}"}}]"#)
    }

    #[test]
    fn an_orders_state_is_the_payments() {
        use PaymentStatus::{ActionRequired, Authorized, Canceled, Captured, Failed, Pending};
        for (status, intent, payments, expected) in [
            (
                "PAYER_ACTION_REQUIRED",
                "CAPTURE",
                "{}".to_owned(),
                ActionRequired,
            ),
            ("APPROVED", "CAPTURE", "{}".into(), Pending),
            ("VOIDED", "CAPTURE", "{}".into(), Canceled),
            (
                "COMPLETED",
                "CAPTURE",
                format!(r#"{{"captures":{}}}"#, part("COMPLETED")),
                Captured,
            ),
            (
                "COMPLETED",
                "CAPTURE",
                format!(r#"{{"captures":{}}}"#, part("PENDING")),
                Pending,
            ),
            (
                "COMPLETED",
                "CAPTURE",
                format!(r#"{{"captures":{}}}"#, part("DECLINED")),
                Failed,
            ),
            (
                "COMPLETED",
                "CAPTURE",
                format!(r#"{{"captures":{}}}"#, part("REFUNDED")),
                Captured,
            ),
            (
                "COMPLETED",
                "AUTHORIZE",
                format!(r#"{{"authorizations":{}}}"#, part("CREATED")),
                Authorized,
            ),
            (
                "COMPLETED",
                "AUTHORIZE",
                format!(r#"{{"authorizations":{}}}"#, part("VOIDED")),
                Canceled,
            ),
            (
                "COMPLETED",
                "AUTHORIZE",
                format!(
                    r#"{{"authorizations":{},"captures":{}}}"#,
                    part("CREATED"),
                    part("DECLINED")
                ),
                Authorized,
            ),
        ] {
            let result = order(status, intent, &payments)
                .result(&State::default())
                .unwrap();
            assert_eq!(result.status, expected, "{status} {payments}");
            let page = (expected == ActionRequired).then(|| NextAction::redirect_to("https://paypal/pay"));
            assert_eq!(result.next_action, page);
        }
    }

    #[test]
    fn what_a_later_call_needs_is_kept() {
        let captured = order(
            "COMPLETED",
            "CAPTURE",
            r#"{"captures":[{"id":"C1","status":"COMPLETED"}]}"#,
        );
        let state = State::read(captured.result(&State::default()).unwrap().state);
        assert_eq!((state.capture.as_deref(), state.given_up), (Some("C1"), false));
        let given_up = State {
            given_up: true,
            ..State::default()
        };
        let open = order("APPROVED", "CAPTURE", "{}").result(&given_up).unwrap();
        assert!(State::read(open.state).given_up);
        assert_eq!(State::read(Some("no JSON".into())), State::default());
    }

    #[test]
    fn an_order_of_somebody_else_is_not_taken() {
        let order = order("APPROVED", "CAPTURE", "{}");
        assert!(order.check_owner("pay_1").is_ok());
        assert!(matches!(
            order.check_owner("pay_2"),
            Err(PaymentError::Internal(_))
        ));
    }
}
