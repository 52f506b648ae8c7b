//! Background jobs.

use anyhow::{Context, Result};
use oms_core::jobs::{JobCount, JobFilter, JobState, JobView};
use oms_core::{Actor, JobId, Oms};

use super::listing::{self, or_dash, short};
use crate::cli::table;
use crate::http::JobBody;

#[derive(clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// Count jobs by kind and state
    #[command(after_help = "Example:\n  oms-server admin jobs count --json")]
    Count {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// List jobs in one state, the newest first
    #[command(after_help = "Example:\n  oms-server admin jobs list --state dead --kind send_email")]
    List {
        /// Jobs that are done are gone
        #[arg(long, value_enum, default_value_t = State::Dead)]
        state: State,
        /// Only of this kind
        #[arg(long)]
        kind: Option<String>,
        #[command(flatten)]
        options: listing::Options,
    },
    /// Give dead jobs all their attempts anew
    #[command(
        after_help = "Examples:\n  oms-server admin jobs retry job_01h455vb4pex5vsknk084sn02q\n  \
                      oms-server admin jobs list --json | jq -r '.data[].id' | xargs oms-server admin jobs retry"
    )]
    Retry {
        /// Which
        #[arg(required = true)]
        ids: Vec<JobId>,
    },
    /// Delete dead jobs for good
    #[command(after_help = "Example:\n  oms-server admin jobs discard job_01h455vb4pex5vsknk084sn02q")]
    Discard {
        /// Which
        #[arg(required = true)]
        ids: Vec<JobId>,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(in crate::cli) enum State {
    /// Wait for their time or for a worker
    Ready,
    /// A worker has them
    Running,
    /// Given up
    Dead,
}

impl From<State> for JobState {
    fn from(state: State) -> Self {
        match state {
            State::Ready => Self::Ready,
            State::Running => Self::Running,
            State::Dead => Self::Dead,
        }
    }
}

pub(super) async fn run(oms: &Oms, command: Command) -> Result<String> {
    let jobs = oms.jobs();
    match command {
        Command::Count { json } => Ok(counted(&jobs.counts(&Actor::System).await?, json)),
        Command::List { state, kind, options } => {
            let state = state.into();
            let filter = JobFilter { state, kind };
            let page = jobs.list(&Actor::System, &filter, &options.page()).await?;
            let head = ["id", "kind", "attempts", "at", "worker", "last error"];
            Ok(options.text::<JobBody, _, 6>(page, head, row))
        }
        Command::Retry { ids } => {
            for id in &ids {
                jobs.retry(&Actor::System, *id)
                    .await
                    .with_context(|| id.to_string())?;
            }
            Ok(format!("{} jobs run again\n", ids.len()))
        }
        Command::Discard { ids } => {
            for id in &ids {
                jobs.discard(&Actor::System, *id)
                    .await
                    .with_context(|| id.to_string())?;
            }
            Ok(format!("{} jobs deleted\n", ids.len()))
        }
    }
}

fn counted(counts: &[JobCount], json: bool) -> String {
    if json {
        let one = |count: &JobCount| {
            serde_json::json!({"kind": count.kind, "state": count.state.as_str(), "count": count.count,
                "oldest": count.oldest})
        };
        return format!("{}\n", serde_json::Value::from_iter(counts.iter().map(one)));
    }
    let row = |count: &JobCount| {
        let (state, oldest) = (count.state.to_string(), count.oldest.to_string());
        [count.kind.clone(), state, count.count.to_string(), oldest]
    };
    table::table(
        ["kind", "state", "count", "oldest"],
        &counts.iter().map(row).collect::<Vec<_>>(),
    )
}

fn row(job: &JobView) -> [String; 6] {
    [
        job.id.to_string(),
        job.kind.clone(),
        job.attempt.to_string(),
        job.at.to_string(),
        or_dash(job.worker.as_ref()),
        job.last_error
            .as_deref()
            .map_or_else(|| "-".into(), |error| short(error, 80)),
    ]
}
