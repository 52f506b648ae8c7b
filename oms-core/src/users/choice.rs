//! Which passwords may be chosen.

use super::password;
use crate::text;

/// Length and guessability; no rules of composition, which make people write passwords down.
pub(super) fn check(password: &str, names: &[&str]) -> Result<(), String> {
    let length = password.chars().count();
    let key = text::fold(password);
    if !(8..=128).contains(&length) || password.len() > password::MAX_BYTES {
        Err("must have 8 to 128 characters".into())
    } else if names.iter().any(|name| text::fold(name) == key) {
        Err("must not be the user name or the e-mail address".into())
    } else if COMMON.contains(&key.as_str()) || all_the_same(&key) {
        Err("is one of the first that anybody tries: choose another".into())
    } else {
        Ok(())
    }
}

fn all_the_same(text: &str) -> bool {
    text.chars().all(|c| text.starts_with(c))
}

/// Of the lists of leaked passwords, those at the top that are long enough to pass.
const COMMON: &[&str] = &[
    "12345678",
    "123456789",
    "1234567890",
    "0123456789",
    "12341234",
    "123123123",
    "123321123",
    "1234qwer",
    "1q2w3e4r",
    "1q2w3e4r5t",
    "1qaz2wsx",
    "87654321",
    "987654321",
    "abc12345",
    "abcd1234",
    "admin123",
    "administrator",
    "asdfghjkl",
    "asdf1234",
    "baseball",
    "changeme",
    "charlie1",
    "computer",
    "dragon123",
    "football",
    "iloveyou",
    "iloveyou1",
    "internet",
    "jennifer",
    "letmein1",
    "letmein123",
    "michelle",
    "monkey123",
    "p@ssw0rd",
    "p@ssword",
    "passw0rd",
    "password",
    "password!",
    "password1",
    "password12",
    "password123",
    "password1234",
    "princess",
    "q1w2e3r4",
    "qazwsxedc",
    "qwer1234",
    "qwerty12",
    "qwerty123",
    "qwerty1234",
    "qwertyui",
    "qwertyuiop",
    "secret123",
    "starwars",
    "sunshine",
    "superman",
    "test1234",
    "trustno1",
    "welcome1",
    "welcome123",
    "whatever",
    "zaq12wsx",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords() {
        let names = ["annabella", "Anna@example.com"];
        for good in [
            "tr0ub4dor",
            "correct horse battery",
            "пароль от дачи",
            &"ab".repeat(64),
        ] {
            assert_eq!(check(good, &names), Ok(()), "{good}");
        }
        for bad in [
            "",
            "1234567",
            "Password123",
            "ANNABELLA",
            "anna@Example.com",
            "aaaaaaaaaa",
            "ＰＡＳＳＷＯＲＤ",
            &"ab".repeat(65),
            &"x1".repeat(600),
        ] {
            assert!(check(bad, &names).is_err(), "{bad}");
        }
    }
}
