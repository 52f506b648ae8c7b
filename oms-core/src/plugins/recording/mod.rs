//! Writes down what a plugin was asked, what it asked of the host and what it answered, for accounts that want it: to be
//! read by people, and run against another version before that one is activated.
//!
//! It goes into the database, not into files: replicas share it, a backup has it, and it is deleted by the same job as
//! everything else that nobody asks for any more. Secrets and what belongs to customers is taken out before.

mod asked;
mod redact;
pub(super) mod store;

use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};

pub(super) use asked::Asked;
pub(super) use redact::Redactor;

use super::Plugins;
use super::tape::{HostCall, Tape};
use crate::actor::Actor;
use crate::error::Error;
use crate::id::PluginCallId;
use crate::oms::Oms;
use crate::payments::{
    Account, CancelRequest, CaptureRequest, CompleteRequest, Delivery, GatewayError, GatewayInfo,
    PaymentGateway, PaymentReport, Proof, Received, RefundReport, RefundRequest, Snapshot, StartRequest,
    SyncRequest, WebhookError,
};
use crate::time::Timestamp;

/// The most that one record keeps of host calls. What is more is left out, and the record says so.
const MAX_CALLS: usize = 256 << 10;
/// What is said of it, and answered.
const MAX_JSON: usize = 64 << 10;

/// A call as it was recorded.
pub(super) struct Record {
    pub(super) id: PluginCallId,
    pub(super) account: String,
    pub(super) plugin_id: String,
    pub(super) version: String,
    pub(super) digest: String,
    pub(super) function: String,
    pub(super) asked: Asked,
    pub(super) calls: Vec<HostCall>,
    pub(super) outcome: Value,
    pub(super) made_at: Timestamp,
}

/// A call as it was recorded, for people to read.
#[derive(Debug, Clone, Serialize)]
pub struct RecordedCall {
    /// Its id.
    pub id: PluginCallId,
    /// The account that it was for.
    pub account: String,
    /// The plugin.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the component.
    pub digest: String,
    /// `start`, `capture`, .. or `receive`.
    pub function: String,
    /// What it was asked.
    pub asked: Value,
    /// What it asked of the host.
    pub calls: Vec<HostCall>,
    /// What it answered.
    pub outcome: Value,
    /// When.
    pub made_at: Timestamp,
}

/// Calls of one look.
const SHOWN: i64 = 500;

impl Plugins<'_> {
    /// What was recorded since a time, the oldest first, at most 500 calls. For operators.
    pub async fn recorded(&self, actor: &Actor, since: Timestamp) -> Result<Vec<RecordedCall>, Error> {
        actor.require_operator()?;
        let mut tx = self.oms.db().read().await?;
        let records = store::since(&mut tx, since, None, SHOWN).await?;
        tx.rollback().await?;
        let shown = |record: Record| RecordedCall {
            id: record.id,
            account: record.account,
            plugin: record.plugin_id,
            version: record.version,
            digest: record.digest,
            function: record.function,
            asked: json_of(&record.asked),
            calls: record.calls,
            outcome: record.outcome,
            made_at: record.made_at,
        };
        Ok(records.into_iter().map(shown).collect())
    }
}

/// An adapter that writes down what it does.
pub(crate) struct Recording {
    oms: Oms,
    inner: Arc<dyn PaymentGateway>,
}

impl Recording {
    pub(crate) fn new(oms: Oms, inner: Arc<dyn PaymentGateway>) -> Self {
        Self { oms, inner }
    }

    fn begin(&self, account: &Account, function: &'static str, asked: Asked) -> Take {
        Take {
            oms: self.oms.clone(),
            redactor: Redactor::new(account, &asked),
            info: self.inner.info().clone(),
            account: account.name.clone(),
            function,
            asked: Some(asked),
            tape: Tape::new(None),
            outcome: json!({"kind": "unanswered", "detail": "nobody waited for the answer any longer"}),
        }
    }
}

/// A call that is under way. It is written down when this goes, so also when its caller goes away in the middle.
struct Take {
    oms: Oms,
    redactor: Redactor,
    info: GatewayInfo,
    account: String,
    function: &'static str,
    asked: Option<Asked>,
    tape: Arc<Tape>,
    outcome: Value,
}

impl Take {
    fn ended<T: Serialize, E: Serialize>(&mut self, answer: &Result<T, E>) {
        self.outcome = match answer {
            Ok(answer) => json_of(answer),
            Err(error) => json_of(error),
        };
    }

    fn record(&mut self) -> Option<Record> {
        let now = self.oms.now();
        let asked = self.redactor.asked(self.asked.take()?);
        let mut calls = self.redactor.calls(&self.tape.calls());
        cut(&mut calls);
        Some(Record {
            id: PluginCallId::new(now),
            account: self.account.clone(),
            plugin_id: self.info.id.clone(),
            version: self.info.version.clone(),
            digest: self.info.digest.clone().unwrap_or_default(),
            function: self.function.into(),
            asked,
            calls,
            outcome: bounded(self.redactor.json(&self.outcome)),
            made_at: now,
        })
    }
}

impl Drop for Take {
    /// Beside the payment: what fails here is told and harms nothing.
    fn drop(&mut self) {
        let Some(record) = self.record() else { return };
        let oms = self.oms.clone();
        self.oms.inner.tasks.spawn(async move {
            if let Err(error) = store::keep(&oms, &record).await {
                tracing::warn!(account = %record.account, function = %record.function, %error, "a call was not recorded");
            }
        });
    }
}

/// Leaves out the largest of what is too much, from behind.
fn cut(calls: &mut Vec<HostCall>) {
    let size = |call: &HostCall| serde_json::to_string(call).map_or(0, |json| json.len());
    let mut sizes: Vec<usize> = calls.iter().map(size).collect();
    while sizes.iter().sum::<usize>() > MAX_CALLS {
        sizes.pop();
        calls.pop();
    }
}

fn bounded(value: Value) -> Value {
    match value.to_string().len() > MAX_JSON {
        true => json!({"kind": "too_large"}),
        false => value,
    }
}

pub(super) fn json_of(value: &impl Serialize) -> Value {
    // Nothing that is recorded has a key that is no text.
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// Refusals have no shape of their own in JSON.
pub(super) fn received_json(answer: &Result<Received, WebhookError>) -> Value {
    match answer {
        Ok(Received::Verified(verified)) => json!({"events": verified.events()}),
        Ok(Received::UnsignedHint(references)) => json!({"unsigned_hint": references}),
        Ok(Received::Challenge(reply)) => json!({"challenge": reply.status}),
        Err(error) => json!({"refused": error.to_string()}),
    }
}

macro_rules! recorded {
    ($self:ident, $account:ident, $request:ident, $function:ident) => {{
        let mut take = $self.begin($account, stringify!($function), Asked::from(&$request));
        let tape = Arc::clone(&take.tape);
        let answer = tape.during($self.inner.$function($account, $request)).await;
        take.ended(&answer);
        answer
    }};
}

#[async_trait]
impl PaymentGateway for Recording {
    fn info(&self) -> &GatewayInfo {
        self.inner.info()
    }

    async fn start(&self, account: &Account, request: StartRequest) -> Result<PaymentReport, GatewayError> {
        recorded!(self, account, request, start)
    }

    async fn complete(
        &self,
        account: &Account,
        request: CompleteRequest,
    ) -> Result<PaymentReport, GatewayError> {
        recorded!(self, account, request, complete)
    }

    async fn capture(
        &self,
        account: &Account,
        request: CaptureRequest,
    ) -> Result<PaymentReport, GatewayError> {
        recorded!(self, account, request, capture)
    }

    async fn cancel(&self, account: &Account, request: CancelRequest) -> Result<PaymentReport, GatewayError> {
        recorded!(self, account, request, cancel)
    }

    async fn refund(&self, account: &Account, request: RefundRequest) -> Result<RefundReport, GatewayError> {
        recorded!(self, account, request, refund)
    }

    async fn sync(&self, account: &Account, request: SyncRequest) -> Result<Snapshot, GatewayError> {
        recorded!(self, account, request, sync)
    }

    /// What came in is in the inbox, if it was genuine; what was asked for to verify it is not.
    async fn receive(
        &self,
        account: &Account,
        proof: Proof,
        delivery: Delivery,
    ) -> Result<Received, WebhookError> {
        let mut take = self.begin(account, "receive", Asked::from(&delivery));
        let tape = Arc::clone(&take.tape);
        let received = tape.during(self.inner.receive(account, proof, delivery)).await;
        match &received {
            Ok(Received::Verified(_)) => take.outcome = received_json(&received),
            // Anybody may send what is refused: it is counted, not kept.
            _ => take.asked = None,
        }
        received
    }
}
