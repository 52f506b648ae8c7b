//! How an input becomes a delivery: a few bytes say how it is signed and what is wrong with it, the rest is its body.

use arbitrary::{Arbitrary, Unstructured};
use oms_plugin_sdk::Delivery;

use crate::json::Edit;

/// When deliveries arrive, in Unix milliseconds.
pub const NOW_MS: u64 = 1_767_323_045_678;

/// The first bytes of an input. All zeros are a genuine delivery that nothing is wrong with.
#[derive(Debug, Clone, Arbitrary)]
pub struct Control {
    signing: u8,
    /// Which of the target's accounts receives it.
    pub account: u8,
    header_edit: u8,
    header_at: u8,
    header_with: u8,
    /// Seconds between signing and arrival, in either direction.
    skew: i16,
    tolerance: u8,
    /// Where a verified body is damaged, to see that it is verified no more.
    pub damage: u16,
    pub edits: [Edit; 3],
}

/// By whom, and over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signing {
    Genuine,
    /// Genuine, beside signatures that do not fit.
    AmongOthers,
    /// By the key before this one, where accounts may have one.
    OldKey,
    WrongKey,
    /// Over the body before it was changed.
    OtherBody,
    /// Text from the input in the place of a signature.
    Garbage,
    Absent,
}

impl Signing {
    const ALL: [Self; 7] = [
        Self::Genuine,
        Self::AmongOthers,
        Self::OldKey,
        Self::WrongKey,
        Self::OtherBody,
        Self::Garbage,
        Self::Absent,
    ];
}

impl Control {
    /// What stands at the front of an input, and the text behind it.
    pub fn read(input: &[u8]) -> (Self, &[u8]) {
        let mut bytes = Unstructured::new(input);
        // Bytes that are missing count as zeros.
        let control = Self::arbitrary(&mut bytes).expect("numbers are made of any bytes");
        (control, bytes.take_rest())
    }

    pub fn signing(&self) -> Signing {
        Signing::ALL[usize::from(self.signing) % Signing::ALL.len()]
    }

    pub fn tolerance_seconds(&self) -> u32 {
        [300, 1, 3_600, u32::MAX][usize::from(self.tolerance) % 4]
    }

    pub fn signed_seconds(&self) -> u64 {
        (NOW_MS / 1000).saturating_add_signed(-i64::from(self.skew))
    }

    /// Whether the signed time is one that the account takes.
    pub fn is_in_time(&self) -> bool {
        u32::from(self.skew.unsigned_abs()) <= self.tolerance_seconds()
    }

    /// Whether the headers stay as they were made.
    pub fn leaves_headers(&self) -> bool {
        self.header_edit.is_multiple_of(8)
    }

    /// Puts it together, with a change to its headers.
    pub fn delivery(&self, headers: Vec<(&str, Vec<u8>)>, body: Vec<u8>) -> Delivery {
        let mut headers: Vec<(String, Vec<u8>)> = headers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        self.edit_headers(&mut headers, &body);
        Delivery {
            method: "POST".into(),
            url: "https://shop.test/v1/webhooks/account".into(),
            query: String::new(),
            headers,
            body,
            received_at_ms: NOW_MS,
            remote_ip: Some("192.0.2.1".into()),
            tolerance_seconds: self.tolerance_seconds(),
        }
    }

    fn edit_headers(&self, headers: &mut Vec<(String, Vec<u8>)>, body: &[u8]) {
        if headers.is_empty() {
            return;
        }
        let at = usize::from(self.header_at) % headers.len();
        let with = usize::from(self.header_with);
        match self.header_edit % 8 {
            0 => {}
            1 => {
                headers.remove(at);
            }
            2 => headers.push(headers[at].clone()),
            3 => headers[at].0 = headers[at].0.to_ascii_uppercase(),
            // What the fuzzer writes at the end of the body becomes a header.
            4 => headers[at].1 = body[body.len() - with.min(body.len())..].to_vec(),
            5 => {
                let value = &mut headers[at].1;
                let place = with % (value.len() + 1);
                value.insert(place, self.header_at);
            }
            6 => {
                let value = &mut headers[at].1;
                value.truncate(with % (value.len() + 1));
            }
            _ => {
                let value = &mut headers[at].1;
                if !value.is_empty() {
                    let place = with % value.len();
                    value[place] ^= self.header_at.max(1);
                }
            }
        }
    }
}

/// The values of all headers of this name.
pub fn headers<'a>(delivery: &'a Delivery, name: &str) -> Vec<&'a [u8]> {
    let all = delivery.headers.iter();
    all.filter(|(header, _)| header.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_slice())
        .collect()
}

/// The one text of this name, for those who look at it apart from the plugin.
pub fn only_header<'a>(delivery: &'a Delivery, name: &str) -> Option<&'a str> {
    match headers(delivery, name)[..] {
        [value] => std::str::from_utf8(value).ok(),
        _ => None,
    }
}
