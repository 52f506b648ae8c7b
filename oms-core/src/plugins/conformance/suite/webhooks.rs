//! Rules about webhooks.

use std::time::Duration;

use super::payments::{looks_at, required};
use super::{Bench, Looked, Rule, not_offered, verdict};
use crate::payments::{Change, Delivery, GatewayEvent, Received};
use crate::plugins::conformance::fixtures::{Sign, Webhook, subset};
use crate::plugins::conformance::player::Player;
use crate::plugins::conformance::report::{RunReport, Verdict};
use crate::plugins::conformance::sandbox::{Outcome, Run};
use crate::plugins::conformance::sign::Draft;

/// Places of a body that are changed, at most.
const PLACES: usize = 48;
/// Changes that are told; the rest is alike.
const TOLD: usize = 5;

impl Bench<'_> {
    pub(super) async fn webhook(&self, rule: Rule, runs: &mut Vec<RunReport>) -> Looked {
        if !self.features().webhooks {
            return not_offered("webhooks");
        }
        let webhook = self.fixtures.suite.webhook.as_ref().ok_or(
            "suite.toml has no [webhook], which the plugin offers: say how the gateway signs, with an event of it",
        )?;
        if let (None, false) = (
            &webhook.sign,
            matches!(rule, Rule::Genuine | Rule::GarbageWebhooks),
        ) {
            return Ok(Verdict::NotOffered(
                "the gateway does not sign its webhooks".into(),
            ));
        }
        if let (false, Rule::Stale | Rule::Future) = (webhook.signs_time, rule) {
            let why = "the gateway signs no time: the event's id alone keeps repetitions out";
            return Ok(Verdict::NotOffered(why.into()));
        }
        let mut player = self.started().await?;
        let faults = match rule {
            Rule::Genuine => genuine(&mut player, webhook, &self.sandbox.schema).await,
            Rule::Tampered => tampered(&mut player, webhook).await,
            Rule::WrongKey => wrong_key(&mut player).await,
            Rule::Unsigned => unsigned(&mut player, webhook).await,
            Rule::Stale => off_time(&mut player, false).await,
            Rule::Future => off_time(&mut player, true).await,
            Rule::Replayed => replayed(&mut player).await,
            Rule::Reordered => reordered(&mut player).await,
            _ => self.garbage_webhooks(&mut player).await,
        }?;
        runs.append(&mut player.runs);
        Ok(verdict(faults))
    }

    /// A payment that webhooks can tell of.
    pub(in crate::plugins::conformance) async fn started(&self) -> Result<Player<'_>, String> {
        let mut player = self.player()?;
        player.play(&self.first_step(false)?).await?;
        player.runs.clear();
        Ok(player)
    }
}

async fn genuine(player: &mut Player<'_>, webhook: &Webhook, schema: &str) -> Result<Vec<String>, String> {
    let draft = player.draft()?;
    let run = player.deliver(draft.sign()?).await?;
    if webhook.sign.is_none() {
        return Ok(match &run.outcome {
            Outcome::Received(Received::UnsignedHint(_)) => Vec::new(),
            other => vec![format!(
                "the gateway does not sign, so only an unsigned hint may come of a webhook, but it answered {}",
                other.words()
            )],
        });
    }
    let events = match events(&run) {
        Ok(events) => events,
        Err(fault) => return Ok(vec![fault]),
    };
    let mut faults = Vec::new();
    if events.is_empty() {
        faults.push("it read no event".into());
    }
    if let (Some(expected), Some(_)) = (&webhook.expect, events.first()) {
        let mut words = draft.words.clone();
        words.set("event_id", &draft.event_id);
        let json = run.outcome.json();
        faults.extend(subset(&words.render_json(expected)?, &json["events"][0]).err());
    }
    faults.extend(lie(player).await?);
    faults.extend(without_settings(player, &draft, &run, schema).await?);
    Ok(faults)
}

/// Without what a verification needs there is nothing that it could verify: the key, which is a secret of the account,
/// or, with a public key, the settings that say whose signature counts.
async fn without_settings(
    player: &mut Player<'_>,
    draft: &Draft<'_>,
    normal: &Run,
    schema: &str,
) -> Result<Vec<String>, String> {
    let delivery = draft.sign()?;
    if draft.webhook.sign.as_ref().is_some_and(Sign::is_keyed_by_secret) {
        player.account.secrets.clear();
        let run = player.deliver(delivery).await?;
        return Ok(unconfigured("the account's secrets", &run).into_iter().collect());
    }
    let whole = player.account.clone();
    let mut faults = Vec::new();
    for name in required(schema)
        .iter()
        .filter(|name| looks_at(&normal.calls, name))
    {
        player.account.config.remove(name);
        player.account.secrets.remove(name);
        let run = player.deliver(delivery.clone()).await?;
        faults.extend(unconfigured(&format!("the setting {name}"), &run));
        player.account = whole.clone();
    }
    Ok(faults)
}

fn unconfigured(missing: &str, run: &Run) -> Option<String> {
    let said = run.outcome.words();
    (run.outcome.word() != "misconfigured")
        .then(|| format!("without {missing} it answered {said}, not misconfigured"))
}

/// An event over another amount than the payment's.
async fn lie(player: &mut Player<'_>) -> Result<Vec<String>, String> {
    let before = player.books.clone();
    player.books.lie = 1;
    let draft = player.draft()?;
    let template = draft
        .fixtures
        .text(&draft.webhook.body, draft.webhook.body_file.as_ref())?;
    let run = match template.contains("{{captured") || template.contains("{{authorized") {
        true => Some(player.deliver(draft.sign()?).await?),
        false => None,
    };
    let total = player.books.total;
    player.books = before;
    let said = run.iter().flat_map(|run| events(run).unwrap_or_default());
    let whole = |event: &GatewayEvent| match &event.change {
        Change::Payment { totals, .. } => [totals.authorized, totals.captured].contains(&Some(total)),
        _ => false,
    };
    let fault = said.filter(whole).map(|_| {
        format!(
            "the event is over {} of {total}, and the plugin reports the whole",
            total - 1
        )
    });
    Ok(fault.take(1).collect())
}

async fn tampered(player: &mut Player<'_>, webhook: &Webhook) -> Result<Vec<String>, String> {
    let draft = player.draft()?;
    let genuine = draft.sign()?;
    let mut forged = Vec::new();
    for (from, to) in &webhook.tamper {
        let (from, to) = (draft.words.render(from)?, draft.words.render(to)?);
        let text = String::from_utf8_lossy(&genuine.body).into_owned();
        if !text.contains(&from) {
            return Err(format!("webhook.tamper: the body does not contain {from}"));
        }
        let body = text.replacen(&from, &to, 1).into_bytes();
        forged.push((
            format!("{from} made {to}"),
            Delivery {
                body,
                ..genuine.clone()
            },
        ));
    }
    if webhook.tamper.is_empty() {
        let step = (genuine.body.len() / PLACES).max(1);
        for place in (0..genuine.body.len()).step_by(step) {
            let mut body = genuine.body.clone();
            body[place] ^= 1;
            forged.push((
                format!("byte {place} of the body changed"),
                Delivery {
                    body,
                    ..genuine.clone()
                },
            ));
        }
    }
    for (placeholder, signed, what) in [
        ("{{timestamp}}", webhook.signs_time, "the signed time"),
        ("{{event_id}}", webhook.event_id_signed, "the event's id"),
    ] {
        let holds = |text: &String| signed && text.contains(placeholder);
        for (name, _) in webhook.headers.iter().filter(|(_, text)| holds(text)) {
            let mut delivery = genuine.clone();
            let header = delivery
                .headers
                .iter_mut()
                .find(|(header, _)| header.eq_ignore_ascii_case(name));
            if let Some(digit) =
                header.and_then(|(_, value)| value.iter_mut().rfind(|byte| byte.is_ascii_alphanumeric()))
            {
                *digit = if *digit == b'1' { b'2' } else { b'1' };
                forged.push((format!("{what} in {name} changed"), delivery));
            }
        }
    }
    let mut faults = Vec::new();
    for (what, delivery) in forged {
        let run = player.deliver(delivery).await?;
        faults.extend(accepted(&run).map(|how| format!("with {what} it {how}")));
    }
    faults.truncate(TOLD);
    Ok(faults)
}

async fn wrong_key(player: &mut Player<'_>) -> Result<Vec<String>, String> {
    let mut draft = player.draft()?;
    draft.wrong_key = true;
    let run = player.deliver(draft.sign()?).await?;
    Ok(accepted(&run).into_iter().collect())
}

async fn unsigned(player: &mut Player<'_>, webhook: &Webhook) -> Result<Vec<String>, String> {
    let mut draft = player.draft()?;
    let genuine = draft.sign()?;
    let mut faults = Vec::new();
    draft.unsigned = true;
    let run = player.deliver(draft.sign()?).await?;
    faults.extend(accepted(&run).map(|how| format!("with nothing in the place of the signature it {how}")));
    let mut variants = vec![("any header".to_owned(), Vec::new())];
    for (name, _) in webhook
        .headers
        .iter()
        .filter(|(_, text)| text.contains("{{signature}}"))
    {
        let others = genuine
            .headers
            .iter()
            .filter(|(header, _)| !header.eq_ignore_ascii_case(name));
        variants.push((format!("the header {name}"), others.cloned().collect()));
        let emptied = |(header, value): &(String, Vec<u8>)| match header.eq_ignore_ascii_case(name) {
            true => (header.clone(), Vec::new()),
            false => (header.clone(), value.clone()),
        };
        variants.push((
            format!("anything in {name}"),
            genuine.headers.iter().map(emptied).collect(),
        ));
    }
    if webhook.headers.is_empty() {
        // The signature stands in the body, so headers are nobody's business.
        variants.clear();
    }
    for (what, headers) in variants {
        let run = player
            .deliver(Delivery {
                headers,
                ..genuine.clone()
            })
            .await?;
        faults.extend(accepted(&run).map(|how| format!("without {what} it {how}")));
    }
    let empty = Delivery {
        body: Vec::new(),
        ..genuine
    };
    let run = player.deliver(empty).await?;
    faults.extend(accepted(&run).map(|how| format!("without a body it {how}")));
    Ok(faults)
}

/// The tolerance holds in both directions; the official libraries of some gateways forget the future.
async fn off_time(player: &mut Player<'_>, future: bool) -> Result<Vec<String>, String> {
    let tolerance = u64::from(player.account.tolerance_seconds);
    let mut faults = Vec::new();
    for (seconds, fine) in [
        (tolerance + 2, false),
        (tolerance.saturating_sub(2), true),
        (24 * 3_600, false),
    ] {
        let mut draft = player.draft()?;
        let by = Duration::from_secs(seconds);
        draft.signed_at = if future {
            draft.received_at + by
        } else {
            draft.received_at - by
        };
        let run = player.deliver(draft.sign()?).await?;
        let when = if future { "ahead" } else { "old" };
        match (fine, run.outcome.word().as_str()) {
            (false, "stale") => {}
            (false, _) => faults.push(format!(
                "signed {seconds} s {when} with a tolerance of {tolerance} s: it must be stale, but it answered {}",
                run.outcome.words()
            )),
            (true, _) => faults.extend(events(&run).err().map(|fault| format!("signed {seconds} s {when}: {fault}"))),
        }
    }
    Ok(faults)
}

/// The host knows a repetition by the event's id alone.
async fn replayed(player: &mut Player<'_>) -> Result<Vec<String>, String> {
    let mut draft = player.draft()?;
    let first = draft.sign()?;
    let again = Delivery {
        received_at: first.received_at + Duration::from_secs(1),
        ..first.clone()
    };
    draft.signed_at = draft.signed_at + Duration::from_secs(30);
    draft.received_at = draft.signed_at;
    let redelivered = draft.sign()?;
    let another = player.draft()?.sign()?;
    let mut ids = Vec::new();
    for delivery in [first, again, redelivered, another] {
        let run = player.deliver(delivery).await?;
        match events(&run) {
            Ok(events) => ids.push(events.into_iter().map(|event| event.id).collect::<Vec<_>>()),
            Err(fault) => return Ok(vec![fault]),
        }
    }
    let mut faults = Vec::new();
    if ids[0] != ids[1] {
        faults.push(format!(
            "the same bytes have the ids {:?} and then {:?}",
            ids[0], ids[1]
        ));
    }
    if ids[0] != ids[2] {
        faults.push(format!(
            "the same event signed again 30 s later has the ids {:?} and then {:?}: it would be applied twice",
            ids[0], ids[2]
        ));
    }
    if ids[0].iter().any(|id| ids[3].contains(id)) {
        faults.push(format!(
            "two events have the id {:?}: the second would be dropped",
            ids[0]
        ));
    }
    Ok(faults)
}

/// A plugin keeps nothing between calls, so an event says the same whatever came before it.
async fn reordered(player: &mut Player<'_>) -> Result<Vec<String>, String> {
    let before = player.books.clone();
    player.books.captured /= 2;
    let early = player.draft()?.sign()?;
    player.books = before;
    let late = player.draft()?.sign()?;
    let mut outcomes = Vec::new();
    for delivery in [&early, &late, &late, &early] {
        outcomes.push(player.deliver(delivery.clone()).await?.outcome);
    }
    let mut faults = Vec::new();
    for (name, one, other) in [("earlier", 0, 3), ("later", 1, 2)] {
        if outcomes[one] != outcomes[other] {
            faults.push(format!(
                "the {name} event says {} in order and {} out of order",
                outcomes[one].words(),
                outcomes[other].words()
            ));
        }
    }
    Ok(faults)
}

/// The events of a delivery that must be accepted.
pub(super) fn events(run: &Run) -> Result<Vec<GatewayEvent>, String> {
    match &run.outcome {
        Outcome::Received(Received::Verified(verified)) => Ok(verified.events().to_vec()),
        other => Err(format!("a genuine webhook is not accepted: {}", other.words())),
    }
}

/// What a plugin did with a delivery that it must refuse.
fn accepted(run: &Run) -> Option<String> {
    match (&run.failure, &run.outcome) {
        (Some(failure), _) => Some(format!("gave no answer: {failure}")),
        (None, Outcome::Refused(_)) => None,
        (None, other) => Some(format!("answered {}", other.words())),
    }
}
