//! A gateway in memory that does as a test tells it, with a ledger of its own to compare with.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::guard;
use super::ledger::{Answer, Bank, FakePayment, FakeRefund};
use crate::id::{PaymentId, RefundId};
use crate::payments::{
    Account, CancelRequest, CaptureRequest, Change, CompleteRequest, Decline, Delivery, Features,
    GatewayError, GatewayEvent, GatewayInfo, GatewayStatus, PaymentGateway, PaymentReport, Proof, Received,
    RefundReport, RefundRequest, RefundStatus, Reply, Snapshot, StartRequest, SyncRequest, WebhookError,
};
use crate::time::Timestamp;

const SECRET: &str = "known to the fake gateway and its tests";

/// A gateway without a network. It approves everything unless it is told otherwise, repeats its answer to a key it
/// knows, and signs its webhooks. Clones share the ledger.
#[derive(Debug, Clone)]
pub struct FakeGateway {
    info: GatewayInfo,
    bank: Arc<Mutex<Bank>>,
}

/// What can be asked of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Ask {
    Start,
    Complete,
    Capture,
    Cancel,
    Refund,
    Sync,
}

/// How the gateway behaves once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fake {
    /// Start: the customer must first approve, see [`FakeGateway::pay`].
    Redirect,
    /// Start, refund: accepted, the outcome comes later.
    Pend,
    /// A final no.
    Decline,
    /// It happens, but the answer is lost.
    LoseAnswer,
    /// The request is lost; the caller cannot know that.
    LoseRequest,
    /// Nothing happens but this error.
    Fail(GatewayError),
    /// Start: charges so many minor units instead.
    Charge(i64),
    /// Takes so long.
    Slow(Duration),
}

impl FakeGateway {
    /// A gateway that can do everything, in any currency.
    pub fn new(id: impl Into<String>) -> Self {
        let id = id.into();
        let features = Features {
            manual_capture: true,
            partial_capture: true,
            multiple_capture: true,
            cancel: true,
            refund: true,
            partial_refund: true,
            sync: true,
            complete: true,
            webhooks: true,
            client_tokens: false,
        };
        let info = GatewayInfo {
            name: format!("Fake gateway {id}"),
            id,
            version: "1.0.0".into(),
            digest: None,
            features,
            currencies: Vec::new(),
        };
        Self {
            info,
            bank: Arc::default(),
        }
    }

    /// Directs the next call of this kind for which nothing else is planned yet.
    pub fn plan(&self, ask: Ask, fake: Fake) {
        guard(&self.bank).script.push_back((ask, fake));
    }

    /// How often it was asked, repetitions included.
    pub fn calls(&self, ask: Ask) -> usize {
        guard(&self.bank).calls.get(&ask).copied().unwrap_or(0)
    }

    /// Minor units captured over all payments: what the customers were charged.
    pub fn charged(&self) -> i64 {
        guard(&self.bank).payments.iter().map(|p| p.captured).sum()
    }

    /// A payment as the gateway has it.
    pub fn payment(&self, id: PaymentId) -> Option<FakePayment> {
        guard(&self.bank)
            .payments
            .iter()
            .find(|p| p.payment == id)
            .cloned()
    }

    /// The customer approves on the gateway's page.
    pub fn pay(&self, id: PaymentId) {
        self.change(id, FakePayment::approve);
    }

    /// Changes a payment at the gateway, behind the library's back.
    pub fn change(&self, id: PaymentId, change: impl FnOnce(&mut FakePayment)) {
        let mut bank = guard(&self.bank);
        if let Some(payment) = bank.payments.iter_mut().find(|p| p.payment == id) {
            change(payment);
        }
    }

    /// An event that tells how the payment stands now, with an id of its own. None for an unknown payment.
    pub fn event(&self, id: PaymentId) -> Option<GatewayEvent> {
        let payment = self.payment(id)?;
        let change = Change::Payment {
            status: Some(payment.status),
            totals: payment.totals(),
            decline_code: None,
            operation_reference: None,
        };
        Some(self.event_of(&payment, "payment", change))
    }

    /// An event that tells how a refund stands now. None for an unknown one.
    pub fn refund_event(&self, id: PaymentId, refund: RefundId) -> Option<GatewayEvent> {
        let payment = self.payment(id)?;
        let refund = payment.refunds.iter().find(|r| r.refund == refund)?;
        let change = Change::Refund {
            refund: None,
            reference: refund.reference.clone(),
            status: refund.status,
            amount: Some((refund.amount, payment.currency.clone())),
        };
        Some(self.event_of(&payment, "refund", change))
    }

    /// Any other event of a payment.
    pub fn event_of(&self, payment: &FakePayment, kind: &str, change: Change) -> GatewayEvent {
        let mut bank = guard(&self.bank);
        bank.events += 1;
        GatewayEvent {
            id: format!("evt_{}", bank.events),
            kind: kind.into(),
            occurred_at: None,
            reference: Some(payment.reference.clone()),
            payment: None,
            change,
        }
    }

    /// A webhook with these events, signed at this time.
    pub fn delivery(&self, signed_at: Timestamp, events: &[GatewayEvent]) -> Delivery {
        // Events are plain data, which always serialises.
        let body = serde_json::to_vec(events).unwrap_or_default();
        let time = signed_at.as_millis().to_string();
        let headers = vec![
            ("fake-time".into(), time.clone().into_bytes()),
            ("fake-signature".into(), signature(&time, &body).into_bytes()),
        ];
        Delivery {
            headers,
            body,
            ..self.unsigned("POST")
        }
    }

    /// A webhook that says only "look at these", without a signature.
    pub fn hint(&self, references: &[&str]) -> Delivery {
        let references = references.join(",").into_bytes();
        Delivery {
            headers: vec![("fake-hint".into(), references)],
            ..self.unsigned("POST")
        }
    }

    /// What a gateway sends to see whether the address answers: the library has to repeat the query.
    pub fn handshake(&self, query: &str) -> Delivery {
        Delivery {
            query: query.into(),
            ..self.unsigned("GET")
        }
    }

    fn unsigned(&self, method: &str) -> Delivery {
        Delivery {
            method: method.into(),
            url: String::new(),
            query: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
            received_at: Timestamp::from_micros(0),
            remote_ip: None,
            tolerance_seconds: 300,
        }
    }

    /// One operation: directed, once for each key.
    async fn once(
        &self,
        ask: Ask,
        key: &str,
        work: impl FnOnce(&mut Bank, Option<&Fake>) -> Result<Answer, GatewayError> + Send,
    ) -> Result<Answer, GatewayError> {
        let fake = guard(&self.bank).next(ask);
        if let Some(Fake::Slow(time)) = &fake {
            tokio::time::sleep(*time).await;
        }
        match &fake {
            Some(Fake::Fail(error)) => return Err(error.clone()),
            Some(Fake::LoseRequest) => return Err(lost()),
            _ => {}
        }
        let mut bank = guard(&self.bank);
        let known = bank.answers.get(key).cloned();
        let answer = match known {
            Some(answer) => answer,
            None if fake == Some(Fake::Decline) => Err(GatewayError::Declined(Decline {
                code: "card_declined".into(),
                message: "Your card was declined.".into(),
            })),
            None => work(&mut bank, fake.as_ref()),
        };
        bank.answers.insert(key.into(), answer.clone());
        if fake == Some(Fake::LoseAnswer) {
            return Err(lost());
        }
        answer
    }
}

fn lost() -> GatewayError {
    GatewayError::Indeterminate("no answer".into())
}

fn signature(time: &str, body: &[u8]) -> String {
    let digest = Sha256::new()
        .chain_update(SECRET)
        .chain_update(time)
        .chain_update(body)
        .finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn payment(answer: Result<Answer, GatewayError>) -> Result<PaymentReport, GatewayError> {
    match answer? {
        Answer::Payment(report) => Ok(*report),
        Answer::Refund(_) => Err(GatewayError::Internal("the key was a refund's".into())),
    }
}

#[async_trait]
impl PaymentGateway for FakeGateway {
    fn info(&self) -> &GatewayInfo {
        &self.info
    }

    async fn start(&self, _: &Account, request: StartRequest) -> Result<PaymentReport, GatewayError> {
        let key = request.call.idempotency_key.clone();
        payment(
            self.once(Ask::Start, &key, |bank, fake| {
                Ok(Answer::Payment(Box::new(bank.start(&request, fake))))
            })
            .await,
        )
    }

    async fn complete(&self, _: &Account, request: CompleteRequest) -> Result<PaymentReport, GatewayError> {
        let key = request.call.idempotency_key.clone();
        payment(
            self.once(Ask::Complete, &key, |bank, _| {
                let payment = bank.payment(&request.reference)?;
                payment.approve();
                Ok(Answer::Payment(Box::new(payment.report())))
            })
            .await,
        )
    }

    async fn capture(&self, _: &Account, request: CaptureRequest) -> Result<PaymentReport, GatewayError> {
        let key = request.call.idempotency_key.clone();
        payment(
            self.once(Ask::Capture, &key, |bank, _| {
                let payment = bank.payment(&request.reference)?;
                let open = matches!(
                    payment.status,
                    GatewayStatus::Authorized | GatewayStatus::PartiallyCaptured
                );
                if !open || request.amount.minor() > payment.authorized - payment.captured {
                    return Err(GatewayError::InvalidState("nothing to capture".into()));
                }
                payment.take(request.amount.minor(), request.final_capture);
                let operation_reference = Some(format!("fc_{}_{}", payment.reference, payment.captured));
                Ok(Answer::Payment(Box::new(PaymentReport {
                    operation_reference,
                    ..payment.report()
                })))
            })
            .await,
        )
    }

    async fn cancel(&self, _: &Account, request: CancelRequest) -> Result<PaymentReport, GatewayError> {
        let key = request.call.idempotency_key.clone();
        payment(
            self.once(Ask::Cancel, &key, |bank, _| {
                let payment = bank.payment(&request.reference)?;
                match payment.status {
                    GatewayStatus::Captured | GatewayStatus::Failed => {
                        return Err(GatewayError::InvalidState("nothing to cancel".into()));
                    }
                    GatewayStatus::PartiallyCaptured => payment.status = GatewayStatus::Captured,
                    _ => payment.status = GatewayStatus::Canceled,
                }
                payment.canceled = payment.authorized - payment.captured;
                Ok(Answer::Payment(Box::new(payment.report())))
            })
            .await,
        )
    }

    async fn refund(&self, _: &Account, request: RefundRequest) -> Result<RefundReport, GatewayError> {
        let key = request.call.idempotency_key.clone();
        let answer = self.once(Ask::Refund, &key, |bank, fake| {
            let payment = bank.payment(&request.reference)?;
            let sent: i64 = payment.refunds.iter().map(|r| r.amount).sum();
            if request.amount.minor() > payment.captured - sent {
                return Err(GatewayError::InvalidState("not so much was captured".into()));
            }
            let pending = fake == Some(&Fake::Pend);
            let refund = FakeRefund {
                refund: request.refund,
                reference: format!("fr_{}_{}", payment.reference, payment.refunds.len() + 1),
                amount: request.amount.minor(),
                status: if pending {
                    RefundStatus::Pending
                } else {
                    RefundStatus::Succeeded
                },
            };
            payment.refunds.push(refund.clone());
            Ok(Answer::Refund(refund.report()))
        });
        match answer.await? {
            Answer::Refund(report) => Ok(report),
            Answer::Payment(_) => Err(GatewayError::Internal("the key was a payment's".into())),
        }
    }

    async fn sync(&self, _: &Account, request: SyncRequest) -> Result<Snapshot, GatewayError> {
        let mut bank = guard(&self.bank);
        match bank.next(Ask::Sync) {
            Some(Fake::Fail(error)) => return Err(error),
            Some(Fake::LoseAnswer | Fake::LoseRequest) => return Err(lost()),
            _ => {}
        }
        let found = bank
            .payments
            .iter()
            .find(|p| Some(&p.reference) == request.reference.as_ref() || p.payment == request.payment);
        let payment = found.ok_or_else(|| GatewayError::NotFound(request.payment.to_string()))?;
        Ok(Snapshot {
            payment: payment.report(),
            refunds: payment.refunds.iter().map(FakeRefund::report).collect(),
        })
    }

    async fn receive(&self, _: &Account, proof: Proof, delivery: Delivery) -> Result<Received, WebhookError> {
        if delivery.method == "GET" {
            return Ok(Received::Challenge(Reply {
                status: 200,
                content_type: Some("text/plain".into()),
                body: delivery.query.into_bytes(),
            }));
        }
        let header = |name: &str| {
            let found = delivery.headers.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        if let Some(references) = header("fake-hint") {
            return Ok(Received::UnsignedHint(
                references.split(',').map(Into::into).collect(),
            ));
        }
        let missing = |name: &str| WebhookError::MissingSignature(name.into());
        let told = header("fake-signature").ok_or_else(|| missing("fake-signature"))?;
        let time = header("fake-time").ok_or_else(|| missing("fake-time"))?;
        if told != signature(&time, &delivery.body) {
            return Err(WebhookError::BadSignature);
        }
        let malformed = |e: &dyn std::fmt::Display| WebhookError::Malformed(e.to_string());
        let signed_at: i64 = time.parse().map_err(|e| malformed(&e))?;
        let off = delivery.received_at.as_millis().abs_diff(signed_at);
        if off > u64::from(delivery.tolerance_seconds) * 1_000 {
            return Err(WebhookError::Stale);
        }
        let events = serde_json::from_slice(&delivery.body).map_err(|e| malformed(&e))?;
        Ok(proof.verified(events, None))
    }
}
