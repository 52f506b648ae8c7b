//! What the merchant sends, and which of it the bank accepts.

use super::faults::Fault;
use super::model::{CaptureMode, MAX_AMOUNT, Payment, Status};
use super::operations::Refused;
use super::{new_id, now_ms};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StartRequest {
    pub(super) merchant_payment_id: String,
    pub(super) order_number: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) exponent: u8,
    pub(super) capture: CaptureMode,
    pub(super) description: Option<String>,
    pub(super) return_url: Option<String>,
    pub(super) cancel_url: Option<String>,
    pub(super) webhook_url: Option<String>,
    /// Charge at once, without a page: the customer is not there.
    #[serde(default)]
    pub(super) off_session: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaptureRequest {
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) r#final: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CancelRequest {
    pub(super) reason: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RefundRequest {
    pub(super) merchant_refund_id: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) reason: Option<String>,
}

impl StartRequest {
    pub(super) fn check(&self) -> Result<(), Refused> {
        check_id("merchant_payment_id", &self.merchant_payment_id)?;
        check_length("order_number", Some(&self.order_number), 64)?;
        check_length("description", self.description.as_deref(), 500)?;
        check_amount(self.amount)?;
        let upper = self.currency.bytes().all(|byte| byte.is_ascii_uppercase());
        if self.currency.len() != 3 || !upper {
            return Err(Refused::Invalid("currency is not three capital letters".into()));
        }
        if self.exponent > 4 {
            return Err(Refused::Invalid("exponent is more than 4".into()));
        }
        for (name, url) in [
            ("return_url", &self.return_url),
            ("cancel_url", &self.cancel_url),
            ("webhook_url", &self.webhook_url),
        ] {
            if let Some(url) = url {
                check_url(name, url).map_err(Refused::Invalid)?;
            }
        }
        Ok(())
    }

    pub(super) fn into_payment(self) -> Payment {
        Payment {
            id: new_id("bp"),
            merchant_payment_id: self.merchant_payment_id,
            order_number: self.order_number,
            amount: self.amount,
            currency: self.currency,
            exponent: self.exponent,
            capture: self.capture,
            description: self.description,
            return_url: self.return_url,
            cancel_url: self.cancel_url,
            webhook_url: self.webhook_url,
            status: Status::ActionRequired,
            authorized: 0,
            captured: 0,
            refunded: 0,
            canceled: 0,
            decline_code: None,
            three_d_secure: false,
            fault: Fault::of_amount(self.amount),
            captures: Vec::new(),
            refunds: Vec::new(),
            created_at_ms: now_ms(),
        }
    }
}

impl CancelRequest {
    pub(super) fn check(&self) -> Result<(), Refused> {
        check_length("reason", self.reason.as_deref(), 500)
    }
}

impl RefundRequest {
    pub(super) fn check(&self) -> Result<(), Refused> {
        check_id("merchant_refund_id", &self.merchant_refund_id)?;
        check_length("reason", self.reason.as_deref(), 500)
    }
}

pub(super) fn check_money(amount: i64, currency: &str, payment: &Payment) -> Result<(), Refused> {
    check_amount(amount)?;
    if currency != payment.currency {
        return Err(Refused::Invalid(format!(
            "the payment is in {}, not in {currency}",
            payment.currency
        )));
    }
    Ok(())
}

fn check_amount(amount: i64) -> Result<(), Refused> {
    if (1..=MAX_AMOUNT).contains(&amount) {
        Ok(())
    } else {
        Err(Refused::Invalid(format!("amount is not in 1..={MAX_AMOUNT}")))
    }
}

fn check_id(name: &str, id: &str) -> Result<(), Refused> {
    if (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(Refused::Invalid(format!(
            "{name} is not 1 to 64 visible ASCII characters"
        )))
    }
}

fn check_length(name: &str, text: Option<&str>, longest: usize) -> Result<(), Refused> {
    if text.is_some_and(|text| text.chars().count() > longest) {
        return Err(Refused::Invalid(format!(
            "{name} is longer than {longest} characters"
        )));
    }
    Ok(())
}

/// Browsers and our own client follow these: nothing but http and https.
pub(super) fn check_url(name: &str, text: &str) -> Result<(), String> {
    let web = |url: &url::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    match url::Url::parse(text) {
        Ok(url) if text.len() <= 2048 && web(&url) => Ok(()),
        _ => Err(format!(
            "{name} is not an http or https URL of at most 2048 characters"
        )),
    }
}
