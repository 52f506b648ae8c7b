//! One error type for the library: about a dozen categories, each with its facts.

use std::time::Duration;

use crate::id::PaymentId;
use crate::payments::GatewayError;

/// The result of every service method.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Match on the variant for the facts, on [`Error::kind`] to map it to a protocol.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The credentials are missing, wrong or no longer valid. Which of these is not said, on purpose.
    #[error("sign in first: the credentials are missing, wrong or expired")]
    Unauthorized,
    /// The actor is signed in but its e-mail address is not verified yet.
    #[error("verify the e-mail address first")]
    EmailNotVerified,
    /// The actor may know of the object but not do this.
    #[error("{0}")]
    Forbidden(&'static str),
    /// There is no such object, or it is another user's.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// Input that parses but breaks a rule. Every broken rule that was found is listed.
    #[error("{}", list(.0))]
    Invalid(Vec<Violation>),
    /// Order lines that name no product on sale: index of the line and its SKU.
    #[error("unknown SKU {}", .0.iter().map(|(_, sku)| sku.as_str()).collect::<Vec<_>>().join(", "))]
    UnknownSku(Vec<(usize, String)>),
    /// An order has one currency.
    #[error("the lines are priced in more than one currency: {0}")]
    MixedCurrencies(String),
    /// Nothing was taken; every line that does not fit is listed.
    #[error("out of stock: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    OutOfStock(Vec<Shortage>),
    /// The object's state does not allow this.
    #[error("{what} is {state}: {detail}")]
    InvalidState {
        /// The object, as in "order".
        what: &'static str,
        /// Its present state, in the spelling of the API.
        state: String,
        /// What is not possible in this state, or what to do instead.
        detail: &'static str,
    },
    /// The order has an open payment already.
    #[error("payment {0} of this order is still open")]
    PaymentInProgress(PaymentId),
    /// A value that must be unique is taken.
    #[error("this {0} is taken")]
    Duplicate(&'static str),
    /// The caller's version is not the present one (optimistic locking).
    #[error("version {actual} is current, not {expected}")]
    VersionConflict {
        /// The version that the caller based its change on.
        expected: i64,
        /// The version in the database.
        actual: i64,
    },
    /// The idempotency key was used before with another command.
    #[error("this idempotency key was used with another request")]
    IdempotencyKeyReused,
    /// A queue, a pool or the database is full or away. Nothing was done, or nothing is known: retry with the same key.
    #[error("overloaded: retry in {} s with the same key", .retry_after.as_secs().max(1))]
    Overloaded {
        /// A hint, not a promise.
        retry_after: Duration,
    },
    /// The gateway, or the plugin version that this payment is pinned to, cannot be used now.
    #[error("gateway account {account} is unavailable: {source}")]
    Gateway {
        /// The account's name.
        account: String,
        /// What the gateway or its host said.
        source: GatewayError,
        /// A hint, not a promise.
        retry_after: Duration,
    },
    /// The database refused or failed; not the caller's fault.
    #[error("database: {0}")]
    Database(#[source] sqlx::Error),
    /// A stored value that cannot be read: a defect or a change by hand.
    #[error("{table}.{column} of {id}: {detail}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row, in whatever form is at hand.
        id: String,
        /// What was found.
        detail: String,
    },
    /// The program was set up wrongly, or an invariant of the library broke.
    #[error("{0}")]
    Internal(String),
}

/// The categories of [`Error`], for mapping to a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "each stands for the variant of Error of the same name"
)]
pub enum ErrorKind {
    Unauthorized,
    EmailNotVerified,
    Forbidden,
    NotFound,
    Invalid,
    UnknownSku,
    MixedCurrencies,
    OutOfStock,
    InvalidState,
    PaymentInProgress,
    Duplicate,
    VersionConflict,
    IdempotencyKeyReused,
    Overloaded,
    Gateway,
    Internal,
}

/// One broken rule of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer (RFC 6901) into the command as clients write it, such as `/lines/0/quantity`.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

/// One line of an order that does not fit the stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// Index of the line in the order.
    pub line: usize,
    /// The line's SKU.
    pub sku: String,
    /// Units wanted.
    pub wanted: i64,
    /// Units available when the order was judged.
    pub available: i64,
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} wanted {}, available {}",
            self.sku, self.wanted, self.available
        )
    }
}

impl Error {
    /// The category.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unauthorized => ErrorKind::Unauthorized,
            Self::EmailNotVerified => ErrorKind::EmailNotVerified,
            Self::Forbidden(_) => ErrorKind::Forbidden,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::UnknownSku(_) => ErrorKind::UnknownSku,
            Self::MixedCurrencies(_) => ErrorKind::MixedCurrencies,
            Self::OutOfStock(_) => ErrorKind::OutOfStock,
            Self::InvalidState { .. } => ErrorKind::InvalidState,
            Self::PaymentInProgress(_) => ErrorKind::PaymentInProgress,
            Self::Duplicate(_) => ErrorKind::Duplicate,
            Self::VersionConflict { .. } => ErrorKind::VersionConflict,
            Self::IdempotencyKeyReused => ErrorKind::IdempotencyKeyReused,
            Self::Overloaded { .. } => ErrorKind::Overloaded,
            Self::Gateway { .. } => ErrorKind::Gateway,
            Self::Database(_) | Self::Corrupt { .. } | Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Whether the same call may succeed later without a change by the caller.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Overloaded { .. } | Self::Gateway { .. } => true,
            Self::Database(e) => connection_lost(e) || try_again(e),
            _ => false,
        }
    }

    /// A single broken rule.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation {
            pointer: pointer.into(),
            detail: detail.into(),
        }])
    }

    /// For what a gateway refused and may do later.
    pub(crate) fn gateway(account: impl Into<String>, source: GatewayError) -> Self {
        let seconds = match &source {
            GatewayError::RateLimited(Some(seconds)) => (*seconds).clamp(1, 3_600),
            _ => 5,
        };
        Self::Gateway {
            account: account.into(),
            source,
            retry_after: Duration::from_secs(seconds.into()),
        }
    }

    /// For queues and pools that are full.
    pub fn overloaded() -> Self {
        Self::Overloaded {
            retry_after: Duration::from_secs(1),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(e: sqlx::Error) -> Self {
        match e {
            sqlx::Error::PoolTimedOut => Self::overloaded(),
            e if connection_lost(&e) || try_again(&e) => {
                tracing::warn!(error = %e, "the database did not serve a statement");
                Self::overloaded()
            }
            e => Self::Database(e),
        }
    }
}

/// The connection broke: what it was doing may or may not have been committed.
pub(crate) fn connection_lost(e: &sqlx::Error) -> bool {
    match e {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(e) => e.code().is_some_and(|code| {
            // Class 08: connection exceptions. 57P01 to 57P05: the server or the session was ended, or the server is not
            // up yet. 25P03, 25P04: a limit ended the session. 25006: what was the primary is a standby now.
            code.starts_with("08")
                || code.starts_with("57P")
                || matches!(code.as_ref(), "25P03" | "25P04" | "25006")
                // A migration has changed a table beneath a statement that this connection had prepared.
                || (code == "0A000" && e.message().contains("cached plan"))
        }),
        _ => false,
    }
}

/// The statement was rolled back for reasons that pass: deadlock, lock or statement timeout, SQLite busy, full disk.
fn try_again(e: &sqlx::Error) -> bool {
    let sqlx::Error::Database(e) = e else {
        return false;
    };
    // PostgreSQL: 40001, 40P01, 55P03, 57014, 53xxx. SQLite: 5 BUSY, 6 LOCKED, 13 FULL and their extended codes.
    e.code().is_some_and(|c| {
        matches!(
            c.as_ref(),
            "40001" | "40P01" | "55P03" | "57014" | "5" | "6" | "13" | "261" | "517" | "773"
        ) || (c.len() == 5 && c.starts_with("53"))
    })
}

fn list(violations: &[Violation]) -> String {
    violations
        .iter()
        .map(|v| format!("{}: {}", v.pointer, v.detail))
        .collect::<Vec<_>>()
        .join("; ")
}

/// Collects broken rules, so that a caller learns all of them at once.
#[derive(Debug, Default)]
pub(crate) struct Check(Vec<Violation>);

impl Check {
    pub(crate) fn that(&mut self, holds: bool, pointer: &str, detail: &str) {
        if !holds {
            self.0.push(Violation {
                pointer: pointer.into(),
                detail: detail.into(),
            });
        }
    }

    /// Keeps the value of a rule that held, notes the others.
    pub(crate) fn take<T>(&mut self, pointer: &str, parsed: std::result::Result<T, String>) -> Option<T> {
        parsed
            .map_err(|detail| {
                self.0.push(Violation {
                    pointer: pointer.into(),
                    detail,
                });
            })
            .ok()
    }

    pub(crate) fn done(self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(self.0))
        }
    }
}
