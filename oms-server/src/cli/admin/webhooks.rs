//! Webhook events that were verified and kept.

use anyhow::Result;
use oms_core::payments::{InboxEntry, InboxStatus};
use oms_core::{Actor, InboxId, Oms};

use super::listing::{self, one, or_dash, short};
use crate::http::WebhookEvent;

#[derive(clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// List events, the newest first
    #[command(after_help = "Example:\n  oms-server admin webhooks list --status failed")]
    List {
        /// Only these
        #[arg(long, value_enum)]
        status: Option<Status>,
        #[command(flatten)]
        options: listing::Options,
    },
    /// Show one
    #[command(
        after_help = "Example:\n  oms-server admin webhooks show whk_01h455vb4pex5vsknk084sn02q --json"
    )]
    Show(#[command(flatten)] Which),
    /// Apply one again; what it has done already it does not do twice
    #[command(after_help = "Example:\n  oms-server admin webhooks replay whk_01h455vb4pex5vsknk084sn02q")]
    Replay(#[command(flatten)] Which),
}

#[derive(clap::Args)]
pub(in crate::cli) struct Which {
    /// Its id
    id: InboxId,
    /// Print JSON, as the API answers
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(in crate::cli) enum Status {
    /// Had their effect
    Applied,
    /// Do not concern payments
    Irrelevant,
    /// Their payment is not known, or not yet
    Unmatched,
    /// Could not be applied
    Failed,
}

impl From<Status> for InboxStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Applied => Self::Applied,
            Status::Irrelevant => Self::Irrelevant,
            Status::Unmatched => Self::Unmatched,
            Status::Failed => Self::Failed,
        }
    }
}

pub(super) async fn run(oms: &Oms, command: Command) -> Result<String> {
    let payments = oms.payments();
    let (entry, json) = match command {
        Command::List { status, options } => {
            let status = status.map(Into::into);
            let page = payments.inbox(&Actor::System, &options.page(), status).await?;
            let head = [
                "id", "account", "event", "kind", "status", "tries", "payment", "received", "detail",
            ];
            return Ok(options.text::<WebhookEvent, _, 9>(page, head, row));
        }
        Command::Show(which) => (payments.inbox_entry(&Actor::System, which.id).await?, which.json),
        Command::Replay(which) => (payments.replay(&Actor::System, which.id).await?, which.json),
    };
    Ok(one(&WebhookEvent::from(entry), json))
}

fn row(entry: &InboxEntry) -> [String; 9] {
    [
        entry.id.to_string(),
        entry.account.clone(),
        short(&entry.event_id, 40),
        entry.kind.clone(),
        entry.status.as_str().into(),
        entry.tries.to_string(),
        or_dash(entry.payment.as_ref()),
        entry.received_at.to_string(),
        entry
            .detail
            .as_deref()
            .map_or_else(|| "-".into(), |detail| short(detail, 80)),
    ]
}
