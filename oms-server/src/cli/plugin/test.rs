//! `plugin test`: the real component on recorded answers, by the rules that hold for every gateway.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use oms_core::payments::Account;
use oms_core::plugins::conformance::{
    Case, Fixtures, Kit, Package, Progress, Report, RunReport, Timings, Verdict,
};
use oms_core::plugins::{HostCall, HttpAnswer};
use serde_json::json;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::super::{print, say, table};
use super::find;
use crate::config::resolve_secret;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Folders with plugin.toml and the component, or components beneath such a folder
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Where suite.toml and the stories are [default: `fixtures` beside plugin.toml]
    #[arg(long, value_name = "DIR")]
    fixtures: Option<PathBuf>,
    /// The component, where it lies neither beside plugin.toml nor where cargo puts it
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// Use the settings and secrets of an account of this file
    #[arg(long, value_name = "FILE", requires = "name")]
    account: Option<PathBuf>,
    /// That account's name
    #[arg(long, requires = "account")]
    name: Option<String>,
    /// Print every call with everything that it asked of the host
    #[arg(short, long)]
    verbose: bool,
    /// Print JSON: every case, call and figure
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: &Options) -> Result<ExitCode> {
    if options.paths.len() > 1 && (options.fixtures.is_some() || options.component.is_some()) {
        bail!("--fixtures and --component are about one plugin");
    }
    let account = options.account()?;
    let mut reports = Vec::new();
    for path in &options.paths {
        let named = || format!("{}", path.display());
        let report = test(path, options, account.as_ref()).await;
        // One plugin needs no name.
        let report = match options.paths.len() {
            1 => report?,
            _ => report.with_context(named)?,
        };
        if !options.json {
            print(&text(&report, options.verbose))?;
        }
        reports.push(report);
    }
    match options.json {
        true => print(&format!("{}\n", json!(reports)))?,
        false => print(&figures(&reports))?,
    };
    Ok(ExitCode::from(u8::from(!reports.iter().all(Report::is_good))))
}

impl Options {
    fn account(&self) -> Result<Option<Account>> {
        let (Some(file), Some(name)) = (&self.account, &self.name) else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
        let accounts =
            Account::parse_all(&text, resolve_secret).map_err(|e| anyhow!("{}: {e}", file.display()))?;
        let found = accounts.into_iter().find(|account| account.name == *name);
        found
            .map(Some)
            .with_context(|| format!("{} has no account {name}", file.display()))
    }
}

async fn test(path: &Path, options: &Options, account: Option<&Account>) -> Result<Report> {
    let package = match &options.component {
        Some(component) => Package::of(path, component),
        None => find(path),
    }
    .map_err(anyhow::Error::msg)?;
    say(format_args!("component: {}", package.chosen()));
    let folder = options
        .fixtures
        .clone()
        .unwrap_or_else(|| package.folder.join("fixtures"));
    let mut fixtures = Fixtures::read(&folder).map_err(anyhow::Error::msg)?;
    if let Some(account) = account {
        fixtures = fixtures.with_account(account);
    }
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(1),
        false => ProgressBar::hidden(),
    };
    bar.set_style(ProgressStyle::with_template("[{bar:30}] {pos}/{len} {msg}")?.progress_chars("=> "));
    bar.set_message("compiling");
    let report = Box::pin(async {
        let kit = Kit::load(&package, fixtures).await.map_err(anyhow::Error::msg)?;
        let tell = |progress: Progress<'_>| {
            bar.set_length(progress.of as u64);
            bar.set_position(progress.done as u64);
            bar.set_message(progress.name.to_owned());
        };
        anyhow::Ok(kit.run(tell).await)
    })
    // The rules make a plugin fail on purpose, and what it logs is in the report.
    .with_subscriber(NoSubscriber::default())
    .await;
    bar.finish_and_clear();
    report
}

fn text(report: &Report, verbose: bool) -> String {
    let mut text = format!("{} {}, sha256 {}\n\n", report.id, report.version, report.digest);
    for case in &report.cases {
        text.push_str(&case_text(case));
        if verbose {
            text.extend(case.runs.iter().map(calls));
        }
    }
    let count = |fits: fn(&Verdict) -> bool| report.cases.iter().filter(|case| fits(&case.verdict)).count();
    text.push_str(&format!(
        "\n{} passed, {} failed, {} not offered\n\n{}\n",
        count(|verdict| *verdict == Verdict::Passed),
        count(|verdict| matches!(verdict, Verdict::Failed(_))),
        count(|verdict| matches!(verdict, Verdict::NotOffered(_))),
        functions(report),
    ));
    text
}

fn case_text(case: &Case) -> String {
    let name = match case.group.as_str() {
        "suite" => case.name.clone(),
        file => format!("{file}: {}", case.name),
    };
    let name = table::one_line(&name);
    match &case.verdict {
        Verdict::Passed => format!("  ok    {name}\n"),
        Verdict::NotOffered(why) => format!("  -     {name}: not offered: {}\n", table::one_line(why)),
        Verdict::Failed(faults) => {
            let faults = faults
                .iter()
                .map(|fault| format!("          {}\n", table::one_line(fault)));
            format!("  FAIL  {name}\n{}", faults.collect::<String>())
        }
    }
}

/// A line for the call, and one for each thing that it asked of the host.
fn calls(run: &RunReport) -> String {
    let mut text = format!(
        "          {} -> {}  {}  {}\n",
        run.function,
        table::one_line(&run.outcome),
        bytes(run.memory),
        millis(run.micros)
    );
    for call in &run.calls {
        text.push_str(&format!("            {}\n", table::one_line(&host_call(call))));
    }
    text
}

fn host_call(call: &HostCall) -> String {
    let there = |found: &bool| if *found { "" } else { " (there is none)" };
    match call {
        HostCall::Log { level, message } => format!("log {level}: {message}"),
        HostCall::Config { name, found } => format!("config {name}{}", there(found)),
        HostCall::RevealSecret { name, found } => format!("reveal-secret {name}{}", there(found)),
        HostCall::Http(exchange) => {
            let request = &exchange.request;
            let answer = match &exchange.answer {
                HttpAnswer::Response(response) => {
                    format!("{} {}", response.status, short(&response.body.lossy()))
                }
                HttpAnswer::Denied(why) => format!("denied: {why}"),
                HttpAnswer::NotSent(why) => format!("not sent: {why}"),
                HttpAnswer::OutcomeUnknown(why) => format!("outcome unknown: {why}"),
                HttpAnswer::TooLarge(bytes) => format!("too large: {bytes} bytes"),
            };
            let body = short(&request.body.lossy());
            format!("http {} {} {body} -> {answer}", request.method, request.url)
        }
        HostCall::Crypto {
            function,
            key,
            bytes,
            ok,
        } => {
            let key = key
                .as_ref()
                .map_or_else(String::new, |key| format!(" with {key}"));
            format!("crypto {function}{key} over {bytes} bytes: {ok}")
        }
        HostCall::Random { bytes } => format!("random-bytes {bytes}"),
        HostCall::Currency { code } => format!("currency {code}"),
        HostCall::CacheGet { key, found } => format!("cache get {key}{}", there(found)),
        HostCall::CacheSet { key, bytes, seconds } => {
            format!("cache set {key}: {bytes} bytes for {seconds} s")
        }
    }
}

fn short(text: &str) -> String {
    const MAX: usize = 160;
    let mut cut: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if cut.chars().count() > MAX {
        cut = cut.chars().take(MAX).chain("..".chars()).collect();
    }
    cut
}

/// What each function took, over all calls of the run.
fn functions(report: &Report) -> String {
    let runs: Vec<&RunReport> = report.cases.iter().flat_map(|case| &case.runs).collect();
    let names = [
        "start", "complete", "capture", "cancel", "refund", "sync", "receive",
    ];
    let row = |name: &&str| {
        let of: Vec<_> = runs.iter().filter(|run| run.function == **name).collect();
        let mut times: Vec<_> = of.iter().map(|run| run.micros).collect();
        times.sort_unstable();
        let requests = of
            .iter()
            .flat_map(|run| &run.calls)
            .filter(|call| matches!(call, HostCall::Http(_)));
        let memory = of.iter().map(|run| run.memory).max()?;
        Some([
            (*name).to_owned(),
            of.len().to_string(),
            requests.count().to_string(),
            bytes(memory),
            millis(times[times.len() / 2]),
            millis(times[times.len() - 1]),
        ])
    };
    let rows: Vec<_> = names.iter().filter_map(row).collect();
    table::table(
        ["call", "times", "requests", "memory", "median", "slowest"],
        &rows,
    )
}

/// One row for each plugin, to compare languages with.
fn figures(reports: &[Report]) -> String {
    let row = |report: &Report| {
        let Timings {
            size,
            compile_micros,
            cold_micros,
            warm_micros,
            verification_micros,
            peak_memory,
        } = &report.timings;
        [
            format!("{} {}", report.id, report.version),
            bytes(*size),
            millis(*compile_micros),
            millis(*cold_micros),
            millis(*warm_micros),
            verification_micros.map_or_else(|| "-".into(), millis),
            bytes(*peak_memory),
        ]
    };
    let rows: Vec<_> = reports.iter().map(row).collect();
    table::table(
        [
            "plugin",
            "size",
            "compile",
            "cold",
            "warm",
            "verification",
            "peak memory",
        ],
        &rows,
    )
}

fn bytes(bytes: usize) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

fn millis(micros: u64) -> String {
    match micros {
        0..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [bytes(900), bytes(46_100), bytes(1_600_000)],
            ["900 B", "46 kB", "1.6 MB"]
        );
        assert_eq!(
            [millis(87), millis(1_500), millis(7_250_000)],
            ["0.09 ms", "1.50 ms", "7.2 s"]
        );
        assert_eq!(short("a\n  b"), "a b");
    }
}
