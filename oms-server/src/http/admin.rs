//! What operators and administrators see and do.

use oms_core::Roles;
use oms_core::jobs::{JobFilter, JobState, JobView};
use oms_core::payments::{Decision, InboxEntry, InboxStatus, MoneyReceived, RefundSent};
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::types::Any;
use poem_openapi::{Enum, Object, OpenApi};
use serde::Serialize;

use super::Tag;
use super::auth::Auth;
use super::error::{Result, idempotency_key};
use super::json::JsonBody;
use super::payments::{PaymentBody, RefundBody, reply as payment_reply, versioned};
use super::reply::{List, NoContent, Reply};
use super::users::{UserBody, user_reply};
use super::values::{MoneyBody, id, page};

pub(super) struct AdminApi;

#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct UserChanges {
    /// Exactly these: none for a customer.
    roles: Vec<Role>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum Role {
    Operator,
    Admin,
}

#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct Review {
    decision: DecisionBody,
}

#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct Received {
    /// How much came now; all that was missing when not given.
    amount: Option<MoneyBody>,
    /// Where it is seen, such as the line of a bank statement.
    note: Option<String>,
}

#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct Sent {
    /// How it was sent.
    note: Option<String>,
}

#[derive(Debug, Clone, Copy, Enum)]
#[oai(rename_all = "snake_case", rename = "Decision")]
enum DecisionBody {
    /// What the gateway says now is right.
    Accept,
    /// All that is captured goes back.
    Refund,
    /// Ask the gateway again.
    Sync,
}

#[derive(Debug, Clone, Copy, Enum)]
#[oai(rename_all = "snake_case", rename = "JobState")]
enum JobStateBody {
    Ready,
    Running,
    Dead,
}

#[derive(Debug, Clone, Copy, Enum)]
#[oai(rename_all = "snake_case", rename = "WebhookStatus")]
enum WebhookStatus {
    Applied,
    Irrelevant,
    Unmatched,
    Failed,
}

/// A background job. Jobs that are done are gone.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Job")]
pub(crate) struct JobBody {
    id: String,
    kind: String,
    state: String,
    /// To what it does it.
    payload: Any<serde_json::Value>,
    attempt: i64,
    last_error: Option<String>,
    worker: Option<String>,
    /// When it may run or did; when it died if it is dead.
    at: String,
    created_at: String,
}

/// A webhook event that was verified and kept.
#[derive(Debug, Object, Serialize)]
pub(crate) struct WebhookEvent {
    id: String,
    account: String,
    /// The gateway's own id of the event.
    event_id: String,
    kind: String,
    payment_id: Option<String>,
    reference: Option<String>,
    status: String,
    detail: Option<String>,
    tries: i64,
    received_at: String,
    applied_at: Option<String>,
}

#[OpenApi(prefix_path = "/v1/admin", tag = "Tag::Admin")]
impl AdminApi {
    /// Users, the newest first
    ///
    /// For administrators.
    #[oai(path = "/users", method = "get", operation_id = "listUsers")]
    async fn users(
        &self,
        auth: Auth,
        cursor: Query<Option<String>>,
        limit: Query<Option<u32>>,
    ) -> Result<Reply<List<UserBody>>> {
        let Auth(me) = auth;
        let found = me.oms.users().list(&me.actor, page(cursor.0, limit.0)).await?;
        Ok(Reply::new(found.into()))
    }

    /// Give a user roles
    ///
    /// For administrators. It holds for the user's next request.
    #[oai(path = "/users/:id", method = "patch", operation_id = "updateUser")]
    async fn update_user(
        &self,
        auth: Auth,
        id: Path<String>,
        body: JsonBody<UserChanges>,
    ) -> Result<Reply<UserBody>> {
        let Auth(me) = auth;
        let roles = Roles {
            operator: body.0.roles.contains(&Role::Operator),
            admin: body.0.roles.contains(&Role::Admin),
        };
        let id = self::id(&id, "user")?;
        Ok(user_reply(me.oms.users().set_roles(&me.actor, id, roles).await?))
    }

    /// Background jobs, the newest first
    #[oai(path = "/jobs", method = "get", operation_id = "listJobs")]
    async fn jobs(
        &self,
        auth: Auth,
        /// `dead` when not given.
        state: Query<Option<JobStateBody>>,
        /// Only of this kind, such as `send_email`.
        kind: Query<Option<String>>,
        cursor: Query<Option<String>>,
        limit: Query<Option<u32>>,
    ) -> Result<Reply<List<JobBody>>> {
        let Auth(me) = auth;
        let filter = JobFilter {
            state: state.0.map_or(JobState::Dead, Into::into),
            kind: kind.0,
        };
        let found = me
            .oms
            .jobs()
            .list(&me.actor, &filter, &page(cursor.0, limit.0))
            .await?;
        Ok(Reply::new(found.into()))
    }

    /// Let a dead job try again
    #[oai(path = "/jobs/:id/retry", method = "post", operation_id = "retryJob")]
    async fn retry_job(&self, auth: Auth, id: Path<String>) -> Result<NoContent> {
        let Auth(me) = auth;
        me.oms.jobs().retry(&me.actor, self::id(&id, "job")?).await?;
        Ok(NoContent)
    }

    /// Give a dead job up for good
    #[oai(path = "/jobs/:id/discard", method = "post", operation_id = "discardJob")]
    async fn discard_job(&self, auth: Auth, id: Path<String>) -> Result<NoContent> {
        let Auth(me) = auth;
        me.oms.jobs().discard(&me.actor, self::id(&id, "job")?).await?;
        Ok(NoContent)
    }

    /// Webhook events that were kept, the newest first
    #[oai(path = "/webhooks", method = "get", operation_id = "listWebhookEvents")]
    async fn webhooks(
        &self,
        auth: Auth,
        status: Query<Option<WebhookStatus>>,
        cursor: Query<Option<String>>,
        limit: Query<Option<u32>>,
    ) -> Result<Reply<List<WebhookEvent>>> {
        let Auth(me) = auth;
        let status = status.0.map(Into::into);
        let found = me
            .oms
            .payments()
            .inbox(&me.actor, &page(cursor.0, limit.0), status)
            .await?;
        Ok(Reply::new(found.into()))
    }

    /// Apply a webhook event again
    #[oai(
        path = "/webhooks/:id/replay",
        method = "post",
        operation_id = "replayWebhookEvent"
    )]
    async fn replay(&self, auth: Auth, id: Path<String>) -> Result<Reply<WebhookEvent>> {
        let Auth(me) = auth;
        let entry = me
            .oms
            .payments()
            .replay(&me.actor, self::id(&id, "webhook event")?)
            .await?;
        Ok(Reply::new(entry.into()))
    }

    /// Payments that need review, the oldest first
    #[oai(path = "/payments", method = "get", operation_id = "listPaymentsInReview")]
    async fn payments(
        &self,
        auth: Auth,
        cursor: Query<Option<String>>,
        limit: Query<Option<u32>>,
    ) -> Result<Reply<List<PaymentBody>>> {
        let Auth(me) = auth;
        let found = me
            .oms
            .payments()
            .needing_review(&me.actor, &page(cursor.0, limit.0))
            .await?;
        Ok(Reply::new(found.into()))
    }

    /// Lead a payment out of review
    #[oai(
        path = "/payments/:id/review",
        method = "post",
        operation_id = "reviewPayment"
    )]
    async fn review(
        &self,
        auth: Auth,
        id: Path<String>,
        body: JsonBody<Review>,
    ) -> Result<Reply<PaymentBody>> {
        let Auth(me) = auth;
        let id = self::id(&id, "payment")?;
        let decision = body.0.decision.into();
        Ok(versioned(
            me.oms.payments().review(&me.actor, id, decision).await?,
        ))
    }

    /// Money came that no gateway tells of
    ///
    /// For payments by bank transfer or in cash. Another sum than the payment's goes to review, and comes out of it when
    /// the rest has come.
    #[oai(
        path = "/payments/:id/received",
        method = "post",
        operation_id = "paymentReceived"
    )]
    async fn received(
        &self,
        auth: Auth,
        id: Path<String>,
        #[oai(name = "Idempotency-Key")] key: Header<Option<String>>,
        body: JsonBody<Received>,
    ) -> Result<Reply<PaymentBody>> {
        let (Auth(me), JsonBody(received)) = (auth, body);
        let command = MoneyReceived {
            idempotency_key: idempotency_key(key.0.as_deref())?,
            amount: received.amount.map(|amount| amount.read("/amount")).transpose()?,
            note: received.note,
        };
        let id = self::id(&id, "payment")?;
        Ok(payment_reply(
            me.oms.payments().received(&me.actor, id, command).await?,
        ))
    }

    /// A refund was sent that no gateway sends
    #[oai(path = "/refunds/:id/sent", method = "post", operation_id = "refundSent")]
    async fn refund_sent(
        &self,
        auth: Auth,
        id: Path<String>,
        #[oai(name = "Idempotency-Key")] key: Header<Option<String>>,
        body: JsonBody<Sent>,
    ) -> Result<Reply<RefundBody>> {
        let (Auth(me), JsonBody(sent)) = (auth, body);
        let command = RefundSent {
            idempotency_key: idempotency_key(key.0.as_deref())?,
            note: sent.note,
        };
        let id = self::id(&id, "refund")?;
        Ok(Reply::outcome(
            me.oms.payments().refund_sent(&me.actor, id, command).await?,
        ))
    }
}

impl From<DecisionBody> for Decision {
    fn from(decision: DecisionBody) -> Self {
        match decision {
            DecisionBody::Accept => Self::Accept,
            DecisionBody::Refund => Self::Refund,
            DecisionBody::Sync => Self::Sync,
        }
    }
}

impl From<JobStateBody> for JobState {
    fn from(state: JobStateBody) -> Self {
        match state {
            JobStateBody::Ready => Self::Ready,
            JobStateBody::Running => Self::Running,
            JobStateBody::Dead => Self::Dead,
        }
    }
}

impl From<WebhookStatus> for InboxStatus {
    fn from(status: WebhookStatus) -> Self {
        match status {
            WebhookStatus::Applied => Self::Applied,
            WebhookStatus::Irrelevant => Self::Irrelevant,
            WebhookStatus::Unmatched => Self::Unmatched,
            WebhookStatus::Failed => Self::Failed,
        }
    }
}

impl From<JobView> for JobBody {
    fn from(job: JobView) -> Self {
        Self {
            id: job.id.to_string(),
            kind: job.kind,
            state: job.state.as_str().into(),
            // The library wrote it as JSON.
            payload: Any(serde_json::from_str(&job.payload).unwrap_or_default()),
            attempt: job.attempt,
            last_error: job.last_error,
            worker: job.worker,
            at: job.at.to_string(),
            created_at: job.created_at.to_string(),
        }
    }
}

impl From<InboxEntry> for WebhookEvent {
    fn from(entry: InboxEntry) -> Self {
        Self {
            id: entry.id.to_string(),
            account: entry.account,
            event_id: entry.event_id,
            kind: entry.kind,
            payment_id: entry.payment.map(|id| id.to_string()),
            reference: entry.reference,
            status: entry.status.as_str().into(),
            detail: entry.detail,
            tries: entry.tries,
            received_at: entry.received_at.to_string(),
            applied_at: entry.applied_at.map(|at| at.to_string()),
        }
    }
}
