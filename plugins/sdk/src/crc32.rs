//! CRC-32 as zlib and PNG compute it (polynomial `04C11DB7`, reflected). PayPal signs it in place of a body.

/// The checksum of these bytes.
pub fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    let step = |sum: u32, byte: &u8| TABLE[usize::from(sum.to_le_bytes()[0] ^ byte)] ^ (sum >> 8);
    !bytes.iter().fold(u32::MAX, step)
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    let mut start = 0_u32;
    while index < table.len() {
        let (mut sum, mut bit) = (start, 0);
        while bit < 8 {
            sum = if sum & 1 == 1 {
                0xEDB8_8320 ^ (sum >> 1)
            } else {
                sum >> 1
            };
            bit += 1;
        }
        table[index] = sum;
        index += 1;
        start += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn published_checksums() {
        for (bytes, sum) in [
            ("", 0),
            ("123456789", 0xCBF4_3926),
            ("The quick brown fox jumps over the lazy dog", 0x414F_A339),
            // As PayPal's own Python library computes it.
            (
                r#"{"id":"WH-1","event_type":"PAYMENT.CAPTURE.COMPLETED"}"#,
                2_325_436_976,
            ),
        ] {
            assert_eq!(crc32(bytes.as_bytes()), sum, "{bytes}");
        }
    }
}
