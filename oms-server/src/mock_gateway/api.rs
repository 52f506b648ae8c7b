//! The JSON API for merchants.

use super::Bank;
use super::operations::{Answer, Manner, Operation, Refused, manner_of_reading, problem};
use poem::http::{StatusCode, header};
use poem::web::{Data, Path};
use poem::{Body, Request, Response, handler};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

const MAX_BODY: usize = 64 * 1024;

#[handler]
pub(super) async fn start(bank: Data<&Bank>, request: &Request, body: Body) -> Response {
    change(bank.0, request, body, Operation::Start).await
}

#[handler]
pub(super) async fn capture(
    bank: Data<&Bank>,
    Path(reference): Path<String>,
    request: &Request,
    body: Body,
) -> Response {
    change(bank.0, request, body, |asked| {
        Operation::Capture(reference, asked)
    })
    .await
}

#[handler]
pub(super) async fn cancel(
    bank: Data<&Bank>,
    Path(reference): Path<String>,
    request: &Request,
    body: Body,
) -> Response {
    change(bank.0, request, body, |asked| Operation::Cancel(reference, asked)).await
}

#[handler]
pub(super) async fn refund(
    bank: Data<&Bank>,
    Path(reference): Path<String>,
    request: &Request,
    body: Body,
) -> Response {
    change(bank.0, request, body, |asked| Operation::Refund(reference, asked)).await
}

#[handler]
pub(super) async fn read(bank: Data<&Bank>, Path(reference): Path<String>, request: &Request) -> Response {
    answer(bank.0, try_read(bank.0, request, Some(&reference)).await).await
}

#[handler]
pub(super) async fn find(bank: Data<&Bank>, request: &Request) -> Response {
    answer(bank.0, try_read(bank.0, request, None).await).await
}

/// What goes wrong before the bank's business begins, and what it refuses.
enum Problem {
    Unauthorized,
    NoKey,
    TooLarge,
    NotJson(String),
    Refused(Refused),
}

impl<E: Into<Refused>> From<E> for Problem {
    fn from(refused: E) -> Self {
        Self::Refused(refused.into())
    }
}

async fn change<T: DeserializeOwned>(
    bank: &Bank,
    request: &Request,
    body: Body,
    operation: impl FnOnce(T) -> Operation,
) -> Response {
    let asked = read_change(bank, request, body).await;
    let answered = match asked {
        Ok((key, asked)) => bank
            .perform(key, operation(asked))
            .await
            .map_err(Problem::Refused),
        Err(problem) => Err(problem),
    };
    answer(bank, answered).await
}

async fn read_change<'a, T: DeserializeOwned>(
    bank: &Bank,
    request: &'a Request,
    body: Body,
) -> Result<(&'a str, T), Problem> {
    authenticate(bank, request)?;
    let key = request
        .header("idempotency-key")
        .filter(|key| (1..=255).contains(&key.len()))
        .ok_or(Problem::NoKey)?;
    let bytes = body
        .into_bytes_limit(MAX_BODY)
        .await
        .map_err(|_| Problem::TooLarge)?;
    let asked = serde_json::from_slice(&bytes).map_err(|error| Problem::NotJson(error.to_string()))?;
    Ok((key, asked))
}

/// By the bank's reference, or by the merchant's id in the query.
async fn try_read(bank: &Bank, request: &Request, reference: Option<&str>) -> Result<Answer, Problem> {
    authenticate(bank, request)?;
    let payment = match reference {
        Some(reference) => bank.payment(reference).await,
        None => {
            let query = request.uri().query().unwrap_or_default();
            let id = url::form_urlencoded::parse(query.as_bytes())
                .find_map(|(name, value)| (name == "merchant_payment_id").then_some(value))
                .ok_or_else(|| Refused::Invalid("merchant_payment_id is missing".into()));
            match id {
                Ok(id) => bank.payment_of_merchant(&id).await,
                Err(refused) => Err(refused),
            }
        }
    }
    .map_err(Problem::Refused)?;
    Ok(Answer {
        status: 200,
        body: bank
            .show(&payment)
            .map_err(|error| Problem::Refused(Refused::Internal(error)))?,
        manner: manner_of_reading(&payment),
    })
}

fn authenticate(bank: &Bank, request: &Request) -> Result<(), Problem> {
    let token = request
        .header(header::AUTHORIZATION)
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    // Digests are compared, so that the time taken says nothing about the key.
    if Sha256::digest(token) == Sha256::digest(&bank.0.api_key) {
        Ok(())
    } else {
        Err(Problem::Unauthorized)
    }
}

/// Everything is committed by now: waiting, or the client going away, changes nothing.
async fn answer(bank: &Bank, answered: Result<Answer, Problem>) -> Response {
    let answered = match answered {
        Ok(answered) => answered,
        Err(problem) => return refuse(problem),
    };
    match answered.manner {
        Manner::AtOnce => {}
        Manner::Slowly => tokio::time::sleep(bank.0.timing.slow).await,
        Manner::Never => {
            tokio::time::sleep(bank.0.timing.withhold).await;
            return json(504, problem("timeout", "the bank took too long"));
        }
    }
    json(answered.status, answered.body)
}

fn refuse(reason: Problem) -> Response {
    let (status, code, message) = match reason {
        Problem::Unauthorized => (401, "unauthorized", "the API key is missing or wrong".into()),
        Problem::NoKey => (400, "idempotency_key_required", "send an Idempotency-Key".into()),
        Problem::TooLarge => (
            413,
            "too_large",
            format!("the body is larger than {MAX_BODY} bytes"),
        ),
        Problem::NotJson(message) => (400, "invalid_request", message),
        Problem::Refused(Refused::Invalid(message)) => (422, "invalid_value", message),
        Problem::Refused(Refused::NotFound) => (404, "not_found", "no such payment".into()),
        Problem::Refused(Refused::InvalidState(status)) => (
            409,
            "invalid_state",
            format!("the payment is {}", status.as_str()),
        ),
        Problem::Refused(Refused::KeyReused) => (
            409,
            "idempotency_key_reused",
            "this key was used for another request".into(),
        ),
        Problem::Refused(Refused::Duplicate) => (
            409,
            "duplicate",
            "the merchant's id was used before, with another key".into(),
        ),
        Problem::Refused(Refused::Internal(error)) => {
            tracing::error!(error = format!("{error:#}"), "the fake bank failed");
            (500, "internal", "the bank failed".into())
        }
    };
    json(status, problem(code, &message))
}

fn json(status: u16, body: String) -> Response {
    Response::builder()
        .status(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
        .content_type("application/json")
        .header(header::CACHE_CONTROL, "no-store")
        .body(body)
}
