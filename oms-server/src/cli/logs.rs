//! Logs, on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, variable};

/// Which lines are written.
pub(super) const VARIABLE: &str = "OMS_LOG";
pub(super) const DEFAULT: &str = "info,sqlx=warn,lettre=warn";

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Settings")]
#[group(skip)]
pub(super) struct Options {
    /// How log lines are written; OMS_LOG says which, such as info,oms_core=debug
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        value_name = "FORMAT"
    )]
    log_format: Format,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Options {
    pub(super) fn init(&self) -> Result<(), ConfigError> {
        let wanted = variable(VARIABLE).filter(|text| !text.is_empty());
        let wanted = wanted.as_deref().unwrap_or(DEFAULT);
        let filter = EnvFilter::try_new(wanted).map_err(|e| ConfigError {
            variable: VARIABLE,
            detail: format!("{wanted:?} is no filter such as info,oms_core=debug: {e}"),
        })?;
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr);
        match self.log_format {
            Format::Text => subscriber.init(),
            Format::Json => subscriber.json().init(),
        }
        Ok(())
    }
}
