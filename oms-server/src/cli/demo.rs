//! The demo shop: something to look at and to order from on the first start.

use anyhow::{Context, Result};
use oms_core::catalog::{NewBusiness, NewProduct, NewVariant, ProductFilter};
use oms_core::inventory::Adjust;
use oms_core::users::{Register, User};
use oms_core::{Actor, BusinessId, Error, Money, Oms, PageRequest, Roles};

use super::pictures;
use crate::accounts;
use crate::config::Config;
use crate::media::{MediaStore, inspect};

/// The account that its visitor pays with: at the fake bank.
const ACCOUNT: &str = "mock";
const CUSTOMER: &str = "demo";
const SELLER: &str = "demo-seller";
/// Known to everyone who reads this: the demo shop is for development.
const PASSWORD: &str = "demo-shop-2026";

/// Name, category, SKU, price in cents, units, description.
const PRODUCTS: [(&str, &str, &str, i64, i64, &str); 12] = [
    (
        "Enamel mug",
        "Kitchen",
        "MUG-ENAMEL",
        1299,
        120,
        "Survives a fall from the table and a night in the rain.",
    ),
    (
        "Espresso cup",
        "Kitchen",
        "CUP-ESPRESSO",
        890,
        200,
        "Thick walls keep sixty millilitres hot.",
    ),
    (
        "Cutting board",
        "Kitchen",
        "BOARD-OAK",
        3450,
        40,
        "One piece of oiled oak.",
    ),
    (
        "Pepper mill",
        "Kitchen",
        "MILL-PEPPER",
        2790,
        65,
        "A steel grinder in a walnut body.",
    ),
    (
        "Linen notebook",
        "Desk",
        "NOTE-LINEN",
        1650,
        300,
        "192 dotted pages that lie flat.",
    ),
    (
        "Brass ruler",
        "Desk",
        "RULER-BRASS",
        1190,
        150,
        "Fifteen centimetres, heavy enough to stay in place.",
    ),
    (
        "Desk lamp",
        "Desk",
        "LAMP-DESK",
        7990,
        25,
        "Warm light on an arm that stays where it is put.",
    ),
    (
        "Pencil set",
        "Desk",
        "PENCIL-SET",
        720,
        500,
        "Six pencils from 2H to 4B.",
    ),
    (
        "Wool blanket",
        "Home",
        "BLANKET-WOOL",
        9900,
        30,
        "Woven from recycled wool, 130 by 180 centimetres.",
    ),
    (
        "Beeswax candle",
        "Home",
        "CANDLE-WAX",
        1450,
        180,
        "Burns for forty hours and smells of summer.",
    ),
    (
        "Plant pot",
        "Home",
        "POT-CLAY",
        1990,
        90,
        "Unglazed clay with a saucer.",
    ),
    (
        "Wall clock",
        "Home",
        "CLOCK-WALL",
        4590,
        45,
        "A silent movement behind a wooden face.",
    ),
];

/// What the demo shop's visitor needs to know.
pub(super) struct Demo {
    sku: String,
    /// Why nobody can pay.
    unpayable: Option<String>,
}

/// Makes the shop when nothing is on sale yet. None when the database is in use for something else.
pub(super) async fn prepare(
    config: &Config,
    public_url: &str,
    oms: &Oms,
    media: &MediaStore,
) -> Result<Option<Demo>> {
    if first_sku(oms).await?.is_none() {
        build(oms, media).await?;
    }
    let visitor = oms.users().log_in(&Actor::Anonymous, CUSTOMER, PASSWORD).await;
    match (visitor, first_sku(oms).await?) {
        (Ok(_), Some(sku)) => {
            let unpayable = accounts::fault_of(ACCOUNT, config, public_url, oms).await?;
            Ok(Some(Demo { sku, unpayable }))
        }
        (Err(Error::Unauthorized) | Ok(_), _) => Ok(None),
        (Err(e), _) => Err(e.into()),
    }
}

impl Demo {
    /// How to order and pay, to copy into a shell. A payment that would fail is not proposed.
    pub(super) fn instructions(&self, url: &str) -> String {
        let sku = &self.sku;
        let (steps, payment) = match &self.unpayable {
            None => (
                "Log in, place an order, and start its payment; then open the address under next_action and approve",
                format!(
                    r#"curl -s {url}/v1/orders/$ORDER/payments -H "authorization: Bearer $TOKEN" -H 'content-type: application/json' \
  -H "idempotency-key: payment-$ORDER" -d '{{"account":"{ACCOUNT}"}}'"#
                ),
            ),
            Some(why) => (
                "Log in and place an order",
                format!(
                    "Its payment cannot be started: {why}.\nThe plugins of a checkout are built by `cargo xtask plugins`; \
                     --plugin-dir names their folder."
                ),
            ),
        };
        format!(
            r#"  customer        {CUSTOMER}, password {PASSWORD}
  seller          {SELLER}, password {PASSWORD}

{steps}:

TOKEN=$(curl -s {url}/v1/sessions -H 'content-type: application/json' \
  -d '{{"identifier":"{CUSTOMER}","password":"{PASSWORD}"}}' | sed 's/.*"access_token":"\([^"]*\)".*/\1/')

ORDER=$(curl -s {url}/v1/orders -H "authorization: Bearer $TOKEN" -H 'content-type: application/json' \
  -H "idempotency-key: order-$(date +%s)" \
  -d '{{"lines":[{{"sku":"{sku}","quantity":2}}],"shipping_address":{{"name":"Ada Example","line1":"1 Main Street","city":"Oslo","postal_code":"0150","country":"NO"}}}}' \
  | tee /dev/stderr | grep -o 'ord_[0-9a-z]*' | head -n 1)

{payment}
"#
        )
    }
}

async fn first_sku(oms: &Oms) -> Result<Option<String>> {
    let page = PageRequest {
        cursor: None,
        limit: Some(1),
    };
    let found = oms
        .catalog()
        .products(&Actor::Anonymous, ProductFilter::default(), page)
        .await?;
    let first = found.data.first().and_then(|product| product.variants.first());
    Ok(first.map(|variant| variant.sku.to_string()))
}

async fn build(oms: &Oms, media: &MediaStore) -> Result<()> {
    user(oms, CUSTOMER).await?;
    let seller = user(oms, SELLER).await?.actor();
    let business = NewBusiness {
        name: "The Demo Shop".into(),
        city: Some("Oslo".into()),
        country: Some("NO".into()),
        description: Some("Everything here may be ordered; nothing will be sent.".into()),
        phone: None,
    };
    let business = oms.catalog().create_business(&seller, business).await?;
    for index in 0..PRODUCTS.len() {
        product(oms, media, &seller, business.id, index).await?;
    }
    tracing::info!(products = PRODUCTS.len(), "made the demo shop");
    Ok(())
}

/// A user with a proven address, which an earlier start may have made.
async fn user(oms: &Oms, name: &str) -> Result<User> {
    let users = oms.users();
    let command = Register {
        username: name.into(),
        email: format!("{name}@example.com"),
        password: PASSWORD.into(),
    };
    match users.create_admin(&Actor::System, command).await {
        // Administrators are made with a proven address; without their roles they are customers.
        Ok(user) => Ok(users.set_roles(&Actor::System, user.id, Roles::NONE).await?),
        Err(Error::Duplicate(_)) => {
            let known = users.log_in(&Actor::Anonymous, name, PASSWORD).await;
            Ok(known.context("there is another user of this name")?.user)
        }
        Err(e) => Err(e.into()),
    }
}

async fn product(
    oms: &Oms,
    store: &MediaStore,
    seller: &Actor,
    business: BusinessId,
    index: usize,
) -> Result<()> {
    let (name, category, sku, price, units, description) = PRODUCTS[index];
    let png = pictures::draw(index)?;
    let picture = inspect(&png).map_err(anyhow::Error::msg)?;
    store.put(&picture, png).await?;
    let picture = oms.catalog().register_media(seller, picture).await?;
    let price = "EUR"
        .parse()
        .and_then(|euro| Money::new(price, euro))
        .map_err(anyhow::Error::msg)?;
    let new = NewProduct {
        business,
        name: name.into(),
        category: Some(category.into()),
        description: Some(description.into()),
        variants: vec![NewVariant {
            sku: sku.into(),
            name: None,
            price,
        }],
        images: vec![picture.name],
    };
    oms.catalog().create_product(seller, new).await?;
    let stock = Adjust {
        sku: sku.into(),
        delta: units,
        reason: "first delivery".into(),
        idempotency_key: format!("demo-{sku}").parse()?,
    };
    oms.inventory().adjust(seller, stock).await?;
    Ok(())
}
