//! Payments with the payment data that Adyen's components made in the browser.

use crate::amounts::{self, Amount};
use crate::api::{Api, Doing};
use crate::merchant_reference::{Flow, MerchantReference};
use oms_plugin_sdk::{
    CaptureMode, CompleteRequest, Decline, Detail, NextAction, PaymentError, PaymentResult, PaymentStatus,
    Redirect, RedirectMethod, StartRequest, Totals, config,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payment {
    result_code: String,
    psp_reference: Option<String>,
    amount: Option<Amount>,
    refusal_reason: Option<String>,
    refusal_reason_code: Option<String>,
    action: Option<Value>,
    payment_method: Option<Method>,
}

#[derive(Debug, Deserialize)]
struct Method {
    brand: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

pub(crate) fn start(
    api: &Api,
    request: &StartRequest,
    instrument: &str,
) -> Result<PaymentResult, PaymentError> {
    let reference = MerchantReference::new(&request.payment_id, request.capture, Flow::Payment);
    let origin = config::get("origin");
    let body = body(
        &api.merchant_account,
        &reference,
        request,
        instrument,
        origin.as_deref(),
    )?;
    let answer = api.post("/payments", &request.call, Doing::Pays, &body)?;
    let payment: Payment = answer.read()?;
    payment.result(&reference)
}

fn body(
    merchant_account: &str,
    reference: &MerchantReference,
    request: &StartRequest,
    instrument: &str,
    origin: Option<&str>,
) -> Result<Value, PaymentError> {
    let mut body = json!({
        "merchantAccount": merchant_account,
        "reference": reference.to_string(),
        "amount": amounts::to_adyen(&request.amount)?,
        "merchantOrderReference": request.order_number,
        "paymentMethod": object("instrument", instrument)?,
        "channel": "Web",
    });
    match request.capture {
        CaptureMode::Automatic => body["captureDelayHours"] = json!(0),
        CaptureMode::Manual => body["additionalData"] = json!({ "manualCapture": "true" }),
    }
    if request.off_session {
        body["shopperInteraction"] = json!("ContAuth");
    }
    let country = request
        .customer
        .billing
        .as_ref()
        .and_then(|address| address.country.clone());
    for (name, value) in [
        ("returnUrl", request.return_url.as_deref()),
        ("shopperEmail", request.customer.email.as_deref()),
        ("shopperReference", request.customer.id.as_deref()),
        ("shopperIP", request.customer.ip.as_deref()),
        ("countryCode", country.as_deref()),
        ("origin", origin),
    ] {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    // The other parts of what the component calls its state. Nothing else is taken from the browser.
    for (name, value) in &request.instrument_data {
        if matches!(name.as_str(), "browserInfo" | "riskData" | "billingAddress") {
            body[name.as_str()] = object(name, value)?;
        }
    }
    Ok(body)
}

fn object(name: &str, text: &str) -> Result<Value, PaymentError> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(Value::Object(object)),
        _ => Err(PaymentError::invalid_request(Detail::new(
            "payment_data",
            format!("`{name}` is not the JSON object that Adyen's component made"),
        ))),
    }
}

pub(crate) fn complete(api: &Api, request: &CompleteRequest) -> Result<PaymentResult, PaymentError> {
    let details = details(&request.params)?;
    let kept = request.state.as_deref().and_then(MerchantReference::parse);
    let Some(reference) = kept else {
        return Err(PaymentError::internal("the payment has lost its state"));
    };
    let answer = api.post("/payments/details", &request.call, Doing::Pays, &details)?;
    let payment: Payment = answer.read()?;
    payment.result(&reference)
}

/// What the customer brought back: a part of the address after a redirect, or what a component gave.
fn details(params: &[(String, String)]) -> Result<Value, PaymentError> {
    let mut details = Map::new();
    for (name, value) in params {
        if matches!(
            name.as_str(),
            "redirectResult" | "threeDSResult" | "payload" | "MD" | "PaRes"
        ) {
            details.insert(name.clone(), json!(value));
        }
    }
    if details.is_empty() {
        return Err(PaymentError::invalid_request(Detail::new(
            "details",
            "none of redirectResult, threeDSResult and payload was given",
        )));
    }
    let mut body = json!({ "details": details });
    if let Some((_, data)) = params.iter().find(|(name, _)| name == "paymentData") {
        body["paymentData"] = json!(data);
    }
    Ok(body)
}

impl Payment {
    fn result(self, reference: &MerchantReference) -> Result<PaymentResult, PaymentError> {
        let status = match self.result_code.as_str() {
            "Authorised" | "PartiallyAuthorised" => match reference.capture {
                CaptureMode::Automatic => PaymentStatus::Captured,
                CaptureMode::Manual => PaymentStatus::Authorized,
            },
            "Refused" | "Error" => return Err(self.refusal()),
            "Cancelled" => PaymentStatus::Canceled,
            _ if self.action.is_some() => PaymentStatus::ActionRequired,
            // The notification tells the rest: Pending, Received, and whatever a later version calls it.
            _ => PaymentStatus::Pending,
        };
        let next_action = match status {
            PaymentStatus::ActionRequired => self.action.as_ref().map(next_action),
            _ => None,
        };
        Ok(PaymentResult {
            totals: self.totals(status)?,
            next_action,
            method: self.method(),
            state: Some(reference.to_string()),
            // Some actions come before there is a payment: its notification brings the name.
            reference: Some(self.psp_reference.unwrap_or_else(|| reference.to_string())),
            ..PaymentResult::new(status)
        })
    }

    fn totals(&self, status: PaymentStatus) -> Result<Totals, PaymentError> {
        let paid = matches!(status, PaymentStatus::Captured | PaymentStatus::Authorized);
        let Some(amount) = self.amount.as_ref().filter(|_| paid) else {
            return Ok(Totals::default());
        };
        let minor = amount.minor().ok_or_else(|| {
            PaymentError::indeterminate(Detail::new(
                "amount",
                "Adyen reports an amount that the currency has not",
            ))
        })?;
        Ok(Totals {
            currency: Some(amount.currency.clone()),
            authorized: Some(minor),
            captured: (status == PaymentStatus::Captured).then_some(minor),
            ..Totals::default()
        })
    }

    fn method(&self) -> Vec<(String, String)> {
        let Some(Method { brand, kind }) = &self.payment_method else {
            return Vec::new();
        };
        let named = [("type", kind), ("brand", brand)];
        let known = named
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)));
        known
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect()
    }

    fn refusal(self) -> PaymentError {
        let code = match self.result_code.as_str() {
            "Error" => "gateway_error",
            _ => "refused",
        };
        PaymentError::Declined(Decline {
            code: code.into(),
            message: self.refusal_reason.unwrap_or(self.result_code),
            gateway_code: self.refusal_reason_code,
            customer_can_retry: true,
        })
    }
}

/// A redirect is for everybody; what else there is only Adyen's own components understand.
fn next_action(action: &Value) -> NextAction {
    let text = |name: &str| action.get(name).and_then(Value::as_str);
    match (text("type"), text("url")) {
        (Some("redirect"), Some(url)) => NextAction::Redirect(Redirect {
            url: url.to_owned(),
            method: match text("method") {
                Some("POST") => RedirectMethod::Post,
                _ => RedirectMethod::Get,
            },
            form_fields: match action.get("data") {
                Some(Value::Object(fields)) => fields
                    .iter()
                    .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                    .collect(),
                _ => Vec::new(),
            },
        }),
        _ => NextAction::ClientSdk(action.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(capture: CaptureMode, json: &str) -> Result<PaymentResult, PaymentError> {
        let payment: Payment = serde_json::from_str(json).unwrap();
        payment.result(&MerchantReference::new("pay_1", capture, Flow::Payment))
    }

    const PAID: &str = r#"{"resultCode":"Authorised","pspReference":"993617895215577D","merchantReference":"pay_1.a",
        "amount":{"currency":"EUR","value":1999},"paymentMethod":{"brand":"visa","type":"scheme"}}"#;

    #[test]
    fn an_authorisation_is_a_capture_unless_the_shop_captures() {
        let paid = result(CaptureMode::Automatic, PAID).unwrap();
        assert_eq!(
            (paid.status, paid.totals.captured),
            (PaymentStatus::Captured, Some(1_999))
        );
        assert_eq!(paid.reference.as_deref(), Some("993617895215577D"));
        assert_eq!(
            paid.method,
            [("type".into(), "scheme".into()), ("brand".into(), "visa".into())]
        );
        let held = result(CaptureMode::Manual, PAID).unwrap();
        assert_eq!(
            (held.status, held.totals.captured),
            (PaymentStatus::Authorized, None)
        );
        assert_eq!(held.totals.authorized, Some(1_999));
    }

    #[test]
    fn every_result_has_its_meaning() {
        let refused = result(
            CaptureMode::Automatic,
            r#"{"resultCode":"Refused","pspReference":"p","refusalReason":"Not enough balance","refusalReasonCode":"12"}"#,
        );
        let Err(PaymentError::Declined(decline)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(
            (decline.code.as_str(), decline.gateway_code.as_deref()),
            ("refused", Some("12"))
        );
        for (code, status) in [
            ("Cancelled", PaymentStatus::Canceled),
            ("Pending", PaymentStatus::Pending),
            ("Received", PaymentStatus::Pending),
            ("SomethingNew", PaymentStatus::Pending),
        ] {
            let json = format!(r#"{{"resultCode":"{code}","pspReference":"p"}}"#);
            assert_eq!(
                result(CaptureMode::Manual, &json).unwrap().status,
                status,
                "{code}"
            );
        }
    }

    #[test]
    fn actions_are_redirects_or_for_the_components() {
        let redirect = result(
            CaptureMode::Automatic,
            r#"{"resultCode":"RedirectShopper","action":{"type":"redirect","method":"POST","paymentMethodType":"scheme",
                "url":"https://checkoutshopper-test.adyen.com/3ds","data":{"MD":"x","PaReq":"y"}}}"#,
        )
        .unwrap();
        assert_eq!(redirect.status, PaymentStatus::ActionRequired);
        assert_eq!(
            redirect.reference.as_deref(),
            Some("pay_1.a"),
            "there is no payment yet"
        );
        let Some(NextAction::Redirect(to)) = redirect.next_action else {
            panic!("a redirect expected");
        };
        assert_eq!((to.method, to.form_fields.len()), (RedirectMethod::Post, 2));
        let challenge = result(
            CaptureMode::Automatic,
            r#"{"resultCode":"IdentifyShopper","pspReference":"p","action":{"type":"threeDS2","token":"t"}}"#,
        )
        .unwrap();
        assert!(
            matches!(challenge.next_action, Some(NextAction::ClientSdk(json)) if json.contains("threeDS2"))
        );
    }

    #[test]
    fn what_the_customer_brings_back() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let body = details(&[
            pair("redirectResult", "X!"),
            pair("evil", "y"),
            pair("paymentData", "d"),
        ])
        .unwrap();
        assert_eq!(
            body,
            json!({ "details": { "redirectResult": "X!" }, "paymentData": "d" })
        );
        assert!(matches!(
            details(&[pair("x", "y")]),
            Err(PaymentError::InvalidRequest(_))
        ));
    }
}
