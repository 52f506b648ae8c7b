//! One component without a database: compiled, asked and measured as in production, a fresh instance for each call.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use wasmtime::component::InstancePre;

use super::package::Package;
use crate::payments::{
    Account, CancelRequest, CaptureRequest, CompleteRequest, Decline, Delivery, GatewayError, GatewayInfo,
    PaymentGateway, PaymentReport, Proof, Received, RefundReport, RefundRequest, Snapshot, StartRequest,
    SyncRequest, WebhookError,
};
use crate::plugins::bindings::descriptor;
use crate::plugins::compiled::Host;
use crate::plugins::engine::Runtime;
use crate::plugins::gateway::WasmGateway;
use crate::plugins::manifest::Manifest;
use crate::plugins::state::{Shared, State};
use crate::plugins::tape::{HostCall, Peer, Tape};
use crate::time::{Clock, Timestamp};

/// A component that is ready to be called.
pub(super) struct Sandbox {
    pub(super) manifest: Manifest,
    pub(super) schema: String,
    pub(super) compile: Duration,
    /// The first instance, which is slower than all that follow.
    pub(super) cold: Duration,
    gateway: WasmGateway,
    runtime: Arc<Runtime>,
    shared: Arc<Shared>,
    pre: InstancePre<State>,
    clock: SetClock,
}

/// What can be asked of a plugin.
pub(super) enum Ask {
    Start(Box<StartRequest>),
    Complete(CompleteRequest),
    Capture(CaptureRequest),
    Cancel(CancelRequest),
    Refund(RefundRequest),
    Sync(SyncRequest),
    Receive(Delivery),
}

/// What it answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Payment(PaymentReport),
    Refund(RefundReport),
    Sync(Snapshot),
    Received(Received),
    Failed(GatewayError),
    Refused(WebhookError),
}

/// One call: what came of it and what it did.
pub(super) struct Run {
    pub(super) outcome: Outcome,
    pub(super) calls: Vec<HostCall>,
    /// Why the guest gave no answer, if it gave none.
    pub(super) failure: Option<String>,
    pub(super) memory: usize,
    pub(super) took: Duration,
}

#[derive(Clone)]
struct SetClock(Arc<AtomicI64>);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }
}

impl Sandbox {
    /// Compiles a plugin and asks it what it is.
    pub(super) async fn load(package: &Package, now: Timestamp) -> Result<Self, String> {
        let manifest = package.parsed()?;
        let digest = package.digest();
        if let Some(expected) = &manifest.sha256
            && !expected.eq_ignore_ascii_case(&digest)
        {
            return Err(format!(
                "the component has the sha256 {digest}, but plugin.toml asks for {expected}"
            ));
        }
        let clock = SetClock(Arc::new(AtomicI64::new(now.as_micros())));
        let host = Host::new(None, Arc::new(clock.clone()));
        let runtime = host.runtime().await?;
        let (compiler, wasm) = (Arc::clone(&runtime), package.wasm.clone());
        let began = Instant::now();
        let prepared = tokio::task::spawn_blocking(move || compiler.prepare(&wasm))
            .await
            .map_err(|e| format!("the compiler failed: {e}"))??;
        let (compile, pre) = (began.elapsed(), prepared.pre.clone());
        let shared = Arc::clone(&host.shared);
        let began = Instant::now();
        let mut store = store(&runtime, &shared, &manifest, now);
        // What is wrong with it is said when it is asked what it is.
        let _ = pre.instantiate_async(&mut store).await;
        let cold = began.elapsed();
        drop(store);
        let plugin = manifest.clone();
        let gateway = WasmGateway::new(
            Arc::clone(&runtime),
            Arc::clone(&shared),
            plugin,
            prepared,
            digest,
        );
        let mut sandbox = Self {
            gateway: Box::pin(gateway).await?,
            schema: String::new(),
            manifest,
            compile,
            cold,
            runtime,
            shared,
            pre,
            clock,
        };
        sandbox.schema = Box::pin(sandbox.describe()).await?.config_schema;
        Ok(sandbox)
    }

    pub(super) fn info(&self) -> &GatewayInfo {
        self.gateway.info()
    }

    /// Asks in a fresh instance; `peer` answers its requests.
    pub(super) async fn ask(&self, account: &Account, ask: Ask, peer: Arc<dyn Peer>) -> Run {
        self.clock.0.store(ask.now().as_micros(), Ordering::Relaxed);
        let tape = Tape::new(Some(peer));
        let began = Instant::now();
        let outcome = tape.during(Box::pin(self.put(account, ask))).await;
        Run {
            outcome,
            took: began.elapsed(),
            memory: tape.memory(),
            failure: tape.failure(),
            calls: tape.calls(),
        }
    }

    /// A fresh instance, without a call.
    pub(super) async fn instantiate(&self) -> Result<Duration, String> {
        let began = Instant::now();
        let mut store = self.store();
        self.pre
            .instantiate_async(&mut store)
            .await
            .map_err(|e| format!("it cannot be instantiated: {e:#}"))?;
        Ok(began.elapsed())
    }

    async fn describe(&self) -> Result<descriptor::Info, String> {
        let cannot = |e: wasmtime::Error| format!("it cannot describe itself: {e:#}");
        let indices = descriptor::GuestIndices::new(&self.pre).map_err(cannot)?;
        let mut store = self.store();
        let instance = self.pre.instantiate_async(&mut store).await.map_err(cannot)?;
        let guest = indices.load(&mut store, &instance).map_err(cannot)?;
        guest.call_describe(&mut store).await.map_err(cannot)
    }

    fn store(&self) -> wasmtime::Store<State> {
        store(&self.runtime, &self.shared, &self.manifest, self.clock.now())
    }

    async fn put(&self, account: &Account, ask: Ask) -> Outcome {
        let gateway = &self.gateway;
        match ask {
            Ask::Start(request) => gateway.start(account, *request).await.map(Outcome::Payment),
            Ask::Complete(request) => gateway.complete(account, request).await.map(Outcome::Payment),
            Ask::Capture(request) => gateway.capture(account, request).await.map(Outcome::Payment),
            Ask::Cancel(request) => gateway.cancel(account, request).await.map(Outcome::Payment),
            Ask::Refund(request) => gateway.refund(account, request).await.map(Outcome::Refund),
            Ask::Sync(request) => gateway.sync(account, request).await.map(Outcome::Sync),
            Ask::Receive(delivery) => {
                let received = gateway.receive(account, Proof::new(), delivery).await;
                return received.map_or_else(Outcome::Refused, Outcome::Received);
            }
        }
        .unwrap_or_else(Outcome::Failed)
    }
}

/// A store for a call that is nobody's.
fn store(
    runtime: &Runtime,
    shared: &Arc<Shared>,
    manifest: &Manifest,
    now: Timestamp,
) -> wasmtime::Store<State> {
    let nobody = Account::new("", &manifest.id);
    let time = Duration::from_secs(manifest.limits.operation_seconds.into());
    State::store(
        runtime.engine(),
        shared,
        &Arc::new(manifest.clone()),
        &nobody,
        now,
        time,
    )
}

impl Ask {
    fn now(&self) -> Timestamp {
        match self {
            Self::Start(request) => request.call.now,
            Self::Complete(request) => request.call.now,
            Self::Capture(request) => request.call.now,
            Self::Cancel(request) => request.call.now,
            Self::Refund(request) => request.call.now,
            Self::Sync(request) => request.call.now,
            Self::Receive(delivery) => delivery.received_at,
        }
    }
}

impl Outcome {
    /// As fixtures name it.
    pub(super) fn json(&self) -> Value {
        fn plain(value: &impl Serialize) -> Value {
            // Nothing in these types has a key that is no text.
            serde_json::to_value(value).unwrap_or(Value::Null)
        }
        match self {
            Self::Payment(report) => plain(report),
            Self::Refund(report) => plain(report),
            Self::Sync(snapshot) => plain(snapshot),
            Self::Failed(error) => plain(error),
            Self::Received(Received::Verified(verified)) => json!({"events": verified.events()}),
            Self::Received(Received::UnsignedHint(references)) => json!({"unsigned_hint": references}),
            Self::Received(Received::Challenge(reply)) => {
                json!({"challenge": String::from_utf8_lossy(&reply.body), "status": reply.status})
            }
            Self::Refused(error) => json!({"refused": refusal(error), "detail": error.to_string()}),
        }
    }

    /// In a word or two.
    pub(super) fn word(&self) -> String {
        let json = self.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match self {
            Self::Payment(_) | Self::Refund(_) => text(&json["status"]),
            Self::Sync(_) => text(&json["payment"]["status"]),
            Self::Failed(_) => text(&json["kind"]),
            Self::Received(Received::Verified(verified)) => match verified.events() {
                [event] => event.kind.clone(),
                events => format!("{} events", events.len()),
            },
            Self::Received(Received::UnsignedHint(_)) => "unsigned_hint".into(),
            Self::Received(Received::Challenge(_)) => "challenge".into(),
            Self::Refused(error) => refusal(error).into(),
        }
    }

    /// In full, for a failed rule.
    pub(super) fn words(&self) -> String {
        match self {
            // The code is what stories assert.
            Self::Failed(GatewayError::Declined(Decline { code, message })) => {
                format!("{} ({code}): {message}", self.word())
            }
            Self::Failed(error) => format!("{}: {error}", self.word()),
            Self::Refused(error) => format!("{}: {error}", self.word()),
            _ => format!("{} {}", self.word(), self.json()),
        }
    }
}

pub(super) const fn refusal(error: &WebhookError) -> &'static str {
    match error {
        WebhookError::MissingSignature(_) => "missing_signature",
        WebhookError::BadSignature => "bad_signature",
        WebhookError::Stale => "stale",
        WebhookError::Malformed(_) => "malformed",
        WebhookError::Misconfigured(_) => "misconfigured",
        WebhookError::Unavailable(_) => "unavailable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decline_is_told_with_its_code() {
        let decline = Decline {
            code: "card_declined".into(),
            message: "No.".into(),
        };
        let outcome = Outcome::Failed(GatewayError::Declined(decline));
        assert_eq!(outcome.words(), "declined (card_declined): No.");
    }
}
