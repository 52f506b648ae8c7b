//! Which adapter serves an account or a payment.

use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::gateway::{GatewayError, PaymentGateway};
use super::model::Payment;
use super::reconcile::FIRST_DELAY;
use crate::error::{Error, Result};
use crate::oms::Oms;
use crate::time::Timestamp;

/// An adapter with the account that it works for.
#[derive(Clone)]
pub(super) struct Till {
    pub(super) gateway: Arc<dyn PaymentGateway>,
    pub(super) account: Account,
}

/// What an adapter is asked for. They are told apart, as anybody can send a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Work {
    /// Whatever begins here.
    Operation,
    /// What the gateway sends by itself.
    Webhook,
}

impl Work {
    /// Its spelling in the API and in measurements.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operation => "operations",
            Self::Webhook => "webhooks",
        }
    }
}

/// The version in use now: for new payments and for webhooks.
pub(super) async fn active(oms: &Oms, account: &Account, work: Work) -> Result<Till> {
    let gateway = match oms.inner.natives.get(&account.plugin) {
        Some(native) => Some(native.clone()),
        None => active_plugin(oms, &account.plugin).await?,
    };
    let missing = || unusable(&account.name, format!("there is no adapter {}", account.plugin));
    let till = Till {
        gateway: recorded(oms, account, gateway.ok_or_else(missing)?),
        account: account.clone(),
    };
    till.admit(oms, work)?;
    Ok(till)
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
    let account =
        account.ok_or_else(|| unusable(&payment.account, "the account is not set up any more".into()))?;
    let till = Till {
        gateway: recorded(oms, account, gateway.ok_or_else(missing)?),
        account: account.clone(),
    };
    till.admit(oms, Work::Operation)?;
    Ok(till)
}

impl Till {
    /// Before anything is claimed: an adapter that fails again and again is left alone for a while.
    fn admit(&self, oms: &Oms, work: Work) -> Result<()> {
        let Some(digest) = &self.gateway.info().digest else {
            return Ok(());
        };
        let account = &self.account.name;
        admit_plugin(oms, digest, account, work).map_err(|at| Error::Gateway {
            account: account.clone(),
            source: GatewayError::Unavailable("its plugin failed again and again and is left alone".into()),
            retry_after: at.since(oms.now()).max(Duration::from_secs(1)),
        })
    }
}

/// When the jobs of a payment may ask its adapter, where it is left alone now. They wait without counting that as a try.
pub(super) fn waits(oms: &Oms, payment: &Payment) -> Option<Timestamp> {
    let digest = payment.plugin_digest.as_deref()?;
    let at = plugin_waits(oms, digest, &payment.account)?;
    Some(at.max(oms.now() + FIRST_DELAY))
}

fn unusable(account: &str, why: String) -> Error {
    Error::gateway(account, GatewayError::Unavailable(why))
}

/// An adapter that writes down what it does, where the account wants that.
#[cfg(feature = "plugins")]
fn recorded(oms: &Oms, account: &Account, gateway: Arc<dyn PaymentGateway>) -> Arc<dyn PaymentGateway> {
    match account.record && gateway.info().digest.is_some() {
        true => Arc::new(crate::plugins::Recording::new(oms.clone(), gateway)),
        false => gateway,
    }
}

#[cfg(not(feature = "plugins"))]
fn recorded(_: &Oms, _: &Account, gateway: Arc<dyn PaymentGateway>) -> Arc<dyn PaymentGateway> {
    gateway
}

#[cfg(feature = "plugins")]
fn admit_plugin(oms: &Oms, digest: &str, account: &str, work: Work) -> Result<(), Timestamp> {
    oms.plugins().admit(digest, account, work)
}

#[cfg(feature = "plugins")]
fn plugin_waits(oms: &Oms, digest: &str, account: &str) -> Option<Timestamp> {
    oms.plugins().waits(digest, account, Work::Operation)
}

#[cfg(not(feature = "plugins"))]
fn admit_plugin(_: &Oms, _: &str, _: &str, _: Work) -> Result<(), Timestamp> {
    Ok(())
}

#[cfg(not(feature = "plugins"))]
fn plugin_waits(_: &Oms, _: &str, _: &str) -> Option<Timestamp> {
    None
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
