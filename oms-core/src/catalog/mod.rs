//! The catalog: businesses, their products with variants, and the media that products show.

mod model;
mod products;
mod search;
mod store;

pub use model::{
    Business, BusinessChanges, BusinessFilter, Media, NewBusiness, NewProduct, NewVariant, Product,
    ProductChanges, Sku, Variant, VariantChanges,
};
pub use search::{PriceRange, ProductFilter, ProductSort};

use crate::actor::Actor;
use crate::error::{Check, Error, Result};
use crate::id::{BusinessId, UserId};
use crate::oms::Oms;
use crate::page::{Page, PageRequest};

/// The catalog's service; see [`Oms::catalog`].
#[derive(Clone, Copy)]
pub struct Catalog<'a> {
    oms: &'a Oms,
}

impl Oms {
    /// Businesses, products, variants and media.
    pub fn catalog(&self) -> Catalog<'_> {
        Catalog { oms: self }
    }
}

impl Catalog<'_> {
    /// Opens a business, which the acting user owns. Any user whose e-mail address is verified may.
    pub async fn create_business(&self, actor: &Actor, new: NewBusiness) -> Result<Business> {
        let business = Business::open(new, actor.require_verified()?, self.oms.now());
        valid(|check| business.check(check))?;
        let mut tx = self.oms.db().write().await?;
        store::insert_business(&mut tx, &business).await?;
        tx.commit().await?;
        Ok(business)
    }

    /// A business; everyone may see it.
    pub async fn business(&self, _: &Actor, id: BusinessId) -> Result<Business> {
        let mut tx = self.oms.db().read().await?;
        let business = store::business(&mut tx, id).await?;
        tx.rollback().await?;
        Ok(business)
    }

    /// Businesses, the newest first.
    pub async fn businesses(
        &self,
        actor: &Actor,
        filter: BusinessFilter,
        page: PageRequest,
    ) -> Result<Page<Business>> {
        let owner = match filter {
            BusinessFilter::All => None,
            BusinessFilter::Mine => Some(actor.require_user()?),
        };
        let (limit, after) = (page.limit()?, page.after()?);
        let mut tx = self.oms.db().read().await?;
        let rows = store::businesses(&mut tx, owner, after, limit + 1).await?;
        tx.rollback().await?;
        Ok(Page::cut(rows, limit, |b| b.id))
    }

    /// Changes a business that the acting user owns, or any as an operator.
    pub async fn update_business(
        &self,
        actor: &Actor,
        id: BusinessId,
        expected_version: i64,
        changes: BusinessChanges,
    ) -> Result<Business> {
        let mut tx = self.oms.db().write().await?;
        let mut business = store::business(&mut tx, id).await?;
        require_seller(actor, business.owner, "business")?;
        business.apply(changes);
        valid(|check| business.check(check))?;
        business.updated_at = self.oms.now();
        let kept = store::update_business(&mut tx, &business, expected_version).await?;
        if !kept {
            let actual = store::business(&mut tx, id).await?.version;
            return Err(conflict(expected_version, actual));
        }
        tx.commit().await?;
        business.version = expected_version + 1;
        Ok(business)
    }

    /// Notes a file that products may show from now on. Naming it again, by whomever, changes nothing.
    pub async fn register_media(&self, actor: &Actor, media: Media) -> Result<Media> {
        let owner = actor.require_verified()?;
        valid(|check| media.check(check))?;
        let mut tx = self.oms.db().write().await?;
        store::insert_media(&mut tx, &media, owner, self.oms.now()).await?;
        let media = store::media(&mut tx, &media.name).await?;
        tx.commit().await?;
        media.ok_or_else(|| Error::Internal("a file that was just noted is gone".into()))
    }

    /// What is known of a file; everyone may see it.
    pub async fn media(&self, _: &Actor, name: &str) -> Result<Option<Media>> {
        if !Media::is_name(name) {
            return Ok(None);
        }
        let mut tx = self.oms.db().read().await?;
        let media = store::media(&mut tx, name).await?;
        tx.rollback().await?;
        Ok(media)
    }
}

/// The owner with a verified e-mail address, or an operator.
pub(crate) fn require_seller(actor: &Actor, owner: UserId, what: &'static str) -> Result<()> {
    if !actor.is_operator() {
        actor.require_verified()?;
    }
    actor.require_owner_or_operator(Some(owner), what)
}

fn valid(rules: impl FnOnce(&mut Check)) -> Result<()> {
    let mut check = Check::default();
    rules(&mut check);
    check.done()
}

fn conflict(expected: i64, actual: i64) -> Error {
    Error::VersionConflict { expected, actual }
}
