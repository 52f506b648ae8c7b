//! `plugin check`: would it be loaded, and if not, why.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use oms_core::plugins::conformance::{self, Finding, Level};
use serde_json::json;

use super::super::{print, table};
use super::find;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Folders with plugin.toml and the component, or components beneath such a folder
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: &Options) -> Result<ExitCode> {
    let (mut text, mut values, mut faulty) = (String::new(), Vec::new(), false);
    for path in &options.paths {
        let findings = match find(path) {
            Ok(package) => conformance::check(&package).await,
            Err(detail) => vec![Finding {
                what: "files".into(),
                level: Level::Fault,
                detail,
            }],
        };
        faulty |= findings.iter().any(|finding| finding.level == Level::Fault);
        text.push_str(&format!("{}\n", path.display()));
        for finding in &findings {
            let mark = match finding.level {
                Level::Good => "ok",
                Level::Warning => "warning",
                Level::Fault => "FAULT",
            };
            let detail = table::one_line(&finding.detail);
            text.push_str(&format!("  {mark:<8} {:<14} {detail}\n", finding.what));
        }
        values.push(json!({"path": path.display().to_string(), "findings": findings}));
    }
    print(&match options.json {
        true => format!("{}\n", json!(values)),
        false => text,
    })?;
    Ok(ExitCode::from(u8::from(faulty)))
}
