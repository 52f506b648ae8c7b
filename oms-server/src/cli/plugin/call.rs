//! `plugin call`: one operation of an account's plugin, by hand.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use oms_core::payments::{
    Account, Call, CancelRequest, CaptureMode, CaptureRequest, CompleteRequest, Customer, Delivery,
    GatewayError, Metadata, PaymentGateway, Received, RefundRequest, StartRequest, SyncRequest, WebhookError,
};
use oms_core::{Actor, Money, Oms, PaymentId, RefundId, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::{open, print, say, serve};
use super::place::claim;
use crate::config::Config;
use crate::setup;

/// A request is read up to here.
const MAX_REQUEST: u64 = 1 << 20;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to call
    #[arg(value_enum)]
    operation: Operation,
    /// The payment account whose plugin, settings and secrets are used
    #[arg(long)]
    account: String,
    /// Another version than the active one: such as 1.2.0, or a digest or its first 8 digits
    #[arg(long)]
    version: Option<String>,
    /// A file with the request as JSON, or - for stdin; without it the request is empty
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Operation {
    /// What the plugin says of itself; reaches no gateway
    Describe,
    /// {amount, currency, order_number?, capture?, instrument?, return_url?, metadata?}
    Start,
    /// {reference, amount, currency, state?, params?}
    Complete,
    /// {reference, amount, currency, final?, state?}
    Capture,
    /// {reference, reason?, state?}
    Cancel,
    /// {reference, amount, currency, capture_reference?, reason?, state?}
    Refund,
    /// {reference, state?}, or {payment}
    Sync,
    /// {body, headers?, query?}: verifies and reads a webhook, and keeps nothing
    Receive,
}

/// What any of them takes. Ids that are not given are made up.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Request {
    idempotency_key: Option<String>,
    payment: Option<PaymentId>,
    refund: Option<RefundId>,
    amount: Option<i64>,
    currency: Option<String>,
    order_number: String,
    capture: CaptureMode,
    instrument: Option<String>,
    return_url: Option<String>,
    metadata: Map<String, Value>,
    reference: Option<String>,
    capture_reference: Option<String>,
    state: Option<String>,
    params: Map<String, Value>,
    r#final: bool,
    reason: Option<String>,
    method: String,
    query: String,
    headers: Map<String, Value>,
    body: String,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            idempotency_key: None,
            payment: None,
            refund: None,
            amount: None,
            currency: None,
            order_number: "by hand".into(),
            capture: CaptureMode::Automatic,
            instrument: None,
            return_url: None,
            metadata: Map::new(),
            reference: None,
            capture_reference: None,
            state: None,
            params: Map::new(),
            r#final: true,
            reason: None,
            method: "POST".into(),
            query: String::new(),
            headers: Map::new(),
            body: String::new(),
        }
    }
}

pub(super) async fn run(config: &Config, options: &Options) -> Result<ExitCode> {
    let request = read(options)?;
    let _claim = claim(config)?;
    let public_url = serve::public_url(config, config.listen);
    let account = setup::accounts(config, &public_url)?
        .into_iter()
        .find(|account| account.name == options.account)
        .with_context(|| format!("there is no payment account {:?}", options.account))?;
    let oms = open(config).await?;
    let answer = call(&oms, options, &account, request, &public_url).await;
    oms.shutdown().await;
    let (answer, good) = answer?;
    print(&format!("{answer:#}\n"))?;
    Ok(ExitCode::from(u8::from(!good)))
}

fn read(options: &Options) -> Result<Request> {
    let Some(path) = &options.request else {
        return Ok(Request::default());
    };
    let mut text = String::new();
    let input: Box<dyn std::io::Read> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(path).with_context(|| path.display().to_string())?),
    };
    input.take(MAX_REQUEST).read_to_string(&mut text)?;
    serde_json::from_str(&text).with_context(|| format!("the request in {}", path.display()))
}

/// The answer, and whether it is one and no error.
async fn call(
    oms: &Oms,
    options: &Options,
    account: &Account,
    request: Request,
    public_url: &str,
) -> Result<(Value, bool)> {
    let plugins = oms.plugins();
    let gateway = match &options.version {
        Some(version) => plugins.gateway_of(&Actor::System, &account.plugin, version).await,
        None => plugins.gateway(&Actor::System, &account.plugin).await,
    };
    let gateway = gateway.with_context(|| format!("plugin {}", account.plugin))?;
    if options.operation == Operation::Describe {
        return Ok((describe(&gateway), true));
    }
    let kind = if account.test_mode {
        "a test account"
    } else {
        "REAL MONEY"
    };
    let info = gateway.info();
    say(format_args!(
        "oms-server: this is real: {} {} acts for the account {} ({kind}), and nothing is written down here",
        info.id, info.version, account.name
    ));
    if options.operation == Operation::Receive {
        let delivery = request.delivery(oms.now(), account, public_url);
        return Ok(received(
            plugins.try_webhook(&Actor::System, account, delivery).await?,
        ));
    }
    let answer = request
        .operate(options.operation, &*gateway, account, oms.now())
        .await?;
    Ok(match answer {
        Ok(answer) => (answer, true),
        Err(error) => (json!({"error": error, "meaning": error.to_string()}), false),
    })
}

impl Request {
    async fn operate(
        self,
        operation: Operation,
        gateway: &dyn PaymentGateway,
        account: &Account,
        now: Timestamp,
    ) -> Result<Result<Value, GatewayError>> {
        let payment = self.payment.unwrap_or_else(|| PaymentId::new(now));
        let key = self
            .idempotency_key
            .clone()
            .unwrap_or_else(|| payment.to_string());
        say(format_args!(
            "oms-server: payment {payment}, idempotency key {key}"
        ));
        let call = Call {
            idempotency_key: key,
            attempt: 1,
            now,
            test_mode: account.test_mode,
        };
        let report = match operation {
            Operation::Start => gateway.start(account, self.start(call, payment)?).await,
            Operation::Complete => {
                let request = CompleteRequest {
                    amount: self.money()?,
                    reference: self.reference()?,
                    params: pairs(&self.params),
                    body: None,
                    state: self.state,
                    call,
                    payment,
                };
                gateway.complete(account, request).await
            }
            Operation::Capture => {
                let request = CaptureRequest {
                    amount: self.money()?,
                    reference: self.reference()?,
                    final_capture: self.r#final,
                    state: self.state,
                    call,
                    payment,
                };
                gateway.capture(account, request).await
            }
            Operation::Cancel => {
                let request = CancelRequest {
                    reference: self.reference()?,
                    state: self.state,
                    reason: self.reason,
                    call,
                    payment,
                };
                gateway.cancel(account, request).await
            }
            Operation::Refund => {
                let request = RefundRequest {
                    amount: self.money()?,
                    reference: self.reference()?,
                    refund: self.refund.unwrap_or_else(|| RefundId::new(now)),
                    capture_reference: self.capture_reference,
                    state: self.state,
                    reason: self.reason,
                    call,
                    payment,
                };
                return Ok(gateway.refund(account, request).await.map(|report| json!(report)));
            }
            Operation::Sync => {
                let request = SyncRequest {
                    reference: self.reference,
                    state: self.state,
                    call,
                    payment,
                };
                return Ok(gateway
                    .sync(account, request)
                    .await
                    .map(|snapshot| json!(snapshot)));
            }
            Operation::Describe | Operation::Receive => bail!("this one needs no gateway"),
        };
        Ok(report.map(|report| json!(report)))
    }

    fn start(self, call: Call, payment: PaymentId) -> Result<StartRequest> {
        Ok(StartRequest {
            amount: self.money()?,
            metadata: pairs(&self.metadata),
            call,
            payment,
            description: Some(format!("Order {}", self.order_number)),
            order_number: self.order_number,
            capture: self.capture,
            instrument: self.instrument,
            instrument_data: Metadata::new(),
            customer: Customer::default(),
            cancel_url: self.return_url.clone(),
            return_url: self.return_url,
            webhook_url: None,
            off_session: false,
        })
    }

    fn money(&self) -> Result<Money> {
        let (Some(minor), Some(currency)) = (self.amount, &self.currency) else {
            bail!("the request needs an amount in minor units and a currency");
        };
        let currency = currency.parse().map_err(anyhow::Error::msg)?;
        Money::new(minor, currency).map_err(anyhow::Error::msg)
    }

    fn reference(&self) -> Result<String> {
        let reference = self.reference.clone();
        reference.context("the request needs the gateway's reference of the payment")
    }

    fn delivery(self, now: Timestamp, account: &Account, public_url: &str) -> Delivery {
        let headers = pairs(&self.headers).into_iter();
        Delivery {
            method: self.method,
            url: format!("{public_url}/v1/webhooks/{}", account.name),
            query: self.query,
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.into_bytes()))
                .collect(),
            body: self.body.into_bytes(),
            received_at: now,
            remote_ip: None,
            tolerance_seconds: account.tolerance_seconds,
        }
    }
}

fn pairs(map: &Map<String, Value>) -> Metadata {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    map.iter()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect()
}

fn describe(gateway: &Arc<dyn PaymentGateway>) -> Value {
    let info = gateway.info();
    let features = info.features;
    json!({
        "id": info.id,
        "name": info.name,
        "version": info.version,
        "digest": info.digest,
        "currencies": info.currencies,
        "features": {
            "manual_capture": features.manual_capture,
            "partial_capture": features.partial_capture,
            "multiple_capture": features.multiple_capture,
            "cancel": features.cancel,
            "refund": features.refund,
            "partial_refund": features.partial_refund,
            "sync": features.sync,
            "complete": features.complete,
            "webhooks": features.webhooks,
            "client_tokens": features.client_tokens,
        },
    })
}

fn received(received: Result<Received, WebhookError>) -> (Value, bool) {
    let reply = |reply: &oms_core::payments::Reply| {
        json!({"status": reply.status, "content_type": reply.content_type,
            "body": String::from_utf8_lossy(&reply.body)})
    };
    match received {
        Ok(Received::Verified(verified)) => {
            let (events, answer) = verified.into_parts();
            (
                json!({"verified": events, "reply": answer.as_ref().map(reply)}),
                true,
            )
        }
        Ok(Received::UnsignedHint(references)) => (json!({"unsigned_hint": references}), true),
        Ok(Received::Challenge(answer)) => (json!({"challenge": reply(&answer)}), true),
        Err(error) => (json!({"error": error.to_string()}), false),
    }
}
