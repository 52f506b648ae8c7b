//! The documentation of the API, with nothing from elsewhere: Swagger UI at `/docs`, ReDoc at `/redoc`, the document
//! at `/openapi.json`.
//!
//! The framework generates pages with everything inline, one of them with fonts from another host. Here their scripts
//! and styles are cut out and served by themselves, so that a content security policy can forbid everything else.

use std::sync::OnceLock;

use poem::endpoint::make_sync;
use poem::{Endpoint, Response, Route, get};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

const SWAGGER_PAGE: &str = include_str!("../../templates/swagger.html");
const SWAGGER_START: &str = include_str!("../../templates/swagger.js");
const REDOC_PAGE: &str = include_str!("../../templates/redoc.html");
const REDOC_START: &str = include_str!("../../templates/redoc.js");

/// The texts that the framework generates.
pub(super) struct Generated {
    pub(super) swagger: String,
    pub(super) redoc: String,
    pub(super) spec: String,
}

/// The same in parts that can be served by themselves.
struct Parts {
    swagger_css: String,
    swagger_bundle: String,
    redoc_bundle: String,
    spec: String,
}

/// Adds the pages to the routes.
pub(super) fn mount(routes: Route, generate: impl FnOnce() -> Generated) -> Route {
    // Megabytes that never change: one copy for the whole program.
    static PARTS: OnceLock<Parts> = OnceLock::new();
    let parts = PARTS.get_or_init(|| Parts::cut(generate()));
    let script = |text| asset("text/javascript; charset=utf-8", text);
    routes
        .at("/openapi.json", get(asset("application/json", &parts.spec)))
        .at("/docs", get(page(SWAGGER_PAGE)))
        .at(
            "/docs/swagger-ui.css",
            get(asset("text/css; charset=utf-8", &parts.swagger_css)),
        )
        .at("/docs/swagger-ui.js", get(script(&parts.swagger_bundle)))
        .at("/docs/start.js", get(script(SWAGGER_START)))
        .at("/redoc", get(page(REDOC_PAGE)))
        .at("/redoc/redoc.js", get(script(&parts.redoc_bundle)))
        .at("/redoc/start.js", get(script(REDOC_START)))
}

impl Parts {
    fn cut(generated: Generated) -> Self {
        let Generated { swagger, redoc, spec } = generated;
        Self {
            swagger_css: element(&swagger, "style"),
            swagger_bundle: element(&swagger, "script"),
            redoc_bundle: element(&redoc, "script"),
            spec,
        }
    }
}

/// The content of the first such element of a generated page.
fn element(html: &str, name: &str) -> String {
    let (start, end) = (format!("<{name} charset=\"UTF-8\">"), format!("</{name}>"));
    html.split_once(&start)
        .and_then(|(_, rest)| rest.split_once(&end))
        .map(|(content, _)| content.to_owned())
        .unwrap_or_default()
}

fn page(html: &'static str) -> impl Endpoint {
    make_sync(move |_| {
        Response::builder()
            .content_type("text/html; charset=utf-8")
            .header("content-security-policy", POLICY)
            .header("cache-control", "no-cache")
            .body(html)
    })
}

fn asset(content_type: &'static str, text: &'static str) -> impl Endpoint {
    make_sync(move |_| {
        Response::builder()
            .content_type(content_type)
            .header("cache-control", "no-cache")
            .body(text)
    })
}
