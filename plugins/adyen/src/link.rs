//! The payment on a page of Adyen's (Pay by Link). The payment itself is made there and told by a notification, whose
//! `pspReference` takes the place of the link's id.

use crate::amounts;
use crate::api::{Api, Doing, segment};
use crate::merchant_reference::{Flow, MerchantReference};
use oms_plugin_sdk::{
    Call, CaptureMode, Detail, NextAction, PaymentError, PaymentResult, PaymentStatus, StartRequest, rfc3339,
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    id: String,
    status: String,
    url: Option<String>,
    expires_at: Option<String>,
}

/// Links are named `PL..`, payments by sixteen letters and digits without one of these two at their beginning.
pub(crate) fn is_link(reference: &str) -> bool {
    reference.starts_with("PL")
}

pub(crate) fn start(api: &Api, request: &StartRequest) -> Result<PaymentResult, PaymentError> {
    let reference = MerchantReference::new(&request.payment_id, request.capture, Flow::Link).to_string();
    let body = body(&api.merchant_account, &reference, request)?;
    let link: Link = api
        .post("/paymentLinks", &request.call, Doing::Pays, &body)?
        .read()?;
    if !is_link(&link.id) {
        let why = format!("a payment link with the id {:?}", link.id);
        return Err(PaymentError::indeterminate(Detail::new("unreadable_answer", why)));
    }
    Ok(PaymentResult {
        state: Some(reference),
        ..link.result()
    })
}

fn body(merchant_account: &str, reference: &str, request: &StartRequest) -> Result<Value, PaymentError> {
    let mut body = json!({
        "merchantAccount": merchant_account,
        "reference": reference,
        "amount": amounts::to_adyen(&request.amount)?,
        "merchantOrderReference": request.order_number,
        "reusable": false,
    });
    match request.capture {
        CaptureMode::Automatic => body["captureDelayHours"] = json!(0),
        CaptureMode::Manual => body["manualCapture"] = json!(true),
    }
    let country = request
        .customer
        .billing
        .as_ref()
        .and_then(|address| address.country.clone());
    for (name, value) in [
        ("description", &request.description),
        ("returnUrl", &request.return_url),
        ("shopperEmail", &request.customer.email),
        ("shopperReference", &request.customer.id),
        ("countryCode", &country),
    ] {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    Ok(body)
}

/// How the page is doing. Whether the money came is told by the notification alone.
pub(crate) fn look(api: &Api, id: &str) -> Result<PaymentResult, PaymentError> {
    let link: Link = api.get(&format!("/paymentLinks/{}", segment(id)))?.read()?;
    Ok(link.result())
}

pub(crate) fn expire(api: &Api, call: &Call, id: &str) -> Result<PaymentResult, PaymentError> {
    let path = format!("/paymentLinks/{}", segment(id));
    let body = json!({ "status": "expired" });
    let link: Link = api.change("PATCH", &path, call, Doing::Modifies, &body)?.read()?;
    Ok(link.result())
}

impl Link {
    fn result(self) -> PaymentResult {
        let status = match self.status.as_str() {
            "active" => PaymentStatus::ActionRequired,
            "expired" => PaymentStatus::Canceled,
            // Paid, or about to be: the notification follows.
            _ => PaymentStatus::Pending,
        };
        PaymentResult {
            reference: Some(self.id),
            next_action: self.url.map(NextAction::redirect_to),
            expires_at_ms: self.expires_at.as_deref().and_then(rfc3339::parse_ms),
            ..PaymentResult::new(status)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_links_state_is_the_payments() {
        let result = |status: &str| {
            let text = format!(
                r#"{{"id":"PL61C53A8B97E6915A","status":"{status}","url":"https://eu.adyen.link/PL61","reusable":false,
                    "expiresAt":"2026-01-02T00:00:00+01:00","amount":{{"value":1999,"currency":"EUR"}}}}"#
            );
            serde_json::from_str::<Link>(&text).unwrap().result()
        };
        let active = result("active");
        assert_eq!(active.status, PaymentStatus::ActionRequired);
        assert_eq!(
            active.next_action,
            Some(NextAction::redirect_to("https://eu.adyen.link/PL61"))
        );
        assert_eq!(active.expires_at_ms, Some(1_767_308_400_000));
        assert_eq!(result("expired").status, PaymentStatus::Canceled);
        for status in ["paymentPending", "completed", "paid", "of a later version"] {
            assert_eq!(result(status).status, PaymentStatus::Pending, "{status}");
        }
    }
}
