//! Payments that wait for a person.

use anyhow::Result;
use oms_core::payments::{Attention, Decision, Payment};
use oms_core::{Actor, Oms, PaymentId};

use super::listing::{self, one, short};
use crate::http::PaymentBody;

#[derive(clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// List payments in review, the oldest first
    #[command(after_help = "Example:\n  oms-server admin payments list")]
    List(#[command(flatten)] listing::Options),
    /// Show any payment
    #[command(
        after_help = "Example:\n  oms-server admin payments show pay_01h455vb4pex5vsknk084sn02q --json"
    )]
    Show(#[command(flatten)] Which),
    /// Lead a payment out of review
    #[command(
        after_help = "Example:\n  oms-server admin payments review pay_01h455vb4pex5vsknk084sn02q refund\n\n\
                      The gateway is asked first: what it says is the basis of every decision."
    )]
    Review {
        #[command(flatten)]
        which: Which,
        /// What is right
        #[arg(value_enum)]
        decision: Verdict,
    },
    /// Ask the gateway where a payment stands
    #[command(after_help = "Example:\n  oms-server admin payments sync pay_01h455vb4pex5vsknk084sn02q")]
    Sync(#[command(flatten)] Which),
}

#[derive(clap::Args)]
pub(in crate::cli) struct Which {
    /// Its id
    id: PaymentId,
    /// Print JSON, as the API answers
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(in crate::cli) enum Verdict {
    /// What the gateway says now
    Accept,
    /// All that is captured goes back
    Refund,
    /// Ask again; it may come back into review
    Sync,
}

impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Accept => Self::Accept,
            Verdict::Refund => Self::Refund,
            Verdict::Sync => Self::Sync,
        }
    }
}

pub(super) async fn run(oms: &Oms, command: Command) -> Result<String> {
    let payments = oms.payments();
    let (payment, json) = match command {
        Command::List(options) => {
            let page = payments.needing_review(&Actor::System, &options.page()).await?;
            let head = [
                "id",
                "order",
                "account",
                "amount",
                "gateway says",
                "captured",
                "reason",
            ];
            return Ok(options.text::<PaymentBody, _, 7>(page, head, row));
        }
        Command::Show(which) => (payments.get(&Actor::System, which.id).await?, which.json),
        Command::Review { which, decision } => {
            let payment = payments.review(&Actor::System, which.id, decision.into()).await?;
            (payment, which.json)
        }
        Command::Sync(which) => (payments.sync(&Actor::System, which.id).await?, which.json),
    };
    Ok(one(&PaymentBody::from(payment), json))
}

fn row(payment: &Payment) -> [String; 7] {
    let reason = match &payment.attention {
        Some(Attention::NeedsReview(reason)) => short(reason, 80),
        Some(Attention::Unknown) => "the outcome is unknown".into(),
        None => "-".into(),
    };
    [
        payment.id.to_string(),
        payment.order.to_string(),
        payment.account.clone(),
        payment.amount.to_string(),
        payment.status.as_str().into(),
        payment.captured.to_string(),
        reason,
    ]
}
