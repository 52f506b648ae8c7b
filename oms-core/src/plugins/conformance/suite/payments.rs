//! Rules about payments that go as they should.

use serde_json::Value;

use super::{Bench, Looked, not_offered, verdict};
use crate::payments::PaymentReport;
use crate::plugins::conformance::fixtures::{Call, Operation, Step, decimal};
use crate::plugins::conformance::player::{Played, Player, is_no, requests};
use crate::plugins::conformance::report::{RunReport, Verdict};
use crate::plugins::conformance::sandbox::Outcome;
use crate::plugins::tape::{Exchange, HostCall};

impl Bench<'_> {
    pub(super) async fn start(&self, runs: &mut Vec<RunReport>) -> Looked {
        let mut player = self.player()?;
        let step = self.first_step(false)?;
        let (played, mut faults) = player.play(&step).await?;
        faults.extend(sane(&player, &played));
        if let Outcome::Payment(report) = &played.run.outcome
            && report.reference.is_none()
        {
            faults.push("it reports no reference, so the payment cannot be asked for later".into());
        }
        runs.append(&mut player.runs);
        Ok(verdict(faults))
    }

    pub(super) async fn authorize(&self, runs: &mut Vec<RunReport>) -> Looked {
        if !self.features().manual_capture {
            return not_offered("manual-capture");
        }
        let mut player = self.player()?;
        let (played, mut faults) = player.play(&self.first_step(true)?).await?;
        faults.extend(sane(&player, &played));
        runs.append(&mut player.runs);
        Ok(verdict(faults))
    }

    pub(super) async fn complete(&self, runs: &mut Vec<RunReport>) -> Looked {
        self.one(Call::Complete, "complete", runs).await
    }

    pub(super) async fn cancel(&self, runs: &mut Vec<RunReport>) -> Looked {
        self.one(Call::Cancel, "cancel", runs).await
    }

    async fn one(&self, call: Call, feature: &str, runs: &mut Vec<RunReport>) -> Looked {
        if !self.offers(call) {
            return not_offered(feature);
        }
        let (mut player, step) = self.before(call).await?;
        let (played, mut faults) = player.play(&step).await?;
        faults.extend(sane(&player, &played));
        runs.append(&mut player.runs);
        Ok(verdict(faults))
    }

    /// In parts, where the plugin offers parts: whole amounts hide that an amount is not sent.
    pub(super) async fn arithmetic(&self, runs: &mut Vec<RunReport>) -> Looked {
        let features = self.features();
        if !features.manual_capture && !features.refund {
            return not_offered("manual-capture or refund");
        }
        let mut player = self.player()?;
        let (_, mut faults) = player.play(&self.first_step(true)?).await?;
        let total = player.books.total;
        if features.manual_capture {
            let part = if features.partial_capture {
                total / 3
            } else {
                total
            };
            let step = Step {
                amount: Some(part),
                final_capture: Some(!(features.multiple_capture && part < total)),
                expect: None,
                ..self.step(Call::Capture)?
            };
            faults.extend(self.move_money(&mut player, &step, part < total).await?);
            if features.multiple_capture && part < total {
                let rest = Step {
                    amount: Some(total - part),
                    final_capture: Some(true),
                    ..step
                };
                faults.extend(self.move_money(&mut player, &rest, true).await?);
            }
        }
        if features.refund {
            let captured = player.books.captured;
            let part = if features.partial_refund {
                captured / 4
            } else {
                captured
            };
            let step = Step {
                amount: Some(part),
                expect: None,
                ..self.step(Call::Refund)?
            };
            faults.extend(self.move_money(&mut player, &step, part < captured).await?);
        }
        if features.sync {
            let step = Step {
                expect: None,
                ..self.step(Call::Sync)?
            };
            let (played, unexpected) = player.play(&step).await?;
            faults.extend(unexpected);
            faults.extend(sane(&player, &played));
        }
        runs.append(&mut player.runs);
        Ok(verdict(faults))
    }

    /// `in_part`: the amount is not all that there is, so it must have been sent.
    async fn move_money(
        &self,
        player: &mut Player<'_>,
        step: &Step,
        in_part: bool,
    ) -> Result<Vec<String>, String> {
        let (played, mut faults) = player.play(step).await?;
        let sent = requests(&played.run.calls);
        let exponent = player.books.currency.exponent();
        let forms = [played.amount.to_string(), decimal(played.amount, exponent)];
        let carries = |exchange: &&Exchange| {
            let request = &exchange.request;
            let body = request.body.lossy();
            forms
                .iter()
                .any(|form| body.contains(form) || request.url.contains(form))
        };
        if in_part && !sent.is_empty() && !sent.iter().any(carries) {
            let call = step.call.as_str();
            faults.push(format!(
                "no request of {call} carries the amount of {}",
                forms.join(" or ")
            ));
        }
        faults.extend(sane(player, &played));
        Ok(faults)
    }

    pub(super) async fn idempotency(&self, runs: &mut Vec<RunReport>) -> Looked {
        let (mut faults, mut sent) = (Vec::new(), 0);
        for call in [Call::Start, Call::Capture, Call::Cancel, Call::Refund] {
            if !self.offers(call) {
                continue;
            }
            let (mut player, step) = self.before(call).await?;
            let before = player.books.clone();
            let mut again = async |key: &str, attempt| {
                player.books = before.clone();
                let step = Step {
                    key: Some(key.into()),
                    attempt: Some(attempt),
                    ..step.clone()
                };
                player.call(&step, None).await
            };
            let first = again("kit-same-key-0001", 1).await?;
            let second = again("kit-same-key-0001", 2).await?;
            let other = again("kit-another-key-2", 1).await?;
            let changes = &first.changes;
            sent += changes.len();
            let name = call.as_str();
            if first.run.outcome != second.run.outcome {
                faults.push(format!(
                    "{name} with the same key answers {} and then {}",
                    first.run.outcome.words(),
                    second.run.outcome.words()
                ));
            }
            if *changes != second.changes {
                faults.push(format!(
                    "{name} with the same key sends another request the second time"
                ));
            }
            if !changes.is_empty() && *changes == other.changes {
                faults.push(format!(
                    "{name} does not hand the idempotency key on: with another key it sends the very same request"
                ));
            }
            runs.append(&mut player.runs);
        }
        match (sent, faults.is_empty()) {
            (0, true) => Ok(Verdict::NotOffered(
                "the plugin sends no request that changes anything".into(),
            )),
            _ => Ok(verdict(faults)),
        }
    }

    pub(super) async fn declined(&self, runs: &mut Vec<RunReport>) -> Looked {
        let declined = self.fixtures.suite.declined.as_ref().ok_or(
            "suite.toml has no [declined]: say what the gateway answers to a start that it declines, or why that \
             cannot be, as `declined` in [not_offered]",
        )?;
        let mut player = self.player()?;
        let (played, mut faults) = player.play(&Step::of(Call::Start, declined)).await?;
        if !is_no(&played.run.outcome) {
            faults.push(format!(
                "it answered {}, not a final no",
                played.run.outcome.words()
            ));
        }
        runs.append(&mut player.runs);
        Ok(verdict(faults))
    }

    pub(super) async fn not_found(&self, runs: &mut Vec<RunReport>) -> Looked {
        if !self.features().sync {
            return not_offered("sync");
        }
        let missing = self.fixtures.suite.not_found.as_ref().ok_or(
            "suite.toml has no [not_found]: say what the gateway answers about a payment that it has never seen",
        )?;
        let mut player = self.player()?;
        player.play(&self.first_step(false)?).await?;
        let (played, mut faults) = player.play(&Step::of(Call::Sync, missing)).await?;
        if played.run.outcome.word() != "not_found" {
            faults.push(format!(
                "it answered {}, not not_found",
                played.run.outcome.words()
            ));
        }
        runs.append(&mut player.runs);
        Ok(verdict(faults))
    }

    pub(super) async fn wrong_amount(&self, runs: &mut Vec<RunReport>) -> Looked {
        let (mut faults, mut lies) = (Vec::new(), 0);
        for call in [Call::Start, Call::Capture, Call::Sync] {
            if !self.offers(call) || !self.repeats_amount(self.operation(call)?)? {
                continue;
            }
            let (mut player, step) = self.before(call).await?;
            player.books.lie = 1;
            let played = player.call(&step, None).await?;
            lies += 1;
            faults.extend(hidden(call.as_str(), &player, &played.run.outcome));
            runs.append(&mut player.runs);
        }
        match lies {
            0 => Ok(Verdict::NotOffered(
                "no recorded answer repeats an amount ({{captured}} or {{authorized}})".into(),
            )),
            _ => Ok(verdict(faults)),
        }
    }

    fn repeats_amount(&self, operation: &Operation) -> Result<bool, String> {
        for exchange in &operation.http {
            if let Some(response) = &exchange.response {
                let body = self.fixtures.text(&response.body, response.body_file.as_ref())?;
                if body.contains("{{captured") || body.contains("{{authorized") {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    pub(super) async fn misconfigured(&self, runs: &mut Vec<RunReport>) -> Looked {
        let required = required(&self.sandbox.schema);
        if required.is_empty() {
            return Ok(Verdict::NotOffered(
                "its config-schema requires no setting".into(),
            ));
        }
        let mut player = self.player()?;
        let normal = player.call(&self.first_step(false)?, None).await?;
        // A secret that webhooks alone need is not missed here.
        let needed = required.iter().filter(|name| looks_at(&normal.run.calls, name));
        let mut faults = Vec::new();
        // Without any, then without each: none may be sent with half of its settings.
        for missing in std::iter::once(None).chain(needed.map(Some)) {
            let mut player = self.player()?;
            // Placeholders that name a setting have nothing to stand for now, and nothing is to be asked anyway.
            let step = Step {
                http: Vec::new(),
                ..self.first_step(false)?
            };
            for name in &required {
                if missing.is_none_or(|missing| missing == name) {
                    player.account.config.remove(name);
                    player.account.secrets.remove(name);
                }
            }
            let named = missing.map_or("its required settings".to_owned(), |name| {
                format!("the setting {name}")
            });
            let played = player.call(&step, None).await?;
            if !requests(&played.run.calls).is_empty() {
                faults.push(format!("without {named} it sent a request"));
            } else if played.run.outcome.word() != "misconfigured" {
                faults.push(format!(
                    "without {named} it answered {}, not misconfigured",
                    played.run.outcome.words()
                ));
            }
            runs.append(&mut player.runs);
        }
        Ok(verdict(faults))
    }

    pub(super) async fn unsupported(&self, runs: &mut Vec<RunReport>) -> Looked {
        let mut faults = Vec::new();
        let all = [
            Call::Complete,
            Call::Capture,
            Call::Cancel,
            Call::Refund,
            Call::Sync,
        ];
        let missing: Vec<_> = all.into_iter().filter(|call| !self.offers(*call)).collect();
        if missing.is_empty() {
            return Ok(Verdict::NotOffered("the plugin offers every operation".into()));
        }
        for call in missing {
            let mut player = self.player()?;
            let step = Step {
                call,
                reference: Some("kit-reference".into()),
                amount: Some(1),
                ..Step::default()
            };
            let played = player.call(&step, None).await?;
            if played.run.outcome.word() != "unsupported" {
                faults.push(format!(
                    "{} is not among its features, but it answered {}, not unsupported",
                    call.as_str(),
                    played.run.outcome.words()
                ));
            }
            runs.append(&mut player.runs);
        }
        Ok(verdict(faults))
    }
}

/// The settings and secrets that an account cannot be without.
pub(super) fn required(schema: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(schema).unwrap_or_default();
    let names = schema["required"].as_array().into_iter().flatten();
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Whether a call asked for a setting or used a secret.
pub(super) fn looks_at(calls: &[HostCall], setting: &str) -> bool {
    calls.iter().any(|call| match call {
        HostCall::Config { name, .. } | HostCall::RevealSecret { name, .. } => name == setting,
        HostCall::Crypto { key, .. } => key.as_deref() == Some(setting),
        _ => false,
    })
}

/// Holds a report against what the gateway has in its books.
fn sane(player: &Player<'_>, played: &Played) -> Vec<String> {
    let books = &player.books;
    let mut faults = Vec::new();
    let report = match &played.run.outcome {
        Outcome::Payment(report) => report,
        Outcome::Sync(snapshot) => {
            let there: i64 = snapshot.refunds.iter().filter_map(|refund| refund.amount).sum();
            if !snapshot.refunds.is_empty() && there != books.refunded {
                faults.push(format!(
                    "its refunds come to {there}, the gateway's to {}",
                    books.refunded
                ));
            }
            &snapshot.payment
        }
        Outcome::Refund(report) => {
            if let Some(amount) = report.amount
                && amount != played.amount
            {
                faults.push(format!(
                    "it reports a refund of {amount}, the gateway refunded {}",
                    played.amount
                ));
            }
            if is_no(&played.run.outcome) {
                faults.push("it reports a refund that failed".into());
            }
            return faults;
        }
        other => {
            faults.push(format!("it answered {}", other.words()));
            return faults;
        }
    };
    if is_no(&played.run.outcome) {
        faults.push("it reports a payment that failed".into());
    }
    faults.extend(totals(player, report));
    faults
}

/// A total may be left out, and what is still under way may not be counted yet; none may say more than the gateway.
fn totals(player: &Player<'_>, report: &PaymentReport) -> Vec<String> {
    let (books, said) = (&player.books, &report.totals);
    let mut faults = Vec::new();
    if let Some(currency) = &said.currency
        && !currency.eq_ignore_ascii_case(books.currency.code())
    {
        faults.push(format!(
            "it reports {currency}, the payment is in {}",
            books.currency
        ));
    }
    for (name, said, there) in [
        ("authorized", said.authorized, books.authorized),
        ("captured", said.captured, books.captured),
        ("refunded", said.refunded, books.refunded),
    ] {
        if let Some(said) = said
            && said > there
        {
            faults.push(format!("it reports {said} {name}, the gateway has {there}"));
        }
    }
    if let (Some(authorized), Some(captured)) = (said.authorized, said.captured)
        && captured > authorized
    {
        faults.push(format!(
            "it reports {captured} captured of {authorized} authorized"
        ));
    }
    let settled = crate::payments::GatewayStatus::Captured;
    if report.status == settled
        && let Some(captured) = said.captured
        && captured != books.captured
    {
        faults.push(format!(
            "it reports {captured} captured in the end, the gateway has {}",
            books.captured
        ));
    }
    faults
}

/// The gateway has one unit less than was asked for, and the plugin says nothing of it.
pub(super) fn hidden(call: &str, player: &Player<'_>, outcome: &Outcome) -> Option<String> {
    let report = match outcome {
        Outcome::Payment(report) => report,
        Outcome::Sync(snapshot) => &snapshot.payment,
        // Refused as a contradiction is as good.
        _ => return None,
    };
    let (said, total) = (&report.totals, player.books.total);
    let whole = [said.authorized, said.captured].contains(&Some(total));
    let silent = report.status == crate::payments::GatewayStatus::Captured && said.captured.is_none();
    (whole || silent).then(|| {
        format!(
            "{call}: the gateway has {} of {total}, and the plugin {}",
            total - 1,
            if whole {
                "reports the whole"
            } else {
                "reports it captured without saying how much"
            }
        )
    })
}
