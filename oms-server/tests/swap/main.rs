//! New versions of a plugin while customers pay: a real server, the command line beside it, and the fake bank. Prints its
//! figures: `cargo test -p oms-server --all-features --test swap -- --nocapture`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests may panic and print"
)]

#[expect(dead_code, reason = "other tests with processes use the rest")]
#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use common::api::Api;
use common::database::{Database, PASSWORD, open_shop, raw};
use common::fresh::with_postgres;
use common::server::{Server, plugin_dir};
use serde_json::{Value, json};

const SWAPS: u32 = 20;
const CUSTOMERS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn versions_change_under_load() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    play(&format!("sqlite://{}", folder.path().join("shop.db").display())).await;
    with_postgres(async |url| play(url).await).await;
}

async fn play(database_url: &str) {
    let database = Database::new(database_url.to_owned());
    let people = open_shop(&database).await;
    let folder = tempfile::tempdir().unwrap();
    let plugins = folder.path().join("plugins");
    let (one, two) = (plugins.join("mock"), folder.path().join("two"));
    write_plugin(&one, "0.1.0");
    write_plugin(&two, "0.2.0");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mut server = Server::new(&data, database_url)
        .with_plugins(&plugins)
        // The load of this test comes from one address.
        .with("OMS_RATE_LIMIT_CLIENT", "1000000/1s")
        .with("OMS_RATE_LIMIT_WEBHOOK", "1000000/1s");
    server.start().await;
    let admin = Api::log_in(&server.url, &people.admin, PASSWORD).await;

    // Held by the first version for as long as money can move.
    let buyer = Api::log_in(&server.url, &people.customers[8], PASSWORD).await;
    let held = pay(&buyer, "held", true).await;
    installed(&server, &two);
    assert_eq!(version_of(&admin).await, "0.2.0");

    let load = Load::default();
    let mut tasks = Vec::new();
    for number in 0..CUSTOMERS {
        let api = Api::log_in(&server.url, &people.customers[number], PASSWORD).await;
        tasks.push(tokio::spawn(buy_and_buy(api, number, load.clone())));
    }
    load.wait_for(5).await;
    for swap in 0..SWAPS {
        let to = if swap % 2 == 0 { "0.1.0" } else { "0.2.0" };
        match swap % 4 {
            // From another process, straight into the database.
            0 | 1 => succeeds(&server, &["plugin", "activate", "mock", to]),
            // At the running server.
            2 => {
                let body = json!({"version": to});
                let done = admin
                    .try_post("/v1/admin/plugins/mock/activate", None, &body)
                    .await;
                assert_eq!(done.unwrap().expect(200)["version"], to);
            }
            _ => succeeds(&server, &["plugin", "rollback", "mock"]),
        }
        assert_eq!(version_of(&admin).await, to, "swap {swap}");
        load.wait_for(2).await;
        // Each way once. A server follows another process within a second; later swaps come faster than that.
        if swap < 4 {
            wait_for_payments_with(&database, to, 5).await;
        }
    }
    // A broken file is refused, with a reason, and disturbs nobody.
    std::fs::write(two.join("mock.wasm"), "half of it").unwrap();
    let refused = server.run(&["plugin", "install", two.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("not a WebAssembly component"),
        "{said}"
    );
    load.wait_for(2).await;
    load.stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    check(&database, &server, &admin, &load, held).await;
}

/// Every payment is with one version, both were used, and the one that was held is finished by the version that began it.
async fn check(database: &Database, server: &Server, admin: &Api, load: &Load, held: String) {
    let versions = payments_by_version(database).await;
    let requests = load.requests.load(Ordering::SeqCst);
    println!("{database}: {SWAPS} swaps, {requests} requests, 0 failed; payments by version: {versions:?}");
    assert!(
        versions.len() == 2 && versions.values().all(|count| *count >= 5),
        "{versions:?}"
    );

    let plugins = admin.get("/v1/admin/plugins").await.expect(200);
    let first = plugins["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["version"] == "0.1.0");
    let first = first.unwrap();
    assert_eq!(
        (&first["active"], &first["health"]),
        (&json!(false), &json!([])),
        "{first:#}"
    );
    assert!(first["open_payments"].as_i64().unwrap() >= 1, "{first:#}");
    assert!(first["refundable_payments"].as_i64().unwrap() >= 1, "{first:#}");
    for (what, total) in [("capture", "captured"), ("refunds", "refunded")] {
        let path = format!("/v1/payments/{held}/{what}");
        let done = admin.try_post(&path, Some(what), &json!({})).await.unwrap();
        assert!(done.status < 300, "{done:?}");
        wait_for_total(admin, &held, total).await;
    }
    let failed = "SELECT count(*) FROM oms_payment WHERE status = 'failed' OR attention IS NOT NULL";
    let failed: i64 = raw!(database, |conn| sqlx::query_scalar(failed).fetch_one(conn).await).unwrap();
    assert_eq!(failed, 0);
    let listed = server.run(&["plugin", "list"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("0.2.0") && listed.contains("active"), "{listed}");
    println!("{listed}");
    let verified = server.run(&["verify"]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
}

/// Until so many more payments were begun with the version.
async fn wait_for_payments_with(database: &Database, version: &str, more: i64) {
    let mut wanted = None;
    for _ in 0..1_000 {
        let begun = payments_by_version(database)
            .await
            .get(version)
            .copied()
            .unwrap_or(0);
        if begun >= *wanted.get_or_insert(begun + more) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{version} does not serve");
}

async fn payments_by_version(database: &Database) -> BTreeMap<String, i64> {
    let sql = "SELECT plugin_version, count(*) FROM oms_payment GROUP BY plugin_version";
    let versions: Vec<(String, i64)> =
        raw!(database, |conn| sqlx::query_as(sql).fetch_all(conn).await).unwrap();
    versions.into_iter().collect()
}

/// Until all of the amount is captured, or refunded: the bank may tell by a webhook.
async fn wait_for_total(admin: &Api, payment: &str, total: &str) {
    let mut seen = Value::Null;
    for _ in 0..500 {
        seen = admin.get(&format!("/v1/payments/{payment}")).await.expect(200);
        if seen[total] == seen["amount"]["amount"] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not all of it is {total}: {seen:#}");
}

/// What the customers have done.
#[derive(Clone, Default)]
struct Load {
    stop: Arc<AtomicBool>,
    payments: Arc<AtomicU32>,
    requests: Arc<AtomicU32>,
}

impl Load {
    /// Until so many more payments were made.
    async fn wait_for(&self, payments: u32) {
        let wanted = self.payments.load(Ordering::SeqCst) + payments;
        let waited = async {
            while self.payments.load(Ordering::SeqCst) < wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waited)
            .await
            .expect("the customers stopped buying");
    }
}

async fn buy_and_buy(api: Api, number: usize, load: Load) {
    let mut round = 0;
    while !load.stop.load(Ordering::SeqCst) {
        round += 1;
        // Some with money that is only held, and captured later or never.
        pay(&api, &format!("{number}-{round}"), round % 3 == 0).await;
        load.payments.fetch_add(1, Ordering::SeqCst);
        load.requests.fetch_add(3, Ordering::SeqCst);
    }
}

/// An order and its payment, approved at the bank. One try each: nothing may fail. Gives the payment's id.
async fn pay(api: &Api, key: &str, hold: bool) -> String {
    let cart = json!({"lines": [{"sku": "MUG", "quantity": 1}], "note": key});
    let order = api
        .try_post("/v1/orders", Some(key), &cart)
        .await
        .unwrap()
        .expect(201);
    let path = format!("/v1/orders/{}/payments", order["id"].as_str().unwrap());
    let capture = if hold { "manual" } else { "automatic" };
    let body = json!({"account": "mock", "capture": capture});
    let payment = api.try_post(&path, Some(key), &body).await.unwrap().expect(201);
    assert_eq!(payment["status"], "action_required", "{payment:#}");
    let id = payment["id"].as_str().unwrap().to_owned();
    api.approve(payment["next_action"]["url"].as_str().unwrap()).await;
    let wanted = if hold { "authorized" } else { "captured" };
    // By a webhook of the bank.
    let mut status = Value::Null;
    for _ in 0..1_000 {
        let answer = api.try_get(&format!("/v1/payments/{id}")).await.unwrap();
        status = answer.expect(200)["status"].clone();
        if status == wanted {
            return id;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("payment {id} of {key} is {status}");
}

/// The version that the server says is active.
async fn version_of(admin: &Api) -> Value {
    let plugins = admin.try_get("/v1/admin/plugins").await.unwrap().expect(200);
    let plugins = plugins["data"].as_array().unwrap().clone();
    let active: Vec<_> = plugins.into_iter().filter(|p| p["active"] == true).collect();
    assert_eq!(active.len(), 1);
    active[0]["version"].clone()
}

fn succeeds(server: &Server, args: &[&str]) {
    let output = server.run(args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn installed(server: &Server, folder: &Path) {
    succeeds(server, &["plugin", "install", folder.to_str().unwrap()]);
}

/// The mock plugin, as if it were of this version: the component says so itself, in a text of the same length.
fn write_plugin(folder: &PathBuf, version: &str) {
    let built = plugin_dir().join("mock");
    let mut component = std::fs::read(built.join("mock.wasm")).unwrap();
    let said = env!("CARGO_PKG_VERSION").as_bytes();
    assert_eq!(version.len(), said.len());
    for at in 0..component.len() - said.len() {
        if component[at..].starts_with(said) {
            component[at..at + said.len()].copy_from_slice(version.as_bytes());
        }
    }
    let manifest = std::fs::read_to_string(built.join("plugin.toml")).unwrap();
    let manifest: Vec<_> = manifest
        .lines()
        .filter(|line| !line.starts_with("sha256"))
        .map(|line| match line.starts_with("version") {
            true => format!("version = \"{version}\""),
            false => line.to_owned(),
        })
        .collect();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("plugin.toml"), manifest.join("\n")).unwrap();
    std::fs::write(folder.join("mock.wasm"), component).unwrap();
}
