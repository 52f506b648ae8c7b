//! The databases behind the server, past the server.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use oms_core::catalog::{NewBusiness, NewProduct, NewVariant};
use oms_core::inventory::Adjust;
use oms_core::users::{Register, User};
use oms_core::{Actor, Clock, Money, Oms, Roles, SystemClock};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};

use crate::ledger::PRICES;

const CLIENTS: usize = 16;
pub(crate) const PASSWORD: &str = "long enough 2026";

/// How long the server may take to do what the kills left behind.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who works on their own schedule and is never done.
const PERIODIC: &str = "('expire_orders', 'rescue_attempts', 'purge')";

/// Runs one query on a connection of its own. The text is one for both databases, as in the library.
macro_rules! raw {
    ($database:expr, |$conn:ident| $body:expr) => {
        if $database.url.starts_with("sqlite:") {
            let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&$database.url)
                .await
                .unwrap();
            let $conn = &mut connection;
            $body
        } else {
            let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&$database.url)
                .await
                .unwrap();
            let $conn = &mut connection;
            $body
        }
    };
}
pub(crate) use raw;

pub(crate) struct Database {
    pub(crate) url: String,
}

/// Names to log in with.
pub(crate) struct People {
    pub(crate) customers: Vec<String>,
    pub(crate) admin: String,
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.url.starts_with("sqlite:") {
            true => "SQLite",
            false => "PostgreSQL",
        })
    }
}

impl Database {
    pub(crate) const fn new(url: String) -> Self {
        Self { url }
    }

    /// Moves what waits for time to pass five minutes back, as if the server had stayed down for so long. Only while
    /// it is down.
    pub(crate) async fn pretend_long_outage(&self) {
        let now = SystemClock.now();
        let before = now - Duration::from_secs(300);
        for sql in [
            "UPDATE oms_job SET leased_until = $1 WHERE leased_until IS NOT NULL",
            "UPDATE oms_job SET run_at = $1 WHERE leased_until IS NULL",
            "UPDATE oms_payment_attempt SET updated_at = $1 WHERE status = 'in_flight'",
            "UPDATE oms_schedule SET next_run = $1",
        ] {
            raw!(self, |conn| sqlx::query(sql)
                .bind(before)
                .execute(conn)
                .await
                .map(drop))
            .unwrap();
        }
    }

    /// Waits until the bank has told everything and nothing is left to do or to find out.
    pub(crate) async fn drain(&self, folder: &Path) {
        let since = Instant::now();
        let mut calm = 0;
        // Twice, since a job that ends between the two questions may make the bank speak.
        while calm < 2 {
            self.hasten().await;
            let (untold, left) = (untold(folder).await, self.left().await);
            calm = if untold == 0 && left.is_empty() {
                calm + 1
            } else {
                0
            };
            assert!(
                since.elapsed() < PATIENCE,
                "after {} s {untold} webhooks are left, and {left:#?}",
                PATIENCE.as_secs()
            );
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// What would run within the next 150 s runs now: the first look at a payment whose outcome is unknown waits for
    /// 30 s, the second one for 2 minutes.
    async fn hasten(&self) {
        let now = SystemClock.now();
        let soon = now + Duration::from_secs(150);
        let sql = "UPDATE oms_job SET run_at = $1 WHERE leased_until IS NULL AND run_at > $1 AND run_at < $2";
        raw!(self, |conn| sqlx::query(sql)
            .bind(now)
            .bind(soon)
            .execute(conn)
            .await
            .map(drop))
        .unwrap();
    }

    /// What the server still has to do, in words. The job that looks at a payment may stand for long after others have
    /// settled it, so that the payments are asked instead.
    async fn left(&self) -> Vec<(String, String)> {
        let sql = AssertSqlSafe(format!(
            "SELECT kind, coalesce(last_error, 'no error yet') FROM oms_job
             WHERE kind NOT IN {PERIODIC} AND kind <> 'reconcile_payment'
             UNION ALL
             SELECT 'attempt: ' || operation, status FROM oms_payment_attempt WHERE status IN ('in_flight', 'unknown')
             UNION ALL
             SELECT 'payment: ' || status, coalesce(attention, '') FROM oms_payment
             WHERE attention = 'unknown' OR status IN ('created', 'pending')
             UNION ALL
             SELECT 'unwanted payment: ' || p.status, coalesce(p.attention, '')
             FROM oms_payment p JOIN oms_order o ON o.id = p.order_id
             WHERE p.open AND o.state <> 'awaiting_payment'"
        ));
        raw!(self, |conn| sqlx::query_as(sql).fetch_all(conn).await).unwrap()
    }
}

/// Webhooks that the bank has still to deliver.
async fn untold(folder: &Path) -> i64 {
    let sql = "SELECT count(*) FROM delivery WHERE next_at_ms IS NOT NULL";
    sqlx::query_scalar(sql)
        .fetch_one(&mut bank(folder).await)
        .await
        .unwrap()
}

/// The bank's own books.
pub(crate) async fn bank(folder: &Path) -> SqliteConnection {
    let path = folder.join("mock-gateway.db");
    SqliteConnection::connect(&format!("sqlite://{}", path.display()))
        .await
        .unwrap()
}

/// Customers with proven addresses, and a seller with more stock than can be ordered.
pub(crate) async fn open_shop(database: &Database) -> People {
    let oms = Oms::builder(&database.url).connect().await.unwrap();
    oms.migrate().await.unwrap();
    let customers: Vec<String> = (0..CLIENTS).map(|n| format!("customer-{n}")).collect();
    for name in &customers {
        let user = user(&oms, name).await;
        let users = oms.users();
        users
            .set_roles(&Actor::System, user.id, Roles::NONE)
            .await
            .unwrap();
    }
    let admin = user(&oms, "keeper").await;
    stock(&oms, &admin.actor()).await;
    oms.shutdown().await;
    People {
        customers,
        admin: admin.username,
    }
}

/// Administrators are made with a proven address.
async fn user(oms: &Oms, name: &str) -> User {
    let command = Register {
        username: name.into(),
        email: format!("{name}@example.com"),
        password: PASSWORD.into(),
    };
    oms.users().create_admin(&Actor::System, command).await.unwrap()
}

async fn stock(oms: &Oms, seller: &Actor) {
    let business = NewBusiness {
        name: "Shop".into(),
        ..NewBusiness::default()
    };
    let business = oms.catalog().create_business(seller, business).await.unwrap();
    let variant = |(sku, price): (&str, i64)| NewVariant {
        sku: sku.into(),
        name: None,
        price: Money::new(price, "EUR".parse().unwrap()).unwrap(),
    };
    let product = NewProduct {
        business: business.id,
        name: "Things".into(),
        category: None,
        description: None,
        variants: PRICES.map(variant).into(),
        images: Vec::new(),
    };
    oms.catalog().create_product(seller, product).await.unwrap();
    for (sku, _) in PRICES {
        let adjust = Adjust {
            sku: sku.into(),
            delta: 1_000_000,
            reason: "delivery".into(),
            idempotency_key: format!("stock-{sku}").parse().unwrap(),
        };
        oms.inventory().adjust(seller, adjust).await.unwrap();
    }
}

/// A fresh database on the server that the test command started.
pub(crate) async fn create_postgres() -> String {
    let admin_url = postgres_url();
    let name = format!("oms_crash_{}", std::process::id());
    let mut admin = PgConnection::connect(&admin_url).await.unwrap();
    let sql = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    admin.execute(sql).await.unwrap();
    format!("{}/{name}", admin_url.rsplit_once('/').unwrap().0)
}

pub(crate) async fn drop_postgres(url: &str) {
    let name = url.rsplit_once('/').unwrap().1;
    let mut admin = PgConnection::connect(&postgres_url()).await.unwrap();
    let sql = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
    admin.execute(sql).await.unwrap();
}

/// A part that cannot run fails: there is no test without PostgreSQL.
#[expect(
    clippy::disallowed_methods,
    reason = "the test command says here where its server is"
)]
fn postgres_url() -> String {
    std::env::var("OMS_TEST_POSTGRES_URL")
        .expect("set OMS_TEST_POSTGRES_URL, or run `cargo xtask test`, which does")
}
