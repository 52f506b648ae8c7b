//! (under construction: stand-ins with the final signatures)
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cause {
    Release,
    Ship,
}
pub(crate) mod store {
    use crate::{
        db::Tx,
        error::Result,
        id::{OrderId, VariantId},
        time::Timestamp,
    };
    pub(crate) async fn apply(
        _: &mut Tx,
        _: Timestamp,
        _: &str,
        _: Option<OrderId>,
        _: super::Cause,
        _: &[(VariantId, i64, i64)],
    ) -> Result<()> {
        Ok(())
    }
    pub(crate) async fn try_allocate(
        _: &mut Tx,
        _: Timestamp,
        _: &str,
        _: OrderId,
        _: &[(VariantId, i64)],
    ) -> Result<bool> {
        Ok(true)
    }
}

pub(crate) async fn verify(_: &mut crate::db::Tx) -> crate::Result<Vec<String>> {
    Ok(Vec::new())
}
