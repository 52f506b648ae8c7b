//! The shop that is measured: a database of its own with customers and 10,000 SKUs, and the ledger held against it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use oms_core::catalog::NewBusiness;
use oms_core::orders::Address;
use oms_core::users::Register;
use oms_core::{Actor, BusinessId, MovementId, Oms, ProductId, Roles, Timestamp, UserId, VariantId};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, SqlitePool};

use super::load::{Caller, Load, Span, closed_loop};

/// One for each caller, so that nobody waits for a neighbour's row.
pub(super) const CUSTOMERS: usize = 64;
pub(super) const SKUS: u64 = 10_000;
/// Known to everyone who reads this: the database is thrown away.
pub(super) const PASSWORD: &str = "bench-password-2026";
/// More than any bench can sell.
const UNITS: i64 = 1_000_000_000;
/// Rows of one INSERT: SQLite takes at most 32,766 parameters.
const CHUNK: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Database {
    Sqlite,
    Postgres,
}

/// Past the library: for the baseline, the rows to begin with, and the count at the end.
#[derive(Debug, Clone)]
pub(super) enum Pool {
    /// One connection, since SQLite has one writer: a queue for it is the fastest way to have one order per
    /// transaction, as its busy handler sleeps.
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Runs one statement on whichever pool it is.
macro_rules! on {
    ($pool:expr, |$db:ident| $body:expr) => {
        match $pool {
            $crate::cli::bench::shop::Pool::Sqlite($db) => $body,
            $crate::cli::bench::shop::Pool::Postgres($db) => $body,
        }
    };
}

pub(super) use on;

pub(super) struct Shop {
    pub(super) database: Database,
    pub(super) url: String,
    pub(super) pool: Pool,
    pub(super) customers: Vec<UserId>,
    /// To take the database away again.
    admin_url: Option<String>,
}

/// Which SKUs are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mix {
    /// All want the same one.
    Hot,
    /// All 10,000 alike.
    Uniform,
    /// 5 to 15 lines of SKUs by Zipf's law; one order in a hundred has an unknown SKU in its last line, as TPC-C has it.
    NewOrder,
}

impl Mix {
    pub(super) const ALL: [Self; 3] = [Self::Hot, Self::Uniform, Self::NewOrder];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Uniform => "uniform",
            Self::NewOrder => "new order",
        }
    }
}

/// What a caller orders next: one unit of each SKU, with a key that was never used.
pub(super) struct Wishes {
    mix: Mix,
    hot: &'static str,
    random: u64,
    keys: Arc<AtomicU64>,
}

/// The baseline and the library sell different hot SKUs, so that neither inherits the other's dead rows.
pub(super) const HOT_BASELINE: &str = "hot-baseline";
pub(super) const HOT_OMS: &str = "hot-oms";
/// No product has it.
pub(super) const UNKNOWN: &str = "unknown";

impl Wishes {
    /// One for each of so many callers.
    pub(super) fn of(callers: usize, mix: Mix, hot: &'static str, keys: &Arc<AtomicU64>) -> Vec<Self> {
        let wishes = (1..).take(callers).map(|seed: u64| Self {
            mix,
            hot,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            keys: Arc::clone(keys),
        });
        wishes.collect()
    }

    /// SKUs, each once.
    pub(super) fn skus(&mut self) -> Vec<String> {
        match self.mix {
            Mix::Hot => vec![self.hot.to_owned()],
            Mix::Uniform => vec![uniform_sku(self.next() % SKUS)],
            Mix::NewOrder => {
                let mut skus = BTreeSet::new();
                for _ in 0..5 + self.next() % 11 {
                    skus.insert(uniform_sku(self.zipf()));
                }
                let mut skus: Vec<String> = skus.into_iter().collect();
                if self.next().is_multiple_of(100)
                    && let Some(last) = skus.last_mut()
                {
                    *last = UNKNOWN.to_owned();
                }
                skus
            }
        }
    }

    /// A number below [`SKUS`], each half as likely as one that is half as large: the inverse of the continuous law with
    /// exponent 1, whose sum is a logarithm.
    fn zipf(&mut self) -> u64 {
        let part = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        let rank = ((SKUS as f64).ln_1p() * part).exp_m1();
        (rank as u64).min(SKUS - 1)
    }

    pub(super) fn key(&self) -> String {
        format!("bench-{:010}", self.keys.fetch_add(1, Ordering::Relaxed))
    }

    /// Xorshift: random enough to choose a SKU, and it costs nothing.
    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

fn uniform_sku(number: u64) -> String {
    format!("uniform-{number:05}")
}

pub(super) fn username(customer: usize) -> String {
    format!("bench-{customer}")
}

pub(super) fn address() -> Address {
    Address {
        name: "Ada Example".into(),
        line1: "1 Main Street".into(),
        line2: None,
        city: "Oslo".into(),
        region: None,
        postal_code: Some("0150".into()),
        country: "NO".into(),
    }
}

/// What a cell of the table shows.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) load: Load,
    /// Orders that were committed together, on average.
    pub(super) batch: f64,
}

impl Shop {
    /// A new file in `dir`.
    pub(super) async fn on_sqlite(dir: &Path) -> Result<Self> {
        let path = dir.join("bench.db");
        let url = format!("sqlite://{}", path.display());
        ensure!(
            !path.exists(),
            "{} exists: the bench makes its own database",
            path.display()
        );
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_lazy_with(options);
        Self::open(Database::Sqlite, url, Pool::Sqlite(pool), None).await
    }

    /// A new database on the server, which is dropped at the end.
    pub(super) async fn on_postgres(admin_url: &str) -> Result<Self> {
        let mut url = url::Url::parse(admin_url).context("--postgres-url")?;
        let name = format!("oms_bench_{}", std::process::id());
        url.set_path(&name);
        let mut admin = PgConnection::connect(admin_url).await.context("--postgres-url")?;
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut admin)
            .await?;
        let pool = PgPoolOptions::new()
            .max_connections(70)
            .connect_lazy(url.as_str())?;
        Self::open(
            Database::Postgres,
            url.into(),
            Pool::Postgres(pool),
            Some(admin_url.into()),
        )
        .await
    }

    async fn open(database: Database, url: String, pool: Pool, admin_url: Option<String>) -> Result<Self> {
        let mut shop = Self {
            database,
            url,
            pool,
            customers: Vec::new(),
            admin_url,
        };
        shop.fill().await.context("cannot fill the bench's database")?;
        Ok(shop)
    }

    /// The library on this database.
    pub(super) async fn oms(&self) -> Result<Oms> {
        Ok(Oms::builder(&self.url).connect().await?)
    }

    async fn fill(&mut self) -> Result<()> {
        let oms = self.oms().await?;
        oms.migrate().await?;
        let now = oms.now();
        let first = Register {
            username: "bench".into(),
            email: "bench@example.com".into(),
            password: PASSWORD.into(),
        };
        let first = oms.users().create_admin(&Actor::System, first).await?.id;
        let seller = oms
            .users()
            .set_roles(&Actor::System, first, Roles::NONE)
            .await?
            .actor();
        let business = NewBusiness {
            name: "Bench".into(),
            ..NewBusiness::default()
        };
        let business = oms.catalog().create_business(&seller, business).await?.id;
        oms.shutdown().await;
        for index in 0..CUSTOMERS {
            self.customers
                .push(self.add_customer(&username(index), first, now).await?);
        }
        let hot = [HOT_BASELINE, HOT_OMS].map(str::to_owned);
        let skus: Vec<String> = (0..SKUS).map(uniform_sku).chain(hot).collect();
        for skus in skus.chunks(CHUNK) {
            self.add_products(skus, business, now).await?;
        }
        if let Pool::Postgres(pool) = &self.pool {
            // As autovacuum would have done on a shop that is not a minute old.
            sqlx::query("VACUUM ANALYZE").execute(pool).await?;
        }
        Ok(())
    }

    /// With the password of `like`, so that it is hashed once.
    async fn add_customer(&self, name: &str, like: UserId, now: Timestamp) -> Result<UserId> {
        let id = UserId::new(now);
        on!(&self.pool, |db| {
            sqlx::query(
                "INSERT INTO oms_user (id, username, username_key, email, email_key, password_hash,
                     email_verified_at, created_at, updated_at)
                 SELECT $1, $2, $2, $3, $3, password_hash, $4, $4, $4 FROM oms_user WHERE id = $5",
            )
            .bind(id)
            .bind(name)
            .bind(format!("{name}@example.com"))
            .bind(now)
            .bind(like)
            .execute(db)
            .await
            .map(drop)
        })?;
        Ok(id)
    }

    /// One product each, all of them received.
    async fn add_products(&self, skus: &[String], business: BusinessId, now: Timestamp) -> Result<()> {
        let rows: Vec<(&String, ProductId, VariantId)> = skus
            .iter()
            .map(|sku| (sku, ProductId::new(now), VariantId::new(now)))
            .collect();
        on!(&self.pool, |db| {
            let mut products = sqlx::QueryBuilder::new(
                "INSERT INTO oms_product (id, business_id, name, name_key, search_text, images, created_at, updated_at) ",
            );
            products.push_values(&rows, |mut row, (sku, product, _)| {
                row.push_bind(*product).push_bind(business);
                row.push_bind(*sku).push_bind(*sku).push_bind(*sku);
                row.push("'[]'").push_bind(now).push_bind(now);
            });
            products.build().execute(db).await?;
            let mut variants = sqlx::QueryBuilder::new(
                "INSERT INTO oms_variant (id, product_id, business_id, sku, price, currency, created_at, updated_at) ",
            );
            variants.push_values(&rows, |mut row, (sku, product, variant)| {
                row.push_bind(*variant)
                    .push_bind(*product)
                    .push_bind(business)
                    .push_bind(*sku);
                row.push_bind(1_299i64)
                    .push("'EUR'")
                    .push_bind(now)
                    .push_bind(now);
            });
            variants.build().execute(db).await?;
            let mut stock = sqlx::QueryBuilder::new("INSERT INTO oms_stock (variant_id, on_hand) ");
            stock.push_values(&rows, |mut row, (_, _, variant)| {
                row.push_bind(*variant).push_bind(UNITS);
            });
            stock.build().execute(db).await?;
            let mut movements = sqlx::QueryBuilder::new(
                "INSERT INTO oms_stock_movement
                     (variant_id, id, delta_on_hand, delta_allocated, cause, actor, created_at) ",
            );
            movements.push_values(&rows, |mut row, (_, _, variant)| {
                row.push_bind(*variant)
                    .push_bind(MovementId::new(now))
                    .push_bind(UNITS)
                    .push_bind(0i64);
                row.push("'receive'").push("'system'").push_bind(now);
            });
            movements.build().execute(db).await?;
        });
        Ok(())
    }

    /// Runs the callers and holds what they were told against what the database has.
    pub(super) async fn measure<C: Caller>(&self, callers: Vec<C>, span: Span) -> Result<Measured> {
        let before = self.last_number().await?;
        let load = closed_loop(callers, span).await?;
        let batch = self.check_ledger(before, load.acknowledged).await?;
        Ok(Measured { load, batch })
    }

    /// The number of the newest order.
    pub(super) async fn last_number(&self) -> Result<i64> {
        let (number,): (i64,) = on!(&self.pool, |db| {
            sqlx::query_as("SELECT COALESCE(MAX(number), 0) FROM oms_order")
                .fetch_one(db)
                .await
        })?;
        Ok(number)
    }

    /// Exactly the acknowledged orders must have come after `before`; returns how many were committed together. All
    /// orders of a batch carry the same time, to the microsecond.
    pub(super) async fn check_ledger(&self, before: i64, acknowledged: u64) -> Result<f64> {
        let (orders, batches): (i64, i64) = on!(&self.pool, |db| {
            sqlx::query_as("SELECT COUNT(*), COUNT(DISTINCT created_at) FROM oms_order WHERE number > $1")
                .bind(before)
                .fetch_one(db)
                .await
        })?;
        ensure!(
            u64::try_from(orders) == Ok(acknowledged),
            "{acknowledged} orders were acknowledged, the database has {orders}"
        );
        Ok(orders as f64 / batches.max(1) as f64)
    }

    /// Recomputes everything; a line for each violation.
    pub(super) async fn verify(&self) -> Result<Vec<String>> {
        let oms = self.oms().await?;
        let violations = oms.verify(&Actor::System).await;
        oms.shutdown().await;
        Ok(violations?)
    }

    /// Closes the database and takes it away where it is ours to take.
    pub(super) async fn close(self) -> Result<()> {
        match &self.pool {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
        if let Some(admin_url) = &self.admin_url {
            let mut admin = PgConnection::connect(admin_url).await?;
            let name = format!("oms_bench_{}", std::process::id());
            sqlx::query(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
                .execute(&mut admin)
                .await?;
        }
        Ok(())
    }
}

impl Database {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}
