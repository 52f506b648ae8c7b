//! One operation at a gateway in three steps, never in one transaction:
//!
//! 1. [`begin`]: a transaction writes the attempt with the gateway's key and binds the client's key to it.
//! 2. [`ask`]: the adapter is called; nothing is locked.
//! 3. [`settle`]: a transaction takes the answer in.
//!
//! A crash between them leaves the attempt in flight; the rescue job makes it unknown and the gateway is asked.

use std::time::Duration;

use tokio::time::Instant;

use super::gateway::{
    Call, CancelRequest, CaptureRequest, CompleteRequest, Decline, GatewayError, GatewayStatus,
    PaymentReport, RefundReport, RefundRequest, StartRequest,
};
use super::gateways::Till;
use super::locked::{Locked, run_refund};
use super::merge::{News, Source};
use super::model::{OperationStatus, Payment, PaymentStatus};
use super::store::attempts::{self, Attempt, Operation, Progress};
use super::{reconcile, store};
use crate::actor::Actor;
use crate::error::{Error, Result};
use crate::id::{AttemptId, PaymentId};
use crate::idempotency::{Claim, Claimed, Outcome};
use crate::oms::Oms;
use crate::time::Timestamp;

/// No adapter may take longer: its outcome counts as unknown then. Below the age at which attempts are rescued.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a retry of a client waits for the first call.
const WAIT: Duration = Duration::from_secs(10);

/// What step 1 found.
pub(super) enum Begun {
    /// A new attempt, and the payment as the gateway is to see it.
    Now(Box<(Payment, Attempt)>),
    /// The client's key began this one before.
    Before(AttemptId),
}

/// An operation as it stands after the three steps, or after the wait for another call's.
pub(super) struct Ended {
    pub(super) payment: Payment,
    pub(super) attempt: Attempt,
}

/// What an adapter answers.
pub(super) enum Answer {
    Payment(PaymentReport),
    Refund(RefundReport),
}

/// Runs to its end even when the caller goes away: money must not be left between two steps.
pub(super) async fn detached<T: Send + 'static>(
    oms: &Oms,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let task = oms.inner.tasks.spawn(work);
    task.await
        .unwrap_or_else(|e| Err(Error::Internal(format!("a payment's task: {e}"))))
}

/// All three steps of an operation on a payment that exists.
pub(super) async fn run(
    oms: &Oms,
    actor: &Actor,
    till: &Till,
    payment: PaymentId,
    claim: Option<&Claim>,
    operation: Operation,
    prepare: impl FnOnce(&mut Locked, &mut Attempt) -> Result<()>,
) -> Result<Outcome<Ended>> {
    match begin(oms, actor, payment, claim, operation, prepare).await? {
        Begun::Before(attempt) => wait(oms, attempt).await.map(Outcome::replayed),
        Begun::Now(begun) => {
            let (payment, attempt) = *begun;
            carry_out(oms, actor, till, &payment, &attempt)
                .await
                .map(Outcome::fresh)
        }
    }
}

/// Step 1. `prepare` checks rights and state and fills the attempt in; a refusal stores nothing.
async fn begin(
    oms: &Oms,
    actor: &Actor,
    payment: PaymentId,
    claim: Option<&Claim>,
    operation: Operation,
    prepare: impl FnOnce(&mut Locked, &mut Attempt) -> Result<()>,
) -> Result<Begun> {
    let now = oms.now();
    let mut attempt = Attempt::new(payment, operation, now);
    let mut tx = oms.db().write().await?;
    if let Some(claim) = claim {
        if let Claimed::Replay(earlier) = claim.take(&mut tx, attempt.id.uuid(), now).await? {
            tx.rollback().await?;
            return Ok(Begun::Before(AttemptId::from_uuid(earlier)));
        }
        attempt.memo.claim = Some(claim.id);
    }
    let mut locked = Locked::load(&mut tx, payment, actor, now).await?;
    prepare(&mut locked, &mut attempt)?;
    locked.attempts.push(attempt.clone());
    let payment = locked.save(&mut tx).await?;
    tx.commit().await?;
    oms.ring();
    Ok(Begun::Now(Box::new((payment, attempt))))
}

/// Step 1 of another try under the same key. None when somebody else took it up or it has ended.
pub(super) async fn begin_again(
    oms: &Oms,
    attempt: AttemptId,
    payment: PaymentId,
) -> Result<Option<(Payment, Attempt)>> {
    let now = oms.now();
    let mut tx = oms.db().write().await?;
    let mut locked = Locked::load(&mut tx, payment, &Actor::System, now).await?;
    let Some(attempt) = locked.attempt(attempt) else {
        return Ok(None);
    };
    if !matches!(attempt.status, Progress::Unknown | Progress::Failed) {
        return Ok(None);
    }
    attempt.status = Progress::InFlight;
    attempt.error = None;
    attempt.tries += 1;
    attempt.updated_at = now;
    let attempt = attempt.clone();
    // The payment stays unknown meanwhile: stored by itself, not through `save`, which would lift that.
    attempts::save(&mut tx, &attempt).await?;
    tx.commit().await?;
    Ok(Some((locked.payment, attempt)))
}

/// Steps 2 and 3.
pub(super) async fn carry_out(
    oms: &Oms,
    actor: &Actor,
    till: &Till,
    payment: &Payment,
    attempt: &Attempt,
) -> Result<Ended> {
    let answer = tokio::time::timeout(PATIENCE, ask(till, payment, attempt, oms.now()))
        .await
        .unwrap_or_else(|_| {
            Err(GatewayError::Indeterminate(
                "the adapter did not answer in time".into(),
            ))
        });
    // The answer is worth more than one try: without it the gateway must be asked again later.
    let mut tries = 0;
    loop {
        match settle(oms, actor, payment.id, attempt.id, &answer).await {
            Err(e) if e.is_retryable() && tries < 3 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(200) * tries).await;
            }
            ended => return ended,
        }
    }
}

/// Step 2.
async fn ask(
    till: &Till,
    payment: &Payment,
    attempt: &Attempt,
    now: Timestamp,
) -> Result<Answer, GatewayError> {
    let (gateway, account) = (&till.gateway, &till.account);
    let call = Call {
        idempotency_key: attempt.gateway_key(),
        attempt: u32::try_from(attempt.tries).unwrap_or(u32::MAX),
        now,
        test_mode: payment.test_mode,
    };
    match attempt.operation {
        Operation::Start => {
            let request = start_request(call, payment, attempt)?;
            return gateway.start(account, request).await.map(Answer::Payment);
        }
        Operation::Refund => {
            let request = refund_request(call, payment, attempt)?;
            return gateway.refund(account, request).await.map(Answer::Refund);
        }
        Operation::Complete | Operation::Capture | Operation::Cancel => {}
    }
    let reference = payment.reference.clone().ok_or_else(|| lost("its reference"))?;
    let state = payment.state.clone();
    let payment_id = payment.id;
    match attempt.operation {
        Operation::Capture => {
            let capture = payment.captures.iter().find(|c| Some(c.id) == attempt.capture);
            let capture = capture.ok_or_else(|| lost("the capture"))?;
            let request = CaptureRequest {
                call,
                payment: payment_id,
                reference,
                state,
                amount: capture.amount,
                final_capture: capture.final_capture,
            };
            gateway.capture(account, request).await
        }
        Operation::Cancel => {
            let request = CancelRequest {
                call,
                payment: payment_id,
                reference,
                state,
                reason: attempt.memo.reason.clone(),
            };
            gateway.cancel(account, request).await
        }
        Operation::Start | Operation::Refund | Operation::Complete => {
            let request = CompleteRequest {
                call,
                payment: payment_id,
                reference,
                amount: payment.amount,
                state,
                params: attempt.memo.params.clone(),
                body: None,
            };
            gateway.complete(account, request).await
        }
    }
    .map(Answer::Payment)
}

/// A defect of ours: nothing was sent.
fn lost(what: &str) -> GatewayError {
    GatewayError::InvalidRequest(format!("the attempt has lost {what}"))
}

fn start_request(call: Call, payment: &Payment, attempt: &Attempt) -> Result<StartRequest, GatewayError> {
    let memo = attempt.memo.start.as_ref().ok_or_else(|| lost("its request"))?;
    Ok(StartRequest {
        call,
        payment: payment.id,
        order_number: memo.order_number.to_string(),
        amount: payment.amount,
        capture: payment.capture,
        instrument: memo.instrument.clone(),
        instrument_data: memo.instrument_data.clone(),
        customer: memo.customer.clone(),
        description: Some(format!("Order {}", memo.order_number)),
        return_url: payment.return_url.clone(),
        cancel_url: payment.return_url.clone(),
        webhook_url: memo.webhook_url.clone(),
        off_session: false,
        metadata: vec![("order_id".into(), payment.order.to_string())],
    })
}

fn refund_request(call: Call, payment: &Payment, attempt: &Attempt) -> Result<RefundRequest, GatewayError> {
    let refund = payment.refunds.iter().find(|r| Some(r.id) == attempt.refund);
    let refund = refund.ok_or_else(|| lost("the refund"))?;
    // Gateways that refund captures want to know which; with several of them theirs is the choice.
    let mut captures = payment
        .captures
        .iter()
        .filter(|c| c.status == OperationStatus::Succeeded);
    let capture = captures.next().filter(|_| captures.next().is_none());
    Ok(RefundRequest {
        call,
        payment: payment.id,
        refund: refund.id,
        reference: payment.reference.clone().ok_or_else(|| lost("its reference"))?,
        capture_reference: capture.and_then(|c| c.reference.clone()),
        state: payment.state.clone(),
        amount: refund.amount,
        reason: refund.reason.clone(),
    })
}

/// Step 3.
async fn settle(
    oms: &Oms,
    actor: &Actor,
    payment: PaymentId,
    id: AttemptId,
    answer: &Result<Answer, GatewayError>,
) -> Result<Ended> {
    let mut tx = oms.db().write().await?;
    let mut locked = Locked::load(&mut tx, payment, actor, oms.now()).await?;
    let attempt = locked.attempt(id).ok_or(Error::NotFound("payment attempt"))?;
    attempt.updated_at = oms.now();
    let attempt = attempt.clone();
    let freed = match answer {
        Ok(Answer::Payment(report)) => {
            answered(&mut locked, &attempt, report);
            None
        }
        Ok(Answer::Refund(report)) => {
            if let Some(refund) = attempt.refund {
                locked.refund_told(refund, report);
            }
            end(&mut locked, id, Progress::Succeeded, report.reference.clone());
            None
        }
        Err(e) => refused(&mut locked, &attempt, e),
    };
    let attempt = locked.attempt(id).cloned().unwrap_or(attempt);
    let payment = locked.save(&mut tx).await?;
    if let Some(claim) = freed {
        attempts::release(&mut tx, claim).await?;
    }
    tx.commit().await?;
    oms.ring();
    Ok(Ended { payment, attempt })
}

/// Ends an attempt that a crash left in flight, unless somebody touched it since `before`.
pub(super) async fn give_up(oms: &Oms, stale: &Attempt, before: Timestamp) -> Result<()> {
    let mut tx = oms.db().write().await?;
    let mut locked = Locked::load(&mut tx, stale.payment, &Actor::System, oms.now()).await?;
    let Some(attempt) = locked.attempt(stale.id).cloned() else {
        return Ok(());
    };
    if attempt.status != Progress::InFlight || attempt.updated_at >= before {
        return tx.rollback().await;
    }
    let lost = GatewayError::Indeterminate("no answer was recorded".into());
    refused(&mut locked, &attempt, &lost);
    locked.save(&mut tx).await?;
    tx.commit().await?;
    oms.ring();
    Ok(())
}

fn end(locked: &mut Locked, id: AttemptId, status: Progress, reference: Option<String>) {
    if let Some(attempt) = locked.attempt(id) {
        attempt.status = status;
        attempt.reference = reference;
        attempt.error = None;
    }
}

fn answered(locked: &mut Locked, attempt: &Attempt, report: &PaymentReport) {
    end(
        locked,
        attempt.id,
        report.status.into(),
        report.operation_reference.clone(),
    );
    let mut news = News::report(Source::Answer, report);
    if let Some(id) = attempt.capture {
        let captured = locked.payment.captured;
        let Some(capture) = locked.capture(id) else {
            return;
        };
        let took = matches!(
            report.status,
            GatewayStatus::Captured | GatewayStatus::PartiallyCaptured
        );
        capture.reference.clone_from(&report.operation_reference);
        match capture.status {
            // An event may have told it already.
            OperationStatus::Succeeded => {
                news.totals.captured = news.totals.captured.or(Some(captured));
            }
            _ if took => {
                let sum = captured + capture.amount.minor();
                news.totals.captured = news.totals.captured.or(Some(sum));
                capture.status = OperationStatus::Pending;
            }
            _ => capture.status = OperationStatus::Pending,
        }
    }
    locked.hear(&news);
}

/// What an error says about what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// A final no, which is the result of the operation.
    No,
    /// It did not happen and will not as it was sent; `ask`: our picture of the payment is not the gateway's.
    Refused { ask: bool },
    /// It did not happen but may, later.
    NotNow,
    /// It may have happened.
    Unknown,
}

fn meaning(operation: Operation, doubtful: bool, error: &GatewayError) -> Meaning {
    use GatewayError as E;
    let final_no = matches!(operation, Operation::Start | Operation::Refund);
    match error {
        E::Declined(_) => Meaning::No,
        E::Indeterminate(_) | E::Internal(_) => Meaning::Unknown,
        _ if doubtful => Meaning::Unknown,
        E::NotFound(_) | E::InvalidState(_) if operation == Operation::Start => Meaning::Unknown,
        E::NotFound(_) | E::InvalidState(_) if final_no => Meaning::No,
        E::NotFound(_) | E::InvalidState(_) => Meaning::Refused { ask: true },
        E::InvalidRequest(_) | E::Unsupported(_) if final_no => Meaning::No,
        E::InvalidRequest(_) | E::Unsupported(_) => Meaning::Refused { ask: false },
        E::NotAuthenticated(_) | E::RateLimited(_) | E::Unavailable(_) | E::Misconfigured(_) => {
            Meaning::NotNow
        }
    }
}

/// Returns the client's key when nothing happened, so that it becomes free.
fn refused(locked: &mut Locked, attempt: &Attempt, error: &GatewayError) -> Option<uuid::Uuid> {
    let meaning = meaning(attempt.operation, attempt.memo.doubtful, error);
    let status = match meaning {
        Meaning::No => Progress::Declined,
        Meaning::Refused { .. } | Meaning::NotNow => Progress::Failed,
        Meaning::Unknown => Progress::Unknown,
    };
    if let Some(attempt) = locked.attempt(attempt.id) {
        attempt.status = status;
        attempt.error = Some(error.clone());
        attempt.memo.doubtful |= status == Progress::Unknown;
    }
    match meaning {
        Meaning::Refused { ask: true } => locked.ask = true,
        // Its schedule begins, once: not anew with every try that tells nothing either.
        Meaning::Unknown if !attempt.memo.doubtful => locked.payment.sync_tries = 0,
        Meaning::No | Meaning::Refused { ask: false } | Meaning::NotNow | Meaning::Unknown => {}
    }
    let part = match meaning {
        Meaning::No | Meaning::Refused { .. } | Meaning::NotNow => OperationStatus::Failed,
        Meaning::Unknown => OperationStatus::Unknown,
    };
    match attempt.operation {
        Operation::Start | Operation::Complete if meaning == Meaning::No => {
            locked.hear(&News::declined(&decline(error)));
        }
        // Only while nothing else was heard of it: an event that outran this answer knows better.
        Operation::Start if meaning == Meaning::NotNow && locked.payment.status == PaymentStatus::Created => {
            locked.hear(&News::declined(&decline(error)));
        }
        Operation::Start | Operation::Complete | Operation::Cancel => {}
        Operation::Capture => set_capture(locked, attempt, part),
        Operation::Refund if meaning == Meaning::NotNow => refund_later(locked, attempt),
        Operation::Refund => set_refund(locked, attempt, part),
    }
    let nothing_happened = status == Progress::Failed && attempt.operation != Operation::Refund;
    nothing_happened.then_some(attempt.memo.claim).flatten()
}

fn decline(error: &GatewayError) -> Decline {
    let code = match error {
        GatewayError::Declined(decline) => return decline.clone(),
        GatewayError::InvalidRequest(_) => "invalid_request",
        GatewayError::Unsupported(_) => "unsupported",
        _ => "gateway_unavailable",
    };
    Decline {
        code: code.into(),
        message: error.to_string(),
    }
}

fn set_capture(locked: &mut Locked, attempt: &Attempt, status: OperationStatus) {
    let now = locked.now;
    let capture = attempt.capture.and_then(|id| locked.capture(id));
    if let Some(capture) = capture.filter(|c| c.status.is_unsettled()) {
        capture.status = status;
        capture.updated_at = now;
    }
}

fn set_refund(locked: &mut Locked, attempt: &Attempt, status: OperationStatus) {
    let now = locked.now;
    let refund = attempt.refund.and_then(|id| locked.refund(id));
    if let Some(refund) = refund.filter(|r| r.status.is_unsettled()) {
        refund.status = status;
        refund.updated_at = now;
    }
}

/// A refund is a promise: it stays, and is tried again under the same key until the schedule ends.
fn refund_later(locked: &mut Locked, attempt: &Attempt) {
    let Some(refund) = attempt.refund else {
        return;
    };
    match reconcile::delay(attempt.tries - 1) {
        Some(delay) => locked.enqueue(run_refund(refund, locked.now + delay)),
        None => {
            set_refund(locked, attempt, OperationStatus::Failed);
            locked.need_review("a refund could not be sent: the gateway is not available");
        }
    }
}

/// A retry of the client's key: waits for the call that is under way, then reports how things stand.
pub(super) async fn wait(oms: &Oms, id: AttemptId) -> Result<Ended> {
    let end = Instant::now() + WAIT;
    loop {
        let mut tx = oms.db().read().await?;
        let attempt = attempts::get(&mut tx, id).await?;
        if attempt.status != Progress::InFlight || Instant::now() >= end {
            let payment = store::get(&mut tx, attempt.payment).await?;
            return Ok(Ended { payment, attempt });
        }
        tx.rollback().await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Ended {
    /// The payment, or why the operation did not happen. A decline is a result, not an error.
    pub(super) fn payment(self) -> Result<Payment> {
        let Some(error) = self
            .attempt
            .error
            .filter(|_| self.attempt.status == Progress::Failed)
        else {
            return Ok(self.payment);
        };
        match meaning(self.attempt.operation, false, &error) {
            Meaning::NotNow => Err(Error::Gateway {
                account: self.payment.account,
                source: error,
            }),
            Meaning::Refused { ask: false } if self.attempt.operation == Operation::Complete => {
                Err(Error::invalid("/params", error.to_string()))
            }
            Meaning::Refused { .. } => Err(Error::InvalidState {
                what: "payment",
                state: self.payment.shown_status().into(),
                detail: "the gateway does not allow this",
            }),
            Meaning::No | Meaning::Unknown => Ok(self.payment),
        }
    }
}
