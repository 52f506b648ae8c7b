//! What brought work about: jobs keep it, so that their log lines and traces lead back to the request.

use tracing::Span;

use crate::id::JobId;

tokio::task_local! {
    static CAUSE: Cause;
}

/// The request on whose behalf something is done. Jobs that are enqueued inside of [`Cause::scope`] remember it, and so
/// do the jobs that these enqueue.
///
/// ```
/// # async fn example(oms: oms_core::Oms, command: oms_core::users::Register) -> oms_core::Result<()> {
/// use oms_core::{Actor, Cause};
///
/// let cause = Cause { request_id: Some("req-17".into()), ..Cause::default() };
/// cause.scope(async { oms.users().register(&Actor::Anonymous, command).await }).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cause {
    /// The request's id, at most 200 bytes; a longer one is left out.
    pub request_id: Option<String>,
    /// The request's trace as the header `traceparent` of W3C Trace Context writes it.
    pub traceparent: Option<String>,
}

/// A job that is about to run, for [`OmsBuilder::job_span`](crate::OmsBuilder::job_span).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobStart<'a> {
    /// Its id.
    pub id: JobId,
    /// What it does.
    pub kind: &'a str,
    /// The run that begins, counted from 1.
    pub attempt: i64,
    /// The request that brought it about, as far as it is known.
    pub cause: &'a Cause,
}

impl JobStart<'_> {
    /// The span that a job runs in when the embedder makes none: for the log.
    pub fn span(self) -> Span {
        tracing::info_span!(
            "job",
            job.id = %self.id,
            job.kind = self.kind,
            attempt = self.attempt,
            request_id = self.cause.request_id,
        )
    }
}

/// Makes the span around a job's run.
pub(crate) type JobSpan = fn(JobStart<'_>) -> Span;

impl Cause {
    /// Does something on behalf of this cause.
    pub async fn scope<T>(self, work: impl Future<Output = T>) -> T {
        CAUSE.scope(self, work).await
    }

    /// The cause of what the current task does; empty when nobody said.
    pub fn current() -> Self {
        CAUSE.try_with(Clone::clone).unwrap_or_default()
    }

    /// As columns hold it: whoever made it may have put anything in, and PostgreSQL's text has no NUL.
    pub(crate) fn columns(&self) -> (Option<&str>, Option<&str>) {
        let fits = |text: &&str, longest: usize| text.len() <= longest && !text.contains('\0');
        (
            self.request_id.as_deref().filter(|text| fits(text, 200)),
            self.traceparent.as_deref().filter(|text| fits(text, 100)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cause_lasts_as_long_as_its_scope() {
        let cause = Cause {
            request_id: Some("r".into()),
            traceparent: None,
        };
        assert_eq!(Cause::current(), Cause::default());
        assert_eq!(cause.clone().scope(async { Cause::current() }).await, cause);
        assert_eq!(Cause::current(), Cause::default());
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let of = |id: &str| {
            let cause = Cause {
                request_id: Some(id.into()),
                traceparent: Some("00-a-b-01".into()),
            };
            cause.columns().0.is_some()
        };
        assert!(of(&"x".repeat(200)));
        assert!(!of(&"x".repeat(201)) && !of("a\0b"));
    }
}
