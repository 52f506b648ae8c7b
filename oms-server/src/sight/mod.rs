//! What an operator sees of the running program: measurements, traces and what they need to be told.
//! `docs/observability.md` is the guide.

mod gauges;
mod metrics;
pub(crate) mod traces;

use std::net::SocketAddr;

use oms_core::payments::Secret;

use crate::config::ConfigError;

pub use metrics::Metrics;
pub(crate) use metrics::{Door, InFlight, answered, begin_recording, webhook};

/// A token shorter than this could be guessed.
const SHORTEST_TOKEN: usize = 16;

/// The settings.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where `/metrics` has an address of its own; then the main one has none.
    pub metrics_listen: Option<SocketAddr>,
    /// Whoever asks for `/metrics` must show it.
    pub metrics_token: Option<Secret>,
    /// Where traces are sent.
    pub traces: Option<TraceSettings>,
}

/// Where and how traces are sent.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSettings {
    /// The collector, without `/v1/traces`.
    pub endpoint: String,
    /// The program's name there.
    pub service_name: String,
    /// Which part of the traces that begin here is kept, between 0 and 1.
    pub ratio: f64,
}

impl Settings {
    /// Reads them through `lookup`, which gives no empty texts.
    pub fn read(lookup: &impl Fn(&'static str) -> Option<String>) -> Result<Self, ConfigError> {
        let metrics_listen = lookup("OMS_METRICS_LISTEN").map(|text| {
            text.parse().map_err(|_| ConfigError {
                variable: "OMS_METRICS_LISTEN",
                detail: format!("{text:?} is not an IP address with a port, such as 127.0.0.1:9100"),
            })
        });
        let metrics_token = lookup("OMS_METRICS_TOKEN");
        if metrics_token
            .as_ref()
            .is_some_and(|token| token.len() < SHORTEST_TOKEN)
        {
            return Err(ConfigError {
                variable: "OMS_METRICS_TOKEN",
                detail: format!("must have at least {SHORTEST_TOKEN} characters (openssl rand -hex 24)"),
            });
        }
        Ok(Self {
            metrics_listen: metrics_listen.transpose()?,
            metrics_token: metrics_token.map(Secret::new),
            traces: TraceSettings::read(lookup)?,
        })
    }
}

impl TraceSettings {
    fn read(lookup: &impl Fn(&'static str) -> Option<String>) -> Result<Option<Self>, ConfigError> {
        let Some(endpoint) = lookup("OTEL_EXPORTER_OTLP_ENDPOINT") else {
            return Ok(None);
        };
        let usable = url::Url::parse(&endpoint)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !usable {
            // Not repeated: it may hold a password.
            return Err(ConfigError {
                variable: "OTEL_EXPORTER_OTLP_ENDPOINT",
                detail: "is not an address such as http://collector:4318".into(),
            });
        }
        let ratio = lookup("OTEL_TRACES_SAMPLER_ARG").unwrap_or_else(|| "1".into());
        let ratio = ratio.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        Ok(Some(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            service_name: lookup("OTEL_SERVICE_NAME").unwrap_or_else(|| "oms".into()),
            ratio: ratio.ok_or_else(|| ConfigError {
                variable: "OTEL_TRACES_SAMPLER_ARG",
                detail: "is not a number between 0 and 1".into(),
            })?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&'static str, &str)]) -> Result<Settings, ConfigError> {
        Settings::read(&|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_is_wrong_names_its_variable() {
        for (variable, value) in [
            ("OMS_METRICS_LISTEN", "9100"),
            ("OMS_METRICS_TOKEN", "short"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ] {
            assert_eq!(read(&[(variable, value)]).unwrap_err().variable, variable);
        }
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
        for ratio in ["2", "-1", "NaN", "half"] {
            let error = read(&[endpoint, ("OTEL_TRACES_SAMPLER_ARG", ratio)]).unwrap_err();
            assert_eq!(error.variable, "OTEL_TRACES_SAMPLER_ARG");
        }
        let traces = read(&[endpoint]).unwrap().traces.unwrap();
        assert_eq!(
            (
                traces.endpoint.as_str(),
                traces.service_name.as_str(),
                traces.ratio
            ),
            ("http://collector:4318", "oms", 1.0)
        );
    }

    #[test]
    fn the_token_is_not_shown() {
        let settings = read(&[("OMS_METRICS_TOKEN", "0123456789abcdef")]).unwrap();
        assert!(!format!("{settings:?}").contains("0123456789abcdef"));
    }
}
