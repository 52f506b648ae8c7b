//! Looking after a shop from the command line, on both databases.

use std::path::Path;
use std::pin::Pin;

use serde_json::Value;

use crate::common::fresh::with_postgres;
use crate::program::{fails, run, sqlite_url, text};
use crate::shop::{PASSWORD, Shop};
use oms_core::{Actor, Error};

/// Runs an `admin` command and returns what it printed.
type Ask<'a> = &'a dyn Fn(&[&str]) -> String;

/// Plays the story on a shop on each database, with a way to ask, a way to be refused, and the database's address.
fn each_shop(story: impl AsyncFn(Ask<'_>, Ask<'_>, &str)) -> Pin<Box<impl Future<Output = ()>>> {
    Box::pin(async move {
        let folder = tempfile::tempdir().unwrap();
        println!("on SQLite");
        play(folder.path(), &sqlite_url(folder.path()), &story).await;
        with_postgres(async |postgres| {
            println!("on PostgreSQL");
            let folder = tempfile::tempdir().unwrap();
            play(folder.path(), postgres, &story).await;
        })
        .await;
    })
}

async fn play(folder: &Path, url: &str, story: &impl AsyncFn(Ask<'_>, Ask<'_>, &str)) {
    Shop::make(url).await.oms.shutdown().await;
    let with_url = |args: &[&str]| {
        let args = [&["admin"], args, &["--database-url", url]].concat();
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let ask = |args: &[&str]| {
        let args = with_url(args);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = run(folder, &args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let refused = |args: &[&str]| {
        let args = with_url(args);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        fails(folder, &args, 1)
    };
    story(&ask, &refused, url).await;
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn ids(list: &Value) -> Vec<String> {
    let data = list["data"].as_array().unwrap();
    data.iter()
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_found_given_roles_and_locked_out() {
    each_shop(async |ask, refused, url| {
        let list = parsed(&ask(&["users", "list", "--json"]));
        assert_eq!(list["data"].as_array().unwrap().len(), 4);
        let first = parsed(&ask(&["users", "list", "--json", "--limit", "3"]));
        let cursor = first["next_cursor"].as_str().unwrap();
        let second = parsed(&ask(&["users", "list", "--json", "--cursor", cursor]));
        assert_eq!([ids(&first), ids(&second)].concat(), ids(&list));
        let shown = ask(&["users", "list"]);
        let bob = shown
            .lines()
            .find(|line| line.contains("bob@example.com"))
            .unwrap();
        assert!(bob.starts_with("usr_") && bob.contains("unverified"), "{shown}");

        let ann = parsed(&ask(&["users", "show", "ANN@example.com", "--json"]));
        assert_eq!(
            parsed(&ask(&["users", "show", ann["id"].as_str().unwrap(), "--json"])),
            ann
        );
        assert!(refused(&["users", "show", "who"]).contains("no such user"));

        let roles = parsed(&ask(&["users", "roles", "ann", "operator", "admin", "--json"]));
        assert_eq!(roles["roles"], serde_json::json!(["operator", "admin"]));
        refused(&["users", "roles", "ann", "none", "admin"]);
        let roles = parsed(&ask(&["users", "roles", "ann", "none", "--json"]));
        assert_eq!(roles["roles"], serde_json::json!([]));

        assert_eq!(
            parsed(&ask(&["users", "lock", "ann", "--json"]))["disabled"],
            true
        );
        let shop = Shop::open(url).await;
        let users = shop.oms.users();
        let locked = users.log_in(&Actor::Anonymous, "ann", PASSWORD).await;
        assert!(matches!(locked, Err(Error::Unauthorized)));
        shop.oms.shutdown().await;
        assert!(ask(&["users", "list"]).contains("locked"));
        ask(&["users", "unlock", "ann"]);
        let shop = Shop::open(url).await;
        shop.oms
            .users()
            .log_in(&Actor::Anonymous, "ann", PASSWORD)
            .await
            .unwrap();
        shop.oms.shutdown().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_jobs_are_found_retried_and_discarded() {
    each_shop(async |ask, refused, _| {
        let dead = parsed(&ask(&["jobs", "list", "--json"]));
        let [id] = &ids(&dead)[..] else {
            panic!("{dead}");
        };
        assert_eq!(dead["data"][0]["kind"], "send_email");
        assert!(ask(&["jobs", "list"]).contains("no such mailbox"));
        let count = |state: &str| {
            let counts = parsed(&ask(&["jobs", "count", "--json"]));
            let counts = counts
                .as_array()
                .unwrap()
                .iter()
                .filter(|count| count["state"] == state);
            counts.map(|count| count["count"].as_i64().unwrap()).sum::<i64>()
        };
        let ready = count("ready");
        assert_eq!(count("dead"), 1);
        ask(&["jobs", "retry", id]);
        assert_eq!((count("dead"), count("ready")), (0, ready + 1));
        assert!(ask(&["jobs", "list", "--state", "ready", "--kind", "send_email"]).contains(id));
        assert!(refused(&["jobs", "discard", id]).contains("no such dead job"));
    })
    .await;
    each_shop(async |ask, _, _| {
        let dead = ids(&parsed(&ask(&["jobs", "list", "--state", "dead", "--json"])));
        ask(&["jobs", "discard", &dead[0]]);
        assert_eq!(
            ids(&parsed(&ask(&["jobs", "list", "--json"]))),
            Vec::<String>::new()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_in_review_and_webhooks_are_seen() {
    each_shop(async |ask, refused, _| {
        let payments = parsed(&ask(&["payments", "list", "--json"]));
        let ids_in_review = ids(&payments);
        assert!(!ids_in_review.is_empty());
        let id = &ids_in_review[0];
        assert!(ask(&["payments", "list"]).contains(id));
        let shown = parsed(&ask(&["payments", "show", id, "--json"]));
        assert_eq!(shown["status"], "needs_review");
        assert!(ask(&["payments", "show", id]).contains("review_reason"));
        // The command has no adapter for the test's gateway, so that it cannot ask, and decides nothing.
        assert!(refused(&["payments", "review", id, "accept"]).contains("fake"));
        assert_eq!(parsed(&ask(&["payments", "show", id, "--json"])), shown);

        let kept = parsed(&ask(&["webhooks", "list", "--json"]));
        assert_eq!(kept["data"].as_array().unwrap().len(), 2);
        let applied = parsed(&ask(&["webhooks", "list", "--json", "--status", "applied"]));
        let [id] = &ids(&applied)[..] else {
            panic!("{applied}");
        };
        let before = parsed(&ask(&["webhooks", "show", id, "--json"]));
        let after = parsed(&ask(&["webhooks", "replay", id, "--json"]));
        assert_eq!(after["status"], "applied");
        assert_eq!(
            after["tries"].as_i64(),
            before["tries"].as_i64().map(|tries| tries + 1)
        );
        assert!(ask(&["webhooks", "list", "--status", "unmatched"]).contains("stranger"));
    })
    .await;
}
