//! What was promised against what is there: through the API, in the database, at the bank and in the mail folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use oms_core::{OrderId, PaymentId};
use serde_json::Value;

use crate::common::api::Api;
use crate::common::database::{Database, PASSWORD, People, raw};
use crate::common::server::Server;
use crate::database::bank;
use crate::ledger::{Cart, Entry, Ledger, total};

/// An order as somebody tells it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    id: String,
    number: i64,
    total: i64,
    state: String,
    cart: Cart,
}

type Orders = BTreeMap<String, Seen>;

pub(crate) async fn all(
    server: &Server,
    database: &Database,
    folder: &Path,
    people: &People,
    ledger: &Ledger,
) {
    let (entries, registered) = {
        let entries = ledger.read();
        (entries.orders.clone(), entries.registered.clone())
    };
    let stored = stored_orders(database).await;
    compare("the database", &entries, &stored);
    compare("the API", &entries, &told_orders(&server.url, people).await);
    one_key_one_order(database, entries.len()).await;
    stock_is_taken_once(database, &stored).await;
    users_are_there(database, &registered).await;
    let money = bank_agrees(database, folder, &entries).await;
    nothing_died(&server.url, database, people).await;
    let doubled = mails_were_sent(folder, &stored, &registered);
    verify(server);
    println!("{database}: lost 0, duplicated 0, {money} cents captured; {doubled} mails came twice");
}

/// Every key made exactly the order that its client was told of, and nothing else is there.
fn compare(who: &str, entries: &BTreeMap<String, Entry>, orders: &Orders) {
    let lost: Vec<_> = entries.keys().filter(|key| !orders.contains_key(*key)).collect();
    assert!(lost.is_empty(), "{who} has lost {lost:?}");
    assert_eq!(orders.len(), entries.len(), "{who} has orders that nobody placed");
    for (key, entry) in entries {
        let told = entry.acknowledged.as_ref();
        let told = told.unwrap_or_else(|| panic!("{key} was never answered"));
        let wanted = Seen {
            id: told.id.clone(),
            number: told.number,
            total: total(&entry.cart),
            state: expected_state(entry).into(),
            cart: entry.cart.clone(),
        };
        assert_eq!(orders[key], wanted, "{key} as {who} has it");
    }
}

fn expected_state(entry: &Entry) -> &'static str {
    match (entry.cancel, entry.payment) {
        (Some(true), _) => "canceled",
        (None, Some(true)) => "paid",
        (None, None) => "awaiting_payment",
        unfinished => panic!("a client did not finish: {unfinished:?}"),
    }
}

async fn stored_orders(database: &Database) -> Orders {
    let sql = "SELECT o.note, o.id, o.number, o.total, o.state, l.sku, l.quantity
               FROM oms_order o JOIN oms_order_line l ON l.order_id = o.id";
    type Row = (String, OrderId, i64, i64, String, String, i64);
    let rows: Vec<Row> = raw!(database, |conn| sqlx::query_as(sql).fetch_all(conn).await).unwrap();
    let mut orders = Orders::new();
    for (key, id, number, total, state, sku, quantity) in rows {
        let id = id.to_string();
        let seen = orders.entry(key.clone()).or_insert_with(|| Seen {
            id: id.clone(),
            number,
            total,
            state,
            cart: Cart::new(),
        });
        assert_eq!(seen.id, id, "{key} made two orders");
        seen.cart.insert(sku, quantity);
    }
    orders
}

/// What each customer sees, page by page.
async fn told_orders(url: &str, people: &People) -> Orders {
    let mut orders = Orders::new();
    for (number, name) in people.customers.iter().enumerate() {
        let api = Api::log_in(url, name, PASSWORD).await;
        let mut cursor = String::new();
        loop {
            let page = api
                .get(&format!("/v1/orders?limit=200{cursor}"))
                .await
                .expect(200);
            for order in page["data"].as_array().unwrap() {
                let key = order["note"].as_str().unwrap();
                assert!(
                    key.starts_with(&format!("order-{number}-")),
                    "{name} sees {key}, which another placed"
                );
                let before = orders.insert(key.to_owned(), seen(order));
                assert!(before.is_none(), "{key} made two orders");
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
    }
    orders
}

fn seen(order: &Value) -> Seen {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let lines = order["lines"].as_array().unwrap();
    Seen {
        id: text(&order["id"]),
        number: order["number"].as_i64().unwrap(),
        total: order["total"]["amount"].as_i64().unwrap(),
        state: text(&order["status"]),
        cart: lines
            .iter()
            .map(|line| (text(&line["sku"]), line["quantity"].as_i64().unwrap()))
            .collect(),
    }
}

/// The promise itself: as many keys as orders, each with one of its own.
async fn one_key_one_order(database: &Database, expected: usize) {
    let sql = "SELECT count(*), count(DISTINCT i.key), count(DISTINCT o.id), (SELECT count(*) FROM oms_order)
               FROM oms_idempotency i LEFT JOIN oms_order o ON o.id = i.result_id AND o.note = i.key
               WHERE i.operation = 'place_order'";
    let counts: (i64, i64, i64, i64) =
        raw!(database, |conn| sqlx::query_as(sql).fetch_one(conn).await).unwrap();
    let n = i64::try_from(expected).unwrap();
    assert_eq!(
        counts,
        (n, n, n, n),
        "keys, different keys, orders of keys, orders"
    );
}

/// `verify` compares stock with its movements; this compares it with the orders.
async fn stock_is_taken_once(database: &Database, orders: &Orders) {
    let sql = "SELECT v.sku, s.allocated FROM oms_stock s JOIN oms_variant v ON v.id = s.variant_id";
    let stock: Vec<(String, i64)> = raw!(database, |conn| sqlx::query_as(sql).fetch_all(conn).await).unwrap();
    for (sku, allocated) in stock {
        let held = orders.values().filter(|order| order.state != "canceled");
        let ordered: i64 = held.filter_map(|order| order.cart.get(&sku)).sum();
        assert_eq!(
            allocated, ordered,
            "units of {sku} that are allocated, and ordered"
        );
    }
}

async fn users_are_there(database: &Database, registered: &BTreeSet<String>) {
    let sql = "SELECT username FROM oms_user WHERE username LIKE 'new-%'";
    let found: Vec<String> = raw!(database, |conn| sqlx::query_scalar(sql).fetch_all(conn).await).unwrap();
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), *registered);
}

/// Our payments and the bank's are the same, to the cent; how many cents that is.
async fn bank_agrees(database: &Database, folder: &Path, entries: &BTreeMap<String, Entry>) -> i64 {
    let sql =
        "SELECT p.id, o.note, p.status, p.captured FROM oms_payment p JOIN oms_order o ON o.id = p.order_id";
    let ours: Vec<(PaymentId, String, String, i64)> =
        raw!(database, |conn| sqlx::query_as(sql).fetch_all(conn).await).unwrap();
    let sql = "SELECT merchant_payment_id, document FROM payment";
    let theirs: Vec<(String, String)> = sqlx::query_as(sql)
        .fetch_all(&mut bank(folder).await)
        .await
        .unwrap();
    let mut theirs: BTreeMap<String, Value> = theirs
        .into_iter()
        .map(|(id, document)| (id, serde_json::from_str(&document).unwrap()))
        .collect();
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for (id, key, status, captured) in &ours {
        match theirs.remove(&id.to_string()) {
            Some(payment) => {
                let there = (payment["status"].as_str(), payment["captured"].as_i64());
                assert_eq!(
                    (Some(status.as_str()), Some(*captured)),
                    there,
                    "{id} of {key}: we, the bank"
                );
            }
            // Canceled before the bank had heard of it.
            None => assert_eq!(
                (status.as_str(), *captured),
                ("failed", 0),
                "{id} of {key} is unknown at the bank"
            ),
        }
        *sums.entry(key).or_default() += captured;
    }
    assert!(
        theirs.is_empty(),
        "the bank has payments that we do not know: {theirs:#?}"
    );
    for (key, entry) in entries {
        let wanted = match expected_state(entry) {
            "paid" => total(&entry.cart),
            _ => 0,
        };
        let paid = sums.get(key.as_str()).copied().unwrap_or(0);
        assert_eq!(paid, wanted, "captured for {key}");
    }
    sums.values().sum()
}

/// No job was lost: each left its mail. Returns how many mails came twice, as they may.
fn mails_were_sent(folder: &Path, orders: &Orders, registered: &BTreeSet<String>) -> usize {
    let mut mails: BTreeMap<String, usize> = BTreeMap::new();
    for file in fs::read_dir(folder.join("mail")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let header = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {text}"))
                .trim()
                .to_owned()
        };
        let subject = header("Subject: ");
        let what = match subject.starts_with("Verify") {
            true => header("To: "),
            false => subject,
        };
        *mails.entry(what).or_default() += 1;
    }
    let mut expected: BTreeSet<String> = registered
        .iter()
        .map(|name| format!("{name}@example.com"))
        .collect();
    expected.extend(orders.values().filter_map(|order| match order.state.as_str() {
        "paid" => Some(format!("Your order {} is paid", order.number)),
        "canceled" => Some(format!("Your order {} was canceled", order.number)),
        _ => None,
    }));
    let sent: BTreeSet<String> = mails.keys().cloned().collect();
    let missing: Vec<_> = expected.difference(&sent).collect();
    assert!(missing.is_empty(), "mails that were never sent: {missing:?}");
    let surplus: Vec<_> = sent.difference(&expected).collect();
    assert!(surplus.is_empty(), "mails without a reason: {surplus:?}");
    mails.values().map(|count| count - 1).sum()
}

async fn nothing_died(url: &str, database: &Database, people: &People) {
    let api = Api::log_in(url, &people.admin, PASSWORD).await;
    for path in [
        "/v1/admin/jobs?state=dead",
        "/v1/admin/payments",
        "/v1/admin/webhooks?status=failed",
        "/v1/admin/webhooks?status=unmatched",
    ] {
        let page = api.get(path).await.expect(200);
        assert_eq!(page["data"], Value::Array(Vec::new()), "{path}");
    }
    let sql = "SELECT count(*) FROM oms_job_dead";
    let dead: i64 = raw!(database, |conn| sqlx::query_scalar(sql).fetch_one(conn).await).unwrap();
    assert_eq!(dead, 0);
}

/// The command itself, beside the running server.
fn verify(server: &Server) {
    let output = server.run(&["verify"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "verify found {text}\n{errors}");
    assert_eq!(text, "no violation found\n", "{errors}");
}
