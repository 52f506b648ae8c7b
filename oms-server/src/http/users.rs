//! Accounts and sessions.

use oms_core::Actor;
use oms_core::users::{LoggedIn, Register, UpdateMe, User};
use poem::web::Data;
use poem_openapi::param::Header;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;

use super::auth::{Auth, LIFETIME};
use super::error::{Result, required_version};
use super::json::JsonBody;
use super::limits::{self, Client};
use super::reply::{Created, NoContent, Reply};
use super::{State, Tag};

pub(super) struct UsersApi;

#[derive(Object)]
#[oai(deny_unknown_fields)]
struct NewUser {
    /// 3 to 32 letters, digits, dots, underscores or hyphens; unique without regard to case.
    username: String,
    /// Gets the verification mail; unique without regard to case.
    email: String,
    /// 8 to 128 characters.
    password: String,
}

#[derive(Object)]
#[oai(deny_unknown_fields)]
struct Token {
    /// From the mail.
    token: String,
}

#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct EmailAddress {
    email: String,
}

#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct MyChanges {
    username: Option<String>,
}

#[derive(Object)]
#[oai(deny_unknown_fields)]
struct Credentials {
    /// User name or e-mail address.
    identifier: String,
    password: String,
}

#[derive(Object)]
#[oai(deny_unknown_fields)]
struct Refresh {
    refresh_token: String,
}

/// Somebody with an account.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "User")]
pub(crate) struct UserBody {
    id: String,
    username: String,
    email: String,
    email_verified: bool,
    /// Some of `operator` and `admin`; empty for a customer.
    roles: Vec<String>,
    disabled: bool,
    version: i64,
    created_at: String,
    updated_at: String,
}

/// Tokens of a session.
#[derive(Object, Serialize)]
struct Session {
    /// For the header `Authorization: Bearer ..`.
    access_token: String,
    token_type: String,
    /// Seconds until the access token ends.
    expires_in: u64,
    /// Gets the next access token, once, together with the next refresh token.
    refresh_token: String,
    /// When the session ends for good.
    refresh_expires_at: String,
}

#[OpenApi(prefix_path = "/v1")]
impl UsersApi {
    /// Register
    ///
    /// A mail with a link follows. Until the address is verified, the account can log in but neither order nor sell.
    #[oai(
        path = "/users",
        method = "post",
        operation_id = "registerUser",
        tag = "Tag::Users"
    )]
    async fn register(
        &self,
        state: Data<&State>,
        client: Data<&Client>,
        body: JsonBody<NewUser>,
    ) -> Result<Created<UserBody>> {
        let JsonBody(new) = body;
        limits::sign_in(&state, **client, &new.email).await?;
        let command = Register {
            username: new.username,
            email: new.email,
            password: new.password,
        };
        let user = state.oms.users().register(&Actor::Anonymous, command).await?;
        Ok(user_reply(user))
    }

    /// Verify the e-mail address
    ///
    /// With the token of the mail, which works once and for 24 hours.
    #[oai(
        path = "/users/verify",
        method = "post",
        operation_id = "verifyEmail",
        tag = "Tag::Users"
    )]
    async fn verify(&self, state: Data<&State>, body: JsonBody<Token>) -> Result<NoContent> {
        let users = state.oms.users();
        users.verify_email(&Actor::Anonymous, &body.0.token).await?;
        Ok(NoContent)
    }

    /// Send the verification mail again
    ///
    /// The answer is the same whether there is such a user or not.
    #[oai(
        path = "/users/verify/resend",
        method = "post",
        operation_id = "resendVerification",
        tag = "Tag::Users"
    )]
    async fn resend(
        &self,
        state: Data<&State>,
        client: Data<&Client>,
        body: JsonBody<EmailAddress>,
    ) -> Result<NoContent> {
        limits::sign_in(&state, **client, &body.0.email).await?;
        let users = state.oms.users();
        users
            .resend_verification(&Actor::Anonymous, &body.0.email)
            .await?;
        Ok(NoContent)
    }

    /// The own account
    #[oai(path = "/me", method = "get", operation_id = "getMe", tag = "Tag::Users")]
    async fn me(&self, auth: Auth) -> Result<Reply<UserBody>> {
        let Auth(me) = auth;
        Ok(user_reply(me.oms.users().me(&me.actor).await?))
    }

    /// Change the own account
    #[oai(path = "/me", method = "patch", operation_id = "updateMe", tag = "Tag::Users")]
    async fn update_me(
        &self,
        auth: Auth,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: JsonBody<MyChanges>,
    ) -> Result<Reply<UserBody>> {
        let Auth(me) = auth;
        let command = UpdateMe {
            username: body.0.username,
            expected_version: required_version(if_match.0.as_deref())?,
        };
        Ok(user_reply(me.oms.users().update_me(&me.actor, command).await?))
    }

    /// Log in
    #[oai(
        path = "/sessions",
        method = "post",
        operation_id = "logIn",
        tag = "Tag::Sessions"
    )]
    async fn log_in(
        &self,
        state: Data<&State>,
        client: Data<&Client>,
        body: JsonBody<Credentials>,
    ) -> Result<Reply<Session>> {
        let Credentials { identifier, password } = body.0;
        limits::sign_in(&state, **client, &identifier).await?;
        let users = state.oms.users();
        let session = users.log_in(&Actor::Anonymous, &identifier, &password).await?;
        session_reply(&state, &session)
    }

    /// Renew the tokens of a session
    ///
    /// A refresh token works once. One that is used again ends its session: it may have been stolen.
    #[oai(
        path = "/sessions/refresh",
        method = "post",
        operation_id = "refreshSession",
        tag = "Tag::Sessions"
    )]
    async fn refresh(&self, state: Data<&State>, body: JsonBody<Refresh>) -> Result<Reply<Session>> {
        let users = state.oms.users();
        let session = users.refresh(&body.0.refresh_token).await?;
        session_reply(&state, &session)
    }

    /// Log out
    #[oai(
        path = "/sessions/current",
        method = "delete",
        operation_id = "logOut",
        tag = "Tag::Sessions"
    )]
    async fn log_out(&self, auth: Auth) -> Result<NoContent> {
        let Auth(me) = auth;
        me.oms.users().log_out(&me.actor, me.session).await?;
        Ok(NoContent)
    }
}

pub(super) fn user_reply<const STATUS: u16>(user: User) -> Reply<UserBody, STATUS> {
    let version = user.version;
    Reply::new(user.into()).version(version)
}

fn session_reply(state: &State, session: &LoggedIn) -> Result<Reply<Session>> {
    let access_token = state
        .tokens
        .sign(session.session, session.user.id, state.oms.now())?;
    Ok(Reply::new(Session {
        access_token,
        token_type: "Bearer".into(),
        expires_in: LIFETIME.as_secs(),
        refresh_token: session.refresh_token.reveal().into(),
        refresh_expires_at: session.refresh_expires_at.to_string(),
    }))
}

impl From<User> for UserBody {
    fn from(user: User) -> Self {
        let roles = [("operator", user.roles.operator), ("admin", user.roles.admin)];
        let held = roles.into_iter().filter(|(_, held)| *held);
        Self {
            id: user.id.to_string(),
            email_verified: user.is_verified(),
            roles: held.map(|(name, _)| name.to_owned()).collect(),
            disabled: user.is_disabled(),
            version: user.version,
            created_at: user.created_at.to_string(),
            updated_at: user.updated_at.to_string(),
            username: user.username,
            email: user.email,
        }
    }
}
