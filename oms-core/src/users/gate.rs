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
use crate::gather::gather;
use crate::id::{SessionId, UserId};
use crate::panics::{BREATH, contained};
use crate::telemetry;
use crate::time::Clock;

/// Questions that may wait before callers are told to come back.
const CAPACITY: usize = 4096;
/// The most questions of one query. A power of two: see [`push_list`](crate::db::push_list).
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
        let database = Database {
            db: db.clone(),
            clock: Arc::clone(clock),
        };
        tasks.spawn(keep_answering(database, waiting, stop.clone()));
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

/// Who knows the answers. The database, but in tests of what the gate does to its callers.
trait Known {
    /// Those of the sessions that are welcome, in one query.
    fn look(&self, batch: &[Question]) -> impl Future<Output = Result<HashMap<SessionId, Actor>>> + Send;
}

/// A panic drops the questions that were in hand, whose callers are told to come back; the others are answered.
async fn keep_answering(known: impl Known, mut waiting: mpsc::Receiver<Question>, stop: CancellationToken) {
    let mut answer_on = async || {
        answer_all(&known, &mut waiting, &stop).await;
        Ok(())
    };
    while let Err(error) = contained(answer_on()).await {
        tracing::error!(%error, "asking who somebody is begins anew");
        sleep(BREATH).await;
    }
}

async fn answer_all(known: &impl Known, waiting: &mut mpsc::Receiver<Question>, stop: &CancellationToken) {
    let (mut batch, mut last) = (Vec::new(), 0);
    loop {
        if stop.is_cancelled() {
            waiting.close();
        }
        tokio::select! {
            biased;
            first = waiting.recv() => batch.extend(first),
            () = stop.cancelled() => continue,
        }
        if batch.is_empty() {
            return;
        }
        gather(waiting, &mut batch, last / 2, |batch| batch.len() >= MAX_BATCH).await;
        last = batch.len();
        // Those who went away meanwhile need no answer.
        batch.retain(|question| !question.reply.is_closed());
        if batch.is_empty() {
            continue;
        }
        let span = telemetry::batch("questions", batch.iter().map(|question| &question.span));
        match contained(known.look(&batch)).instrument(span).await {
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

struct Database {
    db: Db,
    clock: Arc<dyn Clock>,
}

impl Known for Database {
    async fn look(&self, batch: &[Question]) -> Result<HashMap<SessionId, Actor>> {
        let sessions: Vec<SessionId> = batch.iter().map(|question| question.session).collect();
        let mut tx = self.db.routine_read().await?;
        let actors = store::actors_of(&mut tx, &sessions, self.clock.now()).await?;
        tx.rollback().await?;
        Ok(actors)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::future::join_all;
    use shuttle::future::spawn;
    use uuid::Uuid;

    use super::*;
    use crate::actor::Roles;
    use crate::interleave::{below, dawdle, explore};

    /// The sizes of all queries.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<usize>>>);

    fn session(number: usize) -> SessionId {
        SessionId::from_uuid(Uuid::from_u128(number as u128))
    }

    fn user(number: usize) -> UserId {
        UserId::from_uuid(Uuid::from_u128(1_000 + number as u128))
    }

    /// Even sessions are welcome; the last one breaks the query.
    const BROKEN: usize = 7;

    impl Known for Memory {
        async fn look(&self, batch: &[Question]) -> Result<HashMap<SessionId, Actor>> {
            assert!((1..=MAX_BATCH).contains(&batch.len()));
            self.0.lock().unwrap().push(batch.len());
            dawdle(2).await;
            if batch.iter().any(|question| question.session == session(BROKEN)) {
                return Err(Error::Internal("broken".into()));
            }
            let welcome = |number| Actor::User {
                id: user(number),
                roles: Roles::NONE,
                verified: true,
            };
            let all = (0..8).step_by(2).map(|number| (session(number), welcome(number)));
            Ok(all.collect())
        }
    }

    /// In every order of events that a scheduler finds: some ask for others' sessions, some go away before the answer,
    /// and the server stops at any moment.
    #[test]
    fn every_question_that_got_in_is_answered() {
        explore(1_000, async || {
            let (memory, stop) = (Memory::default(), CancellationToken::new());
            let (questions, waiting) = mpsc::channel(3);
            let work = spawn(keep_answering(memory, waiting, stop.clone()));
            let gate = Gate { questions };
            let callers: Vec<_> = (0..5)
                .map(|_| {
                    let gate = gate.clone();
                    spawn(async move {
                        for _ in 0..2 {
                            dawdle(2).await;
                            ask(&gate, below(8), below(8)).await;
                        }
                    })
                })
                .collect();
            if below(2) == 0 {
                dawdle(20).await;
                stop.cancel();
            }
            drop(gate);
            for done in join_all(callers).await {
                done.unwrap();
            }
            work.await.unwrap();
        });
    }

    async fn ask(gate: &Gate, of: usize, by: usize) {
        let (reply, answer) = oneshot::channel();
        let question = Question {
            session: session(of),
            user: user(by),
            reply,
            span: Span::none(),
        };
        if gate.questions.try_send(question).is_err() {
            return;
        }
        if below(4) == 0 {
            dawdle(2).await;
            return;
        }
        let answer = answer.await.expect("a question got in and was never answered");
        let welcome = of == by && of.is_multiple_of(2);
        match answer {
            Ok(actor) => assert_eq!(actor.and_then(|a| a.user_id()), welcome.then(|| user(by))),
            // Those of one query share what befalls it.
            Err(error) => assert!(matches!(error, Error::Overloaded { .. }), "{error}"),
        }
    }

    /// More questions wait than one query takes.
    #[test]
    fn queries_keep_their_limit() {
        explore(20, async || {
            let (memory, stop) = (Memory::default(), CancellationToken::new());
            let (questions, waiting) = mpsc::channel(CAPACITY);
            let gate = Gate { questions };
            let asked: Vec<_> = (0..MAX_BATCH + 10)
                .map(|_| {
                    let gate = gate.clone();
                    spawn(async move { gate.ask(session(2), user(2)).await })
                })
                .collect();
            while gate.questions.capacity() > CAPACITY - asked.len() {
                dawdle(1).await;
            }
            let work = spawn(keep_answering(memory.clone(), waiting, stop.clone()));
            for answer in join_all(asked).await {
                assert!(answer.unwrap().unwrap().is_some());
            }
            stop.cancel();
            work.await.unwrap();
            assert_eq!(*memory.0.lock().unwrap(), [MAX_BATCH, 10]);
        });
    }
}
