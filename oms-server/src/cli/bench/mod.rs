//! The program measures itself beside what one would write without it, on the same database in the same run.

mod bare;
mod baseline;
mod events;
mod goals;
mod growth;
mod in_process;
mod jobs;
mod load;
mod machine;
mod over_http;
mod overload;
mod parts;
mod pgbench;
mod remote;
mod shop;
mod table;
mod webhooks;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use oms_core::{Clock, SystemClock};

use self::baseline::Baseline;
use self::goals::{Goals, Reach};
use self::in_process::InProcess;
use self::load::Span;
use self::over_http::{OverHttp, Server};
use self::shop::{HOT_BASELINE, HOT_OMS, Measured, Mix, Shop, Wishes};
use self::table::{Cell, Results, Who, YARDSTICK};
use crate::config::Config;

#[derive(clap::Args)]
#[group(skip)]
pub(super) struct Options {
    /// A PostgreSQL server whose user may create databases; the bench makes one and drops it
    #[arg(long, value_name = "URL")]
    postgres_url: Option<String>,
    /// An existing folder on a disk, for SQLite and scratch files
    #[arg(long, value_name = "FOLDER", required_unless_present = "url")]
    sqlite_dir: Option<PathBuf>,
    /// Measured time of each cell, after a second of warm-up
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How often everything is measured; the table shows the median
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// A look: 64 clients alone, one second each
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    remote: remote::Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Orders on SQLite
    Sqlite,
    /// Orders on PostgreSQL
    Postgres,
    /// Background jobs
    Jobs,
    /// Webhooks over HTTP, each of which pays an order
    Events,
    /// Five times as many orders as the server can place
    Overload,
    /// Two servers on one database, and one of them alone
    Pair,
    /// A shop with a thousand, a hundred thousand and a million orders
    Growth,
    /// Signatures verified by a plugin
    Webhooks,
    /// The idle server
    Memory,
    /// The server's memory under load: ten minutes with `--seconds 600`. Only when it is named
    Soak,
}

pub(super) async fn run(config: &Config, options: &Options) -> Result<ExitCode> {
    if let Some(url) = &options.remote.url {
        return remote::run(&options.remote, url, options.seconds).await;
    }
    let mut bench = Bench::new(config, options)?;
    if bench.wants(Part::Sqlite) {
        let shop = Shop::on_sqlite(&bench.dir).await?;
        bench.orders(&shop).await?;
        bench.close(shop).await?;
    }
    let on_postgres = [
        Part::Postgres,
        Part::Jobs,
        Part::Events,
        Part::Overload,
        Part::Pair,
        Part::Growth,
        Part::Soak,
    ];
    if on_postgres.iter().any(|part| bench.wants(*part)) {
        let url = options.postgres_url.as_deref();
        let shop = Shop::on_postgres(url.context("--postgres-url is not given")?).await?;
        bench.on_postgres(&shop).await?;
        bench.close(shop).await?;
    }
    if bench.wants(Part::Webhooks) {
        bench.webhooks().await?;
    }
    if bench.wants(Part::Memory) {
        bench.memory().await?;
    }
    bench.progress.finish_and_clear();
    bench.goals.of_orders(&bench.results);
    super::print(&bench.report()?)?;
    Ok(ExitCode::from(u8::from(bench.violated)))
}

/// What was asked for and what came of it so far.
struct Bench<'a> {
    options: &'a Options,
    plugin_dir: &'a Path,
    dir: PathBuf,
    clients: &'static [usize],
    span: Span,
    /// Idempotency keys, over all cells.
    keys: Arc<AtomicU64>,
    pgbench: Option<PathBuf>,
    progress: ProgressBar,
    results: Results,
    goals: Goals,
    databases: Vec<String>,
    /// Figures that are not orders.
    others: Vec<String>,
    checks: Vec<String>,
    violated: bool,
}

impl<'a> Bench<'a> {
    fn new(config: &'a Config, options: &'a Options) -> Result<Self> {
        let dir = options
            .sqlite_dir
            .as_deref()
            .context("--sqlite-dir is not given")?;
        let dir = dir.canonicalize().context("--sqlite-dir")?;
        let (clients, seconds, warm_up): (&[usize], _, _) = match options.quick {
            true => (&[64], 1, Duration::from_millis(500)),
            false => (&[1, 16, 64], options.seconds, Duration::from_secs(1)),
        };
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} {elapsed}")?;
        Ok(Self {
            options,
            plugin_dir: &config.plugin_dir,
            dir,
            clients,
            span: Span {
                warm_up,
                measured: Duration::from_secs(seconds),
            },
            keys: Arc::default(),
            pgbench: pgbench::find("pgbench"),
            // Draws on stderr, and only when that is a terminal.
            progress: ProgressBar::new(0).with_style(style),
            results: Results::default(),
            goals: Goals::default(),
            databases: Vec::new(),
            others: Vec::new(),
            checks: Vec::new(),
            violated: false,
        })
    }

    fn wants(&self, part: Part) -> bool {
        self.options.only.is_empty() || self.options.only.contains(&part)
    }

    /// Everything about placing on one database.
    async fn orders(&mut self, shop: &Shop) -> Result<()> {
        self.databases.push(machine::describe(shop).await?);
        for _ in 0..self.options.rounds {
            self.direct(shop).await?;
            self.served(shop).await?;
        }
        Ok(())
    }

    /// What is measured on PostgreSQL alone, each part beside its yardstick.
    async fn on_postgres(&mut self, shop: &Shop) -> Result<()> {
        if self.wants(Part::Postgres) {
            self.orders(shop).await?;
        }
        for _ in 0..self.options.rounds {
            if self.wants(Part::Jobs) {
                self.jobs(shop).await?;
            }
            if self.wants(Part::Events) {
                self.events(shop).await?;
            }
            if self.wants(Part::Overload) {
                self.overload(shop).await?;
            }
            if self.wants(Part::Pair) {
                self.pair(shop).await?;
            }
        }
        if self.options.only.contains(&Part::Soak) {
            self.soak(shop).await?;
        }
        if self.wants(Part::Growth) {
            self.growth(shop).await?;
        }
        Ok(())
    }

    /// The whole database must be sound after whatever was done to it.
    async fn close(&mut self, shop: Shop) -> Result<()> {
        self.progress.set_message("verify");
        let violations = shop.verify().await?;
        let found = match violations.len() {
            0 => "clean".to_owned(),
            n => format!("{n} violations\n  {}", violations[..n.min(20)].join("\n  ")),
        };
        self.violated |= !violations.is_empty();
        self.checks
            .push(format!("{}: verify: {found}", shop.database.name()));
        shop.close().await
    }

    /// The baselines and the library, cell by cell side by side, since a machine has better and worse minutes.
    async fn direct(&mut self, shop: &Shop) -> Result<()> {
        let pgbench = self
            .pgbench
            .clone()
            .filter(|_| matches!(shop.pool, shop::Pool::Postgres(_)));
        let oms = shop.oms().await?;
        for mix in Mix::ALL {
            for &clients in self.clients {
                let callers = Baseline::callers(shop, self.wishes(clients, mix, HOT_BASELINE));
                self.begin(shop, mix, Who::Baseline, clients);
                let measured = shop.measure(callers, self.span).await?;
                self.end(shop, mix, Who::Baseline, clients, measured);

                let callers = InProcess::callers(shop, &oms, self.wishes(clients, mix, HOT_OMS));
                self.begin(shop, mix, Who::InProcess, clients);
                let measured = shop.measure(callers, self.span).await?;
                self.end(shop, mix, Who::InProcess, clients, measured);
            }
            for clients in self.clients.iter().copied().chain([YARDSTICK]) {
                let Some(program) = &pgbench else { break };
                self.begin(shop, mix, Who::Pgbench, clients);
                let measured = pgbench::measure(program, shop, &self.dir, clients, mix, self.span).await?;
                self.end(shop, mix, Who::Pgbench, clients, measured);
            }
        }
        oms.shutdown().await;
        if matches!(shop.pool, shop::Pool::Sqlite(_)) {
            self.bare(shop).await?;
        }
        Ok(())
    }

    async fn bare(&mut self, shop: &Shop) -> Result<()> {
        for mix in [Mix::Hot, Mix::Uniform] {
            self.progress
                .set_message(format!("SQLite, {}, bare loop", mix.name()));
            let wishes = self.wishes(1, mix, HOT_BASELINE).swap_remove(0);
            let bare = bare::measure(shop, wishes, self.span).await?;
            let cell = Cell {
                database: shop.database,
                mix,
                who: Who::InProcess,
                clients: 64,
            };
            if let Some(ours) = self.results.rounds(cell).last() {
                let work = format!("orders/s on SQLite, {}, beside a bare loop", mix.name());
                let yardstick = ("the statements alone, 128 each", bare);
                self.goals
                    .add(&work, ours.load.per_second, yardstick, Reach::AtLeast(0.7));
            }
        }
        Ok(())
    }

    /// The server, which has the database for itself.
    async fn served(&mut self, shop: &Shop) -> Result<()> {
        let data_dir = self.dir.join(format!("server-{}", shop.database.name()));
        let server = Server::start(&shop.url, &data_dir, self.plugin_dir)?;
        let tokens = OverHttp::log_in(&server, shop).await?;
        let before = server.resident()?;
        for mix in Mix::ALL {
            for &clients in self.clients {
                let wishes = self.wishes(clients, mix, HOT_OMS);
                let callers = OverHttp::callers(&server, &tokens, wishes).await?;
                self.begin(shop, mix, Who::Http, clients);
                let measured = shop.measure(callers, self.span).await?;
                self.end(shop, mix, Who::Http, clients, measured);
            }
        }
        let after = server.resident()?;
        self.others.push(format!(
            "memory of the server on {}: {} before the load over HTTP, {} after it",
            shop.database.name(),
            megabytes(before),
            megabytes(after)
        ));
        server.stop()
    }

    fn wishes(&self, callers: usize, mix: Mix, hot: &'static str) -> Vec<Wishes> {
        Wishes::of(callers, mix, hot, &self.keys)
    }

    fn begin(&self, shop: &Shop, mix: Mix, who: Who, clients: usize) {
        let (database, mix, who) = (shop.database.name(), mix.name(), who.name());
        self.progress.inc_length(1);
        self.progress
            .set_message(format!("{database}, {mix}, {who}, {clients} clients"));
    }

    fn end(&mut self, shop: &Shop, mix: Mix, who: Who, clients: usize, measured: Measured) {
        let cell = Cell {
            database: shop.database,
            mix,
            who,
            clients,
        };
        self.results.add(cell, measured);
        self.progress.inc(1);
    }

    async fn webhooks(&mut self) -> Result<()> {
        self.progress.set_message("webhooks");
        let receiver = webhooks::Receiver::start(&self.dir, self.plugin_dir).await?;
        for _ in 0..self.options.rounds {
            let measured = receiver.measure(self.span).await?;
            self.others.extend(measured.lines());
            measured.compare(&mut self.goals);
        }
        receiver.stop().await;
        Ok(())
    }

    /// What a reader needs to judge the figures, and the figures.
    fn report(&self) -> Result<String> {
        let Options { quick, rounds, .. } = self.options;
        let mut text = String::new();
        let how = match quick {
            true => "--quick".into(),
            false => format!("--seconds {} --rounds {rounds}", self.span.measured.as_secs()),
        };
        writeln!(text, "oms-server {} bench {how}", env!("CARGO_PKG_VERSION"))?;
        writeln!(
            text,
            "{}, {} cores, shared by the load, the server and the database",
            SystemClock.now(),
            machine::cores()
        )?;
        writeln!(text, "durable write: {}", machine::fsync(&self.dir, *quick)?)?;
        for database in &self.databases {
            writeln!(text, "{database}")?;
        }
        if self.pgbench.is_none() && self.wants(Part::Postgres) {
            writeln!(text, "pgbench was not found: its rows are missing")?;
        }
        if !self.databases.is_empty() {
            writeln!(text, "\n{}", self.results.table())?;
        }
        if !self.goals.is_empty() {
            writeln!(text, "{}", self.goals.table())?;
        }
        for line in self.others.iter().chain(&self.checks) {
            writeln!(text, "- {line}")?;
        }
        Ok(text)
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
