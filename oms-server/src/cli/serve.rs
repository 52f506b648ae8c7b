//! The server: listens, serves, works, and stops when asked to.

use std::fmt::{Display, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use oms_core::Oms;
use poem::listener::{Acceptor, Listener, TcpAcceptor, TcpListener};
use poem::{Endpoint, Server};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{admin, demo};
use crate::config::Config;
use crate::mock_gateway::Bank;
use crate::sight::Metrics;
use crate::{accounts, http, production, setup};

/// How long requests may go on after the server was asked to stop.
/// Longer than any of them may take.
const GRACE: Duration = Duration::from_secs(31);
/// How long a connection may lie idle. It bounds the wait for the head of a request too, but not one that is sent byte by
/// byte: that is for the reverse proxy in front, as the framework has no limit for heads.
const IDLE: Duration = Duration::from_secs(60);
/// Requests at once on one connection of HTTP/2.
const STREAMS: u32 = 100;

#[derive(clap::Args)]
#[group(skip)]
pub(super) struct Options {
    /// Leave background jobs to `oms-server worker`
    #[arg(long)]
    no_worker: bool,
    /// Make a demo shop when the database is empty
    #[arg(long)]
    demo: bool,
}

pub(super) async fn run(config: &Config, options: &Options) -> Result<ExitCode> {
    if options.demo && config.production {
        anyhow::bail!("the demo shop has a known password: --demo is refused in production (OMS_ENV)");
    }
    production::warn(config);
    let (acceptor, address) = listen(config.listen, "OMS_LISTEN").await?;
    let public_url = public_url(config, address);
    let redis = setup::redis(config)?;
    let oms = setup::open_beside_others(config, &public_url, redis.as_ref()).await?;
    setup::load_plugins(config, &oms).await?;
    accounts::warn(config, &oms).await;
    let state = setup::state(config, oms.clone(), redis)?;
    let bank = setup::bank(config, &format!("{public_url}/mock-gateway")).await?;
    if !config.production {
        admin::ensure_first(config, &oms).await?;
    }
    let demo = match options.demo {
        true => demo::prepare(config, &public_url, &oms, &state.media)
            .await
            .context("cannot make the demo shop")?,
        false => None,
    };
    // From now on nobody new should come; jobs go back at once.
    let leaving = state.leaving.clone();
    tokio::spawn(stop_on_signal(leaving.clone()));
    let work = tokio::spawn(work(oms.clone(), leaving.clone(), options.no_worker));
    // Whoever comes all the same is served until balancers had the time to notice.
    let stop = CancellationToken::new();
    tokio::spawn(stop_after(leaving.clone(), config.drain, stop.clone()));
    let measured = listen_for_metrics(config, &state.metrics, &oms, &stop).await?;
    let deliver = tokio::spawn(deliver(bank.clone(), stop.clone()));

    super::print(&welcome(config, address, &public_url, demo.as_ref())?)?;
    let app = http::app(state, bank.map(|bank| bank.routes()));
    let served = serve(acceptor, app, &stop).await;
    // The server may have ended by an error: then the rest is told here.
    leaving.cancel();
    stop.cancel();
    deliver.await?;
    measured.await?;
    let worked = work.await?;
    oms.shutdown().await;
    served.and(worked)?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// The fake bank by itself.
pub(super) async fn mock_gateway(config: &Config) -> Result<ExitCode> {
    let (acceptor, address) = listen(config.listen, "OMS_LISTEN").await?;
    let public_url = public_url(config, address);
    let Some(bank) = setup::bank(config, &public_url).await? else {
        anyhow::bail!("there is no fake bank in production (OMS_ENV)");
    };
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    let deliver = tokio::spawn(deliver(Some(bank.clone()), stop.clone()));
    super::print(&format!("The fake bank listens at {public_url}\n"))?;
    let served = serve(acceptor, bank.routes(), &stop).await;
    stop.cancel();
    deliver.await?;
    served?;
    Ok(ExitCode::SUCCESS)
}

/// Cancels at SIGTERM or Ctrl-C.
pub(super) async fn stop_on_signal(stop: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be received: the program stops only when it is killed");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stop.cancelled() => return,
    }
    tracing::info!("asked to stop: what is under way is finished first");
    stop.cancel();
}

/// Leaves the time in which `/readyz` says no and every answer closes its connection.
async fn stop_after(leaving: CancellationToken, drain: Duration, stop: CancellationToken) {
    leaving.cancelled().await;
    tokio::time::sleep(drain).await;
    stop.cancel();
}

/// Where others reach what listens here, when nobody said.
pub(super) fn public_url(config: &Config, listening: SocketAddr) -> String {
    config.public_url.clone().unwrap_or_else(|| {
        // "Every address" is none that a browser could go to.
        let host = match listening {
            SocketAddr::V4(a) if a.ip().is_unspecified() => "127.0.0.1".into(),
            SocketAddr::V4(a) => a.ip().to_string(),
            SocketAddr::V6(a) if a.ip().is_unspecified() => "[::1]".into(),
            SocketAddr::V6(a) => format!("[{}]", a.ip()),
        };
        format!("http://{host}:{}", listening.port())
    })
}

/// Answers `/metrics` at an address of its own, where the settings name one, until `stop`.
pub(super) async fn listen_for_metrics(
    config: &Config,
    metrics: &Metrics,
    oms: &Oms,
    stop: &CancellationToken,
) -> Result<JoinHandle<()>> {
    let Some(address) = config.sight.metrics_listen else {
        return Ok(tokio::spawn(async {}));
    };
    let (acceptor, address) = listen(address, "OMS_METRICS_LISTEN").await?;
    tracing::info!("metrics are at http://{address}/metrics");
    let (app, stop) = (http::metrics_app(metrics.clone(), oms.clone()), stop.clone());
    Ok(tokio::spawn(async move {
        if let Err(error) = serve(acceptor, app, &stop).await {
            tracing::error!(%error, "metrics are not served any more");
        }
    }))
}

async fn listen(address: SocketAddr, variable: &str) -> Result<(TcpAcceptor, SocketAddr)> {
    let cannot = || format!("cannot listen on {address} ({variable})");
    let acceptor = TcpListener::bind(address)
        .into_acceptor()
        .await
        .with_context(cannot)?;
    // With port 0 the system has chosen one.
    let address = acceptor
        .local_addr()
        .iter()
        .find_map(|address| address.as_socket_addr().copied())
        .with_context(cannot)?;
    Ok((acceptor, address))
}

async fn serve(acceptor: TcpAcceptor, app: impl Endpoint + 'static, stop: &CancellationToken) -> Result<()> {
    Server::new_with_acceptor(acceptor)
        .idle_timeout(IDLE)
        .http2_max_concurrent_streams(STREAMS)
        .run_with_graceful_shutdown(app, stop.clone().cancelled_owned(), Some(GRACE))
        .await
        .context("the server failed")
}

async fn work(oms: Oms, leaving: CancellationToken, elsewhere: bool) -> Result<()> {
    if elsewhere {
        return Ok(());
    }
    let worked = oms.worker().run(leaving.clone()).await;
    // A server without its worker would take orders and send no mails.
    leaving.cancel();
    worked.context("the worker failed")
}

async fn deliver(bank: Option<Bank>, stop: CancellationToken) {
    if let Some(bank) = bank {
        bank.deliver(stop).await;
    }
}

fn welcome(
    config: &Config,
    address: SocketAddr,
    public_url: &str,
    demo: Option<&demo::Demo>,
) -> Result<String> {
    let mut text = format!("oms listens at http://{address}\n\n");
    let mut line = |what: &str, value: &dyn Display| writeln!(text, "  {what:<15} {value}");
    line("API", &format_args!("{public_url}/v1"))?;
    line(
        "documentation",
        &format_args!("{public_url}/docs and {public_url}/redoc"),
    )?;
    if !config.production {
        line("administrator", &config.data_dir.join("admin.txt").display())?;
        line("fake bank", &format_args!("{public_url}/mock-gateway"))?;
    }
    if config.smtp.is_none() {
        line("mails", &config.data_dir.join("mail").display())?;
    }
    if let Some(demo) = demo {
        text.push_str(&demo.instructions(public_url));
    }
    text.push('\n');
    Ok(text)
}
