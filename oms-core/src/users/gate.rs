//! Who asks: whoever asks at the same moment shares one query.
//!
//! Every request of an API begins with this read, so that one by one it would cost more than the orders. Nothing is
//! kept between two queries: an answer was read after its question came in. There is no timer, as in
//! [`placement`](crate::orders::placement): one question alone is a query of one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

use super::store;
use crate::actor::Actor;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::id::{SessionId, UserId};
use crate::panics::{BREATH, contained};
use crate::telemetry;
use crate::time::Clock;

/// Questions that may wait before callers are told to come back.
const CAPACITY: usize = 4096;
/// The most questions of one query. A power of two: see [`store::actors_of`].
const MAX_BATCH: usize = 256;
/// How long a caller waits for its answer. Longer than one query takes to find out that the database is silent.
const PATIENCE: Duration = Duration::from_secs(5);

/// The way in.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    questions: mpsc::Sender<Question>,
}

#[derive(Debug)]
struct Question {
    session: SessionId,
    user: UserId,
    reply: oneshot::Sender<Result<Option<Actor>>>,
    span: Span,
}

impl Gate {
    /// Starts to answer, until `stop` is canceled and what waits is answered.
    pub(crate) fn start(
        db: &Db,
        clock: &Arc<dyn Clock>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (questions, waiting) = mpsc::channel(CAPACITY);
        tasks.spawn(keep_answering(
            db.clone(),
            Arc::clone(clock),
            waiting,
            stop.clone(),
        ));
        Self { questions }
    }

    /// The user as it may act now in this session; nothing when either is no longer welcome.
    pub(super) async fn ask(&self, session: SessionId, user: UserId) -> Result<Option<Actor>> {
        let (reply, answer) = oneshot::channel();
        let question = Question {
            session,
            user,
            reply,
            span: Span::current(),
        };
        self.questions
            .try_send(question)
            .map_err(|_| Error::overloaded())?;
        let answer = timeout(PATIENCE, answer).await;
        answer
            .ok()
            .and_then(std::result::Result::ok)
            .unwrap_or_else(|| Err(Error::overloaded()))
    }
}

/// A panic drops the questions that were in hand, whose callers are told to come back; the others are answered.
async fn keep_answering(
    db: Db,
    clock: Arc<dyn Clock>,
    mut waiting: mpsc::Receiver<Question>,
    stop: CancellationToken,
) {
    let mut answer_on = async || {
        answer_all(&db, &*clock, &mut waiting, &stop).await;
        Ok(())
    };
    while let Err(error) = contained(answer_on()).await {
        tracing::error!(%error, "asking who somebody is begins anew");
        sleep(BREATH).await;
    }
}

async fn answer_all(
    db: &Db,
    clock: &dyn Clock,
    waiting: &mut mpsc::Receiver<Question>,
    stop: &CancellationToken,
) {
    let mut batch = Vec::new();
    loop {
        if stop.is_cancelled() {
            waiting.close();
        }
        tokio::select! {
            biased;
            _ = waiting.recv_many(&mut batch, MAX_BATCH) => {}
            () = stop.cancelled() => continue,
        }
        if batch.is_empty() {
            return;
        }
        // Those who went away meanwhile need no answer.
        batch.retain(|question| !question.reply.is_closed());
        if batch.is_empty() {
            continue;
        }
        let span = telemetry::batch("questions", batch.iter().map(|question| &question.span));
        match contained(look(db, clock, &batch)).instrument(span).await {
            Ok(actors) => {
                for question in batch.drain(..) {
                    let Question {
                        session, user, reply, ..
                    } = question;
                    let actor = actors.get(&session).filter(|actor| actor.user_id() == Some(user));
                    // Whoever asked may have gone away.
                    drop(reply.send(Ok(actor.cloned())));
                }
            }
            Err(error) => {
                tracing::warn!(%error, questions = batch.len(), "nobody could be asked who they are");
                for question in batch.drain(..) {
                    drop(question.reply.send(Err(Error::overloaded())));
                }
            }
        }
    }
}

async fn look(db: &Db, clock: &dyn Clock, batch: &[Question]) -> Result<HashMap<SessionId, Actor>> {
    let sessions: Vec<SessionId> = batch.iter().map(|question| question.session).collect();
    let mut tx = db.routine_read().await?;
    let actors = store::actors_of(&mut tx, &sessions, clock.now()).await?;
    tx.rollback().await?;
    Ok(actors)
}
