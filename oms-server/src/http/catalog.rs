//! Products and their variants.

use oms_core::Actor;
use oms_core::catalog::{
    NewProduct, NewVariant, PriceRange, Product, ProductChanges, ProductFilter, ProductSort, Variant,
    VariantChanges,
};
use poem::web::Data;
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;

use super::auth::Auth;
use super::error::{ApiError, Fault, Result, required_version};
use super::json::JsonBody;
use super::reply::{Created, List, NoContent, Reply};
use super::values::{MoneyBody, change, id, id_at, page};
use super::{State, Tag};

pub(super) struct CatalogApi;

/// A product with one variant (`sku` and `price`) or with several (`variants`).
#[derive(Debug, Object)]
#[oai(deny_unknown_fields, rename = "NewProduct")]
struct NewProductBody {
    business_id: String,
    name: String,
    category: Option<String>,
    description: Option<String>,
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`; case matters.
    sku: Option<String>,
    price: Option<MoneyBody>,
    variants: Option<Vec<NewVariantBody>>,
    /// Names of uploaded pictures.
    images: Option<Vec<String>>,
}

#[derive(Debug, Object)]
#[oai(deny_unknown_fields, rename = "NewVariant")]
struct NewVariantBody {
    sku: String,
    /// What tells it from its siblings, such as "large".
    name: Option<String>,
    price: MoneyBody,
}

/// What is left out stays; null clears.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields, rename = "ProductChanges")]
struct ProductChangesBody {
    name: Option<String>,
    category: MaybeUndefined<String>,
    description: MaybeUndefined<String>,
    images: Option<Vec<String>>,
}

/// What is left out stays; null clears.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields, rename = "VariantChanges")]
struct VariantChangesBody {
    name: MaybeUndefined<String>,
    price: Option<MoneyBody>,
}

/// A product with its variants.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Product")]
struct ProductBody {
    id: String,
    business_id: String,
    name: String,
    category: Option<String>,
    description: Option<String>,
    variants: Vec<VariantBody>,
    /// Pictures at `/v1/media/{name}`.
    images: Vec<String>,
    version: i64,
    created_at: String,
    updated_at: String,
}

/// What is ordered and has stock.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Variant")]
struct VariantBody {
    id: String,
    sku: String,
    name: Option<String>,
    price: MoneyBody,
}

#[OpenApi(prefix_path = "/v1", tag = "Tag::Catalog")]
impl CatalogApi {
    /// Put a product on sale
    #[oai(path = "/products", method = "post", operation_id = "createProduct")]
    async fn create_product(
        &self,
        auth: Auth,
        body: JsonBody<NewProductBody>,
    ) -> Result<Created<ProductBody>> {
        let Auth(me) = auth;
        let new = body.0.read()?;
        Ok(product_reply(
            me.oms.catalog().create_product(&me.actor, new).await?,
        ))
    }

    /// Products
    #[oai(path = "/products", method = "get", operation_id = "listProducts")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the query")]
    async fn products(
        &self,
        state: Data<&State>,
        /// A part of the name, without case.
        name: Query<Option<String>>,
        /// The whole category, without case.
        category: Query<Option<String>>,
        /// The seller.
        business_id: Query<Option<String>>,
        /// Minor units; needs `currency`.
        min_price: Query<Option<i64>>,
        /// Minor units; needs `currency`.
        max_price: Query<Option<i64>>,
        /// ISO 4217: only products with a price in it.
        currency: Query<Option<String>>,
        /// A part of the name, category, description or SKU, without case.
        text: Query<Option<String>>,
        /// `newest` (default), `name`, `-name`, `price` or `-price`.
        sort: Query<Option<String>>,
        /// The `next_cursor` of the page before.
        cursor: Query<Option<String>>,
        /// At most so many, 1 to 200; 50 when not given.
        limit: Query<Option<u32>>,
    ) -> Result<Reply<List<ProductBody>>> {
        let filter = ProductFilter {
            name: name.0,
            category: category.0,
            business: business_id
                .0
                .map(|text| id_at(&text, "business_id"))
                .transpose()?,
            price: price_range(currency.0, min_price.0, max_price.0)?,
            text: text.0,
            sort: sort
                .0
                .map_or(Ok(ProductSort::default()), |text| sort_order(&text))?,
        };
        let page = page(cursor.0, limit.0);
        let found = state
            .oms
            .catalog()
            .products(&Actor::Anonymous, filter, page)
            .await?;
        Ok(Reply::new(found.into()))
    }

    /// A product
    #[oai(path = "/products/:id", method = "get", operation_id = "getProduct")]
    async fn product(&self, state: Data<&State>, id: Path<String>) -> Result<Reply<ProductBody>> {
        let id = self::id(&id, "product")?;
        Ok(product_reply(
            state.oms.catalog().product(&Actor::Anonymous, id).await?,
        ))
    }

    /// Change a product
    #[oai(path = "/products/:id", method = "patch", operation_id = "updateProduct")]
    async fn update_product(
        &self,
        auth: Auth,
        id: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: JsonBody<ProductChangesBody>,
    ) -> Result<Reply<ProductBody>> {
        let (Auth(me), JsonBody(new)) = (auth, body);
        let id = self::id(&id, "product")?;
        let version = required_version(if_match.0.as_deref())?;
        let changes = ProductChanges {
            name: new.name,
            category: change(new.category),
            description: change(new.description),
            images: new.images,
        };
        let catalog = me.oms.catalog();
        Ok(product_reply(
            catalog.update_product(&me.actor, id, version, changes).await?,
        ))
    }

    /// Take a product off sale
    #[oai(path = "/products/:id", method = "delete", operation_id = "deleteProduct")]
    async fn delete_product(
        &self,
        auth: Auth,
        id: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> Result<NoContent> {
        let Auth(me) = auth;
        let id = self::id(&id, "product")?;
        let version = required_version(if_match.0.as_deref())?;
        me.oms.catalog().delete_product(&me.actor, id, version).await?;
        Ok(NoContent)
    }

    /// Add a variant
    ///
    /// `If-Match` takes the product's ETag, here and below.
    #[oai(path = "/products/:id/variants", method = "post", operation_id = "addVariant")]
    async fn add_variant(
        &self,
        auth: Auth,
        id: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: JsonBody<NewVariantBody>,
    ) -> Result<Created<ProductBody>> {
        let Auth(me) = auth;
        let id = self::id(&id, "product")?;
        let version = required_version(if_match.0.as_deref())?;
        let new = body.0.read("")?;
        Ok(product_reply(
            me.oms.catalog().add_variant(&me.actor, id, version, new).await?,
        ))
    }

    /// Change a variant
    #[oai(
        path = "/products/:id/variants/:variant_id",
        method = "patch",
        operation_id = "updateVariant"
    )]
    async fn update_variant(
        &self,
        auth: Auth,
        id: Path<String>,
        variant_id: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: JsonBody<VariantChangesBody>,
    ) -> Result<Reply<ProductBody>> {
        let (Auth(me), JsonBody(new)) = (auth, body);
        let (id, variant) = (self::id(&id, "product")?, self::id(&variant_id, "variant")?);
        let version = required_version(if_match.0.as_deref())?;
        let changes = VariantChanges {
            name: change(new.name),
            price: new.price.map(|price| price.read("/price")).transpose()?,
        };
        let catalog = me.oms.catalog();
        let product = catalog
            .update_variant(&me.actor, id, variant, version, changes)
            .await?;
        Ok(product_reply(product))
    }

    /// Take a variant off sale
    #[oai(
        path = "/products/:id/variants/:variant_id",
        method = "delete",
        operation_id = "removeVariant"
    )]
    async fn remove_variant(
        &self,
        auth: Auth,
        id: Path<String>,
        variant_id: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> Result<Reply<ProductBody>> {
        let Auth(me) = auth;
        let (id, variant) = (self::id(&id, "product")?, self::id(&variant_id, "variant")?);
        let version = required_version(if_match.0.as_deref())?;
        let catalog = me.oms.catalog();
        Ok(product_reply(
            catalog.remove_variant(&me.actor, id, variant, version).await?,
        ))
    }
}

fn product_reply<const STATUS: u16>(product: Product) -> Reply<ProductBody, STATUS> {
    let version = product.version;
    Reply::new(product.into()).version(version)
}

fn sort_order(text: &str) -> Result<ProductSort> {
    ProductSort::parse(text).ok_or_else(|| {
        let known = ProductSort::ALL.map(ProductSort::as_str).join(", ");
        oms_core::Error::invalid("sort", format!("must be one of {known}")).into()
    })
}

fn price_range(currency: Option<String>, min: Option<i64>, max: Option<i64>) -> Result<Option<PriceRange>> {
    let invalid = |detail: String| ApiError::from(oms_core::Error::invalid("currency", detail));
    match currency {
        Some(currency) => {
            let currency = currency.parse().map_err(invalid)?;
            Ok(Some(PriceRange { currency, min, max }))
        }
        None if min.is_some() || max.is_some() => Err(invalid("is needed to compare prices".into())),
        None => Ok(None),
    }
}

impl NewProductBody {
    fn read(self) -> Result<NewProduct> {
        let variants = match (self.sku, self.price, self.variants) {
            (Some(sku), Some(price), None) => vec![NewVariant {
                sku,
                name: None,
                price: price.read("/price")?,
            }],
            (None, None, Some(variants)) => {
                let read = |(i, new): (usize, NewVariantBody)| new.read(&format!("/variants/{i}"));
                variants
                    .into_iter()
                    .enumerate()
                    .map(read)
                    .collect::<Result<_>>()?
            }
            _ => {
                let detail = "give either sku and price, or variants";
                let fault = Fault::new("/variants", "invalid_request", detail);
                return Err(ApiError::invalid_request(detail).with_errors(vec![fault]));
            }
        };
        Ok(NewProduct {
            business: id_at(&self.business_id, "/business_id")?,
            name: self.name,
            category: self.category,
            description: self.description,
            variants,
            images: self.images.unwrap_or_default(),
        })
    }
}

impl NewVariantBody {
    fn read(self, pointer: &str) -> Result<NewVariant> {
        Ok(NewVariant {
            sku: self.sku,
            name: self.name,
            price: self.price.read(&format!("{pointer}/price"))?,
        })
    }
}

impl From<Product> for ProductBody {
    fn from(product: Product) -> Self {
        Self {
            id: product.id.to_string(),
            business_id: product.business.to_string(),
            name: product.name,
            category: product.category,
            description: product.description,
            variants: product.variants.into_iter().map(Into::into).collect(),
            images: product.images,
            version: product.version,
            created_at: product.created_at.to_string(),
            updated_at: product.updated_at.to_string(),
        }
    }
}

impl From<Variant> for VariantBody {
    fn from(variant: Variant) -> Self {
        Self {
            id: variant.id.to_string(),
            sku: variant.sku.to_string(),
            name: variant.name,
            price: variant.price.into(),
        }
    }
}
