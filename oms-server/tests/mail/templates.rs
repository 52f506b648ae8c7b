//! What is wrong with the shop's own words stops the start.

use std::fs;

use crate::common::server::program;

#[test]
fn broken_words_stop_the_start_with_one_line() {
    for (name, text, expected) in [
        (
            "verify.txt",
            "Subject: Hi\n\n{{ usrname }}\n",
            "verify.txt, line 3",
        ),
        (
            "order-paid.html",
            "<p>\n{{ total }\n</p>",
            "order-paid.html, line 2",
        ),
        ("refunded.txt", "No subject\n", "refunded.txt, line 1"),
        (
            "welcome.txt",
            "Subject: Hi\n",
            "welcome.txt: there is no such mail",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let words = folder.path().join("words");
        fs::create_dir(&words).unwrap();
        fs::write(words.join(name), text).unwrap();
        for command in ["serve", "worker"] {
            let mut program = program(folder.path());
            program.env("OMS_MAIL_TEMPLATES", &words).arg(command);
            let output = program.args(["--listen", "127.0.0.1:0"]).output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{stderr}");
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
            let place = words.join(expected);
            let expected = format!("OMS_MAIL_TEMPLATES: {}", place.display());
            assert!(stderr.contains(&expected), "{stderr}");
        }
    }
}

#[test]
fn unusable_settings_stop_the_start_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for (variable, value) in [
        ("MAIL_TLS", "ssl"),
        ("MAIL_CA_FILE", "/does/not/exist.pem"),
        ("MAIL_TIMEOUT", "forever"),
        ("OMS_MAIL_TEMPLATES", "/does/not/exist"),
        ("OMS_MEDIA_URL", "ftp://example.com"),
    ] {
        let mut program = program(folder.path());
        program
            .env("MAIL_SERVER", "mail.example.com")
            .env(variable, value)
            .arg("migrate");
        let output = program.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(variable), "{stderr}");
    }
}
