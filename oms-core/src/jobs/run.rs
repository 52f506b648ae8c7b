//! From a job to its handler: one match, so that a kind without a handler does not compile.

use std::sync::Arc;

use super::purge::purge;
use super::store::Running;
use super::{EmailJob, Job, JobError};
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
    match running.job()? {
        Job::SendEmail(EmailJob::VerifyAddress { user }) => {
            oms.users().send_verification(user, running.id).await
        }
        Job::SendEmail(mail) => oms.orders().send_mail(&mail, running.id).await,
        Job::CancelPayment { payment } => oms.payments().run_cancel(payment).await,
        Job::RunRefund { refund } => Box::pin(oms.payments().run_refund(refund)).await,
        Job::ReconcilePayment { payment } => oms.payments().reconcile(payment).await,
        Job::MatchWebhook { inbox } => oms.payments().match_webhook(inbox).await,
        Job::ExpireOrders => expire_orders(&oms).await,
        Job::RescueAttempts => oms.payments().rescue_attempts().await,
        Job::Purge => return purge(&oms, &running).await,
    }
    .map(|()| Finish::Open)
}

async fn expire_orders(oms: &Oms) -> Result<(), JobError> {
    let expired = oms.orders().expire_due().await?;
    if expired > 0 {
        tracing::info!(orders = expired, "orders were not paid in time and expired");
    }
    Ok(())
}
