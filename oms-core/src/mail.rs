//! Mails: what is to be said, and the trait of what sends it.

use std::fmt;

use async_trait::async_trait;

use crate::money::Money;
use crate::time::Timestamp;

/// A mail to send. The library says what; the [`Mailer`] has the words and the links.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Email {
    /// Prove that the address is yours.
    VerifyAddress {
        /// Name of the user.
        username: String,
        /// Goes into the link; never into a log.
        token: String,
        /// When the token ends.
        expires_at: Timestamp,
    },
    /// The order is paid.
    OrderPaid(OrderMail),
    /// The order was canceled.
    OrderCanceled(OrderMail),
    /// The order was not paid in time.
    OrderExpired(OrderMail),
    /// (A part of) the order is on its way.
    OrderShipped {
        /// The order.
        order: OrderMail,
        /// The carrier's tracking code.
        tracking: Option<String>,
    },
    /// Money is on its way back.
    Refunded {
        /// The order.
        order: OrderMail,
        /// How much.
        amount: Money,
    },
}

/// Without the token: a log may hold it.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VerifyAddress {
                username,
                token: _,
                expires_at,
            } => f
                .debug_struct("VerifyAddress")
                .field("username", username)
                .field("expires_at", expires_at)
                .finish_non_exhaustive(),
            Self::OrderPaid(order) => f.debug_tuple("OrderPaid").field(order).finish(),
            Self::OrderCanceled(order) => f.debug_tuple("OrderCanceled").field(order).finish(),
            Self::OrderExpired(order) => f.debug_tuple("OrderExpired").field(order).finish(),
            Self::OrderShipped { order, tracking } => f
                .debug_struct("OrderShipped")
                .field("order", order)
                .field("tracking", tracking)
                .finish(),
            Self::Refunded { order, amount } => f
                .debug_struct("Refunded")
                .field("order", order)
                .field("amount", amount)
                .finish(),
        }
    }
}

/// What mails say of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderMail {
    /// Its number.
    pub number: i64,
    /// Its total.
    pub total: Money,
    /// Name, quantity and price of each line.
    pub lines: Vec<(String, i64, Money)>,
}

/// A mail with its address and its stable identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Made from the job's id: a mail that is sent again after a crash is recognisable. Without angle brackets.
    pub id: String,
    /// The recipient's address.
    pub to: String,
    /// What it says.
    pub email: Email,
}

/// Why a mail was not sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MailError {
    /// Try again later: a greylist, a full mailbox, no connection.
    #[error("not now: {0}")]
    Transient(String),
    /// Will never work: no such mailbox.
    #[error("refused: {0}")]
    Permanent(String),
}

/// Sends mails.
#[async_trait]
pub trait Mailer: Send + Sync + 'static {
    /// Sends one mail. It may be called again with the same message after a crash.
    async fn send(&self, message: Message) -> Result<(), MailError>;
}

/// Writes to the log what it would send, without tokens: the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogMailer;

#[async_trait]
impl Mailer for LogMailer {
    async fn send(&self, message: Message) -> Result<(), MailError> {
        tracing::info!(message.id, message.to, "no mailer is set: the mail is dropped");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown() {
        let mail = Email::VerifyAddress {
            username: "ann".into(),
            token: "t0k3n".into(),
            expires_at: Timestamp::from_millis(0),
        };
        let shown = format!("{mail:?}");
        assert!(shown.contains("ann") && !shown.contains("t0k3n"), "{shown}");
    }
}
