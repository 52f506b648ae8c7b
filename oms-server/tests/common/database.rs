//! A database with a shop in it, made past the server.

use std::fmt;

use oms_core::catalog::{NewBusiness, NewProduct, NewVariant};
use oms_core::inventory::Adjust;
use oms_core::users::{Register, User};
use oms_core::{Actor, Money, Oms, Roles};

/// SKUs and their prices in cents. No total of a cart is one of the bank's magic amounts.
pub(crate) const PRICES: [(&str, i64); 4] = [("MUG", 1299), ("CUP", 890), ("BOARD", 3450), ("PENCIL", 120)];

const CLIENTS: usize = 16;
pub(crate) const PASSWORD: &str = "long enough 2026";

/// Runs one query on a connection of its own. The text is one for both databases, as in the library.
#[allow(
    clippy::allow_attributes,
    unused_macros,
    reason = "not every story looks behind the server"
)]
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
#[allow(
    clippy::allow_attributes,
    unused_imports,
    reason = "not every story looks behind the server"
)]
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
