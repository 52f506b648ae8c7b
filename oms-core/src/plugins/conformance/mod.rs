//! The conformance kit: is this component a plugin ([`check`]), and does it keep the rules that hold for every gateway
//! ([`Kit`])? It runs the real component, a fresh instance for each call as in production, on recorded answers.
//!
//! ```no_run
//! # async fn kit() -> Result<(), String> {
//! use oms_core::plugins::conformance::{Fixtures, Kit, Package};
//!
//! let package = Package::find("plugins/acme".as_ref())?;
//! let fixtures = Fixtures::read("plugins/acme/fixtures".as_ref())?;
//! let report = Kit::load(&package, fixtures).await?.run(|_| ()).await;
//! assert!(report.is_good(), "{:?}", report.faults().collect::<Vec<_>>());
//! # Ok(())
//! # }
//! ```

mod check;
mod fixtures;
mod package;
mod player;
mod replay;
mod report;
mod sandbox;
mod sign;
mod suite;

pub use check::{Finding, Level, check};
pub use fixtures::Fixtures;
pub use package::Package;
pub use replay::{Different, Replayed};
pub use report::{Case, Report, RunReport, Timings, Verdict};

use fixtures::Story;
use player::Player;
use report::{median, micros};
use sandbox::Sandbox;
use suite::{Bench, Rule};

/// Calls that a median is taken of.
const MEASURED: usize = 50;

/// How `[not_offered]` names the rule about secrets.
const SECRETS: &str = "secrets";

/// A component with its fixtures, ready to be run.
pub struct Kit {
    sandbox: Sandbox,
    fixtures: Fixtures,
    digest: String,
    size: usize,
}

/// How far a run is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Cases that are done.
    pub done: usize,
    /// All of them.
    pub of: usize,
    /// What is looked at now.
    pub name: &'a str,
}

impl Kit {
    /// Compiles the component. The error says in words what is wrong with it or with its fixtures.
    pub async fn load(package: &Package, fixtures: Fixtures) -> Result<Self, String> {
        if let Some(name) = fixtures.suite.not_offered.keys().find(|name| !Rule::is_key(name)) {
            return Err(format!(
                "suite.toml: [not_offered] names {name}, which is no rule that may be left out"
            ));
        }
        Ok(Self {
            sandbox: Box::pin(Sandbox::load(package, fixtures.now)).await?,
            fixtures,
            digest: package.digest(),
            size: package.wasm.len(),
        })
    }

    /// Runs the general suite, then the stories.
    pub async fn run(&self, mut progress: impl FnMut(Progress<'_>)) -> Report {
        let bench = Bench::new(&self.sandbox, &self.fixtures);
        let of = Rule::ALL.len() + self.fixtures.stories.len() + 2;
        let mut cases = Vec::new();
        let mut tell = |done, name: &str| progress(Progress { done, of, name });
        for rule in Rule::ALL {
            tell(cases.len(), rule.name());
            let mut runs = Vec::new();
            let verdict = Box::pin(bench.look(rule, &mut runs)).await;
            cases.push(case("suite", rule.name(), verdict, runs));
        }
        for (file, story) in &self.fixtures.stories {
            tell(cases.len(), &story.name);
            let mut runs = Vec::new();
            let player = bench.player();
            let verdict = match player {
                Ok(player) => Box::pin(tell_story(player, story, &mut runs)).await,
                Err(fault) => Verdict::Failed(vec![fault]),
            };
            cases.push(case(file, &story.name, verdict, runs));
        }
        tell(cases.len(), "secrets");
        let secrets = self.secrets(&cases);
        cases.push(case(
            "suite",
            "secrets stay out of addresses and logs",
            secrets,
            Vec::new(),
        ));
        tell(cases.len(), "timings");
        let timings = Box::pin(self.timings(&bench, &cases)).await;
        let info = self.sandbox.info();
        Report {
            id: info.id.clone(),
            version: info.version.clone(),
            digest: self.digest.clone(),
            size: self.size,
            cases,
            timings,
        }
    }

    /// Addresses stand in the logs of every proxy on the way.
    fn secrets(&self, cases: &[Case]) -> Verdict {
        if let Some(why) = self.fixtures.suite.not_offered.get(SECRETS) {
            return Verdict::NotOffered(why.clone());
        }
        let secrets = &self.fixtures.suite.account.secrets;
        let long = secrets.iter().filter(|(_, text)| text.len() >= 8);
        let mut faults = Vec::new();
        for (name, text) in long {
            let calls = cases
                .iter()
                .flat_map(|case| &case.runs)
                .flat_map(|run| &run.calls);
            let told = |call: &&super::HostCall| match call {
                super::HostCall::Http(exchange) => exchange.request.url.contains(text.as_str()),
                super::HostCall::Log { message, .. } => message.contains(text.as_str()),
                super::HostCall::CacheSet { key, .. } => key.contains(text.as_str()),
                _ => false,
            };
            if calls.into_iter().any(|call| told(&call)) {
                faults.push(format!(
                    "the secret {name} stands in an address, a log line or the key of a cache"
                ));
            }
        }
        match faults.is_empty() {
            true => Verdict::Passed,
            false => Verdict::Failed(faults),
        }
    }

    async fn timings(&self, bench: &Bench<'_>, cases: &[Case]) -> Timings {
        let runs = cases.iter().flat_map(|case| &case.runs);
        let mut timings = Timings {
            size: self.size,
            compile_micros: micros(self.sandbox.compile),
            cold_micros: micros(self.sandbox.cold),
            peak_memory: runs.map(|run| run.memory).max().unwrap_or(0),
            ..Timings::default()
        };
        let mut warm = Vec::new();
        for _ in 0..MEASURED {
            // One that cannot be instantiated has failed above.
            warm.extend(self.sandbox.instantiate().await.map(micros));
        }
        timings.warm_micros = median(&mut warm);
        timings.verification_micros = self.verification(bench).await.ok();
        timings
    }

    async fn verification(&self, bench: &Bench<'_>) -> Result<u64, String> {
        let mut player = bench.started().await?;
        let delivery = player.draft()?.sign()?;
        let mut times = Vec::new();
        for _ in 0..MEASURED {
            let run = player.deliver(delivery.clone()).await?;
            times.push(micros(run.took));
        }
        Ok(median(&mut times))
    }
}

async fn tell_story(mut player: Player<'_>, story: &Story, runs: &mut Vec<RunReport>) -> Verdict {
    player.account.config.extend(story.account.config.clone());
    let secret = |(name, text): (&String, &String)| (name.clone(), crate::payments::Secret::new(text));
    player
        .account
        .secrets
        .extend(story.account.secrets.iter().map(secret));
    let mut faults = Vec::new();
    for (n, step) in story.steps.iter().enumerate() {
        let named = |fault| format!("step {} ({}): {fault}", n + 1, step.call.as_str());
        match player.play(step).await {
            Ok((_, found)) => faults.extend(found.into_iter().map(named)),
            Err(fault) => faults.push(named(fault)),
        }
    }
    runs.append(&mut player.runs);
    match faults.is_empty() {
        true => Verdict::Passed,
        false => Verdict::Failed(faults),
    }
}

fn case(group: &str, name: &str, verdict: Verdict, runs: Vec<RunReport>) -> Case {
    Case {
        group: group.into(),
        name: name.into(),
        verdict,
        runs,
    }
}
