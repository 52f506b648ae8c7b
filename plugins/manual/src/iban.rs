//! The check of an IBAN: a wrong digit in the settings would send the customers' money to somebody else.

/// The IBAN without blanks and in capital letters; none when its check digits do not fit.
pub(crate) fn parse(text: &str) -> Option<String> {
    let iban: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let iban = iban.to_ascii_uppercase();
    let bytes = iban.as_bytes();
    let shape = (15..=34).contains(&bytes.len())
        && bytes.iter().all(u8::is_ascii_alphanumeric)
        && bytes[..2].iter().all(u8::is_ascii_uppercase)
        && bytes[2..4].iter().all(u8::is_ascii_digit);
    (shape && remainder(bytes) == 1).then_some(iban)
}

/// ISO 7064, modulo 97: the first four characters go to the end, letters count from 10 on.
fn remainder(iban: &[u8]) -> u32 {
    let (head, tail) = iban.split_at(4);
    tail.iter().chain(head).fold(0, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        letter => (rest * 100 + u32::from(letter - b'A') + 10) % 97,
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn published_examples() {
        for good in [
            "DE89 3704 0044 0532 0130 00",
            "gb82west12345698765432",
            "NO93 8601 1117 947",
            "MT84MALT011000012345MTLCAST001S",
        ] {
            assert!(parse(good).is_some(), "{good}");
        }
        assert_eq!(
            parse("DE89 3704 0044 0532 0130 00").as_deref(),
            Some("DE89370400440532013000")
        );
        for bad in [
            "",
            "DE89 3704 0044 0532 0130 01",
            "DE98 3704 0044 0532 0130 00",
            "8937040044053201300000",
            "DE89-3704-0044",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
