//! Parts that are nobody else's business, for the targets in `fuzz/`. No promise is made about them.

pub use super::bindings::generated::exports::oms::payment::{descriptor, gateway, webhooks};
pub use super::bindings::generated::oms::payment::types;

use super::answer;
use super::manifest;
use crate::money::Currency;
use crate::payments::{
    Features, GatewayError, GatewayEvent, PaymentReport, RefundReport, Reply, Snapshot, WebhookError,
};

/// What was read of a `plugin.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `plugin.toml`")]
pub struct Manifest {
    pub id: String,
    pub name: Option<String>,
    pub version: String,
    pub contract: String,
    pub wasm: String,
    pub sha256: Option<String>,
    pub hosts: Vec<String>,
    /// By the names of `plugin.toml`.
    pub limits: [(&'static str, u32); 8],
    /// What the host makes of them.
    pub memory_bytes: usize,
    pub log_bytes: usize,
    pub ticks: u64,
}

/// Reads and checks a `plugin.toml`, and that a component which says the same is taken for it, and no other one.
pub fn manifest(text: &str) -> Result<Manifest, String> {
    let read = manifest::Manifest::parse(text)?;
    read.check_descriptor(&read.id, &read.version, &read.hosts)?;
    let other = format!("{}x", read.id);
    assert!(read.check_descriptor(&other, &read.version, &read.hosts).is_err());
    let limits = read.limits;
    Ok(Manifest {
        limits: [
            ("memory_mib", limits.memory_mib),
            ("operation_seconds", limits.operation_seconds),
            ("webhook_seconds", limits.webhook_seconds),
            ("cpu_seconds", limits.cpu_seconds),
            ("http_calls", limits.http_calls),
            ("log_kib", limits.log_kib),
            ("concurrent_calls", limits.concurrent_calls),
            ("failures", limits.failures),
        ],
        memory_bytes: limits.memory_bytes(),
        log_bytes: limits.log_bytes(),
        ticks: limits.ticks(),
        id: read.id,
        name: read.name,
        version: read.version,
        contract: read.contract,
        wasm: read.wasm,
        sha256: read.sha256,
        hosts: read.hosts,
    })
}

/// What a component says that it can do.
pub fn features(flags: descriptor::Feature) -> Features {
    answer::features(flags)
}

/// The answer to most operations.
pub fn payment_report(result: gateway::PaymentResult) -> Result<PaymentReport, String> {
    answer::payment_report(result)
}

/// The answer to a refund of a payment in this currency.
pub fn refund_report(
    result: gateway::RefundResult,
    currency: Option<Currency>,
) -> Result<RefundReport, String> {
    answer::refund_report(result, currency)
}

/// The answer to a sync.
pub fn snapshot(snapshot: gateway::Snapshot) -> Result<Snapshot, String> {
    answer::snapshot(snapshot)
}

/// Why an operation failed; `text` takes secrets out.
pub fn payment_error(error: types::PaymentError, text: impl Fn(&str) -> String) -> GatewayError {
    answer::payment_error(error, text)
}

/// Why a webhook was refused; `text` takes secrets out.
pub fn webhook_error(error: webhooks::WebhookError, text: impl Fn(&str) -> String) -> WebhookError {
    answer::webhook_error(error, text)
}

/// What a verified webhook says.
pub fn events(events: Vec<webhooks::Event>) -> Result<Vec<GatewayEvent>, String> {
    answer::events(events)
}

/// What an unsigned webhook names.
pub fn hints(references: Vec<String>) -> Result<Vec<String>, String> {
    answer::hints(references)
}

/// What the gateway is answered.
pub fn reply(reply: webhooks::Reply) -> Result<Reply, String> {
    answer::reply(reply)
}
