//! The command line. Results go to stdout, logs to stderr; 0 is good, 1 found or failed, 2 wrong usage.

mod admin;
mod backup;
mod bench;
mod check;
mod demo;
mod health;
mod logs;
mod migrate_data;
mod pictures;
mod plugin;
mod serve;
mod table;
mod verify;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use oms_core::Oms;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, ConfigError, Options};
use crate::sight::Metrics;
use crate::sqlite_file::{self, Claim};
use crate::{accounts, http, production, setup};

#[derive(Parser)]
#[command(
    name = "oms-server",
    version,
    about = "An order management system",
    max_term_width = 110
)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    logs: logs::Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API
    #[command(after_help = "Example:\n  oms-server serve --demo --listen 127.0.0.1:8000")]
    Serve(serve::Options),
    /// Run background jobs only: mails, expiry, reconciliation
    #[command(after_help = "Example:\n  DATABASE_URL=postgres://oms:oms@localhost/oms oms-server worker")]
    Worker,
    /// Run the fake bank by itself, at the address to listen on
    #[command(after_help = "Example:\n  oms-server mock-gateway --listen 127.0.0.1:8010")]
    MockGateway,
    /// Bring the database's schema up to date
    #[command(after_help = "Example:\n  DATABASE_URL=postgres://oms:oms@localhost/oms oms-server migrate")]
    Migrate,
    /// Ask a running server whether it is ready
    #[command(after_help = "Example:\n  oms-server health --listen 127.0.0.1:8000 && echo ready")]
    Health,
    /// Print the OpenAPI document
    #[command(after_help = "Example:\n  oms-server openapi > docs/openapi.json")]
    Openapi,
    /// Check the whole database: stock against movements, totals against lines, payments against attempts
    #[command(
        after_help = "Example:\n  oms-server verify && echo clean\n\nPrints each violation; status 1 if there is any."
    )]
    Verify {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Measure placing orders, webhooks and memory beside one transaction for each order
    #[command(
        after_help = "Examples:\n  cargo xtask bench -- --only postgres --seconds 10\n  oms-server bench --url https://shop.example.com --identifier demo --rate 500 --seconds 60"
    )]
    Bench(bench::Options),
    /// Copy the database into a file while the server runs
    #[command(
        after_help = "Examples:\n  oms-server backup /backups/oms.db --media /backups/media\n  \
                      sh -c \"$(DATABASE_URL=postgres://oms@db/oms oms-server backup oms.dump)\"\n\n\
                      Status 0: the file is there, whole and checked. 1: it is not. 3: PostgreSQL; the pg_dump to run was printed."
    )]
    Backup(backup::Options),
    /// Put a backup in the place of the database, after it was checked
    #[command(
        after_help = "Example:\n  oms-server restore /backups/oms.db --media /backups/media\n\n\
                      Refused while a server runs. Status 0: done. 1: nothing was changed, unless the report says so.\n\
                      3: PostgreSQL; what to run was printed."
    )]
    Restore(backup::restore::Options),
    /// Copy a shop from SQLite to PostgreSQL, or back
    #[command(
        after_help = "Example:\n  oms-server migrate-data --from sqlite://oms-data/oms.db --to postgres://oms:oms@localhost/oms\n\n\
                      Stop every server first. The target must be empty, and stays so unless everything was copied, compared and verified."
    )]
    MigrateData(migrate_data::Options),
    /// Settings
    #[command(subcommand)]
    Config(check::Command),
    /// Users, jobs, payments in review and webhooks
    #[command(subcommand)]
    Admin(admin::Command),
    /// Payment plugins
    #[command(subcommand)]
    Plugin(plugin::Command),
}

/// The whole program.
pub fn main() -> ExitCode {
    // TLS needs one provider for the whole process; it is an error only when there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dotenv = match config::load_dotenv() {
        Ok(names) => names,
        Err(e) => return refuse(&[e]),
    };
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    if let Command::Config(command) = &cli.command {
        return ended(check::run(command, &cli.options, &cli.logs, &matches, &dotenv));
    }
    let config = match Config::read(&cli.options, config::variable) {
        Ok(config) => config,
        Err(e) => return refuse(&[e]),
    };
    let refusals = match cli.command.starts() {
        true => production::refusals(&config),
        false => Vec::new(),
    };
    if !refusals.is_empty() {
        return refuse(&refusals.into_iter().map(ConfigError::from).collect::<Vec<_>>());
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            say(format_args!("oms-server: the runtime cannot start: {e}"));
            return ExitCode::from(1);
        }
    };
    let traces = {
        let _inside = runtime.enter();
        match cli.logs.init(&config.sight) {
            Ok(traces) => traces,
            Err(e) => return refuse(&[e]),
        }
    };
    let done = run(&runtime, cli.command, &config);
    traces.finish();
    ended(done)
}

fn ended(run: Result<ExitCode>) -> ExitCode {
    match run {
        Ok(code) => code,
        Err(e) => match e.downcast_ref::<ConfigError>() {
            Some(e) => refuse(std::slice::from_ref(e)),
            None => {
                say(format_args!("oms-server: {e:#}"));
                ExitCode::from(1)
            }
        },
    }
}

fn run(runtime: &Runtime, command: Command, config: &Config) -> Result<ExitCode> {
    if let Command::Openapi = command {
        return print(&http::openapi());
    }
    // Held until the command has ended.
    let _claim = command.claim(config)?;
    runtime.block_on(async {
        match command {
            Command::Serve(options) => serve::run(config, &options).await,
            Command::Worker => worker(config).await,
            Command::MockGateway => serve::mock_gateway(config).await,
            Command::Migrate => {
                open(config).await?.shutdown().await;
                Ok(ExitCode::SUCCESS)
            }
            Command::Health => Ok(health::ask(config).await),
            Command::Verify { json } => verify::run(config, json).await,
            Command::Plugin(command) => plugin::run(config, &command).await,
            Command::Bench(options) => bench::run(config, &options).await,
            Command::Admin(command) => admin::run(config, command).await,
            Command::Backup(options) => backup::run(config, &options).await,
            Command::Restore(options) => backup::restore::run(config, &options).await,
            Command::MigrateData(options) => migrate_data::run(config, &options).await,
            // Both were answered before there was a runtime.
            Command::Openapi | Command::Config(_) => Ok(ExitCode::SUCCESS),
        }
    })
}

impl Command {
    /// Whether it begins to serve, so that production's rules hold. The others look after a shop, or mend its settings.
    const fn starts(&self) -> bool {
        matches!(
            self,
            Self::Serve(_) | Self::Worker | Self::Migrate | Self::MockGateway
        )
    }

    /// Says that this process uses the database, if it is a file and the command does not see to it itself.
    fn claim(&self, config: &Config) -> Result<Option<Claim>> {
        match self {
            Self::Openapi
            | Self::Health
            | Self::Config(_)
            | Self::MockGateway
            | Self::Bench(_)
            | Self::Restore(_)
            | Self::MigrateData(_) => Ok(None),
            Self::Plugin(command) if !command.makes_database() => Ok(None),
            Self::Serve(_)
            | Self::Worker
            | Self::Migrate
            | Self::Verify { .. }
            | Self::Admin(_)
            | Self::Plugin(_)
            | Self::Backup(_) => {
                let Some(database) = sqlite_file::path(&config.database_url)? else {
                    return Ok(None);
                };
                setup::make_data_dir(config)?;
                Claim::shared(&database).map(Some)
            }
        }
    }
}

/// The library, for commands that do not listen.
async fn open(config: &Config) -> Result<Oms> {
    setup::open(config, &serve::public_url(config, config.listen)).await
}

/// The library, for commands that ask no gateway. They work in any shell, whoever has the merchants' secrets.
async fn open_without_accounts(config: &Config) -> Result<Oms> {
    setup::open_without_accounts(config, &serve::public_url(config, config.listen)).await
}

async fn worker(config: &Config) -> Result<ExitCode> {
    production::warn(config);
    let (public_url, redis) = (serve::public_url(config, config.listen), setup::redis(config)?);
    let oms = setup::open_beside_others(config, &public_url, redis.as_ref()).await?;
    setup::load_plugins(config, &oms).await?;
    accounts::warn(config, &oms).await;
    let stop = CancellationToken::new();
    let measured = serve::listen_for_metrics(config, &Metrics::new(config), &oms, &stop).await?;
    tokio::spawn(serve::stop_on_signal(stop.clone()));
    let worked = oms.worker().run(stop.clone()).await;
    stop.cancel();
    measured.await?;
    oms.shutdown().await;
    worked?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a result. A reader that has gone away, as in `| head`, is no error.
fn print(text: &str) -> Result<ExitCode> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// One line on stderr, whatever the log is set to.
fn say(line: std::fmt::Arguments<'_>) {
    // There is nobody to tell when stderr is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// One line for each setting that is wrong.
fn refuse(errors: &[ConfigError]) -> ExitCode {
    for error in errors {
        say(format_args!("oms-server: {error}"));
    }
    ExitCode::from(2)
}
