//! Users: register, prove the address, log in, roles.
//!
//! Passwords are kept as argon2id hashes ([`password`]), tokens as SHA-256 ([`token`]); neither leaves in a `Debug`
//! or a log. Hashing happens before a transaction begins.

mod choice;
mod gate;
mod model;
mod password;
mod session;
mod store;
mod token;

use std::time::Duration;

pub(crate) use gate::Gate;
pub use model::{LoggedIn, Register, UpdateMe, User, identifier_key};
pub(crate) use password::Passwords;

use model::{Registration, Username, typed_key};

use crate::actor::{Actor, Roles};
use crate::db::Tx;
use crate::error::{Error, Result};
use crate::id::{JobId, UserId};
use crate::jobs::{self, EmailJob, Job, JobError, NewJob};
use crate::mail::{self, MailError, Message};
use crate::oms::Oms;
use crate::page::{Page, PageRequest};
use crate::text;
use crate::time::Timestamp;

/// How long the token in a verification mail works.
const VERIFICATION: Duration = Duration::from_secs(24 * 3600);

/// From one verification mail to the next that is asked for: nobody's mailbox is flooded from here.
const RESEND_PAUSE: Duration = Duration::from_secs(60);

/// The users of an [`Oms`].
pub struct Users<'a> {
    oms: &'a Oms,
}

impl Oms {
    /// The users.
    pub fn users(&self) -> Users<'_> {
        Users { oms: self }
    }
}

impl Users<'_> {
    /// Makes an account, open to anyone, and sends a mail to prove its address.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every broken rule; [`Error::Duplicate`] for a name or an address that somebody has, in
    /// any case; [`Error::Overloaded`] when too many wait for their passwords to be hashed.
    #[tracing::instrument(level = "debug", name = "users.register", skip_all)]
    pub async fn register(&self, _actor: &Actor, command: Register) -> Result<User> {
        let (user, registration, hash) = self.prepare(command, Roles::NONE, None).await?;
        let mut tx = self.oms.db().write().await?;
        add(&mut tx, &user, &registration, &hash).await?;
        jobs::enqueue(
            &mut tx,
            user.created_at,
            &[verification_mail(&user, user.created_at)],
        )
        .await?;
        tx.commit().await?;
        self.oms.ring();
        Ok(user)
    }

    /// Makes an administrator whose address counts as proven: how the first one comes to be.
    ///
    /// # Errors
    /// As [`register`](Self::register); [`Error::Forbidden`] unless the actor is an administrator or the program.
    pub async fn create_admin(&self, actor: &Actor, command: Register) -> Result<User> {
        actor.require_admin()?;
        let (user, registration, hash) = self.prepare(command, Roles::ADMIN, Some(self.oms.now())).await?;
        let mut tx = self.oms.db().write().await?;
        add(&mut tx, &user, &registration, &hash).await?;
        tx.commit().await?;
        Ok(user)
    }

    async fn prepare(
        &self,
        command: Register,
        roles: Roles,
        email_verified_at: Option<Timestamp>,
    ) -> Result<(User, Registration, String)> {
        let registration = command.check()?;
        let hash = self.oms.inner.passwords.hash(&registration.password).await?;
        let now = self.oms.now();
        let user = User {
            id: UserId::new(now),
            username: registration.username.as_str().into(),
            email: registration.email.as_str().into(),
            roles,
            email_verified_at,
            disabled_at: None,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        Ok((user, registration, hash))
    }

    /// Proves an address with the token that was mailed to it. Who holds the token may be signed in or not.
    ///
    /// # Errors
    /// [`Error::Invalid`] at `/token`, with one text for a token that is unknown, used, expired (24 hours) or for
    /// another address.
    #[tracing::instrument(level = "debug", name = "users.verify_email", skip_all)]
    pub async fn verify_email(&self, _actor: &Actor, token: &str) -> Result<()> {
        let now = self.oms.now();
        let mut tx = self.oms.db().write().await?;
        let user = store::use_mail_token(&mut tx, &token::hash(token), now)
            .await?
            .ok_or_else(|| Error::invalid("/token", "is unknown, used or expired: ask for another mail"))?;
        store::set_verified(&mut tx, user, now).await?;
        tx.commit().await
    }

    /// Sends the verification mail again. Says nothing of whether there is such a user, whether it is verified, or
    /// whether its mail is on the way already: one that left less than a minute ago is.
    #[tracing::instrument(level = "debug", name = "users.resend_verification", skip_all)]
    pub async fn resend_verification(&self, _actor: &Actor, email: &str) -> Result<()> {
        let Some(key) = typed_key(email) else {
            return Ok(());
        };
        let now = self.oms.now();
        let mut tx = self.oms.db().write().await?;
        let waiting = store::by_email(&mut tx, &key)
            .await?
            .filter(|user| !user.is_verified() && !user.is_disabled());
        if let Some(user) = waiting
            && !store::has_mail_token_since(&mut tx, user.id, now - RESEND_PAUSE).await?
        {
            jobs::enqueue(&mut tx, now, &[verification_mail(&user, now)]).await?;
        }
        tx.commit().await?;
        self.oms.ring();
        Ok(())
    }

    /// A user, for itself and for operators.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none or it is another.
    pub async fn get(&self, actor: &Actor, id: UserId) -> Result<User> {
        actor.require_owner_or_operator(Some(id), "user")?;
        let mut tx = self.oms.db().read().await?;
        let user = found(&mut tx, id).await?;
        tx.rollback().await?;
        Ok(user)
    }

    /// The user with this name or address, in any case. For operators.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none; [`Error::Forbidden`] for others.
    pub async fn find(&self, actor: &Actor, identifier: &str) -> Result<User> {
        actor.require_operator()?;
        let key = typed_key(identifier).ok_or(Error::NotFound("user"))?;
        let mut tx = self.oms.db().read().await?;
        let user = store::credentials(&mut tx, &key).await?;
        tx.rollback().await?;
        user.map(|(user, _)| user).ok_or(Error::NotFound("user"))
    }

    /// The actor's own account.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] when the actor is no user.
    #[tracing::instrument(level = "debug", name = "users.me", skip_all)]
    pub async fn me(&self, actor: &Actor) -> Result<User> {
        self.get(actor, actor.require_user()?).await
    }

    /// Changes the actor's own account.
    ///
    /// # Errors
    /// [`Error::VersionConflict`] when it changed since it was read; [`Error::Invalid`], [`Error::Duplicate`] for the
    /// name.
    pub async fn update_me(&self, actor: &Actor, command: UpdateMe) -> Result<User> {
        let id = actor.require_user()?;
        let username = command
            .username
            .map(|name| name.parse::<Username>())
            .transpose()
            .map_err(|detail| Error::invalid("/username", detail))?;
        let expected = command.expected_version;

        let mut tx = self.oms.db().write().await?;
        let renamed = match &username {
            Some(name) => store::rename(&mut tx, id, name, expected, self.oms.now()).await?,
            None => false,
        };
        let user = found(&mut tx, id).await?;
        if !renamed && user.version != expected {
            return Err(Error::VersionConflict {
                expected,
                actual: user.version,
            });
        }
        tx.commit().await?;
        Ok(user)
    }

    /// All users, the newest first, for administrators.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for others.
    pub async fn list(&self, actor: &Actor, page: PageRequest) -> Result<Page<User>> {
        actor.require_admin()?;
        let limit = page.limit()?;
        let before = page.after()?.unwrap_or(UserId::from_uuid(uuid::Uuid::max()));
        let mut tx = self.oms.db().read().await?;
        let users = store::list(&mut tx, before, limit + 1).await?;
        tx.rollback().await?;
        Ok(Page::cut(users, limit, |user| user.id))
    }

    /// Gives a user exactly these roles, for administrators. It holds for the user's next request.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for others; [`Error::NotFound`].
    pub async fn set_roles(&self, actor: &Actor, id: UserId, roles: Roles) -> Result<User> {
        actor.require_admin()?;
        let mut tx = self.oms.db().write().await?;
        store::set_roles(&mut tx, id, roles, self.oms.now()).await?;
        let user = found(&mut tx, id).await?;
        tx.commit().await?;
        tracing::info!(user.id = %id, roles.operator, roles.admin, by = %actor, "roles were set");
        Ok(user)
    }

    /// Locks a user out, or lets it in again, for administrators. It holds for the user's next request; what it placed
    /// and sells stays as it is.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for others; [`Error::NotFound`].
    pub async fn set_disabled(&self, actor: &Actor, id: UserId, disabled: bool) -> Result<User> {
        actor.require_admin()?;
        let mut tx = self.oms.db().write().await?;
        if found(&mut tx, id).await?.is_disabled() != disabled {
            store::set_disabled(&mut tx, id, disabled, self.oms.now()).await?;
        }
        let user = found(&mut tx, id).await?;
        tx.commit().await?;
        tracing::info!(user.id = %id, disabled, by = %actor, "a user was locked out or let in");
        Ok(user)
    }

    /// The job behind the verification mail. Each run makes its own token, commits its hash and only then sends, so
    /// that no job row ever holds one; tokens of earlier runs stay valid, since their mails may have arrived.
    pub(crate) async fn send_verification(&self, user: UserId, job: JobId) -> Result<(), JobError> {
        let now = self.oms.now();
        let expires_at = now + VERIFICATION;
        let mut tx = self.oms.db().write().await?;
        let Some(user) = store::by_id(&mut tx, user).await? else {
            return Err(JobError::fail("the user is gone"));
        };
        if user.is_verified() || user.is_disabled() {
            return Ok(tx.rollback().await?);
        }
        let (token, hash) = token::for_mail();
        let email_key = text::fold(&user.email);
        store::add_mail_token(&mut tx, user.id, &hash, &email_key, expires_at, now).await?;
        tx.commit().await?;

        let message = Message {
            id: job.to_string(),
            to: user.email,
            email: mail::Email::VerifyAddress {
                username: user.username,
                token,
                expires_at,
            },
        };
        self.oms.inner.mailer.send(message).await.map_err(|e| match e {
            MailError::Transient(_) => JobError::retry(e),
            MailError::Permanent(_) => JobError::fail(e),
        })
    }

    /// Runs the verification mail's job on the spot, without a worker.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub async fn send_verification_now(&self, user: UserId) -> Result<(), String> {
        let job = JobId::new(self.oms.now());
        self.send_verification(user, job)
            .await
            .map_err(|e| format!("{e:?}"))
    }
}

async fn add(tx: &mut Tx, user: &User, new: &Registration, hash: &str) -> Result<()> {
    store::add(tx, user, &new.username, &new.email, hash).await
}

async fn found(tx: &mut Tx, id: UserId) -> Result<User> {
    store::by_id(tx, id).await?.ok_or(Error::NotFound("user"))
}

/// At most one lives for each user, however often it is asked for.
fn verification_mail(user: &User, now: Timestamp) -> NewJob {
    let job = Job::SendEmail(EmailJob::VerifyAddress { user: user.id });
    NewJob::at(now, job).unique(user.id)
}
