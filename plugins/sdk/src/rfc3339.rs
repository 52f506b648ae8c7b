//! Times as gateways write them in JSON: RFC 3339, such as `2026-01-31T10:59:58.123+01:00`.

/// Unix milliseconds of a time, or none when the text is not one that RFC 3339 allows (from 1970 on).
pub fn parse_ms(text: &str) -> Option<u64> {
    // Slicing by bytes below needs this.
    if !text.is_ascii() || text.len() < 20 {
        return None;
    }
    let bytes = text.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| bytes[*at] != *mark) || !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (digits(&text[..4])?, digits(&text[5..7])?, digits(&text[8..10])?);
    let (hour, minute, second) = (
        digits(&text[11..13])?,
        digits(&text[14..16])?,
        digits(&text[17..19])?,
    );
    // 60 is a leap second; it counts as the first one of the next minute.
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_in(year, month)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let (millis, zone) = fraction(&text[19..])?;
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let total = (seconds - offset_seconds(zone)?) * 1_000 + millis;
    u64::try_from(total).ok()
}

fn digits(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

/// Milliseconds of the fraction, if there is one, and what follows it.
fn fraction(rest: &str) -> Option<(i64, &str)> {
    let Some(rest) = rest.strip_prefix('.') else {
        return Some((0, rest));
    };
    let end = rest.bytes().position(|byte| !byte.is_ascii_digit())?;
    let millis = format!("{:0<3}", &rest[..end.min(3)]);
    (end > 0).then_some((digits(&millis)?, &rest[end..]))
}

/// `Z`, `+01:00`, and `+0100`, which RFC 3339 does not know but ISO 8601 does.
fn offset_seconds(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.bytes().next()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = match zone.len() {
        6 if zone.as_bytes()[3] == b':' => (&zone[1..3], &zone[4..]),
        5 => (&zone[1..3], &zone[3..]),
        _ => return None,
    };
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let leap_days = before / 4 - before / 100 + before / 400;
    let months: i64 = (1..month).map(|m| days_in(year, m)).sum();
    // 719162 days lie between the first day of year 1 and the first of 1970.
    before * 365 + leap_days + months + day - 1 - 719_162
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_real_gateways() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2016-02-18T20:01:35Z", 1_455_825_695_000),
            ("2019-06-28T18:03:50+01:00", 1_561_741_430_000),
            ("2026-01-01T00:00:00.12Z", 1_767_225_600_120),
            ("2000-02-29T23:59:60.9999-0030", 951_870_600_999),
            ("9999-12-31t23:59:59z", 253_402_300_799_000),
        ] {
            assert_eq!(parse_ms(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_time() {
        for text in [
            "",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00+25:00",
            "2026-01-01T00:00:00 Z",
            "+026-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-01-01T00:00:00ü",
        ] {
            assert_eq!(parse_ms(text), None, "{text}");
        }
    }
}
