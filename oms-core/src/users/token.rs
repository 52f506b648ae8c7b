//! Secrets that clients hold. The database keeps their SHA-256 only: they are random, so that no salt is needed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::id::{SessionId, random_bytes};

/// Random bytes in a token.
const SECRET: usize = 32;

/// What a mail carries: its text, and the hash to keep.
pub(super) fn for_mail() -> (String, Vec<u8>) {
    let mut secret = [0; SECRET];
    random_bytes(&mut secret);
    let text = URL_SAFE_NO_PAD.encode(secret);
    let hash = hash(&text);
    (text, hash)
}

/// A refresh token: its text, and the hash to keep. It names its session, so that every token a session ever had is
/// recognised when it comes back, not only the last.
pub(super) fn for_session(session: SessionId) -> (String, Vec<u8>) {
    let mut bytes = [0; 16 + SECRET];
    let (id, secret) = bytes.split_at_mut(16);
    id.copy_from_slice(session.uuid().as_bytes());
    random_bytes(secret);
    let text = URL_SAFE_NO_PAD.encode(bytes);
    let hash = hash(&text);
    (text, hash)
}

/// The session that a refresh token names; none when the text has not the form of one.
pub(super) fn session_of(text: &str) -> Option<SessionId> {
    // The length first: nobody makes us decode megabytes.
    let bytes = (text.len() == 64)
        .then(|| URL_SAFE_NO_PAD.decode(text).ok())
        .flatten()?;
    let id = bytes.first_chunk::<16>()?;
    Some(SessionId::from_uuid(Uuid::from_bytes(*id)))
}

/// What the database keeps of a token.
pub(super) fn hash(text: &str) -> Vec<u8> {
    Sha256::digest(text).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn refresh_tokens_name_their_session_and_differ() {
        let session = SessionId::new(Timestamp::from_millis(1_000));
        let (one, hash_of_one) = for_session(session);
        let (other, _) = for_session(session);
        assert_eq!(session_of(&one), Some(session));
        assert_eq!(hash(&one), hash_of_one);
        assert_ne!(one, other);
        for bad in ["", "x", &one[1..], &format!("{one}A"), &"é".repeat(32)] {
            assert_eq!(session_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn mail_tokens_have_256_bits() {
        let (text, kept) = for_mail();
        assert_eq!(text.len(), 43);
        assert_eq!(hash(&text), kept);
        assert_ne!(for_mail().0, text);
    }
}
