//! What must hold over the whole database, recomputed from the rows.

use crate::actor::Actor;
use crate::db::Tx;
use crate::error::Result;
use crate::oms::Oms;
use crate::{inventory, orders, payments};

impl Oms {
    /// Recomputes stock from movements, totals from lines and payments from their operations, all at one moment, and
    /// returns a line for each violation: none means that every promise holds. Administrators only.
    pub async fn verify(&self, actor: &Actor) -> Result<Vec<String>> {
        actor.require_admin()?;
        let mut tx = self.db().snapshot().await?;
        let found = violations(&mut tx).await?;
        tx.rollback().await?;
        Ok(found)
    }
}

/// A line for each broken rule. Run it where nothing changes meanwhile.
pub(crate) async fn violations(tx: &mut Tx) -> Result<Vec<String>> {
    let mut found = inventory::verify(tx).await?;
    found.extend(orders::verify(tx).await?);
    found.extend(payments::verify(tx).await?);
    Ok(found)
}
