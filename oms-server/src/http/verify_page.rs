//! The page that a verification mail links to. Opening it does nothing, since scanners of mails open every link: only
//! its button uses the token.

use minijinja::{Environment, context};
use oms_core::Actor;
use poem::http::StatusCode;
use poem::web::{Data, Form, Query};
use poem::{Response, Route, get, handler};
use serde::Deserialize;

use super::State;
use super::error::ApiError;

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'; \
     frame-ancestors 'none'";

#[derive(Deserialize)]
struct Link {
    token: String,
}

pub(super) fn mount(routes: Route) -> Route {
    routes.at("/verify", get(show).post(verify))
}

#[handler]
fn show(Query(link): Query<Link>) -> poem::Result<Response> {
    let text = "Press the button to confirm that this e-mail address is yours.";
    page(
        StatusCode::OK,
        "Verify your e-mail address",
        text,
        Some(&link.token),
    )
}

#[handler]
async fn verify(state: Data<&State>, Form(link): Form<Link>) -> poem::Result<Response> {
    match state
        .oms
        .users()
        .verify_email(&Actor::Anonymous, &link.token)
        .await
    {
        Ok(()) => {
            let text = "Thank you: your e-mail address is verified. You can close this page.";
            page(StatusCode::OK, "Verified", text, None)
        }
        Err(oms_core::Error::Invalid(_)) => {
            let text = "This link was used before or is too old. Ask for a new mail and use its link.";
            page(
                StatusCode::UNPROCESSABLE_ENTITY,
                "This link does not work any more",
                text,
                None,
            )
        }
        Err(e) => Err(ApiError::from(e).into()),
    }
}

fn page(status: StatusCode, title: &str, text: &str, token: Option<&str>) -> poem::Result<Response> {
    const PAGE: &str = include_str!("../../templates/verify.html");
    let html = Environment::new()
        .render_named_str("verify.html", PAGE, context! { title, text, token })
        .map_err(|e| ApiError::internal(&e))?;
    Ok(Response::builder()
        .status(status)
        .content_type("text/html; charset=utf-8")
        .header("content-security-policy", POLICY)
        .body(html))
}
