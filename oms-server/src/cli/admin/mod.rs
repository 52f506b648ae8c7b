//! What operators and administrators do without a browser: each command calls one method of the library as the system.
//! With `--json` they print what the API would.

mod jobs;
mod listing;
mod payments;
mod users;
mod webhooks;

use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use anyhow::{Context, Result};
use oms_core::users::{Register, User};
use oms_core::{Actor, Oms};

use crate::config::Config;
use crate::secrets;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make an administrator; the password is read from stdin or made at random
    #[command(
        after_help = "Examples:\n  oms-server admin create --username ann --email ann@example.com\n  \
                            pass show oms | oms-server admin create --username ann --email ann@example.com"
    )]
    Create {
        /// Name to log in with
        #[arg(long)]
        username: String,
        /// E-mail address
        #[arg(long)]
        email: String,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Users, their roles and whether they may log in
    #[command(subcommand)]
    Users(users::Command),
    /// Background jobs
    #[command(subcommand)]
    Jobs(jobs::Command),
    /// Payments that wait for a person
    #[command(subcommand)]
    Payments(payments::Command),
    /// Webhook events that were kept
    #[command(subcommand)]
    Webhooks(webhooks::Command),
}

pub(super) async fn run(config: &Config, command: Command) -> Result<ExitCode> {
    if let Command::Create {
        username,
        email,
        json,
    } = command
    {
        return create_admin(config, username, email, json).await;
    }
    let oms = super::open(config).await?;
    let text = match command {
        // It asks for a password before the database is opened.
        Command::Create { .. } => Ok(String::new()),
        Command::Users(command) => users::run(&oms, command).await,
        Command::Jobs(command) => jobs::run(&oms, command).await,
        Command::Payments(command) => payments::run(&oms, command).await,
        Command::Webhooks(command) => webhooks::run(&oms, command).await,
    };
    oms.shutdown().await;
    super::print(&text?)
}

async fn create_admin(config: &Config, username: String, email: String, json: bool) -> Result<ExitCode> {
    let given = password_from_stdin()?;
    let password = match &given {
        Some(password) => password.clone(),
        None => secrets::random_text(18)?,
    };
    let oms = super::open(config).await?;
    let made = create(&oms, username, email, password.clone()).await;
    oms.shutdown().await;
    let user = made?;
    let shown = given.is_none().then_some(password);
    if json {
        let user = serde_json::json!({"id": user.id, "username": user.username, "email": user.email, "password": shown});
        return super::print(&format!("{user}\n"));
    }
    let password = shown
        .map(|password| format!("password: {password}\n"))
        .unwrap_or_default();
    super::print(&format!("{} {}\n{password}", user.id, user.username))
}

/// What another program pipes in, up to the end of its first line. A person at a terminal gets a random one.
fn password_from_stdin() -> Result<Option<String>> {
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(None);
    }
    let mut text = String::new();
    stdin
        .read_to_string(&mut text)
        .context("cannot read the password")?;
    let line = text.lines().next().unwrap_or_default();
    Ok((!line.is_empty()).then(|| line.to_owned()))
}

async fn create(oms: &Oms, username: String, email: String, password: String) -> oms_core::Result<User> {
    let command = Register {
        username,
        email,
        password,
    };
    oms.users().create_admin(&Actor::System, command).await
}

/// The first start in development makes an administrator with a random password, which stands in `admin.txt`.
pub(super) async fn ensure_first(config: &Config, oms: &Oms) -> Result<()> {
    let path = config.data_dir.join("admin.txt");
    if path.exists() {
        return Ok(());
    }
    let password = secrets::random_text(18)?;
    match create(oms, "admin".into(), "admin@localhost".into(), password.clone()).await {
        Ok(_) => secrets::keep(&path, &format!("username: admin\npassword: {password}\n")),
        // Another start made it, or the database has one whose file was deleted.
        Err(oms_core::Error::Duplicate(_)) => Ok(()),
        Err(e) => Err(e).context("cannot make the first administrator"),
    }
}
