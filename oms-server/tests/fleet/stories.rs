//! What one replica did, the others know.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::common::api::Api;
use crate::common::database::{PASSWORD, raw};
use crate::company::Fleet;

const PATIENCE: Duration = Duration::from_secs(20);

fn cart(key: &str) -> Value {
    json!({"lines": [{"sku": "MUG", "quantity": 2}], "note": key})
}

pub(crate) async fn a_key_makes_one_order_wherever_it_is_sent(fleet: &Fleet) {
    let apis = everywhere(fleet, &fleet.customer(0, 0).await);
    let first = apis[0].post("/v1/orders", Some("one"), &cart("one")).await;
    assert!(!first.replayed);
    let id = first.expect(201)["id"].clone();
    for api in &apis[1..] {
        let again = api.post("/v1/orders", Some("one"), &cart("one")).await;
        assert!(again.replayed);
        assert_eq!(again.expect(201)["id"], id);
    }
    // At the same moment to all.
    let mut tries = JoinSet::new();
    for number in 0..30 {
        let api = apis[number % apis.len()].clone();
        tries.spawn(async move { api.post("/v1/orders", Some("many"), &cart("many")).await });
    }
    let answers = tries.join_all().await;
    let fresh = answers.iter().filter(|answer| !answer.replayed).count();
    let ids: Vec<Value> = answers
        .into_iter()
        .map(|answer| answer.expect(201)["id"].clone())
        .collect();
    assert!(ids.iter().all(|other| *other == ids[0]), "{ids:?}");
    assert_eq!(fresh, 1);
    println!("30 times one key at three replicas at once: one order");
}

pub(crate) async fn sessions_are_good_everywhere(fleet: &Fleet) {
    let at = |replica: usize| Api::anonymous(&fleet.replicas[replica].url);
    let body = json!({"identifier": fleet.people.customers[1], "password": PASSWORD});
    let session = at(0).post("/v1/sessions", None, &body).await.expect(200);
    let access = session["access_token"].as_str().unwrap();
    at(1).signed_in(access).get("/v1/me").await.expect(200);

    let body = json!({"refresh_token": session["refresh_token"]});
    let renewed = at(1).post("/v1/sessions/refresh", None, &body).await.expect(200);
    let access = renewed["access_token"].as_str().unwrap();
    at(2).signed_in(access).get("/v1/me").await.expect(200);
    let gone = at(2)
        .signed_in(access)
        .try_delete("/v1/sessions/current")
        .await
        .unwrap();
    gone.expect(204);
    at(0).signed_in(access).get("/v1/me").await.expect(401);
    println!(
        "a session begun at one replica was renewed at the second, ended at the third and was over at the first"
    );
}

pub(crate) async fn webhooks_may_come_to_any(fleet: &Fleet) {
    const PAYMENTS: usize = 12;
    let apis = everywhere(fleet, &fleet.customer(0, 2).await);
    let mut orders = Vec::new();
    for number in 0..PAYMENTS {
        let (key, api) = (format!("paid-{number}"), &apis[number % 3]);
        let order = api.post("/v1/orders", Some(&key), &cart(&key)).await.expect(201);
        let path = format!("/v1/orders/{}", order["id"].as_str().unwrap());
        let payment = apis[(number + 1) % 3]
            .post(
                &format!("{path}/payments"),
                Some(&key),
                &json!({"account": "mock"}),
            )
            .await
            .expect(201);
        let page = payment["next_action"]["url"]
            .as_str()
            .unwrap_or_else(|| panic!("{payment:#}"));
        api.approve(page).await.expect(200);
        orders.push(path);
        // The bank keeps its connections, and would send everything to one replica.
        fleet.balancer.proxy.cut();
    }
    let since = Instant::now();
    for path in &orders {
        for api in &apis {
            while api.get(path).await.expect(200)["status"] != "paid" {
                assert!(since.elapsed() < PATIENCE, "{path} is not paid");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    let sql = "SELECT count(*), count(DISTINCT event_id) FROM oms_webhook_inbox";
    let inbox: (i64, i64) = raw!(fleet.database, |conn| sqlx::query_as(sql).fetch_one(conn).await).unwrap();
    assert_eq!(inbox.0, inbox.1);
    let hosts = fleet.replicas.iter().filter(|replica| {
        let log = fs::read_to_string(replica.log()).unwrap();
        log.lines().any(|line| line.contains("/v1/webhooks/mock"))
    });
    let hosts = hosts.count();
    println!(
        "{PAYMENTS} orders paid, {} webhooks to {hosts} replicas, each event once",
        inbox.0
    );
    assert!(inbox.0 >= i64::try_from(PAYMENTS).unwrap() && hosts > 1);
}

/// One replica is told of a new version; all use it.
pub(crate) async fn plugin_versions_are_agreed_on(fleet: &Fleet) {
    let admin = Api::log_in(&fleet.replicas[0].url, &fleet.people.admin, PASSWORD).await;
    let admins = everywhere(fleet, &admin);
    let old = active(&admins[0]).await;
    for other in &admins[1..] {
        assert_eq!(active(other).await, old);
    }
    let folder = fleet.plugins().join("mock");
    // A custom section, which every reader passes over: other bytes, the same program.
    let mut component = fs::read(folder.join("mock.wasm")).unwrap();
    component.extend(*b"\0\x06\x05fleet");
    fs::write(folder.join("mock.wasm"), component).unwrap();
    let manifest = fs::read_to_string(folder.join("plugin.toml")).unwrap();
    let manifest: Vec<_> = manifest
        .lines()
        .filter(|line| !line.starts_with("sha256"))
        .collect();
    fs::write(folder.join("plugin.toml"), manifest.join("\n")).unwrap();
    admins[1]
        .post("/v1/admin/plugins/reload", None, &json!({}))
        .await
        .expect(200);
    let new = active(&admins[1]).await;
    assert_ne!(new, old);
    for other in &admins {
        assert_eq!(active(other).await, new);
    }
    let apis = everywhere(fleet, &fleet.customer(0, 3).await);
    let sql = "SELECT count(*) FROM oms_payment WHERE plugin_digest = $1";
    let since = Instant::now();
    // The others go by what was active within the last second.
    for (number, api) in (1..).zip(&apis) {
        for attempt in 0.. {
            assert!(since.elapsed() < PATIENCE, "a replica keeps the old version");
            let key = format!("plugin-{number}-{attempt}");
            let order = api.post("/v1/orders", Some(&key), &cart(&key)).await.expect(201);
            let path = format!("/v1/orders/{}/payments", order["id"].as_str().unwrap());
            let payment = api
                .post(&path, Some(&key), &json!({"account": "mock"}))
                .await
                .expect(201);
            assert_eq!(payment["status"], "action_required", "{payment:#}");
            let with_new: i64 = raw!(fleet.database, |conn| {
                sqlx::query_scalar(sql).bind(&new).fetch_one(conn).await
            })
            .unwrap();
            if with_new == number {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    println!(
        "a plugin reloaded at one replica was used by all three after {:.1?}",
        since.elapsed()
    );
}

async fn active(admin: &Api) -> String {
    let plugins = admin.get("/v1/admin/plugins").await.expect(200);
    let active: Vec<_> = plugins["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| p["id"] == "mock" && p["active"] == true)
        .collect();
    assert_eq!(active.len(), 1, "{plugins:#}");
    active[0]["digest"].as_str().unwrap().to_owned()
}

/// The same person at each replica.
fn everywhere(fleet: &Fleet, api: &Api) -> Vec<Api> {
    fleet
        .replicas
        .iter()
        .map(|replica| api.at(&replica.url))
        .collect()
}
