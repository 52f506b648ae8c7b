//! From a job to its handler: one match, so that a kind without a handler does not compile.

use std::sync::Arc;

use super::purge::purge;
use super::store::Running;
use super::{EmailJob, Job, JobError};
use crate::id::{InboxId, JobId, PaymentId, RefundId, UserId};
use crate::oms::Oms;

/// Whether a job that succeeded still has to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    Open,
    /// The handler did it in the transaction of its effect.
    Finished,
}

/// Runs one job. It may run again after a crash, even when it succeeded.
pub(super) async fn run(oms: Oms, running: Arc<Running>) -> Result<Finish, JobError> {
    let oms = &oms;
    match running.job()? {
        Job::SendEmail(EmailJob::VerifyAddress { user }) => send_verification(oms, user, running.id).await,
        Job::SendEmail(mail) => send_order_mail(oms, mail, running.id).await,
        Job::CancelPayment { payment } => cancel_payment(oms, payment).await,
        Job::RunRefund { refund } => run_refund(oms, refund).await,
        Job::ReconcilePayment { payment } => reconcile(oms, payment).await,
        Job::MatchWebhook { inbox } => match_webhook(oms, inbox).await,
        Job::ExpireOrders => expire_orders(oms).await,
        Job::RescueAttempts => rescue_attempts(oms).await,
        Job::Purge => return purge(oms, &running).await,
    }
    .map(|()| Finish::Open)
}

// until users land: oms.users().send_verification(user, job).await
async fn send_verification(_: &Oms, _: UserId, _: JobId) -> Result<(), JobError> {
    Err(JobError::retry("not built yet"))
}

// until orders land: oms.orders().send_mail(mail, job).await
async fn send_order_mail(_: &Oms, _: EmailJob, _: JobId) -> Result<(), JobError> {
    Err(JobError::retry("not built yet"))
}

// until orders land: oms.orders().expire_due().await.map(drop).map_err(JobError::from)
async fn expire_orders(_: &Oms) -> Result<(), JobError> {
    Err(JobError::retry("not built yet"))
}

// until payments land: oms.payments().run_cancel(payment).await
async fn cancel_payment(_: &Oms, _: PaymentId) -> Result<(), JobError> {
    Err(JobError::retry("not built yet"))
}

// until payments land: oms.payments().run_refund(refund).await
async fn run_refund(_: &Oms, _: RefundId) -> Result<(), JobError> {
    Err(JobError::retry("not built yet"))
}

// until payments land: oms.payments().reconcile(payment).await
async fn reconcile(_: &Oms, _: PaymentId) -> Result<(), JobError> {
    Err(JobError::retry("not built yet"))
}

// until payments land: oms.payments().match_webhook(inbox).await
async fn match_webhook(_: &Oms, _: InboxId) -> Result<(), JobError> {
    Err(JobError::retry("not built yet"))
}

// until payments land: oms.payments().rescue_attempts().await
async fn rescue_attempts(_: &Oms) -> Result<(), JobError> {
    Err(JobError::retry("not built yet"))
}
