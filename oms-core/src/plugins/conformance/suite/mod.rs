//! The general suite: rules that hold for every gateway. What a gateway answers is in its fixtures, what must come of it
//! is here.

mod failures;
mod garbage;
mod payments;
mod webhooks;

use std::sync::atomic::{AtomicU64, Ordering};

use super::fixtures::{Call, Fixtures, Operation, Step};
use super::player::Player;
use super::report::{RunReport, Verdict};
use super::sandbox::Sandbox;
use crate::payments::Features;

/// A rule. The order is that of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Start,
    Authorize,
    Complete,
    Arithmetic,
    Cancel,
    Idempotency,
    Declined,
    NotSent,
    NoAnswer,
    ServerErrors,
    Unreadable,
    WrongAmount,
    NotFound,
    Misconfigured,
    Unsupported,
    Genuine,
    Tampered,
    WrongKey,
    Unsigned,
    Stale,
    Future,
    Replayed,
    Reordered,
    GarbageWebhooks,
    GarbageAnswers,
}

impl Rule {
    pub(super) const ALL: [Self; 25] = [
        Self::Start,
        Self::Authorize,
        Self::Complete,
        Self::Arithmetic,
        Self::Cancel,
        Self::Idempotency,
        Self::Declined,
        Self::NotSent,
        Self::NoAnswer,
        Self::ServerErrors,
        Self::Unreadable,
        Self::WrongAmount,
        Self::NotFound,
        Self::Misconfigured,
        Self::Unsupported,
        Self::Genuine,
        Self::Tampered,
        Self::WrongKey,
        Self::Unsigned,
        Self::Stale,
        Self::Future,
        Self::Replayed,
        Self::Reordered,
        Self::GarbageWebhooks,
        Self::GarbageAnswers,
    ];

    /// What it looks at, for people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Start => "a payment starts",
            Self::Authorize => "a payment is authorized, to be captured later",
            Self::Complete => "a customer comes back",
            Self::Arithmetic => "start, capture and refund add up",
            Self::Cancel => "a payment is given up",
            Self::Idempotency => "the same key sends the same request and gives the same result",
            Self::Declined => "a decline is a final no",
            Self::NotSent => "what was not sent did not happen",
            Self::NoAnswer => "what was sent without an answer may have happened",
            Self::ServerErrors => "an error of the gateway is no answer of the bank",
            Self::Unreadable => "an answer that cannot be read may be a success",
            Self::WrongAmount => "another amount is reported as it stands",
            Self::NotFound => "not-found when the gateway says so",
            Self::Misconfigured => "a missing setting is named before anything is sent",
            Self::Unsupported => "what is not offered is unsupported",
            Self::Genuine => "webhook: genuine",
            Self::Tampered => "webhook: tampered with",
            Self::WrongKey => "webhook: signed with another key",
            Self::Unsigned => "webhook: without its signature",
            Self::Stale => "webhook: too old",
            Self::Future => "webhook: from the future",
            Self::Replayed => "webhook: sent again",
            Self::Reordered => "webhook: out of order",
            Self::GarbageWebhooks => "webhook: garbage never traps",
            Self::GarbageAnswers => "garbage in answers never traps",
        }
    }

    /// How `[not_offered]` names it, for rules that fixtures may set aside.
    const fn key(self) -> Option<&'static str> {
        Some(match self {
            Self::Declined => "declined",
            Self::NotSent | Self::NoAnswer | Self::ServerErrors => "timeouts",
            Self::Unreadable => "unreadable",
            Self::Idempotency => "idempotency",
            Self::WrongAmount => "wrong-amount",
            Self::NotFound => "not-found",
            Self::Misconfigured => "misconfigured",
            _ => return None,
        })
    }

    /// Whether `[not_offered]` may name this.
    pub(super) fn is_key(name: &str) -> bool {
        name == super::SECRETS || Self::ALL.into_iter().any(|rule| rule.key() == Some(name))
    }
}

/// What a rule came to; an error is a fault of the fixtures.
type Looked = Result<Verdict, String>;

/// What rules need.
pub(super) struct Bench<'a> {
    pub(super) sandbox: &'a Sandbox,
    pub(super) fixtures: &'a Fixtures,
    number: AtomicU64,
}

impl<'a> Bench<'a> {
    pub(super) fn new(sandbox: &'a Sandbox, fixtures: &'a Fixtures) -> Self {
        Self {
            sandbox,
            fixtures,
            number: AtomicU64::new(1),
        }
    }

    /// A payment of its own.
    pub(super) fn player(&self) -> Result<Player<'a>, String> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        Player::new(self.sandbox, self.fixtures, number)
    }

    pub(super) async fn look(&self, rule: Rule, runs: &mut Vec<RunReport>) -> Verdict {
        if let Some(why) = rule
            .key()
            .and_then(|key| self.fixtures.suite.not_offered.get(key))
        {
            return Verdict::NotOffered(why.clone());
        }
        let looked = match rule {
            Rule::Start => self.start(runs).await,
            Rule::Authorize => self.authorize(runs).await,
            Rule::Complete => self.complete(runs).await,
            Rule::Arithmetic => self.arithmetic(runs).await,
            Rule::Cancel => self.cancel(runs).await,
            Rule::Idempotency => self.idempotency(runs).await,
            Rule::Declined => self.declined(runs).await,
            Rule::NotSent => self.not_sent(runs).await,
            Rule::NoAnswer => self.no_answer(runs).await,
            Rule::ServerErrors => self.server_errors(runs).await,
            Rule::Unreadable => self.unreadable(runs).await,
            Rule::WrongAmount => self.wrong_amount(runs).await,
            Rule::NotFound => self.not_found(runs).await,
            Rule::Misconfigured => self.misconfigured(runs).await,
            Rule::Unsupported => self.unsupported(runs).await,
            Rule::GarbageAnswers => self.garbage_answers(runs).await,
            rule => self.webhook(rule, runs).await,
        };
        looked.unwrap_or_else(|fault| Verdict::Failed(vec![fault]))
    }

    fn features(&self) -> Features {
        self.sandbox.info().features
    }

    /// The operation's table; the plugin says that it can do it.
    fn operation(&self, call: Call) -> Result<&'a Operation, String> {
        let suite = &self.fixtures.suite;
        let table = match call {
            Call::Start => &suite.start,
            Call::Complete => &suite.complete,
            Call::Capture => &suite.capture,
            Call::Cancel => &suite.cancel,
            Call::Refund => &suite.refund,
            Call::Sync => &suite.sync,
            Call::Receive => return Err("webhooks are not an operation".into()),
        };
        let name = call.as_str();
        table.as_ref().ok_or_else(|| {
            format!("suite.toml has no [{name}], which the plugin offers: say what the gateway answers to it")
        })
    }

    fn offers(&self, call: Call) -> bool {
        let features = self.features();
        match call {
            Call::Start => true,
            Call::Complete => features.complete,
            Call::Capture => features.manual_capture,
            Call::Cancel => features.cancel,
            Call::Refund => features.refund,
            Call::Sync => features.sync,
            Call::Receive => features.webhooks,
        }
    }

    /// The step by which suite.toml has this operation succeed.
    fn step(&self, call: Call) -> Result<Step, String> {
        Ok(Step::of(call, self.operation(call)?))
    }

    /// How a payment begins that is to be captured later, or at once where that cannot be.
    fn first_step(&self, manual: bool) -> Result<Step, String> {
        let manual = manual && self.features().manual_capture;
        let operation = match (&self.fixtures.suite.authorize, manual) {
            (Some(authorize), true) => authorize,
            _ => self.operation(Call::Start)?,
        };
        Ok(Step {
            capture: Some(if manual { "manual" } else { "automatic" }.into()),
            ..Step::of(Call::Start, operation)
        })
    }

    /// A payment as it stands before this operation, and the operation's step.
    async fn before(&self, call: Call) -> Result<(Player<'a>, Step), String> {
        let mut player = self.player()?;
        let manual = matches!(call, Call::Capture | Call::Cancel);
        let first = self.first_step(manual)?;
        if call == Call::Start {
            return Ok((player, first));
        }
        let (_, faults) = player.play(&first).await?;
        match faults.first() {
            Some(fault) => Err(format!("the payment does not start: {fault}")),
            None => Ok((player, self.step(call)?)),
        }
    }

    /// The operations that the plugin offers.
    fn operations(&self) -> impl Iterator<Item = Call> {
        let all = [
            Call::Start,
            Call::Complete,
            Call::Capture,
            Call::Cancel,
            Call::Refund,
            Call::Sync,
        ];
        all.into_iter().filter(|call| self.offers(*call))
    }
}

fn verdict(faults: Vec<String>) -> Verdict {
    match faults.is_empty() {
        true => Verdict::Passed,
        false => Verdict::Failed(faults),
    }
}

fn not_offered(what: &str) -> Looked {
    Ok(Verdict::NotOffered(format!("the plugin does not offer {what}")))
}
