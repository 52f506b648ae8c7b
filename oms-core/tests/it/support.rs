//! `each_db` hands a story a fresh shop: once on SQLite in a temporary file, once on a fresh PostgreSQL database.

use std::sync::atomic::{AtomicU32, Ordering};

use oms_core::catalog::{NewBusiness, NewProduct, NewVariant};
use oms_core::inventory::Adjust;
use oms_core::testing::{CapturedMails, ManualClock};
use oms_core::{Actor, Money, Oms, OmsBuilder, ProductId, Roles, Timestamp, UserId};

use crate::fresh::with_postgres;

/// A shop to test with.
pub struct TestOms {
    pub oms: Oms,
    pub url: String,
    pub clock: ManualClock,
    pub mails: CapturedMails,
}

/// 2026-01-01, so that no test depends on the day it runs.
pub const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// Runs one query on a connection of its own, past the library: `raw!(t, |conn| { sqlx::query("..").execute(conn).await })`.
/// The text is one for both databases, as in the library, and both arms must have one type.
macro_rules! raw {
    ($t:expr, |$conn:ident| $body:expr) => {
        if $t.url.starts_with("sqlite:") {
            let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&$t.url)
                .await
                .unwrap();
            let $conn = &mut connection;
            $body
        } else {
            let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&$t.url)
                .await
                .unwrap();
            let $conn = &mut connection;
            $body
        }
    };
}
#[allow(unused_imports, reason = "not every story looks behind the library")]
pub(crate) use raw;

impl TestOms {
    /// A verified customer, `<name>@example.com`, who cannot log in.
    pub async fn user(&self, name: &str) -> Actor {
        let id = UserId::new(self.oms.now());
        raw!(self, |conn| {
            sqlx::query(
                "INSERT INTO oms_user (id, username, username_key, email, email_key, password_hash,
                     email_verified_at, created_at, updated_at)
                 VALUES ($1, $2, $2, $3, $3, 'none', $4, $4, $4)",
            )
            .bind(id)
            .bind(name.to_lowercase())
            .bind(format!("{}@example.com", name.to_lowercase()))
            .bind(self.oms.now())
            .execute(conn)
            .await
            .map(drop)
        })
        .unwrap();
        Actor::User {
            id,
            roles: Roles::NONE,
            verified: true,
        }
    }

    /// An operator, as an actor only: no row stands behind it.
    pub fn operator(&self) -> Actor {
        Actor::User {
            id: UserId::new(self.oms.now()),
            roles: Roles {
                operator: true,
                admin: false,
            },
            verified: true,
        }
    }

    /// A new seller whose one product has one variant at this price in EUR, with so many units in stock.
    pub async fn seller_with(&self, sku: &str, price_minor: i64, on_hand: i64) -> (Actor, ProductId) {
        let seller = self.user(&format!("seller-of-{sku}")).await;
        let business = NewBusiness {
            name: format!("Shop of {sku}"),
            ..NewBusiness::default()
        };
        let business = self
            .oms
            .catalog()
            .create_business(&seller, business)
            .await
            .unwrap();
        let product = NewProduct {
            business: business.id,
            name: format!("Product {sku}"),
            category: None,
            description: None,
            variants: vec![NewVariant {
                sku: sku.into(),
                name: None,
                price: Money::new(price_minor, "EUR".parse().unwrap()).unwrap(),
            }],
            images: Vec::new(),
        };
        let product = self.oms.catalog().create_product(&seller, product).await.unwrap();
        if on_hand > 0 {
            self.receive(&seller, sku, on_hand).await;
        }
        (seller, product.id)
    }

    /// So many units come in.
    pub async fn receive(&self, seller: &Actor, sku: &str, units: i64) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let adjust = Adjust {
            sku: sku.into(),
            delta: units,
            reason: "delivery".into(),
            idempotency_key: format!("receive-{}", COUNT.fetch_add(1, Ordering::Relaxed))
                .parse()
                .unwrap(),
        };
        self.oms.inventory().adjust(seller, adjust).await.unwrap();
    }

    /// On hand and allocated, as they stand in the table.
    pub async fn stock(&self, sku: &str) -> (i64, i64) {
        raw!(self, |conn| {
            sqlx::query_as(
                "SELECT s.on_hand, s.allocated FROM oms_stock s JOIN oms_variant v ON v.id = s.variant_id
                 WHERE v.sku = $1",
            )
            .bind(sku)
            .fetch_one(conn)
            .await
        })
        .unwrap()
    }

    /// Everything that must hold over the whole database holds.
    pub async fn verify(&self) {
        assert_eq!(
            self.oms.verify(&Actor::System).await.unwrap(),
            Vec::<String>::new()
        );
    }
}

/// Plays the story on both databases.
pub async fn each_db(story: impl AsyncFn(TestOms)) {
    each_db_with(|builder| builder, story).await;
}

/// As [`each_db`], with a builder to which the story adds its own.
pub async fn each_db_with(setup: impl Fn(OmsBuilder) -> OmsBuilder, story: impl AsyncFn(TestOms)) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("oms.db").display());
    println!("on SQLite");
    play(&url, &setup, &story).await;

    println!("on PostgreSQL");
    with_postgres(async |url| play(url, &setup, &story).await).await;
}

async fn play(url: &str, setup: &impl Fn(OmsBuilder) -> OmsBuilder, story: &impl AsyncFn(TestOms)) {
    let (clock, mails) = (ManualClock::at(START), CapturedMails::default());
    let builder = Oms::builder(url).clock(clock.clone()).mailer(mails.clone());
    let oms = setup(builder).connect().await.unwrap();
    oms.migrate().await.unwrap();
    let handle = oms.clone();
    story(TestOms {
        oms,
        url: url.into(),
        clock,
        mails,
    })
    .await;
    handle.shutdown().await;
}
