//! Checks the books.

use std::process::ExitCode;

use anyhow::Result;
use oms_core::Actor;

use crate::config::Config;

pub(super) async fn run(config: &Config, json: bool) -> Result<ExitCode> {
    let oms = super::open(config).await?;
    let checked = oms.verify(&Actor::System).await;
    oms.shutdown().await;
    let violations = checked?;
    if json {
        super::print(&format!("{}\n", serde_json::json!(violations)))?;
    } else if violations.is_empty() {
        super::print("no violation found\n")?;
    } else {
        super::print(
            &violations
                .iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>(),
        )?;
    }
    Ok(ExitCode::from(u8::from(!violations.is_empty())))
}
