//! Keys for texts that are compared or searched without case. The two databases fold differently, so the program does.

use unicode_normalization::UnicodeNormalization;

/// NFKC and lower case, outer blanks cut.
pub(crate) fn fold(text: &str) -> String {
    text.trim().nfkc().collect::<String>().to_lowercase()
}

/// A pattern for `LIKE .. ESCAPE '\'` that finds `needle` anywhere in a folded text.
pub(crate) fn contains_pattern(needle: &str) -> String {
    let mut pattern = String::from("%");
    for c in fold(needle).chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

/// Refuses texts that are empty, too long (in characters) or hold control characters other than line breaks.
pub(crate) fn check(text: &str, max: usize) -> Result<(), String> {
    let length = text.chars().count();
    if text.trim().is_empty() {
        Err("must not be empty".into())
    } else if length > max {
        Err(format!("must have at most {max} characters, has {length}"))
    } else if text
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
    {
        Err("must not hold control characters".into())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding() {
        assert_eq!(fold(" Ünïcode ＦＵＬＬ "), "ünïcode full");
        assert_eq!(contains_pattern("50%_\\"), "%50\\%\\_\\\\%");
    }

    #[test]
    fn checking() {
        assert!(check("ok\nline", 10).is_ok());
        for bad in ["", "  ", "a\0b", "12345678901"] {
            assert!(check(bad, 10).is_err(), "{bad:?}");
        }
    }
}
