//! The catalog's products and variants. A product and its variants change together: every change is based on the
//! product's version and counts it up, and the guarded update of the product's row keeps others out until the commit.

use super::model::{NewProduct, NewVariant, Product, ProductChanges, Variant, VariantChanges};
use super::search::{self, ProductFilter};
use super::{Catalog, conflict, require_seller, store, valid};
use crate::actor::Actor;
use crate::db::Tx;
use crate::error::{Check, Error, Result};
use crate::id::{ProductId, VariantId};
use crate::page::{Page, PageRequest};
use crate::time::Timestamp;

impl Catalog<'_> {
    /// Puts a product on sale, for the owner of the business or an operator. Its variants start without stock.
    ///
    /// [`Error::Duplicate`] when a SKU is on sale already.
    pub async fn create_product(&self, actor: &Actor, new: NewProduct) -> Result<Product> {
        let mut tx = self.oms.db().write().await?;
        let business = store::business(&mut tx, new.business).await?;
        require_seller(actor, business.owner, "business")?;
        let mut check = Check::default();
        let product = Product::create(new, self.oms.now(), &mut check);
        store::check_images(&mut tx, &product.images, &mut check).await?;
        check.done()?;
        store::insert_product(&mut tx, &product).await?;
        store::insert_variants(&mut tx, &product, 0, &product.variants).await?;
        tx.commit().await?;
        Ok(product)
    }

    /// A product; everyone may see it.
    pub async fn product(&self, _: &Actor, id: ProductId) -> Result<Product> {
        let mut tx = self.oms.db().read().await?;
        let product = store::product(&mut tx, id).await?;
        tx.rollback().await?;
        Ok(product)
    }

    /// Products that match, in the order that the filter asks for; everyone may see them.
    pub async fn products(
        &self,
        _: &Actor,
        filter: ProductFilter,
        page: PageRequest,
    ) -> Result<Page<Product>> {
        let query = search::Query::new(filter, &page)?;
        let mut tx = self.oms.db().read().await?;
        let hits = search::find(&mut tx, &query).await?;
        let ids: Vec<_> = hits.data.iter().map(|hit| hit.id).collect();
        let mut found = store::products(&mut tx, &ids).await?;
        tx.rollback().await?;
        // What was deleted between the two statements is left out; the cursor does not need it.
        let data = ids.iter().filter_map(|id| found.remove(id)).collect();
        Ok(Page {
            data,
            next_cursor: hits.next_cursor,
        })
    }

    /// Changes a product, for the owner of its business or an operator.
    pub async fn update_product(
        &self,
        actor: &Actor,
        id: ProductId,
        expected_version: i64,
        changes: ProductChanges,
    ) -> Result<Product> {
        let (mut tx, mut product) = self.for_change(actor, id, expected_version).await?;
        let new_images = changes.images.is_some();
        product.apply(changes);
        let mut check = Check::default();
        product.check(&mut check);
        if new_images {
            store::check_images(&mut tx, &product.images, &mut check).await?;
        }
        check.done()?;
        self.save(tx, product).await
    }

    /// Takes a product and its variants off sale. Their stock stays, their SKUs may be used again.
    pub async fn delete_product(&self, actor: &Actor, id: ProductId, expected_version: i64) -> Result<()> {
        let (mut tx, product) = self.for_change(actor, id, expected_version).await?;
        let now = self.oms.now();
        guarded(&mut tx, &product, Some(now)).await?;
        for variant in &product.variants {
            store::update_variant(&mut tx, variant, Some(now)).await?;
        }
        tx.commit().await
    }

    /// Adds a variant at the end; it starts without stock.
    ///
    /// [`Error::Duplicate`] when the SKU is on sale already.
    pub async fn add_variant(
        &self,
        actor: &Actor,
        id: ProductId,
        expected_version: i64,
        new: NewVariant,
    ) -> Result<Product> {
        let (mut tx, mut product) = self.for_change(actor, id, expected_version).await?;
        let mut check = Check::default();
        let room = product.variants.len() < Product::MAX_VARIANTS;
        check.that(room, "", "a product has at most 100 variants");
        let variant = Variant::create(new, self.oms.now(), "", &mut check);
        check.done()?;
        product.variants.extend(variant);
        // Before the new variant goes in: whoever else adds one waits here, and so cannot take the same position.
        self.touch(&mut tx, &mut product).await?;
        if let Some(variant) = product.variants.last() {
            let position = store::next_position(&mut tx, product.id).await?;
            store::insert_variants(&mut tx, &product, position, std::slice::from_ref(variant)).await?;
        }
        tx.commit().await?;
        Ok(product)
    }

    /// Changes the name or the price of a variant; its SKU stays. `expected_version` is the product's.
    pub async fn update_variant(
        &self,
        actor: &Actor,
        id: ProductId,
        variant: VariantId,
        expected_version: i64,
        changes: VariantChanges,
    ) -> Result<Product> {
        let (mut tx, mut product) = self.for_change(actor, id, expected_version).await?;
        let at = position(&product, variant)?;
        valid(|check| product.variants[at].apply(changes, check))?;
        self.touch(&mut tx, &mut product).await?;
        let changed = &mut product.variants[at];
        changed.updated_at = product.updated_at;
        store::update_variant(&mut tx, changed, None).await?;
        changed.version += 1;
        tx.commit().await?;
        Ok(product)
    }

    /// Takes a variant off sale; a product keeps at least one. `expected_version` is the product's.
    pub async fn remove_variant(
        &self,
        actor: &Actor,
        id: ProductId,
        variant: VariantId,
        expected_version: i64,
    ) -> Result<Product> {
        let (mut tx, mut product) = self.for_change(actor, id, expected_version).await?;
        let at = position(&product, variant)?;
        if product.variants.len() == 1 {
            return Err(Error::InvalidState {
                what: "variant",
                state: "the last one".into(),
                detail: "delete the product instead",
            });
        }
        let removed = product.variants.remove(at);
        self.touch(&mut tx, &mut product).await?;
        store::update_variant(&mut tx, &removed, Some(product.updated_at)).await?;
        tx.commit().await?;
        Ok(product)
    }

    /// Begins a change: loads the product, asks for the rights, compares the version.
    async fn for_change(&self, actor: &Actor, id: ProductId, expected: i64) -> Result<(Tx, Product)> {
        let mut tx = self.oms.db().write().await?;
        let product = store::product(&mut tx, id).await?;
        let business = store::business(&mut tx, product.business).await?;
        require_seller(actor, business.owner, "product")?;
        if product.version != expected {
            return Err(conflict(expected, product.version));
        }
        Ok((tx, product))
    }

    async fn save(&self, mut tx: Tx, mut product: Product) -> Result<Product> {
        self.touch(&mut tx, &mut product).await?;
        tx.commit().await?;
        Ok(product)
    }

    async fn touch(&self, tx: &mut Tx, product: &mut Product) -> Result<()> {
        product.updated_at = self.oms.now();
        guarded(tx, product, None).await?;
        product.version += 1;
        Ok(())
    }
}

/// Writes the product's row if nobody changed it since it was loaded, and counts its version up.
async fn guarded(tx: &mut Tx, product: &Product, deleted_at: Option<Timestamp>) -> Result<()> {
    if store::update_product(tx, product, deleted_at).await? {
        return Ok(());
    }
    let actual = store::product(tx, product.id).await?.version;
    Err(conflict(product.version, actual))
}

fn position(product: &Product, variant: VariantId) -> Result<usize> {
    product
        .variants
        .iter()
        .position(|v| v.id == variant)
        .ok_or(Error::NotFound("variant"))
}
