//! A panic is a defect in one place. It must not end a task that everybody else waits for.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;

use crate::error::{Error, Result};

/// How long a task rests before it begins anew, so that a panic which comes again and again leaves the processor to
/// others.
pub(crate) const BREATH: Duration = Duration::from_millis(100);

/// Runs it; a panic becomes an error. What the work had in its hands is dropped, as after any error: a transaction is
/// rolled back, and whoever waits for an answer learns that none will come.
pub(crate) async fn contained<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(Error::Internal(format!("panicked: {}", text(&*panic)))))
}

/// What it said.
pub(crate) fn text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
