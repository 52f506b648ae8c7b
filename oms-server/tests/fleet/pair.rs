//! Two servers sell the same thing out of one database: never more than there is, and not slower than one alone.

use std::time::{Duration, Instant};

use oms_core::inventory::Adjust;
use oms_core::{Actor, Oms};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::common::api::Api;
use crate::common::database::{Database, PASSWORD, open_shop, raw};
use crate::common::server::Server;
use crate::company::{SECRET, subfolder};

const CLIENTS: usize = 32;
/// Units of the SKU that everybody wants.
const SCARCE: i64 = 400;
const ROUNDS: usize = 3;

pub(crate) struct Pair {
    servers: [Server; 2],
    /// Signed in, at the first server.
    customers: Vec<Api>,
    database: Database,
    _folder: TempDir,
}

impl Pair {
    pub(crate) async fn start(database_url: String) -> Self {
        let database = Database::new(database_url);
        let people = open_shop(&database).await;
        leave(&database, "PENCIL", SCARCE).await;
        let folder = tempfile::tempdir().unwrap();
        let mut servers = ["one", "two"].map(|name| {
            Server::new(&subfolder(&folder, name), &database.url)
                .with("SECRET_KEY", SECRET)
                .with("OMS_RATE_LIMIT_CLIENT", "1000000/1s")
                .with("OMS_RATE_LIMIT_SIGN_IN", "1000000/1s")
        });
        for server in &mut servers {
            server.start().await;
        }
        let mut customers = Vec::new();
        for name in &people.customers {
            customers.push(Api::log_in(&servers[0].url, name, PASSWORD).await);
        }
        Self {
            servers,
            customers,
            database,
            _folder: folder,
        }
    }

    /// So many clients, by turns at each of the servers, each with connections of its own.
    fn clients_at(&self, servers: &[Server]) -> Vec<Api> {
        let one = |n: usize| {
            let server = &servers[n % servers.len()];
            self.customers[n % self.customers.len()].at(&server.url)
        };
        (0..CLIENTS).map(one).collect()
    }

    pub(crate) fn verify(&self) {
        let output = self.servers[0].run(&["verify"]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "no violation found\n");
    }
}

/// Takes all but so many units from the shelf.
async fn leave(database: &Database, sku: &str, units: i64) {
    let oms = Oms::builder(&database.url).connect().await.unwrap();
    let inventory = oms.inventory();
    let level = inventory.level(&Actor::System, sku).await.unwrap();
    let adjust = Adjust {
        sku: sku.into(),
        delta: units - level.on_hand,
        reason: "moved to another house".into(),
        idempotency_key: "leave".parse().unwrap(),
    };
    inventory.adjust(&Actor::System, adjust).await.unwrap();
    oms.shutdown().await;
}

/// Everybody buys one, two or three at a time until there is nothing left for them.
pub(crate) async fn nothing_is_oversold(pair: &Pair) {
    let mut buyers = JoinSet::new();
    for (n, api) in pair.clients_at(&pair.servers).into_iter().enumerate() {
        buyers.spawn(async move {
            let units = 1 + i64::try_from(n).unwrap() % 3;
            let body = json!({"lines": [{"sku": "PENCIL", "quantity": units}]});
            let mut bought = 0;
            for count in 0.. {
                let key = format!("scarce-{n}-{count}");
                let answer = api.post("/v1/orders", Some(&key), &body).await;
                if answer.status == 409 {
                    assert_eq!(answer.body["code"], "out_of_stock", "{:#}", answer.body);
                    break;
                }
                answer.expect(201);
                bought += units;
            }
            (n % 2, bought)
        });
    }
    let mut bought = [0; 2];
    for (server, units) in buyers.join_all().await {
        bought[server] += units;
    }
    let sql = "SELECT s.on_hand, s.allocated, (SELECT CAST(SUM(quantity) AS bigint) FROM oms_order_line WHERE sku = 'PENCIL')
               FROM oms_stock s JOIN oms_variant v ON v.id = s.variant_id WHERE v.sku = 'PENCIL'";
    let stored: (i64, i64, i64) =
        raw!(pair.database, |conn| sqlx::query_as(sql).fetch_one(conn).await).unwrap();
    println!("{SCARCE} units wanted by {CLIENTS} clients of two servers: {bought:?} sold");
    assert_eq!(bought[0] + bought[1], SCARCE);
    assert_eq!(stored, (SCARCE, SCARCE, SCARCE));
    assert!(bought.iter().all(|units| *units > 0), "one server sold nothing");
}

/// Prints how two servers compare with one. That they may not get in each other's way is asserted loosely: on a busy
/// machine the figure says little, and `docs/performance.md` has the command for a calm one.
pub(crate) async fn two_are_about_as_fast_as_one(pair: &Pair) {
    let seconds = Duration::from_secs(seconds());
    let (one, two) = (
        pair.clients_at(&pair.servers[..1]),
        pair.clients_at(&pair.servers),
    );
    for (name, clients) in [("warm-one", &one), ("warm-two", &two)] {
        rate(clients, Duration::from_secs(1), name).await;
    }
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        // By turns who is first, since tables and machine change.
        for which in [round % 2, 1 - round % 2] {
            let name = format!("round-{round}-{which}");
            rates[which].push(rate([&one, &two][which], seconds, &name).await);
        }
    }
    let [one, two] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[ROUNDS / 2]
    });
    let ratio = two / one;
    println!(
        "one hot SKU, {CLIENTS} clients: one server {one:.0} orders/s, two servers {two:.0} orders/s, {ratio:.2}x \
         (medians of {ROUNDS} times {seconds:?})"
    );
    assert!(ratio > 0.5, "two servers are in each other's way: {ratio:.2}x");
}

/// Orders of one SKU in each second that were answered in time.
async fn rate(clients: &[Api], time: Duration, name: &str) -> f64 {
    let since = Instant::now();
    let mut buyers = JoinSet::new();
    for (n, api) in clients.iter().cloned().enumerate() {
        let name = name.to_owned();
        buyers.spawn(async move {
            let body = json!({"lines": [{"sku": "MUG", "quantity": 1}]});
            let mut count = 0_u32;
            loop {
                let key = format!("{name}-{n}-{count}");
                api.post("/v1/orders", Some(&key), &body).await.expect(201);
                if since.elapsed() >= time {
                    return count;
                }
                count += 1;
            }
        });
    }
    let orders: u32 = buyers.join_all().await.into_iter().sum();
    f64::from(orders) / time.as_secs_f64()
}

/// How long each round takes.
#[expect(
    clippy::disallowed_methods,
    reason = "whoever wants an exact figure says so here"
)]
fn seconds() -> u64 {
    match std::env::var("OMS_TEST_SECONDS") {
        Ok(text) => text.parse().expect("OMS_TEST_SECONDS is a number"),
        Err(_) => 2,
    }
}
