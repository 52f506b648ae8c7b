//! Asks a running server whether it is ready: for the health check of a container.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::Config;

pub(super) async fn ask(config: &Config) -> ExitCode {
    let mut address = config.listen;
    // Whoever listens on every address can be asked at the local one.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(std::net::Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(std::net::Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let url = format!("http://{address}/readyz");
    match get(&url).await {
        Ok(status) if status.is_success() => ExitCode::SUCCESS,
        Ok(status) => {
            super::say(format_args!("oms-server: {url} answers {status}"));
            ExitCode::from(1)
        }
        Err(e) => {
            super::say(format_args!("oms-server: {url}: {e:#}"));
            ExitCode::from(1)
        }
    }
}

async fn get(url: &str) -> anyhow::Result<reqwest::StatusCode> {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(5))
        .no_proxy()
        .build()?;
    Ok(client.get(url).send().await?.status())
}
