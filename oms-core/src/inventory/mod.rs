//! The inventory: stock levels, adjustments and movements. Stock belongs to the variant, never to the text of its SKU.

mod model;
pub(crate) mod store;
#[cfg(test)]
mod tests;

pub use model::{Adjust, Cause, Movement, StockLevel};

use crate::actor::Actor;
use crate::catalog::{Sku, require_seller};
use crate::db::{self, Table, Tx};
use crate::error::{Error, Result};
use crate::id::VariantId;
use crate::idempotency::{Claim, Claimed, Outcome};
use crate::oms::Oms;
use crate::page::{Page, PageRequest};

pub(crate) use store::verify;

/// The inventory's service; see [`Oms::inventory`].
#[derive(Clone, Copy)]
pub struct Inventory<'a> {
    oms: &'a Oms,
}

impl Oms {
    /// Stock levels, adjustments and movements.
    pub fn inventory(&self) -> Inventory<'_> {
        Inventory { oms: self }
    }
}

impl Inventory<'_> {
    /// The stock of a SKU that is on sale; everyone may see it.
    #[tracing::instrument(level = "debug", name = "inventory.level", skip_all)]
    pub async fn level(&self, _: &Actor, sku: &str) -> Result<StockLevel> {
        let mut tx = self.oms.db().read().await?;
        let found = on_sale(&mut tx, sku).await?;
        let level = store::level(&mut tx, found.variant).await?;
        tx.rollback().await?;
        Ok(level)
    }

    /// Changes the units on hand, for the owner of the business or an operator. The key, the movement and the stock
    /// are one commit.
    ///
    /// [`Error::InvalidState`] when fewer units would be left than orders have; nothing is changed then.
    #[tracing::instrument(level = "debug", name = "inventory.adjust", skip_all)]
    pub async fn adjust(&self, actor: &Actor, adjust: Adjust) -> Result<Outcome<StockLevel>> {
        adjust.check()?;
        let command = (&adjust.sku, adjust.delta, &adjust.reason);
        let key = &adjust.idempotency_key;
        let claim = Claim::new(actor, "adjust_stock", &adjust.sku, key, &command)?;
        let mut tx = self.oms.db().write().await?;
        // Before the SKU: a repeated call gets its answer although the product may have been deleted since.
        if let Some(variant) = claim.find(&mut tx).await? {
            return replay(tx, VariantId::from_uuid(variant)).await;
        }
        let found = on_sale(&mut tx, &adjust.sku).await?;
        require_seller(actor, found.owner, "SKU")?;
        let variant = found.variant;
        let now = self.oms.now();
        if let Claimed::Replay(variant) = claim.take(&mut tx, variant.uuid(), now).await? {
            return replay(tx, VariantId::from_uuid(variant)).await;
        }
        db::lock(&mut tx, Table::Stock, &[variant.uuid()]).await?;
        store::level(&mut tx, variant).await?.adjusted(adjust.delta)?;
        let note = store::Note {
            now,
            actor: &actor.to_string(),
            order: None,
            cause: adjust.cause(),
            reason: Some(&adjust.reason),
        };
        store::record(&mut tx, &note, &[(variant, adjust.delta, 0)]).await?;
        let level = store::level(&mut tx, variant).await?;
        tx.commit().await?;
        Ok(Outcome::fresh(level))
    }

    /// The movements of a SKU that is on sale, the newest first, for the owner of the business or an operator.
    pub async fn movements(&self, actor: &Actor, sku: &str, page: PageRequest) -> Result<Page<Movement>> {
        let (limit, after) = (page.limit()?, page.after()?);
        let mut tx = self.oms.db().read().await?;
        let found = on_sale(&mut tx, sku).await?;
        require_seller(actor, found.owner, "SKU")?;
        let rows = store::movements(&mut tx, found.variant, after, limit + 1).await?;
        tx.rollback().await?;
        Ok(Page::cut(rows, limit, |movement| movement.id))
    }
}

async fn replay(mut tx: Tx, variant: VariantId) -> Result<Outcome<StockLevel>> {
    let level = store::level(&mut tx, variant).await?;
    tx.rollback().await?;
    Ok(Outcome::replayed(level))
}

async fn on_sale(tx: &mut Tx, sku: &str) -> Result<store::OnSale> {
    // What cannot be a SKU is not asked for: PostgreSQL would refuse some texts.
    let sku: Sku = sku.parse().map_err(|_| Error::NotFound("SKU"))?;
    store::on_sale(tx, &sku).await?.ok_or(Error::NotFound("SKU"))
}
