//! Which adapter serves an account or a payment.

use std::sync::Arc;

use super::account::Account;
use super::gateway::{GatewayError, PaymentGateway};
use super::model::Payment;
use crate::error::{Error, Result};
use crate::oms::Oms;

/// An adapter with the account that it works for.
#[derive(Clone)]
pub(super) struct Till {
    pub(super) gateway: Arc<dyn PaymentGateway>,
    pub(super) account: Account,
}

/// The version in use now: for new payments and for webhooks.
pub(super) async fn active(oms: &Oms, account: &Account) -> Result<Till> {
    let gateway = match oms.inner.natives.get(&account.plugin) {
        Some(native) => Some(native.clone()),
        None => active_plugin(oms, &account.plugin).await?,
    };
    let missing = || unusable(&account.name, format!("there is no adapter {}", account.plugin));
    Ok(Till {
        gateway: gateway.ok_or_else(missing)?,
        account: account.clone(),
    })
}

/// The version that started the payment and stays in charge of it. When it is missing the payment waits: another
/// version might read its state wrongly.
pub(super) async fn pinned(oms: &Oms, payment: &Payment) -> Result<Till> {
    let gateway = match &payment.plugin_digest {
        None => oms.inner.natives.get(&payment.plugin_id).cloned(),
        Some(digest) => pinned_plugin(oms, digest).await?,
    };
    let missing = || {
        let (id, version) = (&payment.plugin_id, &payment.plugin_version);
        unusable(&payment.account, format!("adapter {id} {version} is missing"))
    };
    let account = oms.inner.accounts.get(&payment.account);
    Ok(Till {
        gateway: gateway.ok_or_else(missing)?,
        account: account
            .cloned()
            .ok_or_else(|| unusable(&payment.account, "the account is not set up any more".into()))?,
    })
}

fn unusable(account: &str, why: String) -> Error {
    Error::Gateway {
        account: account.into(),
        source: GatewayError::Unavailable(why),
    }
}

#[cfg(feature = "plugins")]
async fn active_plugin(oms: &Oms, id: &str) -> Result<Option<Arc<dyn PaymentGateway>>> {
    oms.plugins().active(id).await
}

#[cfg(feature = "plugins")]
async fn pinned_plugin(oms: &Oms, digest: &str) -> Result<Option<Arc<dyn PaymentGateway>>> {
    oms.plugins().pinned(digest).await
}

#[cfg(not(feature = "plugins"))]
async fn active_plugin(_: &Oms, _: &str) -> Result<Option<Arc<dyn PaymentGateway>>> {
    Ok(None)
}

#[cfg(not(feature = "plugins"))]
async fn pinned_plugin(_: &Oms, _: &str) -> Result<Option<Arc<dyn PaymentGateway>>> {
    Ok(None)
}
