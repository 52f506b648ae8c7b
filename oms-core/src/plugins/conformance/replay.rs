//! What was recorded, run against another version: nothing is sent, nothing is changed, and what would be different is
//! told before that version is activated.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;

use super::package::Package;
use super::player::requests;
use super::sandbox::{Ask, Outcome, Run, Sandbox};
use crate::actor::Actor;
use crate::error::{Error, Result};
use crate::money::Money;
use crate::oms::Oms;
use crate::payments::{
    Account, Call, CancelRequest, CaptureRequest, CompleteRequest, Delivery, Received, RefundRequest,
    StartRequest, SyncRequest, webhook_url,
};
use crate::payments::{KeptDelivery, deliveries_since};
use crate::plugins::Plugins;
use crate::plugins::recording::{Asked, Record, Redactor, json_of, store};
use crate::plugins::tape::{Exchange, HostCall, HttpAnswer, HttpRequest, Peer};
use crate::time::Timestamp;

/// Rows of one look into the database.
const BATCH: i64 = 100;
/// Differences of one call that are told.
const TOLD: usize = 12;

/// What came of a replay.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Replayed {
    /// The plugin that was run.
    pub id: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its component.
    pub digest: String,
    /// Calls and webhooks that came out as they had.
    pub same: usize,
    /// Those that did not.
    pub different: Vec<Different>,
    /// Those that could not be compared, with the reason.
    pub skipped: Vec<Different>,
}

/// A call or a webhook that comes out otherwise.
#[derive(Debug, Clone, Serialize)]
pub struct Different {
    /// Which: the record's or the event's id.
    pub id: String,
    /// Its account.
    pub account: String,
    /// `start`, .. or `receive`.
    pub function: String,
    /// When it was.
    pub at: Timestamp,
    /// The version that made the record; none for a webhook of which the inbox alone knows.
    pub version: Option<String>,
    /// Where it differs, each a sentence.
    pub differences: Vec<String>,
}

impl Plugins<'_> {
    /// Runs what was recorded since a time against `package`: the operations of accounts with
    /// [`record`](Account::record), and the webhooks of the inbox, for accounts of this plugin (or the one that is
    /// named). Nothing leaves this process. For administrators.
    pub async fn replay(
        &self,
        actor: &Actor,
        package: &Package,
        since: Timestamp,
        account: Option<&str>,
    ) -> Result<Replayed> {
        actor.require_admin()?;
        let oms = self.oms;
        let invalid = |fault| {
            Error::Invalid(vec![crate::error::Violation {
                pointer: "/plugin".into(),
                detail: fault,
            }])
        };
        let sandbox = Box::pin(Sandbox::load(package, oms.now()))
            .await
            .map_err(invalid)?;
        let info = sandbox.info();
        let replay = Replay {
            oms,
            wanted: account,
            plugin: info.id.clone(),
            sandbox: &sandbox,
        };
        let mut done = Replayed {
            id: info.id.clone(),
            version: info.version.clone(),
            digest: package.digest(),
            ..Replayed::default()
        };
        let heard = Box::pin(replay.operations(since, &mut done)).await?;
        Box::pin(replay.webhooks(since, &heard, &mut done)).await?;
        Ok(done)
    }

    /// The active version of a plugin, as a package. For administrators.
    pub async fn active_package(&self, actor: &Actor, id: &str) -> Result<Package> {
        actor.require_admin()?;
        let mut tx = self.oms.db().read().await?;
        let row = crate::plugins::store::active(&mut tx, id).await?;
        let row = row.ok_or(Error::NotFound("plugin"))?;
        let wasm = crate::plugins::store::component(&mut tx, &row.digest).await?;
        tx.rollback().await?;
        Ok(Package {
            folder: "(database)".into(),
            component: "(database)".into(),
            passed_over: None,
            manifest: row.manifest,
            wasm,
        })
    }
}

struct Replay<'a> {
    oms: &'a Oms,
    wanted: Option<&'a str>,
    plugin: String,
    sandbox: &'a Sandbox,
}

impl Replay<'_> {
    fn account(&self, name: &str) -> Option<&Account> {
        let account = self.oms.inner.accounts.get(name)?;
        let wanted = self.wanted.is_none_or(|wanted| wanted == name);
        (wanted && account.plugin == self.plugin).then_some(account)
    }

    /// Gives the records of webhooks back: what was asked to verify them.
    async fn operations(&self, since: Timestamp, done: &mut Replayed) -> Result<Vec<Record>> {
        let (mut after, mut heard) = (None, Vec::new());
        loop {
            let mut tx = self.oms.db().read().await?;
            let batch = store::since(&mut tx, since, after, BATCH).await?;
            tx.rollback().await?;
            let Some(last) = batch.last() else {
                return Ok(heard);
            };
            after = Some(last.id);
            for record in batch {
                match self.account(&record.account) {
                    Some(_) if record.function == "receive" => heard.push(record),
                    Some(account) => self.operation(account, &record, done).await,
                    None => {}
                }
            }
        }
    }

    async fn operation(&self, account: &Account, record: &Record, done: &mut Replayed) {
        let told = |differences| Different {
            id: record.id.to_string(),
            account: record.account.clone(),
            function: record.function.clone(),
            at: record.made_at,
            version: Some(record.version.clone()),
            differences,
        };
        let ask = match ask(record) {
            Ok(ask) => ask,
            Err(why) => return done.skipped.push(told(vec![why])),
        };
        if record.outcome["kind"] == "unanswered" {
            return done
                .skipped
                .push(told(vec!["it was not answered when it was recorded".into()]));
        }
        let redactor = Redactor::new(account, &record.asked);
        let peer = Arc::new(Recorded::new(&record.calls));
        let account = nobody_else(account, record.id.to_string());
        let run = Box::pin(self.sandbox.ask(&account, ask, Arc::clone(&peer) as _)).await;
        let mut differences = sent(&redactor, &record.calls, &run.calls);
        let outcome = redactor.json(&run.outcome.json());
        differ("result", &record.outcome, &outcome, &mut differences);
        done.note(told(shortened(differences)));
    }

    async fn webhooks(&self, since: Timestamp, heard: &[Record], done: &mut Replayed) -> Result<()> {
        let mut after = None;
        loop {
            let mut tx = self.oms.db().read().await?;
            let batch = deliveries_since(&mut tx, since, after, BATCH).await?;
            tx.rollback().await?;
            let Some(last) = batch.last() else { return Ok(()) };
            after = Some(last.entry.id);
            for kept in &batch {
                if let Some(account) = self.account(&kept.entry.account) {
                    self.webhook(account, kept, heard, done).await;
                }
            }
        }
    }

    async fn webhook(&self, account: &Account, kept: &KeptDelivery, heard: &[Record], done: &mut Replayed) {
        let entry = &kept.entry;
        let of_this = |record: &&Record| {
            let events = record.outcome["events"].as_array();
            record.account == entry.account
                && events
                    .is_some_and(|events| events.iter().any(|event| event["id"] == entry.event_id.as_str()))
        };
        let record = heard.iter().find(of_this);
        let address = record.and_then(|record| record.asked.delivery.clone());
        let delivery = Delivery {
            method: address
                .as_ref()
                .map_or_else(|| "POST".into(), |address| address.method.clone()),
            url: webhook_url(self.oms, &entry.account)
                .or(address.as_ref().map(|address| address.url.clone()))
                .unwrap_or_default(),
            query: address.map_or_else(String::new, |address| address.query),
            headers: kept
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
                .collect(),
            body: kept.body.clone(),
            received_at: entry.received_at,
            remote_ip: None,
            tolerance_seconds: account.tolerance_seconds.max(1),
        };
        let calls = record.map_or(&[][..], |record| &record.calls);
        let peer = Arc::new(Recorded::new(calls));
        let quiet = nobody_else(account, entry.id.to_string());
        let run = Box::pin(
            self.sandbox
                .ask(&quiet, Ask::Receive(delivery), Arc::clone(&peer) as _),
        )
        .await;
        let mut told = Different {
            id: entry.id.to_string(),
            account: entry.account.clone(),
            function: "receive".into(),
            at: entry.received_at,
            version: record.map(|record| record.version.clone()),
            differences: Vec::new(),
        };
        if record.is_none() && !requests(&run.calls).is_empty() {
            told.differences = vec!["it asks the network to verify this, and that was not recorded".into()];
            return done.skipped.push(told);
        }
        told.differences = shortened(heard_otherwise(entry, &run));
        done.note(told);
    }
}

impl Replayed {
    fn note(&mut self, told: Different) {
        match told.differences.is_empty() {
            true => self.same += 1,
            false => self.different.push(told),
        }
    }
}

/// The inbox has one event of the delivery; a batch has more of them.
fn heard_otherwise(entry: &crate::payments::InboxEntry, run: &Run) -> Vec<String> {
    let mut differences = Vec::new();
    match &run.outcome {
        Outcome::Received(Received::Verified(verified)) => {
            match verified.events().iter().find(|event| event.id == entry.event_id) {
                Some(event) => differ("event", &json_of(&entry.event), &json_of(event), &mut differences),
                None => differences.push(format!("it reads no event with the id {:?}", entry.event_id)),
            }
        }
        other => differences.push(format!("it was verified, and now it is {}", other.words())),
    }
    differences
}

/// As it was recorded, but with a cache of its own.
fn nobody_else(account: &Account, name: String) -> Account {
    Account {
        name,
        // What was recorded stands in for every host, so that a private one needs no other grant.
        grants: account
            .grants
            .iter()
            .map(|grant| crate::payments::Grant {
                origin: grant.origin.clone(),
                private: true,
            })
            .collect(),
        ..account.clone()
    }
}

/// The recorded requests against those of now, both without what is redacted.
fn sent(redactor: &Redactor, was: &[HostCall], is: &[HostCall]) -> Vec<String> {
    let was: Vec<&Exchange> = requests(was);
    let is: Vec<HttpRequest> = requests(is)
        .iter()
        .map(|exchange| redactor.request(&exchange.request))
        .collect();
    let mut differences = Vec::new();
    for n in 0..was.len().max(is.len()) {
        let name = format!("request {}", n + 1);
        match (was.get(n), is.get(n)) {
            (Some(was), Some(is)) => differ(
                &name,
                &request_json(&was.request),
                &request_json(is),
                &mut differences,
            ),
            (Some(was), None) => {
                differences.push(format!(
                    "{name}, {} {}, is not sent",
                    was.request.method, was.request.url
                ));
            }
            (None, Some(is)) => differences.push(format!("{name}, {} {}, is new", is.method, is.url)),
            (None, None) => {}
        }
    }
    differences
}

/// With a body of JSON as JSON, so that a difference has a name.
fn request_json(request: &HttpRequest) -> Value {
    let mut value = json_of(request);
    if let Ok(body @ (Value::Object(_) | Value::Array(_))) = serde_json::from_slice(&request.body.0) {
        value["body"] = body;
    }
    value
}

fn differ(path: &str, was: &Value, is: &Value, differences: &mut Vec<String>) {
    match (was, is) {
        (Value::Object(one), Value::Object(other)) => {
            let mut names: Vec<_> = one.keys().chain(other.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let member =
                    |of: &serde_json::Map<String, Value>| of.get(name).cloned().unwrap_or(Value::Null);
                differ(
                    &format!("{path}.{name}"),
                    &member(one),
                    &member(other),
                    differences,
                );
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (n, (was, is)) in one.iter().zip(other).enumerate() {
                differ(&format!("{path}[{n}]"), was, is, differences);
            }
        }
        _ if was == is => {}
        _ => differences.push(format!("{path} was {was}, now {is}")),
    }
}

fn shortened(mut differences: Vec<String>) -> Vec<String> {
    if differences.len() > TOLD {
        let more = differences.len() - TOLD;
        differences.truncate(TOLD);
        differences.push(format!("and {more} more"));
    }
    differences
}

/// Answers with what was recorded: in order, for the same method and address.
struct Recorded {
    left: Mutex<Vec<Exchange>>,
}

impl Recorded {
    fn new(calls: &[HostCall]) -> Self {
        let left = requests(calls).into_iter().cloned().collect();
        Self {
            left: Mutex::new(left),
        }
    }
}

impl Peer for Recorded {
    fn answer(&self, request: &HttpRequest) -> HttpAnswer {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let path = |url: &str| url.split('?').next().unwrap_or_default().to_owned();
        let same = |recorded: &Exchange| {
            recorded.request.method == request.method && path(&recorded.request.url) == path(&request.url)
        };
        match left.iter().position(same) {
            Some(n) => left.remove(n).answer,
            None => HttpAnswer::NotSent(format!(
                "{} {} was not recorded",
                request.method,
                path(&request.url)
            )),
        }
    }
}

/// The request that was recorded; what was redacted in it stays so.
fn ask(record: &Record) -> std::result::Result<Ask, String> {
    let asked = record.asked.clone();
    let gone = |what: &str| format!("the record has no {what}");
    let call: Call = asked.call.clone().ok_or_else(|| gone("call"))?;
    let payment = asked.payment.ok_or_else(|| gone("payment"))?;
    let amount = || match &asked.amount {
        Some((minor, currency)) => Money::new(*minor, currency.parse()?),
        None => Err(gone("amount")),
    };
    let reference = || asked.reference.clone().ok_or_else(|| gone("reference"));
    let state = asked.state.clone();
    Ok(match record.function.as_str() {
        "start" => Ask::Start(Box::new(
            start(&asked, call, payment, amount()?).ok_or_else(|| gone("start"))?,
        )),
        "complete" => Ask::Complete(CompleteRequest {
            call,
            payment,
            reference: reference()?,
            amount: amount()?,
            state,
            params: asked.params.clone(),
            body: asked.body.clone().map(|body| body.0),
        }),
        "capture" => Ask::Capture(CaptureRequest {
            call,
            payment,
            reference: reference()?,
            state,
            amount: amount()?,
            final_capture: asked.final_capture,
        }),
        "cancel" => Ask::Cancel(CancelRequest {
            call,
            payment,
            reference: reference()?,
            state,
            reason: asked.reason.clone(),
        }),
        "refund" => Ask::Refund(RefundRequest {
            call,
            payment,
            refund: asked.refund.ok_or_else(|| gone("refund"))?,
            reference: reference()?,
            capture_reference: asked.capture_reference.clone(),
            state,
            amount: amount()?,
            reason: asked.reason.clone(),
        }),
        "sync" => Ask::Sync(SyncRequest {
            call,
            payment,
            reference: asked.reference.clone(),
            state,
        }),
        other => return Err(format!("there is no function {other}")),
    })
}

fn start(asked: &Asked, call: Call, payment: crate::id::PaymentId, amount: Money) -> Option<StartRequest> {
    let start = asked.start.clone()?;
    Some(StartRequest {
        call,
        payment,
        order_number: start.order_number,
        amount,
        capture: start.capture,
        instrument: start.instrument,
        instrument_data: start.instrument_data,
        customer: start.customer,
        description: start.description,
        return_url: start.return_url,
        cancel_url: start.cancel_url,
        webhook_url: start.webhook_url,
        off_session: start.off_session,
        metadata: start.metadata,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_have_names() {
        let mut differences = Vec::new();
        let was = json!({"a": {"b": 1, "c": [1, 2]}, "gone": true});
        let is = json!({"a": {"b": 2, "c": [1, 3]}, "new": "x"});
        differ("result", &was, &is, &mut differences);
        assert_eq!(
            differences,
            [
                "result.a.b was 1, now 2",
                "result.a.c[1] was 2, now 3",
                "result.gone was true, now null",
                "result.new was null, now \"x\""
            ]
        );
    }
}
