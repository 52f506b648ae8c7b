//! The HTTP API: routes and what surrounds them.

mod admin;
mod auth;
mod body;
mod businesses;
mod catalog;
mod docs;
mod error;
mod health;
mod inventory;
mod json;
mod limits;
mod media;
mod metrics;
mod orders;
mod payments;
mod plugins;
mod reply;
mod request;
mod routes;
mod users;
mod values;
mod verify_page;
mod webhooks;

use std::any::Any;
use std::sync::Arc;

use oms_core::Oms;
use poem::middleware::CatchPanic;
use poem::{Endpoint, EndpointExt, IntoResponse, Response, Route};
use poem_openapi::{OpenApiService, Tags};
use tokio_util::sync::CancellationToken;

pub(crate) use admin::{JobBody, WebhookEvent};
pub use auth::Tokens;
pub use health::Probe;
pub use metrics::metrics_app;
pub(crate) use payments::PaymentBody;
pub(crate) use plugins::PluginBody;
pub(crate) use reply::List;
pub(crate) use users::UserBody;

use crate::client::Proxies;
use crate::limits::Limits;
use crate::media::MediaStore;
use crate::sight::Metrics;
use error::ApiError;

/// What every request may use.
#[derive(Clone)]
pub struct State {
    pub oms: Oms,
    pub tokens: Tokens,
    pub media: MediaStore,
    /// Cancelled when the server is about to stop: it serves on, but asks everybody to go elsewhere.
    pub leaving: CancellationToken,
    pub limits: Arc<Limits>,
    pub proxies: Proxies,
    pub metrics: Metrics,
    pub probe: Probe,
}

#[derive(Tags)]
enum Tag {
    /// Accounts.
    Users,
    /// Logging in and out.
    Sessions,
    /// What is sold and by whom.
    Catalog,
    /// Pictures.
    Media,
    /// Units on hand, and where they went.
    Stock,
    /// What was ordered.
    Orders,
    /// Money, through gateways.
    Payments,
    /// For operators and administrators.
    Admin,
}

type Apis = (
    users::UsersApi,
    businesses::BusinessesApi,
    catalog::CatalogApi,
    media::MediaApi,
    inventory::InventoryApi,
    orders::OrdersApi,
    payments::PaymentsApi,
    admin::AdminApi,
    plugins::PluginsApi,
);

fn service() -> OpenApiService<Apis, ()> {
    let apis = (
        users::UsersApi,
        businesses::BusinessesApi,
        catalog::CatalogApi,
        media::MediaApi,
        inventory::InventoryApi,
        orders::OrdersApi,
        payments::PaymentsApi,
        admin::AdminApi,
        plugins::PluginsApi,
    );
    OpenApiService::new(apis, "oms", env!("CARGO_PKG_VERSION"))
        .description(include_str!("../../templates/api.md"))
        .server("/")
}

/// The OpenAPI document.
pub fn openapi() -> String {
    format!("{}\n", service().spec())
}

/// All that the server answers. `bank` is the fake bank, in development.
pub fn app(state: State, bank: Option<Route>) -> impl Endpoint {
    let generate = || {
        let service = service();
        docs::Generated {
            swagger: service.swagger_ui_html(),
            redoc: service.redoc_html(),
            spec: service.spec(),
        }
    };
    let routes = Route::new().nest("/", service());
    let routes = docs::mount(
        webhooks::mount(verify_page::mount(metrics::mount(health::mount(routes)))),
        generate,
    );
    let leaving = state.leaving.clone();
    let spec = openapi();
    routes::prepare(&spec);
    let methods = Arc::new(request::Methods::new(&spec));
    let room = body::Room::new();
    let shop = routes
        .around(request::turn_away)
        .around(move |next, request| body::limit(next, request, room.clone()))
        .around(request::refuse)
        // Each layer is within the type of the next, and the compiler reads only so deep.
        .boxed()
        .around(limits::apply)
        .data(state)
        .around(request::limit_time)
        .with(CatchPanic::new().with_handler(panicked))
        .catch_all_error(error::from_framework)
        .around(move |next, request| request::name_methods(next, request, Arc::clone(&methods)));
    // The bank holds answers back on purpose and has errors of its own.
    let all = match bank {
        Some(bank) => Route::new().nest("/mock-gateway", bank).nest("/", shop),
        None => Route::new().nest("/", shop),
    };
    // Around the outer routes, too: they refuse paths that cannot be decoded.
    all.catch_all_error(error::from_framework)
        .around(move |next, request| request::take_leave(next, request, leaving.clone()))
        .around(request::context)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that the middleware wants"
)]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    ApiError::internal(&text.unwrap_or("a panic without a text")).into_response()
}
