use std::collections::HashMap;

use sqlx::FromRow;

use super::model::{Email, User, Username};
use super::session::Session;
use crate::actor::{Actor, Roles};
use crate::db::{Tx, on_unique, push_list, run};
use crate::error::{Error, Result};
use crate::id::{SessionId, TokenId, UserId};
use crate::time::Timestamp;

/// What an `oms_user_token` is for. Resets will be another.
const VERIFY_EMAIL: &str = "verify_email";

#[derive(FromRow)]
struct UserRow {
    id: UserId,
    username: String,
    email: String,
    password_hash: String,
    operator: bool,
    admin: bool,
    email_verified_at: Option<Timestamp>,
    disabled_at: Option<Timestamp>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self {
            id: row.id,
            username: row.username,
            email: row.email,
            roles: Roles {
                operator: row.operator,
                admin: row.admin,
            },
            email_verified_at: row.email_verified_at,
            disabled_at: row.disabled_at,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// One list of columns for every way to find a user.
macro_rules! user {
    ($rest:literal) => {
        concat!(
            "SELECT id, username, email, password_hash, operator, admin, email_verified_at, disabled_at,
                    version, created_at, updated_at
             FROM oms_user ",
            $rest
        )
    };
}

pub(super) async fn add(
    tx: &mut Tx,
    user: &User,
    username: &Username,
    email: &Email,
    hash: &str,
) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "INSERT INTO oms_user (id, username, username_key, email, email_key, password_hash, operator, admin,
                                   email_verified_at, version, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(user.id)
        .bind(username.as_str())
        .bind(username.key())
        .bind(email.as_str())
        .bind(email.key())
        .bind(hash)
        .bind(user.roles.operator)
        .bind(user.roles.admin)
        .bind(user.email_verified_at)
        .bind(user.version)
        .bind(user.created_at)
        .bind(user.updated_at)
        .execute(conn)
        .await
        .map(drop)
    })
    .map_err(taken)
}

pub(super) async fn by_id(tx: &mut Tx, id: UserId) -> Result<Option<User>> {
    let row: Option<UserRow> = run!(tx, |conn| {
        sqlx::query_as(user!("WHERE id = $1"))
            .bind(id)
            .fetch_optional(conn)
            .await
    })?;
    Ok(row.map(User::from))
}

pub(super) async fn by_email(tx: &mut Tx, key: &str) -> Result<Option<User>> {
    let row: Option<UserRow> = run!(tx, |conn| {
        sqlx::query_as(user!("WHERE email_key = $1"))
            .bind(key)
            .fetch_optional(conn)
            .await
    })?;
    Ok(row.map(User::from))
}

/// The user whose name or address this is, with its password hash. No name holds an `@`, so at most one matches.
pub(super) async fn credentials(tx: &mut Tx, key: &str) -> Result<Option<(User, String)>> {
    let row: Option<UserRow> = run!(tx, |conn| {
        sqlx::query_as(user!("WHERE username_key = $1 OR email_key = $1"))
            .bind(key)
            .fetch_optional(conn)
            .await
    })?;
    Ok(row.map(|mut row| {
        let hash = std::mem::take(&mut row.password_hash);
        (row.into(), hash)
    }))
}

/// The newest first, those before `before`.
pub(super) async fn list(tx: &mut Tx, before: UserId, limit: i64) -> Result<Vec<User>> {
    let rows: Vec<UserRow> = run!(tx, |conn| {
        sqlx::query_as(user!("WHERE id < $1 ORDER BY id DESC LIMIT $2"))
            .bind(before)
            .bind(limit)
            .fetch_all(conn)
            .await
    })?;
    Ok(rows.into_iter().map(User::from).collect())
}

/// Whether `expected` was still the version.
pub(super) async fn rename(
    tx: &mut Tx,
    id: UserId,
    username: &Username,
    expected: i64,
    now: Timestamp,
) -> Result<bool> {
    let changed = run!(tx, |conn| {
        sqlx::query(
            "UPDATE oms_user SET username = $1, username_key = $2, version = version + 1, updated_at = $3
             WHERE id = $4 AND version = $5",
        )
        .bind(username.as_str())
        .bind(username.key())
        .bind(now)
        .bind(id)
        .bind(expected)
        .execute(conn)
        .await
        .map(|done| done.rows_affected())
    })
    .map_err(taken)?;
    Ok(changed == 1)
}

pub(super) async fn set_roles(tx: &mut Tx, id: UserId, roles: Roles, now: Timestamp) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "UPDATE oms_user SET operator = $1, admin = $2, version = version + 1, updated_at = $3 WHERE id = $4",
        )
        .bind(roles.operator)
        .bind(roles.admin)
        .bind(now)
        .bind(id)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

pub(super) async fn set_disabled(tx: &mut Tx, id: UserId, disabled: bool, now: Timestamp) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "UPDATE oms_user SET disabled_at = $1, version = version + 1, updated_at = $2 WHERE id = $3",
        )
        .bind(disabled.then_some(now))
        .bind(now)
        .bind(id)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Leaves a user alone that is verified already.
pub(super) async fn set_verified(tx: &mut Tx, id: UserId, now: Timestamp) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "UPDATE oms_user SET email_verified_at = $1, version = version + 1, updated_at = $1
             WHERE id = $2 AND email_verified_at IS NULL",
        )
        .bind(now)
        .bind(id)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

pub(super) async fn add_mail_token(
    tx: &mut Tx,
    user: UserId,
    hash: &[u8],
    email_key: &str,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "INSERT INTO oms_user_token (id, user_id, purpose, token_hash, email_key, expires_at, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(TokenId::new(now))
        .bind(user)
        .bind(VERIFY_EMAIL)
        .bind(hash)
        .bind(email_key)
        .bind(expires_at)
        .bind(now)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Whether a token was made for this user's mail since then.
pub(super) async fn has_mail_token_since(tx: &mut Tx, user: UserId, since: Timestamp) -> Result<bool> {
    let made: Option<UserId> = run!(tx, |conn| {
        sqlx::query_scalar(
            "SELECT user_id FROM oms_user_token WHERE user_id = $1 AND purpose = $2 AND created_at > $3 LIMIT 1",
        )
        .bind(user)
        .bind(VERIFY_EMAIL)
        .bind(since)
        .fetch_optional(conn)
        .await
    })?;
    Ok(made.is_some())
}

/// Uses a token up and says whose it is. One statement, so that of two callers one gets it. Nothing for a token that
/// is unknown, used, expired, or made for an address that its user no longer has.
pub(super) async fn use_mail_token(tx: &mut Tx, hash: &[u8], now: Timestamp) -> Result<Option<UserId>> {
    let user: Option<UserId> = run!(tx, |conn| {
        sqlx::query_scalar(
            "UPDATE oms_user_token SET used_at = $1
             WHERE token_hash = $2 AND purpose = $3 AND used_at IS NULL AND expires_at > $1
               AND EXISTS (SELECT 1 FROM oms_user u
                           WHERE u.id = oms_user_token.user_id AND u.email_key = oms_user_token.email_key)
             RETURNING user_id",
        )
        .bind(now)
        .bind(hash)
        .bind(VERIFY_EMAIL)
        .fetch_optional(conn)
        .await
    })?;
    Ok(user)
}

#[derive(FromRow)]
struct SessionRow {
    id: SessionId,
    user_id: UserId,
    refresh_hash: Vec<u8>,
    previous_hash: Option<Vec<u8>>,
    rotated_at: Option<Timestamp>,
    expires_at: Timestamp,
    revoked_at: Option<Timestamp>,
}

impl From<SessionRow> for Session {
    fn from(row: SessionRow) -> Self {
        Self {
            id: row.id,
            user_id: row.user_id,
            refresh_hash: row.refresh_hash,
            previous_hash: row.previous_hash,
            rotated_at: row.rotated_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        }
    }
}

pub(super) async fn add_session(tx: &mut Tx, session: &Session, now: Timestamp) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "INSERT INTO oms_session (id, user_id, refresh_hash, expires_at, created_at)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(session.id)
        .bind(session.user_id)
        .bind(session.refresh_hash.as_slice())
        .bind(session.expires_at)
        .bind(now)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Loads a session and keeps others from renewing it until the transaction ends: an update that changes nothing is a
/// row lock with one text for both databases.
pub(super) async fn hold_session(tx: &mut Tx, id: SessionId) -> Result<Option<Session>> {
    let row: Option<SessionRow> = run!(tx, |conn| {
        sqlx::query_as(
            "UPDATE oms_session SET rotated_at = rotated_at WHERE id = $1
             RETURNING id, user_id, refresh_hash, previous_hash, rotated_at, expires_at, revoked_at",
        )
        .bind(id)
        .fetch_optional(conn)
        .await
    })?;
    Ok(row.map(Session::from))
}

pub(super) async fn rotate_session(tx: &mut Tx, session: &Session) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "UPDATE oms_session SET refresh_hash = $1, previous_hash = $2, rotated_at = $3 WHERE id = $4",
        )
        .bind(session.refresh_hash.as_slice())
        .bind(session.previous_hash.as_deref())
        .bind(session.rotated_at)
        .bind(session.id)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Keeps the time of the first revocation. Another user's session is left alone.
pub(super) async fn revoke_session(tx: &mut Tx, id: SessionId, user: UserId, now: Timestamp) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "UPDATE oms_session SET revoked_at = $1 WHERE id = $2 AND user_id = $3 AND revoked_at IS NULL",
        )
        .bind(now)
        .bind(id)
        .bind(user)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Users as they may act now in these sessions, at least one. Those that are no longer welcome are left out.
pub(super) async fn actors_of(
    tx: &mut Tx,
    sessions: &[SessionId],
    now: Timestamp,
) -> Result<HashMap<SessionId, Actor>> {
    let rows: Vec<(SessionId, UserId, bool, bool, bool)> = run!(tx, |conn| {
        let mut sql = sqlx::QueryBuilder::new(
            "SELECT s.id, u.id, u.operator, u.admin, u.email_verified_at IS NOT NULL
             FROM oms_session s JOIN oms_user u ON u.id = s.user_id
             WHERE s.revoked_at IS NULL AND u.disabled_at IS NULL AND s.expires_at > ",
        );
        sql.push_bind(now).push(" AND s.id IN ");
        push_list(&mut sql, sessions);
        sql.build_query_as().fetch_all(conn).await
    })?;
    let actor = |(session, id, operator, admin, verified)| {
        let roles = Roles { operator, admin };
        (session, Actor::User { id, roles, verified })
    };
    Ok(rows.into_iter().map(actor).collect())
}

fn taken(e: sqlx::Error) -> Error {
    on_unique(
        e,
        &[
            ("oms_user_username_key", "oms_user.username_key", "user name"),
            ("oms_user_email_key", "oms_user.email_key", "e-mail address"),
        ],
    )
}
