//! What must hold over the whole database, recomputed from the rows.

use crate::actor::Actor;
use crate::error::Result;
use crate::oms::Oms;
use crate::{inventory, orders, payments};

impl Oms {
    /// Recomputes stock from movements, totals from lines and payments from their operations, all at one moment, and
    /// returns a line for each violation: none means that every promise holds. Administrators only.
    pub async fn verify(&self, actor: &Actor) -> Result<Vec<String>> {
        actor.require_admin()?;
        let mut tx = self.db().snapshot().await?;
        let mut violations = inventory::verify(&mut tx).await?;
        violations.extend(orders::verify(&mut tx).await?);
        violations.extend(payments::verify(&mut tx).await?);
        tx.rollback().await?;
        Ok(violations)
    }
}
