//! One mail at a time: the ways to the server, what it says, and what arrives.

use std::time::{Duration, Instant};

use oms_core::Money;
use oms_core::mail::{Email, Mailer, Message, OrderMail};
use oms_server::mailer::{MailTls, Smtp};
use serde_json::json;

use crate::{login, message, permanent, send, sender, smtp_server, transient, way};

#[tokio::test]
async fn every_way_leads_there() {
    for (told, tls, secret) in [
        ("none", MailTls::None, false),
        ("starttls", MailTls::StartTls, true),
        ("implicit", MailTls::Implicit, true),
    ] {
        let server = smtp_server(told, &json!({"login": ["me", "sécret"]}));
        let mut smtp = way(&server, tls);
        smtp.credentials = login("me", "sécret");
        send(&sender(&smtp), 1).await.unwrap();
        let mail = &server.wait_for("mail", 1).await[0];
        assert_eq!(
            (&mail["tls"], &mail["login"]),
            (&json!(secret), &json!(true)),
            "{told}"
        );
        assert_eq!(
            (&mail["sender"], &mail["to"]),
            (&json!("shop@example.com"), &json!(["ann@example.com"]))
        );
        let logins = server.told("login");
        assert!(
            logins
                .iter()
                .all(|login| login["tls"] == secret && login["good"] == true),
            "{logins:?}"
        );
    }
}

#[tokio::test]
async fn nothing_is_sent_past_a_missing_protection() {
    for (told, tls) in [("starttls", MailTls::StartTls), ("implicit", MailTls::Implicit)] {
        let server = smtp_server(told, &json!({}));
        let strangers = Smtp {
            ca_file: None,
            ..way(&server, tls)
        };
        // The same server under a name that its certificate is not for.
        let other_name = Smtp {
            server: "0.0.0.0".into(),
            ..way(&server, tls)
        };
        for smtp in [strangers, other_name] {
            let why = transient(send(&sender(&smtp), 1).await);
            assert!(why.contains("invalid peer certificate"), "{told}: {why}");
        }
        assert!(server.told("mail").is_empty(), "{told}");
    }

    // In between, somebody has taken STARTTLS out of the server's answer.
    let server = smtp_server("none", &json!({"login": ["me", "secret"]}));
    let mut smtp = way(&server, MailTls::StartTls);
    smtp.credentials = login("me", "secret");
    let why = transient(send(&sender(&smtp), 1).await);
    assert!(why.contains("MAIL_TLS"), "{why}");
    assert!(server.told("mail").is_empty() && server.told("login").is_empty());
}

#[tokio::test]
async fn a_wrong_password_is_for_an_operator_to_mend() {
    let server = smtp_server("starttls", &json!({"login": ["me", "secret"]}));
    let mut smtp = way(&server, MailTls::StartTls);
    smtp.credentials = login("me", "geheim");
    let why = transient(send(&sender(&smtp), 1).await);
    assert!(why.contains("535") && !why.contains("geheim"), "{why}");
    // Without one the server says 530, and that is no verdict on the mail either.
    smtp.credentials = None;
    transient(send(&sender(&smtp), 2).await);
    assert!(server.told("mail").is_empty());
}

#[tokio::test]
async fn the_server_decides_between_later_and_never() {
    let plan = ["rcpt 450", "data 451", "rcpt 550", "data 554"];
    let server = smtp_server("none", &json!({"plan": plan}));
    let sender = sender(&way(&server, MailTls::None));
    transient(send(&sender, 1).await);
    transient(send(&sender, 2).await);
    permanent(send(&sender, 3).await);
    permanent(send(&sender, 4).await);
    send(&sender, 5).await.unwrap();
    assert_eq!(server.wait_for("mail", 1).await.len(), 1);

    let port = server.port;
    drop(server);
    let why = transient(send(&sender, 6).await);
    assert!(why.contains(&port.to_string()), "{why}");
}

#[tokio::test]
async fn silence_ends_in_time_and_spoils_no_later_mail() {
    let plan = ["mute in data", "cut in data", "take", "mute after data"];
    let server = smtp_server("none", &json!({"mute": 1, "plan": plan}));
    let mut smtp = way(&server, MailTls::None);
    smtp.timeout = Duration::from_secs(4);
    let sender = sender(&smtp);
    for (number, stalls) in [(1, true), (2, true), (3, false)] {
        let since = Instant::now();
        let why = transient(send(&sender, number).await);
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
        assert_eq!(why.contains("MAIL_TIMEOUT"), stalls, "{why}");
    }
    assert!(server.told("mail").is_empty(), "nothing has arrived by now");
    send(&sender, 4).await.unwrap();
    // It took this one, and then said nothing: it comes again, and its id tells.
    transient(send(&sender, 5).await);
    send(&sender, 5).await.unwrap();
    let mails = server.wait_for("mail", 3).await;
    let ids: Vec<_> = mails.iter().map(|mail| &mail["message_id"]).collect();
    assert_eq!(
        ids,
        [
            "<job_4@example.com>",
            "<job_5@example.com>",
            "<job_5@example.com>"
        ]
    );
    assert_ne!(
        mails[1]["connection"], mails[2]["connection"],
        "a connection was used again in the middle of a mail"
    );
}

#[tokio::test]
async fn connections_are_used_again_while_they_live() {
    let server = smtp_server("starttls", &json!({"login": ["me", "secret"]}));
    let mut smtp = way(&server, MailTls::StartTls);
    smtp.credentials = login("me", "secret");
    let sender = sender(&smtp);
    for number in 0..5 {
        send(&sender, number).await.unwrap();
    }
    let mails = server.wait_for("mail", 5).await;
    assert!(mails.iter().all(|mail| mail["connection"] == 1), "{mails:#?}");
    assert_eq!(server.told("login").len(), 1);

    // The server was restarted in between: the next mail notices before it is lost.
    let port = server.port;
    drop(server);
    let server = smtp_server("starttls", &json!({"login": ["me", "secret"], "port": port}));
    send(&sender, 6).await.unwrap();
    assert_eq!(
        server.wait_for("mail", 1).await[0]["message_id"],
        "<job_6@example.com>"
    );

    let many = (10..18).map(|number| send(&sender, number));
    for sent in futures_util::future::join_all(many).await {
        sent.unwrap();
    }
    assert_eq!(server.wait_for("mail", 9).await.len(), 9);
}

#[tokio::test]
async fn every_letter_arrives_and_none_becomes_a_header() {
    let server = smtp_server("none", &json!({}));
    let sender = sender(&way(&server, MailTls::None));
    let name = "Zoë 山田 😀\r\nBcc: victim@example.com\r\n\r\n<script>.\r\n.\r\nQUIT";
    sender
        .send(message(1, "ann+shop@example.com", name))
        .await
        .unwrap();
    let mail = &server.wait_for("mail", 1).await[0];
    let headers = mail["headers"].as_array().unwrap();
    let header = |wanted: &str| {
        let all: Vec<_> = headers
            .iter()
            .filter(|header| header[0] == wanted)
            .map(|header| header[1].as_str().unwrap())
            .collect();
        assert_eq!(all.len(), 1, "{wanted}: {headers:?}");
        all[0].to_owned()
    };
    assert_eq!(mail["ascii"], true, "not every server takes more than ASCII");
    assert_eq!(mail["to"], json!(["ann+shop@example.com"]));
    assert_eq!(header("From"), "Ännchens Lädchen <shop@example.com>");
    assert_eq!(header("To"), "ann+shop@example.com");
    assert_eq!(header("Subject"), "Verify your e-mail address");
    assert_eq!(header("Message-ID"), "<job_1@example.com>");
    assert_eq!(header("Auto-Submitted"), "auto-generated");
    assert!(!header("Date").is_empty());
    assert!(headers.iter().all(|header| header[0] != "Bcc"), "{headers:?}");
    let text = mail["text"].as_str().unwrap().replace("\r\n", "\n");
    assert!(
        text.starts_with(&format!("Hello {},", name.replace("\r\n", "\n"))),
        "{text}"
    );
    let link = format!("\nhttps://shop.test/verify?token={}\n", "Ab-_9".repeat(9));
    assert!(text.contains(&link), "{text}");
    assert!(
        mail["html"].as_str().unwrap().contains("&lt;script&gt;"),
        "{}",
        mail["html"]
    );

    // No address can say more to the server than one recipient.
    for odd in [
        "a@b.c>\r\nRCPT TO:<victim@example.com",
        "a@b.c, victim@example.com",
        "\"a\r\nX: y\"@b.c",
        "<a@b.c>",
        "",
        "a",
    ] {
        permanent(sender.send(message(2, odd, "ann")).await);
    }
    assert_eq!(server.told("mail").len(), 1);
}

#[tokio::test]
async fn long_and_strange_orders_arrive_whole() {
    let server = smtp_server("none", &json!({}));
    let sender = sender(&way(&server, MailTls::None));
    let price = Money::new(1299, "EUR".parse().unwrap()).unwrap();
    let line = |n: i64| (format!("Tasse № {n} {}", "ü".repeat(1_000)), n, price);
    let order = OrderMail {
        number: 1001,
        total: price,
        lines: (1..=200).map(line).collect(),
    };
    let message = Message {
        id: "job_7".into(),
        to: "zoë@example.com".into(),
        email: Email::OrderPaid(order),
    };
    sender.send(message).await.unwrap();
    let mail = &server.wait_for("mail", 1).await[0];
    assert_eq!(mail["to"], json!(["zoë@example.com"]));
    assert_eq!(mail["subject"], "Your order 1001 is paid");
    for part in ["text", "html"] {
        let body = mail[part].as_str().unwrap();
        assert_eq!(body.matches("Tasse № ").count(), 200, "{part}");
        assert!(
            body.contains(&format!("200 x Tasse № 200 {}", "ü".repeat(1_000))),
            "{part}"
        );
    }
}
