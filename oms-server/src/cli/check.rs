//! The settings as the program understands them, and what production would still want of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::Result;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory};
use tokio::runtime::Runtime;

use super::{Cli, logs, serve, table};
use crate::accounts;
use crate::config::{self, Config, ConfigError, Options};
use crate::mailer;
use crate::production::{self, Problem};

/// Read by the client that sends traces, not by us.
const OTLP_HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Print every setting with where it comes from, and say what is missing for production
    #[command(
        after_help = "Examples:\n  oms-server config check\n  OMS_ENV=production oms-server config check --json | jq .problems\n\n\
                      Secrets are hidden. Status 1 when production would refuse to start, or an account of the accounts file cannot\n\
                      work with its plugin. Nothing is written, and a database that is not there is not made."
    )]
    Check {
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
}

/// One setting, fit to be shown.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
struct Setting {
    name: String,
    value: String,
    /// `flag`, `environment`, `.env` or `default`.
    source: &'static str,
}

/// `dotenv` are the names that came from `.env`.
pub(super) fn run(
    command: &Command,
    options: &Options,
    logs: &logs::Options,
    matches: &ArgMatches,
    dotenv: &BTreeSet<String>,
) -> Result<ExitCode> {
    let Command::Check { json } = command;
    let read = Config::read(options, config::variable);
    let settings = settings(read.as_ref().ok(), matches, dotenv);
    let (problems, warnings) = match &read {
        Ok(config) => judged(config, logs)?,
        Err(e) => (vec![as_problem(e.clone())], Vec::new()),
    };
    let fit = problems.is_empty();
    match json {
        true => super::print(&format!("{:#}\n", as_json(&settings, &problems, &warnings)))?,
        false => super::print(&as_text(&settings, &problems, &warnings))?,
    };
    Ok(ExitCode::from(u8::from(!fit)))
}

/// What is to be mended, and what is to be looked at.
fn judged(config: &Config, logs: &logs::Options) -> Result<(Vec<Problem>, Vec<Problem>)> {
    let (mut problems, mut warnings) = (unfit(config, logs), production::warnings(config));
    match Runtime::new()?.block_on(accounts::check(config)) {
        Ok(misfits) => problems.extend(misfits),
        Err(e) => warnings.push(Problem {
            variable: "OMS_ACCOUNTS",
            detail: format!("nobody knows whether the accounts fit their plugins: {e:#}"),
            allow: None,
        }),
    }
    Ok((problems, warnings))
}

/// Development is held against production too: that is what one wants to know before the change.
fn unfit(config: &Config, logs: &logs::Options) -> Vec<Problem> {
    let mut problems = production::problems(config);
    problems.extend(unusable(config, logs));
    if !config.production {
        let development = Problem {
            variable: "OMS_ENV",
            detail: "is development, with a fake bank and secrets made at random: set production".into(),
            allow: None,
        };
        problems.insert(0, development);
    }
    problems
}

/// What is found out only when its part of the program starts, in whatever environment.
fn unusable(config: &Config, logs: &logs::Options) -> Vec<Problem> {
    let public_url = serve::public_url(config, config.listen);
    let templates = mailer::check_templates(config.mail_templates.as_deref(), &config.mail_from, &public_url);
    let errors = logs.problems(&config.sight).into_iter().chain(templates.err());
    errors.map(as_problem).collect()
}

fn as_problem(error: ConfigError) -> Problem {
    Problem {
        variable: error.variable,
        detail: error.detail,
        allow: None,
    }
}

/// Every name that the program asks for: the flags' own and those that it looks up.
fn settings(config: Option<&Config>, matches: &ArgMatches, dotenv: &BTreeSet<String>) -> Vec<Setting> {
    let from_environment = |name: &str| match dotenv.contains(name) {
        true => ".env",
        false => "environment",
    };
    let mut found: BTreeMap<String, (Option<String>, &'static str)> = BTreeMap::new();
    for argument in Cli::command().get_arguments() {
        let Some(name) = argument.get_env().and_then(|name| name.to_str()) else {
            continue;
        };
        let id = argument.get_id().as_str();
        let value = matches.get_raw(id).and_then(|mut values| values.next());
        let value = value.map(|value| value.to_string_lossy().into_owned());
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "flag",
            Some(ValueSource::EnvVariable) => from_environment(name),
            _ => "default",
        };
        found.insert(name.to_owned(), (value, source));
    }
    for name in looked_up() {
        let value = config::variable(name);
        found.insert(name.to_owned(), (value, from_environment(name)));
    }
    let show = |(name, (given, source)): (String, (Option<String>, &'static str))| {
        // Container set-ups pass variables that are not set as empty ones.
        let (value, source) = match given.filter(|value| !value.is_empty()) {
            Some(value) => (shown(&name, &value), source),
            None => (
                config.map_or_else(|| "-".into(), |config| default(&name, config)),
                "default",
            ),
        };
        Setting { name, value, source }
    };
    found.into_iter().map(show).collect()
}

/// The names without a flag, from the code that reads them.
fn looked_up() -> BTreeSet<&'static str> {
    let names = RefCell::new(BTreeSet::from([logs::VARIABLE, OTLP_HEADERS]));
    let record = |name| {
        names.borrow_mut().insert(name);
        // Where these are set, others are asked for.
        match name {
            "OMS_MEDIA_URL" => Some("s3://bucket".to_owned()),
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://collector".to_owned()),
            _ => None,
        }
    };
    // Otherwise nothing is set, which is never wrong.
    let _ = Config::read(&Options::default(), record);
    names.into_inner()
}

/// What holds when nothing is given.
fn default(name: &str, config: &Config) -> String {
    match name {
        "DATABASE_URL" => shown(name, &config.database_url),
        "MAIL_FROM" => config.mail_from.to_string(),
        "MAIL_PORT" => "587".into(),
        "MAIL_SERVER" => format!("none: files in {}", config.data_dir.join("mail").display()),
        "OMS_ACCOUNTS" => config.accounts.0.display().to_string(),
        "OMS_DATA_DIR" => config.data_dir.display().to_string(),
        "OMS_ENV" => "development".into(),
        "OMS_LISTEN" => config.listen.to_string(),
        "OMS_LOG" => logs::DEFAULT.into(),
        "OMS_MEDIA_URL" => config.media.place(),
        "OMS_PLUGIN_DIR" => config.plugin_dir.display().to_string(),
        "OMS_PUBLIC_URL" => serve::public_url(config, config.listen),
        "OTEL_SERVICE_NAME" => "oms".into(),
        "OTEL_TRACES_SAMPLER_ARG" => "1".into(),
        "SECRET_KEY" if !config.production => {
            format!("random, kept in {}", config.data_dir.join("secret.key").display())
        }
        _ => "-".into(),
    }
}

/// A value without what must not be seen.
fn shown(name: &str, value: &str) -> String {
    const SECRET: [&str; 5] = ["SECRET", "PASSWORD", "KEY", "TOKEN", "HEADERS"];
    // The name of a file with a secret is none.
    if SECRET.iter().any(|word| name.contains(word)) && !name.ends_with("_FILE") {
        return format!("hidden ({} bytes)", value.len());
    }
    match url::Url::parse(value) {
        Ok(url) if url.cannot_be_a_base() && value.contains('@') => "hidden (no address)".into(),
        Ok(url) => table::one_line(&without_secrets(name, url).unwrap_or_else(|| value.to_owned())),
        // Whatever it is, it may hold a password.
        Err(_) if name.contains("_URL") || name.ends_with("_ENDPOINT") => "hidden (no address)".into(),
        Err(_) => table::one_line(value),
    }
}

/// None when there is nothing to hide. Any setting may hold an address, and an address may hold a password.
fn without_secrets(name: &str, mut url: url::Url) -> Option<String> {
    let secret = |key: &str| {
        let words = ["password", "secret", "token"];
        words.iter().any(|word| key.to_lowercase().contains(word))
    };
    let mut hid = false;
    // Some services take a key for the user's name; who the user of the database is matters to operators.
    if !url.username().is_empty() && name != "DATABASE_URL" {
        hid |= url.set_username("hidden").is_ok();
    }
    if url.password().is_some() {
        hid |= url.set_password(Some("hidden")).is_ok();
    }
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    if pairs.iter().any(|(key, _)| secret(key)) {
        hid = true;
        let mut query = url.query_pairs_mut();
        query.clear();
        for (key, value) in &pairs {
            query.append_pair(key, if secret(key) { "hidden" } else { value });
        }
    }
    hid.then(|| url.as_str().trim_end_matches('/').to_owned())
}

fn as_text(settings: &[Setting], problems: &[Problem], warnings: &[Problem]) -> String {
    let rows: Vec<_> = settings
        .iter()
        .map(|setting| [setting.name.clone(), setting.source.into(), setting.value.clone()])
        .collect();
    let mut text = table::table(["name", "from", "value"], &rows);
    if !warnings.is_empty() {
        text += "\nTo look at:\n";
        text.extend(warnings.iter().map(|warning| format!("  {warning}\n")));
    }
    if problems.is_empty() {
        return text + "\nFit for production.\n";
    }
    text += "\nNot fit for production:\n";
    text.extend(problems.iter().map(|problem| format!("  {problem}\n")));
    text
}

fn as_json(settings: &[Setting], problems: &[Problem], warnings: &[Problem]) -> serde_json::Value {
    let one = |problem: &Problem| serde_json::json!({"variable": problem.variable, "detail": problem.detail, "allow": problem.allow});
    let all = |problems: &[Problem]| problems.iter().map(one).collect::<Vec<_>>();
    serde_json::json!({
        "fit": problems.is_empty(),
        "settings": settings,
        "problems": all(problems),
        "warnings": all(warnings),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden() {
        for (name, value) in [
            ("SECRET_KEY", "geheim"),
            ("MAIL_PASSWORD", "geheim"),
            ("DATABASE_URL", "postgres://oms:geheim@db/oms"),
            ("DATABASE_URL", "postgres://oms@db/oms?password=geheim"),
            ("REDIS_URL", "redis://:geheim@redis:6379"),
            ("REDIS_URL", "geheim"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:geheim@collector:4318"),
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "https://geheim@collector:4318/?x=1",
            ),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "me:geheim@collector"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=geheim"),
            ("OMS_ANYTHING", "https://collector/?access_token=geheim"),
        ] {
            let shown = shown(name, value);
            assert!(!shown.contains("geheim") && !shown.is_empty(), "{shown}");
        }
        assert_eq!(
            shown("OMS_PUBLIC_URL", "https://shop.example.com"),
            "https://shop.example.com"
        );
    }

    /// `.env.example` is the list that people copy.
    #[test]
    fn the_example_names_every_setting() {
        let example = include_str!("../../../.env.example");
        let listed: BTreeSet<&str> = example
            .split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
            .collect();
        let matches = Cli::command().no_binary_name(true).get_matches_from(["verify"]);
        let settings = settings(None, &matches, &BTreeSet::new());
        let known: BTreeSet<&str> = settings.iter().map(|setting| setting.name.as_str()).collect();
        let unlisted: Vec<_> = known.difference(&listed).collect();
        assert!(unlisted.is_empty() && known.len() > 10, "{unlisted:?}");
        for name in ["AWS_REGION", "OTEL_SERVICE_NAME", "OTEL_TRACES_SAMPLER_ARG"] {
            assert!(known.contains(name), "{name}");
        }
    }
}
