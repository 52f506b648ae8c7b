//! The hosted payment page: plain HTML forms, no script, nothing from elsewhere.

use super::Bank;
use super::faults::Fault;
use super::model::{Payment, Status};
use super::operations::{Decision, Refused};
use minijinja::{Environment, context};
use poem::http::{StatusCode, header};
use poem::web::{Data, Path};
use poem::{Body, Request, Response, handler};
use std::collections::HashMap;

const MAX_FORM: usize = 4 * 1024;
/// What the customer's phone would show; the page shows it instead.
const CHALLENGE_CODE: &str = "123456";

/// The page's text, parsed once.
pub(super) struct Template(Environment<'static>);

impl Template {
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut environment = Environment::new();
        // The name ends in .html, so everything filled in is escaped.
        environment.add_template("page.html", include_str!("page.html"))?;
        Ok(Self(environment))
    }

    fn render(&self, values: minijinja::Value) -> anyhow::Result<String> {
        Ok(self.0.get_template("page.html")?.render(values)?)
    }
}

/// What stands where somebody looks who has no payment.
#[handler]
pub(super) fn front(Data(bank): Data<&Bank>) -> Response {
    let text = "This is a fake bank for development: the page of a payment opens from the shop.";
    message(bank, StatusCode::OK, text)
}

#[handler]
pub(super) async fn show(bank: Data<&Bank>, Path(reference): Path<String>, request: &Request) -> Response {
    let query = fields(request.uri().query().unwrap_or_default().as_bytes());
    match bank.payment(&reference).await {
        Ok(payment) => page(&bank, StatusCode::OK, &payment, &query),
        Err(refused) => no_page(&bank, refused),
    }
}

/// What the buttons do. Pressing one twice, or another one later, changes nothing.
#[handler]
pub(super) async fn decide(bank: Data<&Bank>, Path(reference): Path<String>, body: Body) -> Response {
    let Ok(bytes) = body.into_bytes_limit(MAX_FORM).await else {
        return message(&bank, StatusCode::PAYLOAD_TOO_LARGE, "This form is too large.");
    };
    let form = fields(&bytes);
    let text = |name: &str| form.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let switch = match text("fault") {
        None => None,
        Some(name) => match Fault::of_name(name).filter(|fault| fault.fits_page()) {
            Some(fault) => Some(fault),
            None => return message(&bank, StatusCode::UNPROCESSABLE_ENTITY, "No such fault."),
        },
    };
    // An empty code is a wrong one.
    let decision = match (text("decision"), form.get("code").map(String::as_str)) {
        (Some("challenge"), _) => return challenge(&bank, &reference, switch),
        (Some("approve"), None) => Decision::Approve {
            three_d_secure: false,
        },
        (Some("approve"), Some(CHALLENGE_CODE)) => Decision::Approve { three_d_secure: true },
        (Some("approve"), Some(_)) => Decision::Decline {
            code: "authentication_failed",
        },
        (Some("decline"), _) => Decision::Decline {
            code: "card_declined",
        },
        _ => {
            let text = "decision must be approve, decline or challenge.";
            return message(&bank, StatusCode::UNPROCESSABLE_ENTITY, text);
        }
    };
    match bank.decide(&reference, decision, switch).await {
        Ok(payment) => match return_url(&payment) {
            Some(url) => redirect(&url),
            None => page(&bank, StatusCode::OK, &payment, &HashMap::new()),
        },
        Err(refused) => no_page(&bank, refused),
    }
}

/// On to the second page, with the switch as it was set on the first.
fn challenge(bank: &Bank, reference: &str, switch: Option<Fault>) -> Response {
    let base = &bank.0.public_url;
    let fault = switch.map_or(String::new(), |fault| format!("&fault={}", fault.name()));
    // The reference comes from the path, so it is encoded like one.
    let mut reference: String = url::form_urlencoded::byte_serialize(reference.as_bytes()).collect();
    reference.truncate(200);
    redirect(&format!("{base}/pay/{reference}?step=challenge{fault}"))
}

fn redirect(url: &str) -> Response {
    Response::builder()
        .status(StatusCode::SEE_OTHER)
        .header(header::LOCATION, url)
        .header(header::CACHE_CONTROL, "no-store")
        .finish()
}

/// Back to the shop, which must not believe a word of the query but may show it.
fn return_url(payment: &Payment) -> Option<String> {
    let mut url = url::Url::parse(payment.return_url.as_deref()?).ok()?;
    url.query_pairs_mut()
        .append_pair("payment", &payment.id)
        .append_pair("merchant_payment_id", &payment.merchant_payment_id)
        .append_pair("status", payment.status.as_str());
    Some(url.into())
}

fn page(bank: &Bank, status: StatusCode, payment: &Payment, query: &HashMap<String, String>) -> Response {
    let step = match payment.status {
        Status::ActionRequired if query.get("step").is_some_and(|step| step == "challenge") => "challenge",
        Status::ActionRequired => "pay",
        _ => "result",
    };
    let listed = |fault: Fault| {
        context! {
            name => fault.name(),
            description => fault.description(),
            amount => fault.amount(),
            on_page => fault.fits_page(),
        }
    };
    let values = context! {
        step,
        payment => context! {
            id => payment.id.as_str(),
            order_number => payment.order_number.as_str(),
            description => payment.description.as_deref(),
            currency => payment.currency.as_str(),
            status => payment.status.as_str(),
            decline_code => payment.decline_code.as_deref(),
            cancel_url => payment.cancel_url.as_deref(),
        },
        action => format!("{}/pay/{}", bank.0.public_url, payment.id),
        amount => decimal(payment.amount, payment.exponent),
        return_url => return_url(payment),
        fault => query.get("fault").and_then(|name| Fault::of_name(name)).map(Fault::name),
        amount_fault => payment.fault.map(Fault::description),
        faults => Fault::ALL.into_iter().map(listed).collect::<Vec<_>>(),
        challenge_code => CHALLENGE_CODE,
    };
    html(bank, status, values)
}

fn no_page(bank: &Bank, refused: Refused) -> Response {
    match refused {
        Refused::NotFound => message(bank, StatusCode::NOT_FOUND, "There is no such payment."),
        other => {
            tracing::error!(error = ?other, "the fake bank's page failed");
            message(bank, StatusCode::INTERNAL_SERVER_ERROR, "The bank failed.")
        }
    }
}

fn message(bank: &Bank, status: StatusCode, text: &str) -> Response {
    html(bank, status, context! { step => "message", message => text })
}

fn html(bank: &Bank, status: StatusCode, values: minijinja::Value) -> Response {
    let (status, body) = match bank.0.page.render(values) {
        Ok(body) => (status, body),
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "the fake bank's page cannot be shown"
            );
            (StatusCode::INTERNAL_SERVER_ERROR, "The bank failed.".to_owned())
        }
    };
    Response::builder()
        .status(status)
        .content_type("text/html; charset=utf-8")
        // No form-action: browsers apply it to the redirect back to the shop as well.
        .header(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
        )
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::REFERRER_POLICY, "no-referrer")
        .header(header::CACHE_CONTROL, "no-store")
        .body(body)
}

fn fields(encoded: &[u8]) -> HashMap<String, String> {
    url::form_urlencoded::parse(encoded).into_owned().collect()
}

fn decimal(amount: i64, exponent: u8) -> String {
    let digits = usize::from(exponent);
    let text = format!("{amount:0>width$}", width = digits + 1);
    let (whole, fraction) = text.split_at(text.len() - digits);
    if fraction.is_empty() {
        whole.to_owned()
    } else {
        format!("{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn amounts_are_shown_with_their_decimals() {
        assert_eq!(decimal(1299, 2), "12.99");
        assert_eq!(decimal(5, 2), "0.05");
        assert_eq!(decimal(5, 0), "5");
        assert_eq!(decimal(12345, 3), "12.345");
    }
}
