//! The template of a path, such as `/v1/orders/{id}` for `/v1/orders/ord_01h..`: measurements and traces name routes,
//! of which there are few, and never what clients make up.

use std::collections::HashMap;
use std::sync::OnceLock;

use poem::http::Method;

/// What a path outside of all templates is counted under.
const OTHER: &str = "other";

/// Beside the API: each stands for all that lies beneath, too.
const PAGES: [&str; 8] = [
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/redoc",
    "/verify",
    "/mock-gateway",
];

static ALL: OnceLock<Routes> = OnceLock::new();

/// Takes the routes of the API from its description, of which a program has one.
pub(super) fn prepare(spec: &str) {
    ALL.get_or_init(|| Routes::new(spec));
}

/// The template that a path fits.
pub(super) fn template(path: &str) -> &'static str {
    ALL.get().map_or(OTHER, |routes| routes.of(path))
}

/// A tree of segments.
#[derive(Default)]
struct Routes {
    fixed: HashMap<String, Routes>,
    parameter: Option<Box<Routes>>,
    template: Option<&'static str>,
    /// Whether the template stands for longer paths as well.
    beneath: bool,
}

impl Routes {
    fn new(spec: &str) -> Self {
        let spec: serde_json::Value = serde_json::from_str(spec).unwrap_or_default();
        let mut routes = Self::default();
        for path in spec["paths"]
            .as_object()
            .into_iter()
            .flat_map(|paths| paths.keys())
        {
            // Once, for the whole life of the program.
            routes.add(path.clone().leak(), false);
        }
        routes.add("/v1/webhooks/{account}", false);
        for page in PAGES {
            routes.add(page, true);
        }
        routes
    }

    fn add(&mut self, template: &'static str, beneath: bool) {
        let mut at = self;
        for segment in template.split('/').skip(1) {
            at = match segment.starts_with('{') {
                true => at.parameter.get_or_insert_default(),
                false => at.fixed.entry(segment.to_owned()).or_default(),
            };
        }
        at.template = Some(template);
        at.beneath = beneath;
    }

    /// A fixed segment stands before a parameter, as in the router.
    fn of(&self, path: &str) -> &'static str {
        let mut at = self;
        for segment in path.split('/').skip(1) {
            if at.beneath {
                break;
            }
            let next = at.fixed.get(segment).or(at.parameter.as_deref());
            let Some(next) = next else { return OTHER };
            at = next;
        }
        at.template.unwrap_or(OTHER)
    }
}

/// The name of a method; clients may make up others.
pub(super) fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_templates() {
        let spec = r#"{"paths": {"/v1/orders": {}, "/v1/orders/{id}": {}, "/v1/orders/{id}/cancel": {},
            "/v1/admin/jobs": {}}}"#;
        let routes = Routes::new(spec);
        for (path, template) in [
            ("/v1/orders", "/v1/orders"),
            ("/v1/orders/ord_1", "/v1/orders/{id}"),
            ("/v1/orders/ord_1/cancel", "/v1/orders/{id}/cancel"),
            ("/v1/orders/ord_1/cancel/more", "other"),
            ("/v1/orders/ord_1/other", "other"),
            ("/v1/admin", "other"),
            ("/v1/webhooks/mock", "/v1/webhooks/{account}"),
            ("/docs/swagger-ui.js", "/docs"),
            ("/mock-gateway/v1/payments/1", "/mock-gateway"),
            ("/livez", "/livez"),
            ("/", "other"),
            ("", "other"),
            ("/wp-login.php", "other"),
        ] {
            assert_eq!(routes.of(path), template, "{path}");
        }
    }

    #[test]
    fn every_operation_of_the_api_has_a_template() {
        let spec = super::super::openapi();
        let routes = Routes::new(&spec);
        let spec: serde_json::Value = serde_json::from_str(&spec).unwrap();
        for path in spec["paths"].as_object().unwrap().keys() {
            assert_eq!(routes.of(path), path);
        }
    }
}
