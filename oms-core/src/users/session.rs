//! Log in, renew, log out, and the check behind every access token.

use std::time::Duration;

use super::model::typed_key;
use super::{LoggedIn, User, Users, store, token};
use crate::actor::Actor;
use crate::error::{Error, Result};
use crate::id::{SessionId, UserId};
use crate::payments::Secret;
use crate::time::Timestamp;

/// How long a session lasts, however often it is renewed.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long after a renewal the token before it still works: the answer with the new one may have been lost.
const GRACE: Duration = Duration::from_secs(10);

/// A log-in.
///
/// ```text
/// live --renewed--> live            (each renewal has another token)
///      --a token comes back that was renewed before--> revoked
///      --logged out--> revoked
///      --30 days--> expired
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) user_id: UserId,
    pub(super) refresh_hash: Vec<u8>,
    pub(super) previous_hash: Option<Vec<u8>>,
    pub(super) rotated_at: Option<Timestamp>,
    pub(super) expires_at: Timestamp,
    pub(super) revoked_at: Option<Timestamp>,
}

/// What a refresh token that comes in means to its session.
#[derive(Debug, PartialEq, Eq)]
enum Presented {
    /// The present token.
    Current,
    /// The one before it, so soon that the answer was probably lost: the answer's token gives way to another.
    AnswerLost,
    /// Two hold tokens of this session, and one of them is a thief.
    Reused,
    /// The session is over anyway.
    Over,
}

impl Session {
    fn judge(&self, hash: &[u8], now: Timestamp) -> Presented {
        if self.revoked_at.is_some() || now >= self.expires_at {
            Presented::Over
        } else if hash == self.refresh_hash {
            Presented::Current
        } else if self.previous_hash.as_deref() == Some(hash)
            && self.rotated_at.is_some_and(|at| now.since(at) <= GRACE)
        {
            Presented::AnswerLost
        } else {
            Presented::Reused
        }
    }
}

impl Users<'_> {
    /// Opens a session for 30 days. `identifier` is the user name or the e-mail address, in any case. Unverified users
    /// may log in.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] for an unknown user, a wrong password and a disabled user alike, after the same time;
    /// [`Error::Overloaded`] when too many wait for their passwords to be checked.
    #[tracing::instrument(level = "debug", name = "users.log_in", skip_all)]
    pub async fn log_in(&self, _actor: &Actor, identifier: &str, password: &str) -> Result<LoggedIn> {
        let mut tx = self.oms.db().read().await?;
        let found = match typed_key(identifier) {
            Some(key) => store::credentials(&mut tx, &key).await?,
            None => None,
        };
        tx.rollback().await?;

        let (user, hash) = found.unzip();
        let right = self.oms.inner.passwords.verify(password, hash).await?;
        let user = user
            .filter(|user| right && !user.is_disabled())
            .ok_or(Error::Unauthorized)?;

        let now = self.oms.now();
        let id = SessionId::new(now);
        let (text, refresh_hash) = token::for_session(id);
        let session = Session {
            id,
            user_id: user.id,
            refresh_hash,
            previous_hash: None,
            rotated_at: None,
            expires_at: now + LIFETIME,
            revoked_at: None,
        };
        let mut tx = self.oms.db().write().await?;
        store::add_session(&mut tx, &session, now).await?;
        tx.commit().await?;
        Ok(logged_in(user, &session, text))
    }

    /// Renews a session: the token given is used up and the answer holds its successor. Because an answer may be
    /// lost, the same token works again within ten seconds, and then the lost one does not. Any other use of an old
    /// token ends the session, since somebody has a copy.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] when the token is unknown or old, or the session or its user is no longer welcome.
    #[tracing::instrument(level = "debug", name = "users.refresh", skip_all)]
    pub async fn refresh(&self, refresh_token: &str) -> Result<LoggedIn> {
        let id = token::session_of(refresh_token).ok_or(Error::Unauthorized)?;
        let presented = token::hash(refresh_token);
        let now = self.oms.now();
        let mut tx = self.oms.db().write().await?;
        let mut session = store::hold_session(&mut tx, id)
            .await?
            .ok_or(Error::Unauthorized)?;
        let user = store::by_id(&mut tx, session.user_id)
            .await?
            .filter(|user| !user.is_disabled())
            .ok_or(Error::Unauthorized)?;
        match session.judge(&presented, now) {
            Presented::Current => {
                session.previous_hash = Some(presented);
                session.rotated_at = Some(now);
            }
            // The first renewal's time stays: the grace ends ten seconds after it, not after the last try.
            Presented::AnswerLost => {}
            Presented::Reused => {
                store::revoke_session(&mut tx, id, session.user_id, now).await?;
                tx.commit().await?;
                tracing::warn!(session.id = %id, user.id = %user.id, "an old refresh token came back: session revoked");
                return Err(Error::Unauthorized);
            }
            Presented::Over => return Err(Error::Unauthorized),
        }
        let (text, hash) = token::for_session(id);
        session.refresh_hash = hash;
        store::rotate_session(&mut tx, &session).await?;
        tx.commit().await?;
        Ok(logged_in(user, &session, text))
    }

    /// Ends one of the actor's own sessions at once. Ending it again does nothing.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] when the actor is no user.
    #[tracing::instrument(level = "debug", name = "users.log_out", skip_all)]
    pub async fn log_out(&self, actor: &Actor, session: SessionId) -> Result<()> {
        let user = actor.require_user()?;
        let mut tx = self.oms.db().write().await?;
        store::revoke_session(&mut tx, session, user, self.oms.now()).await?;
        tx.commit().await
    }

    /// Who asks, from the two ids in an access token whose signature was checked. Roles, the verified flag,
    /// log-out and disabling are those of now, not those of when the token was made. Callers of one moment share a read.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] when the session is over or is another user's, or the user is disabled.
    #[tracing::instrument(level = "debug", name = "users.authenticate", skip_all)]
    pub async fn authenticate(&self, session: SessionId, user: UserId) -> Result<Actor> {
        let found = self.oms.inner.gate.ask(session, user).await?;
        found.ok_or(Error::Unauthorized)
    }
}

fn logged_in(user: User, session: &Session, refresh_token: String) -> LoggedIn {
    LoggedIn {
        user,
        session: session.id,
        refresh_token: Secret::new(refresh_token),
        refresh_expires_at: session.expires_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_token_means() {
        use Presented::{AnswerLost, Current, Over, Reused};
        let at = Timestamp::from_millis;
        let live = Session {
            id: SessionId::new(at(0)),
            user_id: UserId::new(at(0)),
            refresh_hash: b"two".to_vec(),
            previous_hash: Some(b"one".to_vec()),
            rotated_at: Some(at(1_000)),
            expires_at: at(60_000),
            revoked_at: None,
        };
        let fresh = Session {
            refresh_hash: b"one".to_vec(),
            previous_hash: None,
            rotated_at: None,
            ..live.clone()
        };
        let revoked = Session {
            revoked_at: Some(at(2_000)),
            ..live.clone()
        };
        let table = [
            (&fresh, "one", 2_000, Current),
            (&fresh, "nil", 2_000, Reused),
            (&live, "two", 1_000, Current),
            (&live, "two", 59_999, Current),
            (&live, "two", 60_000, Over),
            (&live, "one", 1_000, AnswerLost),
            (&live, "one", 11_000, AnswerLost),
            (&live, "one", 11_001, Reused),
            (&live, "one", 60_000, Over),
            (&live, "nil", 1_000, Reused),
            (&revoked, "two", 3_000, Over),
            (&revoked, "one", 3_000, Over),
        ];
        for (session, hash, now, expected) in table {
            assert_eq!(
                session.judge(hash.as_bytes(), at(now)),
                expected,
                "{hash} at {now}"
            );
        }
    }
}
