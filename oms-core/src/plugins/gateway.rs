//! A plugin as a [`PaymentGateway`]: a fresh store for each call, which is dropped after it, whatever happened.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::error::Elapsed;
use wasmtime::component::InstancePre;
use wasmtime::{Store, Trap};

use super::answer::{self, Checked};
use super::bindings::{descriptor, gateway, webhooks};
use super::breaker::{Key, Turn};
use super::engine::{Prepared, Runtime, is_interface};
use super::manifest::Manifest;
use super::state::{Shared, State};
use super::tape;
use crate::payments::{
    Account, CancelRequest, CaptureRequest, CompleteRequest, Delivery, GatewayError, GatewayInfo,
    PaymentGateway, PaymentReport, Proof, Received, RefundReport, RefundRequest, Snapshot, StartRequest,
    SyncRequest, WebhookError, Work,
};
use crate::telemetry;
use crate::time::Timestamp;

/// What an error may say of a guest's stderr.
const MAX_CAUSE: usize = 2 << 10;

/// One version of a plugin, compiled.
pub(super) struct WasmGateway {
    runtime: Arc<Runtime>,
    shared: Arc<Shared>,
    plugin: Arc<Manifest>,
    info: GatewayInfo,
    /// The JSON Schema of an account's settings and secrets, as the guest says it.
    schema: String,
    pre: InstancePre<State>,
    /// How many places of the runtime's a call takes.
    places: u32,
    gateway: gateway::GuestIndices,
    webhooks: Option<webhooks::GuestIndices>,
    /// Operations at once.
    operations: Semaphore,
    /// Webhooks at once. Anybody may send one: junk must not keep payments waiting.
    deliveries: Semaphore,
}

/// A call that gave no answer.
struct Failure {
    cause: String,
    /// Whether a request may have left.
    reached: bool,
}

impl WasmGateway {
    /// Takes a compiled component, asks it what it is and holds that against its manifest.
    pub(super) async fn new(
        runtime: Arc<Runtime>,
        shared: Arc<Shared>,
        manifest: Manifest,
        prepared: Prepared,
        digest: String,
    ) -> Result<Self, String> {
        let fits = |e: wasmtime::Error| format!("the component does not fit the contract: {e:#}");
        let Prepared { pre, exports, places } = prepared;
        let describe = descriptor::GuestIndices::new(&pre).map_err(fits)?;
        let has_webhooks = exports.iter().any(|name| is_interface(name, "webhooks"));
        let mut this = Self {
            gateway: gateway::GuestIndices::new(&pre).map_err(fits)?,
            webhooks: match has_webhooks {
                true => Some(webhooks::GuestIndices::new(&pre).map_err(fits)?),
                false => None,
            },
            operations: Semaphore::new(manifest.limits.concurrent_calls as usize),
            deliveries: Semaphore::new(manifest.limits.concurrent_calls as usize),
            info: GatewayInfo {
                id: manifest.id.clone(),
                name: manifest.name.clone().unwrap_or_else(|| manifest.id.clone()),
                version: manifest.version.clone(),
                digest: Some(digest),
                features: answer::features(descriptor::Feature::empty()),
                currencies: Vec::new(),
            },
            schema: String::new(),
            plugin: Arc::new(manifest),
            runtime,
            shared,
            pre,
            places,
        };
        let said = this.describe(&describe).await?;
        this.plugin
            .check_descriptor(&said.id, &said.version, &said.hosts)?;
        this.info.features = answer::features(said.features);
        this.info.features.webhooks &= this.webhooks.is_some();
        this.info.currencies = said
            .currencies
            .iter()
            .map(|code| code.to_ascii_uppercase())
            .collect();
        if this.plugin.name.is_none() && !said.name.trim().is_empty() {
            this.info.name = said.name.chars().filter(|c| !c.is_control()).take(100).collect();
        }
        this.schema = said.config_schema;
        Ok(this)
    }

    async fn describe(&self, indices: &descriptor::GuestIndices) -> Result<descriptor::Info, String> {
        let nobody = Account::new("", &self.plugin.id);
        let seconds = self.plugin.limits.operation_seconds;
        let mut call = self.call(&nobody, self.shared.clock.now(), seconds, None);
        let ended = tokio::time::timeout(call.time(), async {
            call.begins(self, &self.operations).await;
            let instance = self.pre.instantiate_async(&mut call.store).await?;
            indices
                .load(&mut call.store, &instance)?
                .call_describe(&mut call.store)
                .await
        })
        .await;
        call.finish(ended).map_err(|failure| failure.cause)
    }

    /// Its plugin's id.
    pub(super) fn id(&self) -> &str {
        &self.plugin.id
    }

    /// What an account must have, as a JSON Schema.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    fn call(&self, account: &Account, now: Timestamp, seconds: u32, work: Option<Work>) -> CallInHand<'_> {
        let time = Duration::from_secs(seconds.into());
        let engine = self.runtime.engine();
        let digest = self.info.digest.as_deref().unwrap_or_default();
        CallInHand {
            store: State::store(engine, &self.shared, &self.plugin, account, now, time),
            circuit: work.map(|work| Key::new(digest, &account.name, work)),
            turn: None,
        }
    }
}

/// One call with its store.
struct CallInHand<'a> {
    store: Store<State>,
    /// Where its end is to be noted. None when it was, and for a call on nobody's behalf.
    circuit: Option<Key>,
    /// Its plugin's permit and the runtime's places. Below the store, which gives up its memories first.
    turn: Option<(SemaphorePermit<'a>, SemaphorePermit<'a>)>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
enum End {
    Answered,
    Trapped,
    /// It did not answer in time.
    Late,
    /// Its turn did not come in time.
    Crowded,
    BrokeContract,
}

impl End {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Trapped => "trapped",
            Self::Late => "late",
            Self::Crowded => "crowded",
            Self::BrokeContract => "broke_contract",
        }
    }
}

/// A caller that goes away in the middle waited for too long.
impl Drop for CallInHand<'_> {
    fn drop(&mut self) {
        if self.store.data().began {
            self.note(End::Late, "nobody waited for its answer any longer");
        }
    }
}

impl<'a> CallInHand<'a> {
    /// Waits for its turn.
    async fn begins(&mut self, gateway: &'a WasmGateway, permits: &'a Semaphore) {
        // They are never closed.
        let permit = permits.acquire().await.ok();
        self.turn = permit.zip(gateway.runtime.places(gateway.places).await);
        self.store.data_mut().began = true;
    }

    fn time(&self) -> Duration {
        self.store.data().time_left()
    }

    /// A text of the guest without the secrets that it saw.
    fn clean(&self, text: &str) -> String {
        self.store.data().redact(text, MAX_CAUSE)
    }

    /// Logs what the guest wrote to stderr, and says why there is no answer when there is none.
    fn finish<T>(&mut self, ended: Result<wasmtime::Result<T>, Elapsed>) -> Result<T, Failure> {
        let stderr = self.store.data().stderr();
        if !stderr.is_empty()
            && let Some(stderr) = self.store.data_mut().for_log(&stderr)
        {
            let State { plugin, account, .. } = self.store.data();
            tracing::warn!(
                plugin.id = %plugin.id,
                plugin.version = %plugin.version,
                account = %account.name,
                "the plugin wrote to stderr: {stderr}"
            );
        }
        let (end, cause) = match ended {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => (End::Trapped, cause(&error)),
            Err(_) if self.store.data().began => (End::Late, "it did not answer in time".into()),
            Err(_) => (
                End::Crowded,
                "too many of its calls are under way: its turn did not come in time".into(),
            ),
        };
        let cause = match stderr.is_empty() {
            true => cause,
            false => format!("{cause}; it wrote: {stderr}"),
        };
        Err(self.failure(end, &cause))
    }

    /// The end of a call that was answered, if the answer is one.
    fn check<T>(&mut self, answer: Checked<T>) -> Result<T, Failure> {
        match answer {
            Ok(answer) => {
                self.answered();
                Ok(answer)
            }
            Err(fault) => {
                let cause = format!("its answer breaks the contract: {fault}");
                Err(self.failure(End::BrokeContract, &cause))
            }
        }
    }

    /// It did its work, also where it said no.
    fn answered(&mut self) {
        self.note(End::Answered, "");
    }

    fn failure(&mut self, end: End, cause: &str) -> Failure {
        let State { plugin, reached, .. } = self.store.data();
        let reached = *reached;
        let cause = self.clean(&format!("plugin {} {}: {cause}", plugin.id, plugin.version));
        // What does not fit the contract is an answer all the same.
        if !matches!(end, End::BrokeContract) {
            tape::failed(&cause);
        }
        let account = &self.store.data().account.name;
        tracing::error!(%account, request_sent = reached, "{cause}");
        self.note(end, &cause);
        Failure { cause, reached }
    }

    /// Counts how it ended, once, and turns the circuit on or off.
    fn note(&mut self, end: End, words: &str) {
        let Some(circuit) = self.circuit.take() else {
            return;
        };
        let State {
            plugin,
            account,
            shared,
            ..
        } = self.store.data();
        telemetry::plugin_call_ended(&plugin.id, &plugin.version, &account.name, end.as_str());
        let turn = match end {
            End::Answered => shared.breakers.answered(&circuit),
            End::Crowded => Turn::None,
            End::Trapped | End::Late | End::BrokeContract => {
                shared
                    .breakers
                    .failed(&circuit, plugin, words, shared.clock.now())
            }
        };
        let (id, version, account, work) =
            (&plugin.id, &plugin.version, &account.name, circuit.work.as_str());
        match turn {
            Turn::None => {}
            Turn::Opened(pause) => tracing::error!(
                plugin.id = %id,
                plugin.version = %version,
                %account,
                work,
                seconds = pause.as_secs(),
                "the plugin failed again and again: it is left alone for a while"
            ),
            Turn::Closed => tracing::info!(
                plugin.id = %id,
                plugin.version = %version,
                %account,
                work,
                "the plugin answers again"
            ),
        }
    }
}

/// What ended a guest, without the trace of addresses that wasmtime adds.
fn cause(error: &wasmtime::Error) -> String {
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "it called itself too deeply".into(),
        Some(trap) => format!("it trapped: {trap}"),
        None => error.root_cause().to_string(),
    }
}

impl From<Failure> for GatewayError {
    /// When no request left, nothing can have happened at the gateway.
    fn from(failure: Failure) -> Self {
        match failure.reached {
            true => Self::Indeterminate(failure.cause),
            false => Self::Unavailable(failure.cause),
        }
    }
}

impl From<Failure> for WebhookError {
    fn from(failure: Failure) -> Self {
        Self::Unavailable(failure.cause)
    }
}

/// Calls one function of an interface in a fresh instance: the deadline covers the wait for a permit too. Gives the call
/// and the guest's own `Result`.
macro_rules! ask {
    ($self:ident, $work:ident, $permits:ident, $account:ident, $now:expr, $seconds:ident, $interface:expr, $function:ident, $request:expr) => {{
        let request = $request.into();
        let mut call = $self.call($account, $now, $self.plugin.limits.$seconds, Some(Work::$work));
        // In a box: the futures of a guest are large.
        let ended = Box::pin(tokio::time::timeout(call.time(), async {
            call.begins($self, &$self.$permits).await;
            let instance = $self.pre.instantiate_async(&mut call.store).await?;
            let guest = $interface.load(&mut call.store, &instance)?;
            guest.$function(&mut call.store, &request).await
        }))
        .await;
        let answer = call.finish(ended)?;
        (call, answer)
    }};
}

/// An operation of the gateway interface.
macro_rules! operation {
    ($self:ident, $account:ident, $request:ident, $function:ident, $read:expr) => {{
        let now = $request.call.now;
        let (mut call, answer) = ask!(
            $self,
            Operation,
            operations,
            $account,
            now,
            operation_seconds,
            $self.gateway,
            $function,
            $request
        );
        match answer {
            Ok(answer) => Ok(call.check($read(answer))?),
            Err(error) => {
                call.answered();
                Err(answer::payment_error(error, |text| call.clean(text)))
            }
        }
    }};
}

#[async_trait]
impl PaymentGateway for WasmGateway {
    fn info(&self) -> &GatewayInfo {
        &self.info
    }

    async fn start(&self, account: &Account, request: StartRequest) -> Result<PaymentReport, GatewayError> {
        operation!(self, account, request, call_start, answer::payment_report)
    }

    async fn complete(
        &self,
        account: &Account,
        request: CompleteRequest,
    ) -> Result<PaymentReport, GatewayError> {
        operation!(self, account, request, call_complete, answer::payment_report)
    }

    async fn capture(
        &self,
        account: &Account,
        request: CaptureRequest,
    ) -> Result<PaymentReport, GatewayError> {
        operation!(self, account, request, call_capture, answer::payment_report)
    }

    async fn cancel(&self, account: &Account, request: CancelRequest) -> Result<PaymentReport, GatewayError> {
        operation!(self, account, request, call_cancel, answer::payment_report)
    }

    async fn refund(&self, account: &Account, request: RefundRequest) -> Result<RefundReport, GatewayError> {
        let currency = request.amount.currency();
        let read = |answer| answer::refund_report(answer, Some(currency));
        operation!(self, account, request, call_refund, read)
    }

    async fn sync(&self, account: &Account, request: SyncRequest) -> Result<Snapshot, GatewayError> {
        operation!(self, account, request, call_sync, answer::snapshot)
    }

    async fn receive(
        &self,
        account: &Account,
        proof: Proof,
        delivery: Delivery,
    ) -> Result<Received, WebhookError> {
        let Some(interface) = &self.webhooks else {
            return Err(WebhookError::Malformed(format!(
                "plugin {} takes no webhooks",
                self.plugin.id
            )));
        };
        if delivery.tolerance_seconds == 0 {
            return Err(WebhookError::Misconfigured(
                "a tolerance of 0 seconds accepts nothing".into(),
            ));
        }
        let (now, tolerance) = (delivery.received_at, delivery.tolerance_seconds);
        let (mut call, answer) = ask!(
            self,
            Webhook,
            deliveries,
            account,
            now,
            webhook_seconds,
            interface,
            call_receive,
            delivery
        );
        match answer {
            Ok(webhooks::Outcome::Verified(verified)) => {
                if verified
                    .signed_at_ms
                    .is_some_and(|at| !is_fresh(at, now, tolerance))
                {
                    call.answered();
                    return Err(WebhookError::Stale);
                }
                let events = answer::events(verified.events);
                let reply = verified.reply.map(answer::reply).transpose();
                let (events, reply) = call.check(events.and_then(|events| Ok((events, reply?))))?;
                Ok(proof.verified(events, reply))
            }
            Ok(webhooks::Outcome::UnsignedHint(references)) => {
                Ok(Received::UnsignedHint(call.check(answer::hints(references))?))
            }
            Ok(webhooks::Outcome::Challenge(reply)) => {
                Ok(Received::Challenge(call.check(answer::reply(reply))?))
            }
            Err(error) => {
                call.answered();
                Err(answer::webhook_error(error, |text| call.clean(text)))
            }
        }
    }
}

/// The guest has checked this; it is held against the clock once more, as it costs nothing.
fn is_fresh(signed_at_ms: u64, now: Timestamp, tolerance_seconds: u32) -> bool {
    let now = u64::try_from(now.as_secs()).unwrap_or(0);
    (signed_at_ms / 1_000).abs_diff(now) <= u64::from(tolerance_seconds)
}
