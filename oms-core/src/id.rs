//! Typed ids: UUIDv7 in the database, `ord_01h455vb4pex5vsknk084sn02q` in text (the TypeID form, version 0.3).

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::time::Timestamp;

/// Why a text is not an id of the wanted type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an id that begins with {prefix}_ and 26 characters after it")]
pub struct ParseIdError {
    prefix: &'static str,
}

macro_rules! typed_ids {
    ($($(#[$doc:meta])* $name:ident $prefix:literal)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
        #[sqlx(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// What its text form begins with.
            pub const PREFIX: &'static str = $prefix;

            /// A new id that sorts by `now` (milliseconds) and is random beneath.
            pub fn new(now: Timestamp) -> Self {
                Self(uuid_v7(now))
            }

            /// The UUID behind it.
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// Takes any UUID as this kind of id: for values that come from the database or from another system.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}_{}", $prefix, encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.strip_prefix($prefix)
                    .and_then(|rest| rest.strip_prefix('_'))
                    .and_then(decode)
                    .map(Self)
                    .ok_or(ParseIdError { prefix: $prefix })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

typed_ids! {
    /// A user.
    UserId "usr"
    /// A log-in session.
    SessionId "ses"
    /// A token that a mail carries.
    TokenId "tok"
    /// A business, which sells.
    BusinessId "biz"
    /// A product.
    ProductId "prd"
    /// A variant of a product: what has a SKU, a price and stock.
    VariantId "var"
    /// A stock movement.
    MovementId "mov"
    /// An order.
    OrderId "ord"
    /// A fulfilment of (a part of) an order.
    FulfillmentId "ful"
    /// A payment.
    PaymentId "pay"
    /// One call to a gateway, with all its retries.
    AttemptId "att"
    /// A capture of (a part of) a payment.
    CaptureId "cap"
    /// A refund.
    RefundId "ref"
    /// A webhook event in the inbox.
    InboxId "whk"
    /// A recorded call of a plugin.
    PluginCallId "plc"
    /// A background job.
    JobId "job"
}

/// RFC 9562, version 7: 48 bits of milliseconds, then 74 random bits.
fn uuid_v7(now: Timestamp) -> Uuid {
    let mut random = [0u8; 10];
    random_bytes(&mut random);
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// The only source of randomness in the library: the operating system's.
#[expect(
    clippy::expect_used,
    reason = "without the system's random numbers no secret can be made; going on would be unsafe"
)]
pub(crate) fn random_bytes(buffer: &mut [u8]) {
    getrandom::fill(buffer).expect("the operating system gives random numbers");
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn encode(uuid: Uuid) -> String {
    let bits = uuid.as_u128();
    (0..26)
        .rev()
        .map(|i| char::from(ALPHABET[((bits >> (5 * i)) & 31) as usize]))
        .collect()
}

fn decode(text: &str) -> Option<Uuid> {
    // 26 characters hold 130 bits: the first may only be 0..=7.
    if text.len() != 26 || text.as_bytes()[0] > b'7' {
        return None;
    }
    let bits = text.bytes().try_fold(0u128, |bits, byte| {
        ALPHABET
            .iter()
            .position(|c| *c == byte)
            .map(|value| (bits << 5) | value as u128)
    })?;
    Some(Uuid::from_u128(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_typeid() {
        // The example of the TypeID specification.
        let uuid: Uuid = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        assert_eq!(
            OrderId::from_uuid(uuid).to_string(),
            "ord_01h455vb4pex5vsknk084sn02q"
        );
        assert_eq!(
            "ord_01h455vb4pex5vsknk084sn02q".parse(),
            Ok(OrderId::from_uuid(uuid))
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "ord_",
            "usr_01h455vb4pex5vsknk084sn02q",
            "01h455vb4pex5vsknk084sn02q",
            "ord_81h455vb4pex5vsknk084sn02q",
            "ord_01H455VB4PEX5VSKNK084SN02Q",
            "ord_01h455vb4pex5vsknk084sn02qq",
            "ord_01h455vb4pex5vsknk084sn02é",
        ] {
            assert!(text.parse::<OrderId>().is_err(), "{text}");
        }
    }

    #[test]
    fn new_ids_sort_by_time_and_differ() {
        let early = OrderId::new(Timestamp::from_millis(1_000));
        let late = OrderId::new(Timestamp::from_millis(2_000));
        assert!(early < late);
        assert_ne!(OrderId::new(Timestamp::from_millis(1_000)), early);
    }
}
