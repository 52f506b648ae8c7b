//! What the merchant and the customer can do: one transaction each, in which the payment, the
//! answer for the idempotency key and the webhooks to be sent are committed together.

use super::faults::{self, Fault};
use super::model::{Payment, Refund, RefundStatus, Refusal, Status, Told};
use super::requests::{CancelRequest, CaptureRequest, RefundRequest, StartRequest, check_money};
use super::store::{self, Stored, Tx};
use super::{Bank, new_id, now_ms};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// A change that the merchant asks for.
#[derive(Debug, Serialize)]
pub(super) enum Operation {
    Start(StartRequest),
    Capture(String, CaptureRequest),
    Cancel(String, CancelRequest),
    Refund(String, RefundRequest),
}

/// What the customer does on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Approve { three_d_secure: bool },
    Decline { code: &'static str },
}

/// A committed answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) manner: Manner,
}

/// How an answer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    AtOnce,
    Slowly,
    /// The client gives up before it comes.
    Never,
}

/// Why nothing was done.
#[derive(Debug)]
pub(super) enum Refused {
    Invalid(String),
    NotFound,
    InvalidState(Status),
    KeyReused,
    Duplicate,
    Internal(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Internal(error.into())
    }
}

fn refused(refusal: Refusal) -> Refused {
    match refusal {
        Refusal::InvalidState(status) => Refused::InvalidState(status),
        Refusal::TooMuch { asked, left } => {
            Refused::Invalid(format!("{asked} is more than the {left} that is left"))
        }
    }
}

impl Bank {
    /// Carries out a change at most once per key.
    pub(super) async fn perform(&self, key: &str, operation: Operation) -> Result<Answer, Refused> {
        let fingerprint = fingerprint(&operation)?;
        let mut tx = self.0.db.begin_with("BEGIN IMMEDIATE").await?;
        if let Some(stored) = store::answer(&mut tx, key).await? {
            if stored.fingerprint != fingerprint {
                return Err(Refused::KeyReused);
            }
            return Ok(Answer {
                status: stored.status,
                body: stored.body,
                manner: Manner::AtOnce,
            });
        }
        let answer = match operation {
            Operation::Start(request) => self.start(&mut tx, request).await?,
            Operation::Capture(id, request) => self.capture(&mut tx, &id, &request).await?,
            Operation::Cancel(id, request) => self.cancel(&mut tx, &id, &request).await?,
            Operation::Refund(id, request) => self.refund(&mut tx, &id, request).await?,
        };
        let stored = Stored {
            fingerprint,
            status: answer.status,
            body: answer.body.clone(),
        };
        store::insert_answer(&mut tx, key, &stored).await?;
        tx.commit().await?;
        self.0.outbox.notify_one();
        Ok(answer)
    }

    /// Does what the customer decided, unless the payment is decided already; answers with the
    /// payment as it stands.
    pub(super) async fn decide(
        &self,
        id: &str,
        decision: Decision,
        switch: Option<Fault>,
    ) -> Result<Payment, Refused> {
        let mut tx = self.0.db.begin_with("BEGIN IMMEDIATE").await?;
        let mut payment = load(&mut tx, id).await?;
        if payment.status != Status::ActionRequired {
            return Ok(payment);
        }
        payment.fault = switch.or(payment.fault);
        let told = match decision {
            Decision::Approve { three_d_secure } => {
                payment.three_d_secure = three_d_secure;
                approve(&mut payment)?
            }
            Decision::Decline { code } => payment.decline(code).map_err(refused)?,
        };
        save(self, &mut tx, &payment, &told).await?;
        tx.commit().await?;
        self.0.outbox.notify_one();
        Ok(payment)
    }

    pub(super) async fn payment(&self, id: &str) -> Result<Payment, Refused> {
        let mut conn = self.0.db.acquire().await?;
        store::payment(&mut conn, id).await?.ok_or(Refused::NotFound)
    }

    pub(super) async fn payment_of_merchant(&self, id: &str) -> Result<Payment, Refused> {
        let mut conn = self.0.db.acquire().await?;
        let payment = store::payment_of_merchant(&mut conn, id).await?;
        payment.ok_or(Refused::NotFound)
    }

    /// The payment's JSON in the API.
    pub(super) fn show(&self, payment: &Payment) -> anyhow::Result<String> {
        let open = payment.status == Status::ActionRequired;
        let view = View {
            payment,
            redirect_url: open.then(|| format!("{}/pay/{}", self.0.public_url, payment.id)),
        };
        Ok(serde_json::to_string(&view)?)
    }

    async fn start(&self, tx: &mut Tx, request: StartRequest) -> Result<Answer, Refused> {
        request.check()?;
        let known = store::payment_of_merchant(tx, &request.merchant_payment_id).await?;
        if known.is_some() {
            return Err(Refused::Duplicate);
        }
        let off_session = request.off_session;
        let mut payment = request.into_payment();
        store::insert_payment(tx, &payment).await?;
        let charge_unanswered = payment.fault == Some(Fault::TimeoutAfterCharge);
        if off_session || charge_unanswered {
            let told = approve(&mut payment)?;
            save(self, tx, &payment, &told).await?;
        }
        if let Some(code) = payment.decline_code {
            let body = problem(&code, "the customer's bank said no");
            return Ok(Answer {
                status: 402,
                body,
                manner: Manner::AtOnce,
            });
        }
        Ok(Answer {
            status: 201,
            body: self.show(&payment)?,
            manner: if charge_unanswered {
                Manner::Never
            } else {
                manner_of_reading(&payment)
            },
        })
    }

    async fn capture(&self, tx: &mut Tx, id: &str, request: &CaptureRequest) -> Result<Answer, Refused> {
        let mut payment = load(tx, id).await?;
        check_money(request.amount, &request.currency, &payment)?;
        let told = payment
            .capture(new_id("cp"), request.amount, request.r#final)
            .map_err(refused)?;
        save(self, tx, &payment, &told).await?;
        Ok(Answer {
            status: 200,
            body: self.show(&payment)?,
            manner: manner_of_change(&payment),
        })
    }

    async fn cancel(&self, tx: &mut Tx, id: &str, request: &CancelRequest) -> Result<Answer, Refused> {
        request.check()?;
        let mut payment = load(tx, id).await?;
        let told = payment.cancel().map_err(refused)?;
        save(self, tx, &payment, &told).await?;
        Ok(Answer {
            status: 200,
            body: self.show(&payment)?,
            manner: manner_of_change(&payment),
        })
    }

    async fn refund(&self, tx: &mut Tx, id: &str, request: RefundRequest) -> Result<Answer, Refused> {
        request.check()?;
        let mut payment = load(tx, id).await?;
        check_money(request.amount, &request.currency, &payment)?;
        let same = |refund: &Refund| refund.merchant_refund_id == request.merchant_refund_id;
        if payment.refunds.iter().any(same) {
            return Err(Refused::Duplicate);
        }
        let refund = Refund {
            id: new_id("rf"),
            merchant_refund_id: request.merchant_refund_id,
            amount: request.amount,
            reason: request.reason,
            status: match payment.fault {
                Some(Fault::RefundFails) => RefundStatus::Failed,
                _ => RefundStatus::Succeeded,
            },
        };
        let body = serde_json::to_string(&refund)?;
        let told = payment.refund(refund).map_err(refused)?;
        save(self, tx, &payment, &told).await?;
        Ok(Answer {
            status: 201,
            body,
            manner: manner_of_change(&payment),
        })
    }
}

#[derive(Serialize)]
struct View<'a> {
    #[serde(flatten)]
    payment: &'a Payment,
    redirect_url: Option<String>,
}

/// The body of a refusal.
pub(super) fn problem(code: &str, message: &str) -> String {
    serde_json::json!({ "error": { "code": code, "message": message } }).to_string()
}

pub(super) fn manner_of_reading(payment: &Payment) -> Manner {
    match payment.fault {
        Some(Fault::SlowAnswers) => Manner::Slowly,
        _ => Manner::AtOnce,
    }
}

fn manner_of_change(payment: &Payment) -> Manner {
    match payment.fault {
        Some(Fault::TimeoutOnChange) => Manner::Never,
        _ => manner_of_reading(payment),
    }
}

fn approve(payment: &mut Payment) -> Result<Vec<Told>, Refused> {
    match payment.fault {
        Some(Fault::Decline) => payment.decline("insufficient_funds"),
        _ => payment.approve(new_id("cp")),
    }
    .map_err(refused)
}

async fn load(tx: &mut Tx, id: &str) -> Result<Payment, Refused> {
    store::payment(tx, id).await?.ok_or(Refused::NotFound)
}

/// The payment as it is now, and the webhooks that say so.
async fn save(bank: &Bank, tx: &mut Tx, payment: &Payment, told: &[Told]) -> anyhow::Result<()> {
    store::update_payment(tx, payment).await?;
    let Some(url) = &payment.webhook_url else {
        return Ok(());
    };
    let now = now_ms();
    for told in told {
        let planned = faults::plan(told, &new_id("evt"), now, bank.0.timing.faults);
        for delivery in &planned {
            store::insert_delivery(tx, &payment.id, url, delivery, now).await?;
        }
    }
    Ok(())
}

fn fingerprint(operation: &Operation) -> anyhow::Result<String> {
    let digest = Sha256::digest(serde_json::to_vec(operation)?);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
