//! One payment, step by step: what each call is asked with, and whether it came out as expected.

use std::sync::Arc;

use uuid::Uuid;

use super::fixtures::{
    Call as Which, Exchange as Recorded, Fault, Fixtures, Script, Step, Words, subset, time,
};
use super::report::RunReport;
use super::sandbox::{Ask, Outcome, Run, Sandbox};
use super::sign::Draft;
use crate::id::{PaymentId, RefundId};
use crate::money::{Currency, Money};
use crate::payments::{
    Account, Call, CancelRequest, CaptureMode, CaptureRequest, CompleteRequest, Customer, Delivery,
    GatewayError, Received, RefundRequest, StartRequest, SyncRequest,
};
use crate::plugins::tape::{Exchange, HostCall, HttpRequest};
use crate::time::Timestamp;

/// A payment of its own at an account of its own.
pub(super) struct Player<'a> {
    sandbox: &'a Sandbox,
    fixtures: &'a Fixtures,
    pub(super) account: Account,
    pub(super) books: Books,
    number: u64,
    calls: u32,
    events: u32,
    pub(super) runs: Vec<RunReport>,
}

/// What the gateway has in its books after the call, and what the plugin has reported.
#[derive(Debug, Clone)]
pub(super) struct Books {
    pub(super) payment: PaymentId,
    pub(super) refund: RefundId,
    pub(super) currency: Currency,
    pub(super) capture: CaptureMode,
    pub(super) total: i64,
    pub(super) authorized: i64,
    pub(super) captured: i64,
    pub(super) refunded: i64,
    pub(super) canceled: i64,
    pub(super) reference: Option<String>,
    pub(super) operation_reference: Option<String>,
    pub(super) refund_reference: Option<String>,
    pub(super) state: Option<String>,
    /// What the gateway's answers are off by: it took less than it was asked for.
    pub(super) lie: i64,
}

/// A call that was made.
pub(super) struct Played {
    pub(super) run: Run,
    pub(super) key: String,
    pub(super) amount: i64,
    /// What was asked of the network that is not recorded, or the other way round.
    pub(super) script: Vec<String>,
    /// Which recorded exchanges were asked.
    pub(super) asked: Vec<usize>,
    /// The requests that would have changed something at the gateway.
    pub(super) changes: Vec<HttpRequest>,
}

impl<'a> Player<'a> {
    pub(super) fn new(sandbox: &'a Sandbox, fixtures: &'a Fixtures, number: u64) -> Result<Self, String> {
        let facts = &fixtures.suite.payment;
        let currency = facts
            .currency
            .parse()
            .map_err(|e| format!("[payment] currency {e}"))?;
        Ok(Self {
            account: fixtures.account(&sandbox.manifest, number)?,
            books: Books {
                payment: PaymentId::from_uuid(id(number, 1)),
                refund: RefundId::from_uuid(id(number, 2)),
                currency,
                capture: CaptureMode::Automatic,
                total: facts.amount,
                authorized: 0,
                captured: 0,
                refunded: 0,
                canceled: 0,
                reference: None,
                operation_reference: None,
                refund_reference: None,
                state: None,
                lie: 0,
            },
            sandbox,
            fixtures,
            number,
            calls: 0,
            events: 0,
            runs: Vec::new(),
        })
    }

    /// Makes a call; the faults are what was not as the step expects.
    pub(super) async fn play(&mut self, step: &Step) -> Result<(Played, Vec<String>), String> {
        let played = self.call(step, None).await?;
        let words = self.words(step, &played.key, played.amount)?;
        let mut faults = played.script.clone();
        faults.extend(expectations(step, &words, &played.run)?);
        Ok((played, faults))
    }

    /// Makes a call that one of its requests goes wrong for.
    pub(super) async fn call(&mut self, step: &Step, fault: Option<Fault>) -> Result<Played, String> {
        self.calls += 1;
        let default_key = format!("kit-{}-{}-{}", self.number, step.call.as_str(), self.calls);
        let key = step.key.clone().unwrap_or(default_key);
        let amount = self.keep_books(step)?;
        let words = self.words(step, &key, amount)?;
        let script = Arc::new(Script::new(
            self.fixtures,
            &self.exchanges(step),
            words.clone(),
            fault,
        )?);
        let ask = self.ask(step, &key, amount, &words)?;
        let run = Box::pin(self.sandbox.ask(&self.account, ask, Arc::clone(&script) as _)).await;
        self.remember(&run.outcome);
        self.runs.push(RunReport::of(step.call.as_str(), &run));
        Ok(Played {
            run,
            key,
            amount,
            script: script.faults(),
            asked: script.asked(),
            changes: script.changes(),
        })
    }

    /// Hands a delivery to the plugin as it is.
    pub(super) async fn deliver(&mut self, delivery: Delivery) -> Result<Run, String> {
        let step = Step {
            call: Which::Receive,
            ..Step::default()
        };
        let words = self.words(&step, "", 0)?;
        let exchanges = self.exchanges(&step);
        let script = Arc::new(Script::new(self.fixtures, &exchanges, words, None)?);
        let run = Box::pin(self.sandbox.ask(&self.account, Ask::Receive(delivery), script)).await;
        self.runs.push(RunReport::of("receive", &run));
        Ok(run)
    }

    /// A delivery of this payment's gateway, to be signed; each has an event of its own.
    pub(super) fn draft(&mut self) -> Result<Draft<'a>, String> {
        self.events += 1;
        let webhook = self
            .fixtures
            .suite
            .webhook
            .as_ref()
            .ok_or("suite.toml has no [webhook]")?;
        let mut words = self.words(&Step::default(), "", self.books.total)?;
        words.set("n", self.events.to_string());
        Ok(Draft {
            fixtures: self.fixtures,
            webhook,
            event_id: words.render(&webhook.event_id)?,
            words,
            signed_at: self.fixtures.now,
            received_at: self.fixtures.now,
            tolerance_seconds: self.account.tolerance_seconds,
            body: None,
            headers: None,
            wrong_key: false,
            unsigned: false,
        })
    }

    fn exchanges(&self, step: &Step) -> Vec<Recorded> {
        match &self.fixtures.suite.webhook {
            Some(webhook) if step.call == Which::Receive && step.http.is_empty() => webhook.http.clone(),
            _ => step.http.clone(),
        }
    }

    /// What the gateway's books say after this call; the amount of the call.
    fn keep_books(&mut self, step: &Step) -> Result<i64, String> {
        let books = &mut self.books;
        if let Some(currency) = &step.currency {
            books.currency = currency.parse().map_err(|e| format!("currency {e}"))?;
        }
        let amount = match step.call {
            Which::Start => step.amount.unwrap_or(books.total),
            Which::Capture => step.amount.unwrap_or(books.authorized - books.captured),
            Which::Refund => step.amount.unwrap_or(books.captured - books.refunded),
            _ => step.amount.unwrap_or(books.total),
        };
        match step.call {
            Which::Start => {
                books.capture = match step.capture.as_deref() {
                    None => CaptureMode::Automatic,
                    Some(text) => CaptureMode::parse(text)
                        .ok_or_else(|| format!("capture is {text:?}, it must be automatic or manual"))?,
                };
                (books.total, books.authorized, books.captured) = (amount, amount, 0);
                (books.refunded, books.canceled) = (0, 0);
                if books.capture == CaptureMode::Automatic {
                    books.captured = amount;
                }
            }
            Which::Capture => books.captured += amount,
            Which::Cancel => books.canceled = books.authorized - books.captured,
            Which::Refund => books.refunded += amount,
            Which::Complete | Which::Sync | Which::Receive => {}
        }
        Ok(amount)
    }

    pub(super) fn words(&self, step: &Step, key: &str, amount: i64) -> Result<Words, String> {
        let (books, mut words) = (&self.books, Words::default());
        for (name, value) in &self.account.config {
            words.set(&format!("config.{name}"), value);
        }
        for (name, value) in &self.account.secrets {
            words.set(&format!("secret.{name}"), value.reveal());
        }
        let exponent = books.currency.exponent();
        for (name, minor) in [
            ("amount", amount),
            ("total", books.total),
            ("authorized", (books.authorized - books.lie).max(0)),
            ("captured", (books.captured - books.lie).max(0)),
            ("refunded", books.refunded),
            ("canceled", books.canceled),
        ] {
            words.set_amount(name, minor, exponent);
        }
        let code = books.currency.code();
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        for (name, value) in [
            ("key", key.to_owned()),
            ("payment_id", books.payment.to_string()),
            ("refund_id", books.refund.to_string()),
            ("order_number", self.order_number()),
            ("currency", code.to_owned()),
            ("currency.lower", code.to_ascii_lowercase()),
            ("capture", books.capture.as_str().to_owned()),
            ("reference", or_empty(&books.reference)),
            ("operation_reference", or_empty(&books.operation_reference)),
            ("refund_reference", or_empty(&books.refund_reference)),
            ("state", or_empty(&books.state)),
            ("webhook_url", self.webhook_url()),
            ("return_url", RETURN_URL.to_owned()),
            ("cancel_url", CANCEL_URL.to_owned()),
        ] {
            words.set(name, value);
        }
        words.set_time("now", self.now(step)?);
        Ok(words)
    }

    fn now(&self, step: &Step) -> Result<Timestamp, String> {
        step.now.as_deref().map_or(Ok(self.fixtures.now), time)
    }

    fn order_number(&self) -> String {
        format!("K-{:05}", self.number)
    }

    fn webhook_url(&self) -> String {
        let webhook = self.fixtures.suite.webhook.as_ref();
        webhook.map_or_else(
            || "https://shop.test/v1/webhooks/kit".into(),
            |webhook| webhook.url.clone(),
        )
    }

    fn ask(&mut self, step: &Step, key: &str, amount: i64, words: &Words) -> Result<Ask, String> {
        let call = Call {
            idempotency_key: key.to_owned(),
            attempt: step.attempt.unwrap_or(1),
            now: self.now(step)?,
            test_mode: self.account.test_mode,
        };
        let books = &self.books;
        let reference = match &step.reference {
            Some(text) => Some(words.render(text)?).filter(|text| !text.is_empty()),
            None => books.reference.clone(),
        };
        let needed = || {
            let call = step.call.as_str();
            reference.clone().ok_or_else(|| {
                format!(
                    "{call} needs the gateway's reference, and no earlier step reported one; give `reference`"
                )
            })
        };
        let state = step.state.clone().or_else(|| books.state.clone());
        let (payment, reason) = (books.payment, step.reason.clone());
        let money = |minor| Money::new(minor, books.currency);
        let params = words.render_all(&step.params)?.into_iter().collect();
        Ok(match step.call {
            Which::Start => Ask::Start(Box::new(self.start_request(step, call, amount)?)),
            Which::Complete => Ask::Complete(CompleteRequest {
                call,
                payment,
                reference: needed()?,
                amount: money(books.total)?,
                state,
                params,
                body: step
                    .body
                    .as_deref()
                    .map(|text| words.render(text).map(String::into_bytes))
                    .transpose()?,
            }),
            Which::Capture => Ask::Capture(CaptureRequest {
                call,
                payment,
                reference: needed()?,
                state,
                amount: money(amount)?,
                final_capture: step.final_capture.unwrap_or(true),
            }),
            Which::Cancel => Ask::Cancel(CancelRequest {
                call,
                payment,
                reference: needed()?,
                state,
                reason,
            }),
            Which::Refund => Ask::Refund(RefundRequest {
                call,
                payment,
                refund: books.refund,
                reference: needed()?,
                capture_reference: books.operation_reference.clone(),
                state,
                amount: money(amount)?,
                reason,
            }),
            Which::Sync => Ask::Sync(SyncRequest {
                call,
                payment,
                reference,
                state,
            }),
            Which::Receive => Ask::Receive(self.delivery(step)?),
        })
    }

    fn start_request(&self, step: &Step, call: Call, amount: i64) -> Result<StartRequest, String> {
        let (books, facts) = (&self.books, &self.fixtures.suite.payment);
        let data = step.instrument_data.as_ref().unwrap_or(&facts.instrument_data);
        let customer = facts.customer.clone();
        Ok(StartRequest {
            call,
            payment: books.payment,
            order_number: self.order_number(),
            amount: Money::new(amount, books.currency)?,
            capture: books.capture,
            instrument: step.instrument.clone().or_else(|| facts.instrument.clone()),
            instrument_data: data.clone().into_iter().collect(),
            customer: Customer {
                id: customer.id,
                email: customer.email,
                phone: customer.phone,
                ip: customer.ip,
                ..Customer::default()
            },
            description: Some(format!("Order {}", self.order_number())),
            return_url: Some(RETURN_URL.into()),
            cancel_url: Some(CANCEL_URL.into()),
            webhook_url: Some(self.webhook_url()),
            off_session: step.off_session.unwrap_or(false),
            metadata: Vec::new(),
        })
    }

    fn delivery(&mut self, step: &Step) -> Result<Delivery, String> {
        let now = self.now(step)?;
        let text = |text: &Option<String>, file: &Option<String>| match (text, file) {
            (None, None) => Ok(None),
            _ => self
                .fixtures
                .text(text.as_deref().unwrap_or_default(), file.as_ref())
                .map(Some),
        };
        let body = text(&step.body, &step.body_file)?;
        if step.ready {
            let headers = step.headers.clone().unwrap_or_default();
            let header = |(name, value): (String, String)| (name.to_ascii_lowercase(), value.into_bytes());
            return Ok(Delivery {
                method: step.method.clone().unwrap_or_else(|| "POST".into()),
                url: step.url.clone().unwrap_or_else(|| self.webhook_url()),
                query: step.query.clone().unwrap_or_default(),
                headers: headers.into_iter().map(header).collect(),
                body: body.unwrap_or_default().into_bytes(),
                received_at: now,
                remote_ip: None,
                tolerance_seconds: self.account.tolerance_seconds,
            });
        }
        let mut draft = self.draft()?;
        draft.words.set_time("now", now);
        (draft.body, draft.headers, draft.received_at) = (body, step.headers.clone(), now);
        draft.signed_at = step.signed_at.as_deref().map_or(Ok(now), time)?;
        if let Some(id) = &step.event_id {
            draft.event_id = draft.words.render(id)?;
        }
        let mut delivery = draft.sign()?;
        delivery.method = step.method.clone().unwrap_or(delivery.method);
        delivery.url = step.url.clone().unwrap_or(delivery.url);
        delivery.query = step.query.clone().unwrap_or(delivery.query);
        Ok(delivery)
    }

    /// The host keeps what a plugin reports for the next call.
    fn remember(&mut self, outcome: &Outcome) {
        let report = match outcome {
            Outcome::Payment(report) => report,
            Outcome::Sync(snapshot) => &snapshot.payment,
            Outcome::Refund(report) => {
                self.books.refund_reference = report.reference.clone().or(self.books.refund_reference.take());
                return;
            }
            _ => return,
        };
        let keep = |new: &Option<String>, kept: &mut Option<String>| {
            if new.is_some() {
                kept.clone_from(new);
            }
        };
        keep(&report.reference, &mut self.books.reference);
        keep(&report.operation_reference, &mut self.books.operation_reference);
        keep(&report.state, &mut self.books.state);
    }
}

const RETURN_URL: &str = "https://shop.test/back";
const CANCEL_URL: &str = "https://shop.test/cancel";

/// The same in every run, so that what was recorded fits.
fn id(number: u64, kind: u64) -> Uuid {
    // The bits of version 7, as real ids have them.
    let (time, version, variant) = (0x0190_0000_0000_u128, 7_u128 << 76, 2_u128 << 62);
    Uuid::from_u128(time << 80 | version | variant | u128::from(kind) << 48 | u128::from(number))
}

/// The requests that a call sent.
pub(super) fn requests<'a>(calls: &'a [HostCall]) -> Vec<&'a Exchange> {
    let http = |call: &'a HostCall| match call {
        HostCall::Http(exchange) => Some(&**exchange),
        _ => None,
    };
    calls.iter().filter_map(http).collect()
}

fn expectations(step: &Step, words: &Words, run: &Run) -> Result<Vec<String>, String> {
    let outcome = &run.outcome;
    let mut faults = Vec::new();
    let unexpected = || format!("it answered {}", outcome.words());
    let mut check = |fits: bool, wanted: String| {
        if !fits {
            faults.push(format!("{}; expected {wanted}", unexpected()));
        }
    };
    if let Some(kind) = &step.expect_error {
        check(
            matches!(outcome, Outcome::Failed(_)) && outcome.word() == *kind,
            kind.clone(),
        );
    }
    if let Some(kind) = &step.expect_refused {
        check(
            matches!(outcome, Outcome::Refused(_)) && outcome.word() == *kind,
            kind.clone(),
        );
    }
    if let Some(hint) = &step.expect_hint {
        let wanted = hint
            .iter()
            .map(|text| words.render(text))
            .collect::<Result<Vec<_>, _>>()?;
        let fits = matches!(outcome, Outcome::Received(Received::UnsignedHint(said)) if *said == wanted);
        check(fits, format!("the unsigned hint {wanted:?}"));
    }
    if let Some(challenge) = &step.expect_challenge {
        let text = words.render(challenge)?;
        let fits =
            matches!(outcome, Outcome::Received(Received::Challenge(reply)) if reply.body == text.as_bytes());
        check(fits, format!("the challenge {text:?}"));
    }
    if let Some(text) = &step.expect_text {
        let text = words.render(text)?;
        let said = outcome.words().contains(&text) || outcome.json().to_string().contains(&text);
        check(said, format!("{text:?} in its words"));
    }
    if let Some(events) = &step.expect_events {
        let json = outcome.json();
        let there = &json["events"];
        let same_number = there.as_array().is_some_and(|there| there.len() == events.len());
        check(same_number, format!("{} events", events.len()));
        for (n, event) in events.iter().enumerate() {
            if let Err(fault) = subset(&words.render_json(event)?, &there[n]) {
                faults.push(format!("event {}: {fault}", n + 1));
            }
        }
    }
    if let Some(expected) = &step.expect {
        match outcome {
            Outcome::Failed(_) | Outcome::Refused(_) => {
                faults.push(format!("{}; expected success", unexpected()));
            }
            _ => {
                let json = outcome.json();
                // A report of a payment is what most expectations are about, so a sync may be named in full alone.
                let fault = subset(&words.render_json(expected)?, &json).err();
                faults.extend(fault);
            }
        }
    }
    if let Some(failure) = &run.failure {
        faults.push(format!("the plugin gave no answer: {failure}"));
    }
    Ok(faults)
}

/// A final no, in either of its forms.
pub(super) fn is_no(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Failed(GatewayError::Declined(_)) => true,
        Outcome::Payment(report) => report.status == crate::payments::GatewayStatus::Failed,
        Outcome::Refund(report) => report.status == crate::payments::RefundStatus::Failed,
        _ => false,
    }
}
