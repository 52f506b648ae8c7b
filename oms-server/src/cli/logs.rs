//! Logs, on stderr.

use std::io::IsTerminal;

use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::{ConfigError, variable};
use crate::sight::Settings;
use crate::sight::traces::{self, Traces};

/// Which lines are written.
pub(super) const VARIABLE: &str = "OMS_LOG";
/// Every connection that lies idle would write a line, and libraries tell what only their authors want to know.
pub(super) const DEFAULT: &str = "info,sqlx=warn,lettre=warn,poem::server=warn";

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Settings")]
#[group(skip)]
pub(super) struct Options {
    /// How log lines are written: text or json; OMS_LOG or RUST_LOG says which, such as info,oms_core=debug
    /// [default: text]
    #[arg(
        long,
        global = true,
        env = "OMS_LOG_FORMAT",
        hide_env_values = true,
        value_name = "FORMAT"
    )]
    log_format: Option<String>,
}

impl Options {
    /// Begins to log, and to trace where the settings say so. Call it inside of the runtime.
    pub(super) fn init(&self, settings: &Settings) -> Result<Traces, ConfigError> {
        let json = self.json()?;
        let (traces, trace_layer) = traces::layer(settings.traces.as_ref())?;
        let lines = fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr);
        let lines = match json {
            true => lines.json().boxed(),
            false => lines.boxed(),
        };
        let subscriber = tracing_subscriber::registry()
            .with(trace_layer)
            .with(lines.with_filter(wanted()?.and(discreet())));
        // Not `init`, which also takes up the records of the crate `log`: its question whether a record is wanted, which
        // sqlx asks at every statement, leaves filters of single layers believing that the next span is not.
        tracing::subscriber::set_global_default(subscriber).map_err(|e| ConfigError {
            variable: VARIABLE,
            detail: format!("cannot be obeyed: {e}"),
        })?;
        Ok(traces)
    }

    /// Why [`Options::init`] would refuse.
    pub(super) fn problems(&self, settings: &Settings) -> Vec<ConfigError> {
        let found = [
            self.json().err(),
            wanted().err(),
            traces::check(settings.traces.as_ref()).err(),
        ];
        found.into_iter().flatten().collect()
    }

    fn json(&self) -> Result<bool, ConfigError> {
        match self.log_format.as_deref() {
            // Container set-ups pass variables that are not set as empty ones.
            None | Some("" | "text" | "pretty") => Ok(false),
            Some("json") => Ok(true),
            Some(other) => Err(ConfigError {
                variable: "OMS_LOG_FORMAT",
                detail: format!("{other:?} must be text or json"),
            }),
        }
    }
}

fn wanted() -> Result<EnvFilter, ConfigError> {
    let set = |name: &'static str| Some((name, variable(name).filter(|text| !text.is_empty())?));
    let (name, wanted) = set(VARIABLE)
        .or_else(|| set("RUST_LOG"))
        .unwrap_or((VARIABLE, DEFAULT.to_owned()));
    EnvFilter::try_new(&wanted).map_err(|e| ConfigError {
        variable: name,
        detail: format!("{wanted:?} is no filter such as info,oms_core=debug: {e}"),
    })
}

/// Whatever is asked for, libraries that would write down what they carry (headers, bodies, statements with values) say
/// no more than this.
fn discreet() -> Targets {
    Targets::new().with_default(LevelFilter::TRACE).with_targets(
        ["h2", "hyper", "hyper_util", "reqwest", "rustls", "lettre"].map(|name| (name, LevelFilter::INFO)),
    )
}
