//! Who asks: access tokens (JWT) are made at log-in and turned into an actor at every request.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use oms_core::{Actor, Oms, SessionId, Timestamp, UserId};
use poem::Request;
use poem::http::{HeaderMap, header};
use poem_openapi::SecurityScheme;
use poem_openapi::auth::Bearer;
use serde::{Deserialize, Serialize};

use super::State;
use super::error::ApiError;

const ISSUER: &str = "oms";
const AUDIENCE: &str = "oms-api";
/// RFC 9068's type, so that no other token signed with the same key passes for an access token.
const TYPE: &str = "at+jwt";
pub(super) const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Signs and checks access tokens.
#[derive(Clone)]
pub struct Tokens(Arc<Keys>);

struct Keys {
    encoding: EncodingKey,
    decoding: DecodingKey,
    /// Made once: it is sets of names.
    rules: Validation,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: UserId,
    sid: SessionId,
    iat: i64,
    exp: i64,
}

impl Tokens {
    pub fn new(secret: &str) -> Self {
        let mut rules = Validation::new(Algorithm::HS256);
        rules.set_issuer(&[ISSUER]);
        rules.set_audience(&[AUDIENCE]);
        rules.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        // Against the library's clock, in `check`: there is one time in the program.
        rules.validate_exp = false;
        Self(Arc::new(Keys {
            encoding: EncodingKey::from_secret(secret.as_bytes()),
            decoding: DecodingKey::from_secret(secret.as_bytes()),
            rules,
        }))
    }

    /// A token for a session, good for [`LIFETIME`].
    pub(super) fn sign(&self, session: SessionId, user: UserId, now: Timestamp) -> Result<String, ApiError> {
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: user,
            sid: session,
            iat: now.as_secs(),
            exp: (now + LIFETIME).as_secs(),
        };
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYPE.into());
        jsonwebtoken::encode(&header, &claims, &self.0.encoding).map_err(|e| ApiError::internal(&e))
    }

    /// The session and user of a token that is ours and not past its time.
    pub(super) fn check(&self, token: &str, now: Timestamp) -> Option<(SessionId, UserId)> {
        let data = jsonwebtoken::decode::<Claims>(token, &self.0.decoding, &self.0.rules).ok()?;
        let good = data.header.typ.as_deref() == Some(TYPE) && data.claims.exp > now.as_secs();
        good.then_some((data.claims.sid, data.claims.sub))
    }
}

/// Somebody who is signed in, with what they work on.
pub(super) struct SignedIn {
    pub(super) oms: Oms,
    pub(super) actor: Actor,
    pub(super) session: SessionId,
}

/// The access token from `POST /v1/sessions`, as `Authorization: Bearer ..`.
#[derive(SecurityScheme)]
#[oai(ty = "bearer", bearer_format = "JWT", checker = "authenticate")]
pub(super) struct Auth(pub(super) SignedIn);

/// The token of a request and whom it speaks for, looked at once for all who want to know.
#[derive(Clone)]
pub(super) struct Presented {
    token: String,
    holder: Option<(SessionId, UserId)>,
}

impl Presented {
    pub(super) fn by(request: &Request, state: &State) -> Option<Self> {
        bearer(request.headers()).map(|token| Self {
            token: token.to_owned(),
            holder: state.tokens.check(token, state.oms.now()),
        })
    }

    /// Of a token that we signed. Whether its session still stands is asked when it is used.
    pub(super) fn user(&self) -> Option<UserId> {
        self.holder.map(|(_, user)| user)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

async fn authenticate(request: &Request, bearer: Bearer) -> poem::Result<SignedIn> {
    let Some(State { oms, tokens, .. }) = request.data::<State>() else {
        return Err(ApiError::internal(&"the routes are mounted without their state").into());
    };
    let holder = match request.data::<Presented>() {
        Some(presented) if presented.token == bearer.token => presented.holder,
        _ => tokens.check(&bearer.token, oms.now()),
    };
    let (session, user) = holder.ok_or_else(ApiError::unauthorized)?;
    let actor = oms
        .users()
        .authenticate(session, user)
        .await
        .map_err(ApiError::from)?;
    Ok(SignedIn {
        oms: oms.clone(),
        actor,
        session,
    })
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);

    fn ids() -> (SessionId, UserId) {
        (SessionId::new(NOW), UserId::new(NOW))
    }

    #[test]
    fn a_token_lasts_its_time_and_no_longer() {
        let (tokens, (session, user)) = (Tokens::new("k".repeat(32).as_str()), ids());
        let token = tokens.sign(session, user, NOW).unwrap();
        assert_eq!(tokens.check(&token, NOW), Some((session, user)));
        assert_eq!(tokens.check(&token, NOW + LIFETIME), None);
        assert_eq!(Tokens::new("another").check(&token, NOW), None);
    }

    #[test]
    fn other_tokens_of_the_same_key_are_refused() {
        let (tokens, (session, user)) = (Tokens::new("k"), ids());
        let claims = |iss: &str, aud: &str| Claims {
            iss: iss.into(),
            aud: aud.into(),
            sub: user,
            sid: session,
            iat: 0,
            exp: i64::MAX,
        };
        let sign = |algorithm, typ: Option<&str>, claims: &Claims| {
            let mut header = Header::new(algorithm);
            header.typ = typ.map(Into::into);
            jsonwebtoken::encode(&header, claims, &tokens.0.encoding).unwrap()
        };
        let good = claims(ISSUER, AUDIENCE);
        assert!(
            tokens
                .check(&sign(Algorithm::HS256, Some(TYPE), &good), NOW)
                .is_some()
        );
        for other in [
            sign(Algorithm::HS256, Some("JWT"), &good),
            sign(Algorithm::HS256, None, &good),
            sign(Algorithm::HS512, Some(TYPE), &good),
            sign(Algorithm::HS256, Some(TYPE), &claims("other", AUDIENCE)),
            sign(Algorithm::HS256, Some(TYPE), &claims(ISSUER, "other")),
            // {"alg":"none","typ":"at+jwt"}
            format!(
                "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.{}.",
                sign(Algorithm::HS256, Some(TYPE), &good)
                    .split('.')
                    .nth(1)
                    .unwrap()
            ),
            String::new(),
        ] {
            assert_eq!(tokens.check(&other, NOW), None, "{other}");
        }
    }

    #[test]
    fn tokens_are_found() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(text));
            bearer(&headers).map(ToOwned::to_owned)
        };
        assert_eq!(of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("Basic abc"), None);
        assert_eq!(of("abc"), None);
    }
}
