//! What Stripe is asked, as forms: the least that does it, and what the account's settings add.

use oms_plugin_sdk::{CaptureMode, Detail, PaymentError, RefundRequest, StartRequest, form::Form};

use crate::currency::Units;
use crate::intent::tag;
use crate::settings::{CustomerAction, Settings};

/// Stripe's limits of metadata.
const MAX_KEY: usize = 40;
const MAX_VALUE: usize = 500;
/// Of fifty; the others are ours.
const MAX_FOREIGN_KEYS: usize = 40;

/// `POST /v1/payment_intents`
pub(crate) fn start(
    request: &StartRequest,
    settings: &Settings,
    units: &Units,
) -> Result<Form, PaymentError> {
    let capture = match request.capture {
        CaptureMode::Automatic => "automatic_async",
        CaptureMode::Manual => "manual",
    };
    let mut form = Form::new()
        .field("amount", units.write(request.amount.minor)?)
        .field("currency", request.amount.currency.to_ascii_lowercase())
        .field("capture_method", capture)
        .entry("metadata", tag::PAYMENT, &request.payment_id)
        .entry("metadata", tag::ORDER, cut(&request.order_number));
    for (key, value) in request.metadata.iter().take(MAX_FOREIGN_KEYS) {
        let fits = !key.is_empty() && key.chars().count() <= MAX_KEY && !key.contains(['[', ']']);
        if fits && !key.starts_with("oms_") {
            form = form.entry("metadata", key, cut(value));
        }
    }
    form = match &request.instrument {
        Some(instrument) => confirmed(form, request, settings, instrument)?,
        // The browser confirms it, with whatever means of payment the customer chooses there.
        None if request.off_session => {
            return Err(PaymentError::invalid_request(Detail::new(
                "no_instrument",
                "a payment without the customer needs a saved payment method",
            )));
        }
        None => form.entry("metadata", tag::FLOW, tag::FLOW_CLIENT),
    };
    for method in settings.payment_methods.iter().flatten() {
        form = form.item("payment_method_types", method);
    }
    form = form.optional("customer", customer(request)?);
    Ok(details(form, request, settings).item("expand", "latest_charge"))
}

/// Confirmed at once, with a means of payment that the browser or an earlier payment made.
fn confirmed(
    form: Form,
    request: &StartRequest,
    settings: &Settings,
    instrument: &str,
) -> Result<Form, PaymentError> {
    let parameter = if is_id(instrument, &["ctoken_"]) {
        "confirmation_token"
    } else if is_id(instrument, &["pm_", "card_", "src_"]) {
        "payment_method"
    } else {
        // It is not repeated: it could be the number of a card.
        return Err(PaymentError::invalid_request(Detail::new(
            "instrument",
            "the instrument is no PaymentMethod (pm_..) or ConfirmationToken (ctoken_..) of Stripe",
        )));
    };
    let form = form.field(parameter, instrument).field("confirm", true);
    let form = form.optional("off_session", request.off_session.then_some(true));
    let return_url = request.return_url.as_deref();
    Ok(
        match return_url.filter(|_| settings.customer_action == CustomerAction::Redirect) {
            Some(url) => form.field("return_url", url),
            // Stripe refuses to confirm what might need a redirect without a place to come back to.
            None if settings.payment_methods.is_none() => form
                .entry("automatic_payment_methods", "enabled", true)
                .entry("automatic_payment_methods", "allow_redirects", "never"),
            None => form,
        },
    )
}

/// Whoever saved the means of payment.
fn customer(request: &StartRequest) -> Result<Option<&str>, PaymentError> {
    let mut pairs = request.instrument_data.iter();
    let Some((_, id)) = pairs.find(|(key, _)| key == "customer") else {
        return Ok(None);
    };
    if is_id(id, &["cus_"]) {
        return Ok(Some(id));
    }
    Err(PaymentError::invalid_request(Detail::new(
        "customer",
        "instrument data `customer` is no customer of Stripe (cus_..)",
    )))
}

fn details(mut form: Form, request: &StartRequest, settings: &Settings) -> Form {
    let (send, customer) = (settings.send, &request.customer);
    if send.description {
        form = form.optional("description", request.description.as_deref());
    }
    if send.receipt_email {
        form = form.optional("receipt_email", customer.email.as_deref());
    }
    if let Some(address) = customer.shipping.as_ref().filter(|_| send.shipping)
        && let Some(name) = &address.name
    {
        form = form.entry("shipping", "name", name);
        for (key, value) in [
            ("line1", &address.line1),
            ("line2", &address.line2),
            ("city", &address.city),
            ("state", &address.region),
            ("postal_code", &address.postal_code),
            ("country", &address.country),
        ] {
            form = form.optional(format!("shipping[address][{key}]"), value.as_deref());
        }
    }
    form.optional(
        "statement_descriptor_suffix",
        settings.statement_descriptor_suffix.as_deref(),
    )
}

/// `POST /v1/payment_intents/{id}/capture`. Stripe releases the rest.
pub(crate) fn capture(amount: i64) -> Form {
    Form::new()
        .field("amount_to_capture", amount)
        .item("expand", "latest_charge")
}

/// `POST /v1/payment_intents/{id}/cancel`
pub(crate) fn cancel(settings: &Settings) -> Form {
    let reason = settings.send.reasons.then_some("requested_by_customer");
    Form::new()
        .optional("cancellation_reason", reason)
        .item("expand", "latest_charge")
}

/// `POST /v1/refunds`
pub(crate) fn refund(
    request: &RefundRequest,
    settings: &Settings,
    units: &Units,
) -> Result<Form, PaymentError> {
    let mut form = Form::new()
        .field("payment_intent", &request.reference)
        .field("amount", units.write(request.amount.minor)?)
        .entry("metadata", tag::REFUND, &request.refund_id)
        .entry("metadata", tag::PAYMENT, &request.payment_id);
    if let Some(reason) = request.reason.as_deref().filter(|reason| !reason.is_empty()) {
        form = form.entry("metadata", tag::REASON, cut(reason));
    }
    let reason = settings.send.reasons.then_some("requested_by_customer");
    Ok(form.optional("reason", reason))
}

fn is_id(text: &str, prefixes: &[&str]) -> bool {
    let clean = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    clean && text.len() <= 255 && prefixes.iter().any(|prefix| text.starts_with(prefix))
}

fn cut(text: &str) -> &str {
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::settings;
    use oms_plugin_sdk::{Address, Call, Customer, Money};

    pub(crate) fn call() -> Call {
        Call {
            idempotency_key: "key-1".into(),
            attempt: 1,
            now_ms: 1_700_000_000_000,
            test_mode: true,
        }
    }

    fn request() -> StartRequest {
        StartRequest {
            call: call(),
            payment_id: "pay_1".into(),
            order_number: "1001".into(),
            amount: Money {
                minor: 1999,
                currency: "EUR".into(),
                exponent: 2,
            },
            capture: CaptureMode::Automatic,
            instrument: Some("pm_1".into()),
            instrument_data: Vec::new(),
            customer: Customer {
                id: None,
                email: Some("ann@example.com".into()),
                phone: None,
                ip: None,
                billing: None,
                shipping: Some(Address {
                    name: Some("Ann".into()),
                    line1: Some("1 Main St".into()),
                    line2: None,
                    city: Some("Berlin".into()),
                    region: None,
                    postal_code: Some("10115".into()),
                    country: Some("DE".into()),
                }),
            },
            description: Some("Order 1001".into()),
            return_url: Some("https://shop.test/back".into()),
            cancel_url: None,
            webhook_url: None,
            off_session: false,
            metadata: vec![("order_id".into(), "ord_1".into())],
        }
    }

    /// Readable: brackets and slashes as they were.
    fn sent(request: &StartRequest, pairs: &[(&str, &str)]) -> String {
        let settings = settings::of(pairs);
        let units = Units::of_money(&request.amount).unwrap();
        let form = start(request, &settings, &units).unwrap().encoded();
        form.replace("%5B", "[").replace("%5D", "]")
    }

    const LEAN: &str = "amount=1999&currency=eur&capture_method=automatic_async\
        &metadata[oms_payment]=pay_1&metadata[oms_order]=1001&metadata[order_id]=ord_1";

    #[test]
    fn the_least_is_sent_unless_more_is_asked_for() {
        let lean = sent(
            &request(),
            &[("payment-methods", "card"), ("customer-action", "sdk")],
        );
        assert_eq!(
            lean,
            format!(
                "{LEAN}&payment_method=pm_1&confirm=true&payment_method_types[]=card&expand[]=latest_charge"
            )
        );
        let more = [
            ("send", "description,receipt-email,shipping"),
            ("statement-descriptor-suffix", "MUG"),
        ];
        let more = sent(&request(), &more);
        for part in [
            "&return_url=https%3A%2F%2Fshop.test%2Fback",
            "&description=Order+1001",
            "&receipt_email=ann%40example.com",
            "&shipping[name]=Ann&shipping[address][line1]=1+Main+St",
            "&shipping[address][country]=DE",
            "&statement_descriptor_suffix=MUG",
        ] {
            assert!(more.contains(part), "{part} in {more}");
        }
        assert!(!more.contains("automatic_payment_methods"), "{more}");
    }

    #[test]
    fn without_a_place_to_come_back_to_nothing_may_redirect() {
        for pairs in [&[("customer-action", "sdk")][..], &[]] {
            let mut request = request();
            request.return_url = request.return_url.filter(|_| !pairs.is_empty());
            let form = sent(&request, pairs);
            assert!(!form.contains("return_url"), "{form}");
            assert!(
                form.contains("automatic_payment_methods[allow_redirects]=never"),
                "{form}"
            );
        }
    }

    #[test]
    fn without_an_instrument_the_browser_confirms() {
        let mut request = request();
        request.instrument = None;
        request.capture = CaptureMode::Manual;
        let form = sent(&request, &[]);
        assert!(form.contains("&capture_method=manual&"), "{form}");
        assert!(form.contains("&metadata[oms_flow]=client&"), "{form}");
        for absent in ["confirm", "return_url", "payment_method"] {
            assert!(!form.contains(absent), "{absent} in {form}");
        }
        request.off_session = true;
        let units = Units::of_money(&request.amount).unwrap();
        let refused = start(&request, &settings::of(&[]), &units);
        assert!(matches!(refused, Err(PaymentError::InvalidRequest(_))));
    }

    #[test]
    fn saved_and_tokenized_methods() {
        let mut request = request();
        request.off_session = true;
        request.instrument_data = vec![("customer".into(), "cus_1".into())];
        let form = sent(&request, &[]);
        assert!(form.contains("&confirm=true&off_session=true&"), "{form}");
        assert!(form.contains("&customer=cus_1&"), "{form}");
        request.instrument = Some("ctoken_1".into());
        assert!(sent(&request, &[]).contains("&confirmation_token=ctoken_1&"));
    }

    #[test]
    fn what_is_no_instrument_is_refused_and_not_repeated() {
        for odd in ["4242424242424242", "pm_1&amount=1", "", "tok_visa", "pm_1/../x"] {
            let mut request = request();
            request.instrument = Some(odd.into());
            let units = Units::of_money(&request.amount).unwrap();
            let Err(PaymentError::InvalidRequest(detail)) = start(&request, &settings::of(&[]), &units)
            else {
                panic!("{odd} was taken");
            };
            assert!(odd.is_empty() || !detail.message.contains(odd));
        }
        let mut request = request();
        request.instrument_data = vec![("customer".into(), "acct_1".into())];
        let units = Units::of_money(&request.amount).unwrap();
        assert!(start(&request, &settings::of(&[]), &units).is_err());
    }

    #[test]
    fn foreign_metadata_keeps_to_stripes_limits() {
        let mut request = request();
        request.metadata = vec![
            ("k".repeat(41), "long key".into()),
            ("oms_payment".into(), "pay_2".into()),
            ("a[b]".into(), "nested".into()),
            ("note".into(), "ü".repeat(600)),
        ];
        let form = sent(&request, &[]);
        assert!(
            !form.contains("long+key") && !form.contains("pay_2") && !form.contains("nested"),
            "{form}"
        );
        assert_eq!(form.matches("%C3%BC").count(), 500);
    }

    #[test]
    fn refunds_carry_our_ids() {
        let request = RefundRequest {
            call: call(),
            payment_id: "pay_1".into(),
            refund_id: "ref_1".into(),
            reference: "pi_1".into(),
            capture_reference: None,
            state: None,
            amount: Money {
                minor: 5,
                currency: "UGX".into(),
                exponent: 0,
            },
            reason: Some("scratched".into()),
        };
        let units = Units::of_money(&request.amount).unwrap();
        let form = refund(&request, &settings::of(&[]), &units).unwrap().encoded();
        let form = form.replace("%5B", "[").replace("%5D", "]");
        assert_eq!(
            form,
            "payment_intent=pi_1&amount=500&metadata[oms_refund]=ref_1&metadata[oms_payment]=pay_1\
             &metadata[oms_reason]=scratched"
        );
        let reasons = settings::of(&[("send", "reasons")]);
        let form = refund(&request, &reasons, &units).unwrap().encoded();
        assert!(form.ends_with("&reason=requested_by_customer"));
        assert!(cancel(&reasons).encoded().starts_with("cancellation_reason="));
    }
}
