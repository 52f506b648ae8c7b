use std::collections::HashMap;

use sqlx::types::Json;

use super::model::{Business, Media, Product, Sku, Variant};
use crate::db::{Tx, on_unique, push_list, run};
use crate::error::{Check, Error, Result};
use crate::id::{BusinessId, ProductId, UserId, VariantId};
use crate::money::{Currency, Money};
use crate::text;
use crate::time::Timestamp;

#[derive(sqlx::FromRow)]
struct BusinessRow {
    id: BusinessId,
    owner_id: UserId,
    name: String,
    city: Option<String>,
    country: Option<String>,
    description: Option<String>,
    phone: Option<String>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<BusinessRow> for Business {
    fn from(row: BusinessRow) -> Self {
        Self {
            id: row.id,
            owner: row.owner_id,
            name: row.name,
            city: row.city,
            country: row.country,
            description: row.description,
            phone: row.phone,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

pub(super) async fn insert_business(tx: &mut Tx, business: &Business) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "INSERT INTO oms_business
                 (id, owner_id, name, city, country, description, phone, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
        )
        .bind(business.id)
        .bind(business.owner)
        .bind(&business.name)
        .bind(&business.city)
        .bind(&business.country)
        .bind(&business.description)
        .bind(&business.phone)
        .bind(business.created_at)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

pub(super) async fn business(tx: &mut Tx, id: BusinessId) -> Result<Business> {
    let row: Option<BusinessRow> = run!(tx, |conn| {
        sqlx::query_as(
            "SELECT id, owner_id, name, city, country, description, phone, version, created_at, updated_at
             FROM oms_business WHERE id = $1 AND deleted_at IS NULL",
        )
        .bind(id)
        .fetch_optional(conn)
        .await
    })?;
    row.map(Into::into).ok_or(Error::NotFound("business"))
}

/// The newest first, of one owner or of all.
pub(super) async fn businesses(
    tx: &mut Tx,
    owner: Option<UserId>,
    after: Option<BusinessId>,
    limit: i64,
) -> Result<Vec<Business>> {
    let rows: Vec<BusinessRow> = run!(tx, |conn| {
        let mut query = sqlx::QueryBuilder::new(
            "SELECT id, owner_id, name, city, country, description, phone, version, created_at, updated_at
             FROM oms_business WHERE deleted_at IS NULL",
        );
        if let Some(owner) = owner {
            query.push(" AND owner_id = ").push_bind(owner);
        }
        if let Some(after) = after {
            query.push(" AND id < ").push_bind(after);
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
        query.build_query_as().fetch_all(conn).await
    })?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Writes it if its version is still `expected`, and counts the version up.
pub(super) async fn update_business(tx: &mut Tx, business: &Business, expected: i64) -> Result<bool> {
    let changed = run!(tx, |conn| {
        sqlx::query(
            "UPDATE oms_business SET name = $3, city = $4, country = $5, description = $6, phone = $7,
                 updated_at = $8, version = version + 1
             WHERE id = $1 AND version = $2",
        )
        .bind(business.id)
        .bind(expected)
        .bind(&business.name)
        .bind(&business.city)
        .bind(&business.country)
        .bind(&business.description)
        .bind(&business.phone)
        .bind(business.updated_at)
        .execute(conn)
        .await
        .map(|done| done.rows_affected())
    })?;
    Ok(changed == 1)
}

pub(super) async fn insert_media(tx: &mut Tx, media: &Media, owner: UserId, now: Timestamp) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "INSERT INTO oms_media (name, owner_id, content_type, bytes, created_at)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO NOTHING",
        )
        .bind(&media.name)
        .bind(owner)
        .bind(&media.content_type)
        .bind(media.bytes)
        .bind(now)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

pub(super) async fn media(tx: &mut Tx, name: &str) -> Result<Option<Media>> {
    let row: Option<(String, i64)> = run!(tx, |conn| {
        sqlx::query_as("SELECT content_type, bytes FROM oms_media WHERE name = $1")
            .bind(name)
            .fetch_optional(conn)
            .await
    })?;
    Ok(row.map(|(content_type, bytes)| Media {
        name: name.into(),
        content_type,
        bytes,
    }))
}

/// Notes every image that is not registered. Reads at most as many as a product may have.
pub(super) async fn check_images(tx: &mut Tx, images: &[String], check: &mut Check) -> Result<()> {
    for (i, name) in images.iter().enumerate().take(Product::MAX_IMAGES) {
        // A name that cannot be one is not asked for: PostgreSQL would refuse some texts.
        let known = Media::is_name(name) && media(tx, name).await?.is_some();
        check.that(
            known,
            &format!("/images/{i}"),
            "must be the name of an uploaded image",
        );
    }
    Ok(())
}

pub(super) async fn insert_product(tx: &mut Tx, product: &Product) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "INSERT INTO oms_product (id, business_id, name, name_key, category, category_key, description,
                 search_text, images, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)",
        )
        .bind(product.id)
        .bind(product.business)
        .bind(&product.name)
        .bind(text::fold(&product.name))
        .bind(&product.category)
        .bind(product.category.as_deref().map(text::fold))
        .bind(&product.description)
        .bind(product.search_text())
        .bind(Json(&product.images))
        .bind(product.created_at)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Adds variants with their rows of stock, at `position` and after.
pub(super) async fn insert_variants(
    tx: &mut Tx,
    product: &Product,
    position: i64,
    variants: &[Variant],
) -> Result<()> {
    let mut rows: Vec<(i64, &Variant)> = (position..).zip(variants).collect();
    // Two programs that add the same SKUs take the unique index in the same order and cannot wait for each other.
    rows.sort_by(|a, b| a.1.sku.cmp(&b.1.sku));
    run!(tx, |conn| {
        let mut query = sqlx::QueryBuilder::new(
            "INSERT INTO oms_variant (id, product_id, business_id, sku, name, price, currency, position,
                 created_at, updated_at) ",
        );
        query.push_values(&rows, |mut row, (position, variant)| {
            row.push_bind(variant.id)
                .push_bind(product.id)
                .push_bind(product.business)
                .push_bind(variant.sku.as_str())
                .push_bind(&variant.name)
                .push_bind(variant.price.minor())
                .push_bind(variant.price.currency().code().to_owned())
                .push_bind(*position)
                .push_bind(variant.created_at)
                .push_bind(variant.created_at);
        });
        query.build().execute(conn).await.map(drop)
    })
    .map_err(|e| on_unique(e, &[("oms_variant_sku", "oms_variant.sku", "SKU")]))?;
    run!(tx, |conn| {
        let mut query = sqlx::QueryBuilder::new("INSERT INTO oms_stock (variant_id) ");
        query.push_values(variants, |mut row, variant| {
            row.push_bind(variant.id);
        });
        query.build().execute(conn).await.map(drop)
    })?;
    Ok(())
}

/// Where the next variant goes: after all that there ever were.
pub(super) async fn next_position(tx: &mut Tx, product: ProductId) -> Result<i64> {
    let (next,): (i64,) = run!(tx, |conn| {
        sqlx::query_as("SELECT COALESCE(MAX(position), -1) + 1 FROM oms_variant WHERE product_id = $1")
            .bind(product)
            .fetch_one(conn)
            .await
    })?;
    Ok(next)
}

/// Writes the product's row if its version is still that of `product`, and counts the version up.
pub(super) async fn update_product(
    tx: &mut Tx,
    product: &Product,
    deleted_at: Option<Timestamp>,
) -> Result<bool> {
    let changed = run!(tx, |conn| {
        sqlx::query(
            "UPDATE oms_product SET name = $3, name_key = $4, category = $5, category_key = $6,
                 description = $7, search_text = $8, images = $9, updated_at = $10, deleted_at = $11,
                 version = version + 1
             WHERE id = $1 AND version = $2 AND deleted_at IS NULL",
        )
        .bind(product.id)
        .bind(product.version)
        .bind(&product.name)
        .bind(text::fold(&product.name))
        .bind(&product.category)
        .bind(product.category.as_deref().map(text::fold))
        .bind(&product.description)
        .bind(product.search_text())
        .bind(Json(&product.images))
        .bind(product.updated_at)
        .bind(deleted_at)
        .execute(conn)
        .await
        .map(|done| done.rows_affected())
    })?;
    Ok(changed == 1)
}

/// Writes a variant and counts its version up. The product's row is held by the caller.
pub(super) async fn update_variant(
    tx: &mut Tx,
    variant: &Variant,
    deleted_at: Option<Timestamp>,
) -> Result<()> {
    run!(tx, |conn| {
        sqlx::query(
            "UPDATE oms_variant SET name = $2, price = $3, currency = $4, updated_at = $5, deleted_at = $6,
                 version = version + 1
             WHERE id = $1",
        )
        .bind(variant.id)
        .bind(&variant.name)
        .bind(variant.price.minor())
        .bind(variant.price.currency().code().to_owned())
        .bind(deleted_at.unwrap_or(variant.updated_at))
        .bind(deleted_at)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// A variant together with its product: one statement, so that both are of the same moment.
#[derive(sqlx::FromRow)]
struct ProductRow {
    id: ProductId,
    business_id: BusinessId,
    name: String,
    category: Option<String>,
    description: Option<String>,
    images: Json<Vec<String>>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
    variant_id: VariantId,
    sku: String,
    variant_name: Option<String>,
    price: i64,
    currency: String,
    variant_version: i64,
    variant_created_at: Timestamp,
    variant_updated_at: Timestamp,
}

pub(super) async fn product(tx: &mut Tx, id: ProductId) -> Result<Product> {
    products(tx, &[id])
        .await?
        .remove(&id)
        .ok_or(Error::NotFound("product"))
}

/// Those of `ids` that are on sale.
pub(super) async fn products(tx: &mut Tx, ids: &[ProductId]) -> Result<HashMap<ProductId, Product>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<ProductRow> = run!(tx, |conn| {
        let mut query = sqlx::QueryBuilder::new(
            "SELECT p.id, p.business_id, p.name, p.category, p.description, p.images, p.version,
                 p.created_at, p.updated_at, v.id AS variant_id, v.sku, v.name AS variant_name, v.price,
                 v.currency, v.version AS variant_version, v.created_at AS variant_created_at,
                 v.updated_at AS variant_updated_at
             FROM oms_product p JOIN oms_variant v ON v.product_id = p.id
             WHERE p.deleted_at IS NULL AND v.deleted_at IS NULL AND p.id IN ",
        );
        push_list(&mut query, ids);
        query.push(" ORDER BY v.position, v.id");
        query.build_query_as().fetch_all(conn).await
    })?;
    let mut products: HashMap<ProductId, Product> = HashMap::new();
    for row in rows {
        let (product, variant) = row.read()?;
        products
            .entry(product.id)
            .or_insert(product)
            .variants
            .push(variant);
    }
    Ok(products)
}

impl ProductRow {
    fn read(self) -> Result<(Product, Variant)> {
        let corrupt = |column, detail: String| Error::Corrupt {
            table: "oms_variant",
            column,
            id: self.variant_id.to_string(),
            detail,
        };
        let currency: Currency = self.currency.parse().map_err(|e| corrupt("currency", e))?;
        let price = Money::new(self.price, currency).map_err(|e| corrupt("price", e))?;
        let sku: Sku = self.sku.parse().map_err(|e| corrupt("sku", e))?;
        let variant = Variant {
            id: self.variant_id,
            sku,
            name: self.variant_name,
            price,
            version: self.variant_version,
            created_at: self.variant_created_at,
            updated_at: self.variant_updated_at,
        };
        let product = Product {
            id: self.id,
            business: self.business_id,
            name: self.name,
            category: self.category,
            description: self.description,
            images: self.images.0,
            variants: Vec::new(),
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        };
        Ok((product, variant))
    }
}
