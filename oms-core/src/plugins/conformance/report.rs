//! What a run of the kit found.

use std::time::Duration;

use serde::Serialize;

use super::sandbox::Run;
use crate::plugins::tape::HostCall;

/// Everything that was found out about a plugin.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the component.
    pub digest: String,
    /// Bytes of the component.
    pub size: usize,
    /// The rules of the general suite, then the stories.
    pub cases: Vec<Case>,
    /// How fast it is.
    pub timings: Timings,
}

/// A rule or a story.
#[derive(Debug, Clone, Serialize)]
pub struct Case {
    /// `suite`, or the name of the story's file.
    pub group: String,
    /// What was looked at.
    pub name: String,
    /// What was found.
    pub verdict: Verdict,
    /// The calls that were made for it.
    pub runs: Vec<RunReport>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "detail", rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// What is wrong, each fault a sentence.
    Failed(Vec<String>),
    /// The gateway does not have what the rule is about, for this reason.
    NotOffered(String),
}

/// One call, or many of the same kind.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// The function of the contract.
    pub function: String,
    /// What came of it, in a word.
    pub outcome: String,
    /// The guest's memory at its most, in bytes.
    pub memory: usize,
    /// How long it took, with its instantiation.
    pub micros: u64,
    /// What it asked of the host.
    pub calls: Vec<HostCall>,
}

/// How large and how fast a plugin is. Times are of this machine and this build of the host.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Timings {
    /// Bytes of the component.
    pub size: usize,
    /// Compiling it, which happens once for each version and machine.
    pub compile_micros: u64,
    /// The first instance.
    pub cold_micros: u64,
    /// The median of the following ones.
    pub warm_micros: u64,
    /// The median of verifying and reading a genuine webhook, in a fresh instance; none without webhooks.
    pub verification_micros: Option<u64>,
    /// The most memory that any call of this run took, in bytes.
    pub peak_memory: usize,
}

impl Report {
    /// Whether nothing failed.
    pub fn is_good(&self) -> bool {
        self.faults().next().is_none()
    }

    /// Every fault, with the rule or story that found it.
    pub fn faults(&self) -> impl Iterator<Item = (&Case, &str)> {
        self.cases.iter().flat_map(|case| {
            let faults: &[String] = match &case.verdict {
                Verdict::Failed(faults) => faults,
                _ => &[],
            };
            faults.iter().map(move |fault| (case, fault.as_str()))
        })
    }
}

impl RunReport {
    pub(super) fn of(function: &str, run: &Run) -> Self {
        Self {
            function: function.into(),
            outcome: match &run.failure {
                Some(_) => "no answer".into(),
                None => run.outcome.word(),
            },
            memory: run.memory,
            micros: micros(run.took),
            calls: run.calls.clone(),
        }
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The middle one.
pub(super) fn median(times: &mut [u64]) -> u64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(0)
}
