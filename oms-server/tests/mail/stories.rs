//! The whole server with a mail server that has its moods: what a customer and an operator see.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::each_db::each_db;
use crate::common::script::{PATIENCE, Script};
use crate::common::server::Server;
use crate::common::visit::expect;
use crate::{fixture, smtp_server};

/// A shop with words of its own that mails through this server.
async fn shop(folder: &Path, database_url: &str, smtp: &Script) -> Server {
    let words = folder.join("words");
    fs::create_dir(&words).unwrap();
    let verify = "Subject: Grüße an {{ username }} von {{ shop }}\n\nBestätige: {{ link }}\n";
    fs::write(words.join("verify.txt"), verify).unwrap();
    let (port, ca) = (smtp.port.to_string(), fixture("root.pem"));
    let variables = [
        ("MAIL_SERVER", "localhost"),
        ("MAIL_PORT", &port),
        ("MAIL_TLS", "starttls"),
        ("MAIL_CA_FILE", ca.to_str().unwrap()),
        ("MAIL_USERNAME", "me"),
        ("MAIL_PASSWORD", "s3cret-of-the-shop"),
        ("MAIL_FROM", "Ännchens Lädchen <shop@example.com>"),
        ("MAIL_TIMEOUT", "5"),
        ("OMS_MAIL_TEMPLATES", words.to_str().unwrap()),
    ];
    let mut server = Server::new(folder, database_url)
        .without_plugins()
        .with_all(&variables);
    server.start().await;
    server
}

fn of<'a>(mails: &'a [Value], name: &str) -> Vec<&'a Value> {
    let to = json!([format!("{name}@example.com")]);
    mails.iter().filter(|mail| mail["to"] == to).collect()
}

/// The administrator's list of mails that were given up, once there are so many.
async fn dead(server: &Server, count: usize) -> Vec<Value> {
    let token = server.administrator().await;
    let since = Instant::now();
    loop {
        let jobs = server
            .request(Method::GET, "/v1/admin/jobs?state=dead")
            .bearer_auth(&token)
            .send()
            .await;
        let jobs = expect(jobs.unwrap(), 200).await;
        let items = jobs["data"].as_array().unwrap();
        if items.len() >= count {
            return items.clone();
        }
        assert!(since.elapsed() < PATIENCE, "{jobs}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn moods_of_a_mail_server() {
    each_db(async |folder, database_url| {
        let login = json!(["me", "s3cret-of-the-shop"]);
        let plan = [
            "rcpt 450",
            "take",
            "mute in data",
            "take",
            "mute after data",
            "take",
            "rcpt 550",
        ];
        let smtp = smtp_server("starttls", &json!({"login": login, "plan": plan}));
        let server = shop(folder, database_url, &smtp).await;

        // Greylisted, then taken.
        server.register("ann").await;
        let mail = smtp.wait_for("mail", 1).await.remove(0);
        assert_eq!(smtp.told("refused").len(), 1);
        assert_eq!((&mail["tls"], &mail["login"]), (&json!(true), &json!(true)));
        assert_eq!(mail["subject"], "Grüße an ann von Ännchens Lädchen");
        assert!(mail["html"].is_null(), "our HTML beside the shop's text: {mail}");
        let text = mail["text"].as_str().unwrap();
        let token = text.split("/verify?token=").nth(1).unwrap().trim().to_owned();
        let verified = server
            .request(Method::POST, "/v1/users/verify")
            .json(&json!({"token": token}))
            .send()
            .await;
        expect(verified.unwrap(), 204).await;

        // The server falls silent in the middle; the second attempt comes through.
        server.register("bob").await;
        let mails = smtp.wait_for("mail", 2).await;
        assert_eq!((of(&mails, "bob").len(), smtp.told("mute in data").len()), (1, 1));

        // It took the mail, but its answer never came: twice there, with one id.
        server.register("cem").await;
        let mails = smtp.wait_for("mail", 4).await;
        let twice = of(&mails, "cem");
        assert_eq!(twice.len(), 2);
        assert_eq!(twice[0]["message_id"], twice[1]["message_id"]);
        let id = twice[0]["message_id"].as_str().unwrap();
        assert!(id.starts_with("<job_") && id.ends_with("@example.com>"), "{id}");

        // No such mailbox: no second attempt, and an operator sees why.
        server.register("dan").await;
        let jobs = dead(&server, 1).await;
        assert_eq!(
            (&jobs[0]["kind"], &jobs[0]["attempt"]),
            (&json!("send_email"), &json!(1))
        );
        assert!(
            jobs[0]["last_error"].as_str().unwrap().contains("550"),
            "{jobs:?}"
        );
        // The mailbox was made: sent again by hand, it arrives.
        let retry = format!("/v1/admin/jobs/{}/retry", jobs[0]["id"].as_str().unwrap());
        let token = server.administrator().await;
        let retried = server
            .request(Method::POST, &retry)
            .bearer_auth(token)
            .send()
            .await;
        assert!(retried.unwrap().status().is_success());
        let mails = smtp.wait_for("mail", 5).await;
        assert_eq!(of(&mails, "dan").len(), 1);
        assert!(!server.logged().contains("s3cret-of-the-shop"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_is_away_loses_nothing() {
    each_db(async |folder, database_url| {
        let settings = json!({"login": ["me", "s3cret-of-the-shop"]});
        let smtp = smtp_server("starttls", &settings);
        let server = shop(folder, database_url, &smtp).await;
        let port = smtp.port;
        drop(smtp);
        for name in ["ann", "bob", "cem"] {
            server.register(name).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let settings = json!({"login": settings["login"], "port": port});
        let smtp = smtp_server("starttls", &settings);
        let mails = smtp.wait_for("mail", 3).await;
        for name in ["ann", "bob", "cem"] {
            assert_eq!(of(&mails, name).len(), 1, "{name}");
        }
    })
    .await;
}
