//! Step 2 of an operation: what the adapter is asked, from the payment's and the attempt's rows.

use super::gateway::{
    Call, CancelRequest, CaptureRequest, CompleteRequest, GatewayError, PaymentReport, RefundReport,
    RefundRequest, StartRequest,
};
use super::gateways::Till;
use super::model::{OperationStatus, Payment};
use super::store::attempts::{Attempt, Operation};
use crate::time::Timestamp;

/// What an adapter answers.
pub(super) enum Answer {
    Payment(Box<PaymentReport>),
    Refund(RefundReport),
}

/// Calls the adapter; nothing is locked.
pub(super) async fn ask(
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
            return gateway
                .start(account, request)
                .await
                .map(|report| Answer::Payment(Box::new(report)));
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
    .map(|report| Answer::Payment(Box::new(report)))
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
