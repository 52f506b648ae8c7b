//! Payment plugins, for operators and administrators.

use oms_core::plugins::{AccountHealth, PluginInfo};
use poem_openapi::param::Path;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;

use super::Tag;
use super::auth::Auth;
use super::error::Result;
use super::json::JsonBody;
use super::reply::{List, Reply};

pub(super) struct PluginsApi;

/// One version of a payment plugin.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Plugin")]
pub(crate) struct PluginBody {
    id: String,
    name: String,
    version: String,
    /// SHA-256 of the component.
    digest: String,
    /// The hosts that it asks for.
    hosts: Vec<String>,
    /// Whether new payments and webhooks go to it.
    active: bool,
    /// When it was first loaded.
    created_at: String,
    /// When it last became the active version. None when it never did, or was rolled back.
    activated_at: Option<String>,
    /// Payments that it started and of which money may still come. They stay with it.
    open_payments: i64,
    /// Payments that it started, with money that can still be refunded: by it.
    refundable_payments: i64,
    /// How it does, for the accounts for which it has failed. As this server has seen it: each one looks for itself.
    health: Vec<PluginHealth>,
}

/// How a version of a plugin does for an account.
#[derive(Debug, Object, Serialize)]
struct PluginHealth {
    account: String,
    /// `operations`, or `webhooks`.
    work: String,
    /// `closed`: it is asked. `open`: it is left alone. `half_open`: the next call tries, or one does.
    breaker: String,
    /// In a row.
    failures: u32,
    /// When it is asked again, where it is not now.
    retry_at: Option<String>,
    failed_at: String,
    /// How it failed last, in words.
    failure: String,
}

#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct Activation {
    /// A version such as `1.2.0`, or a digest or its first 8 digits.
    version: String,
}

#[OpenApi(prefix_path = "/v1/admin", tag = "Tag::Admin")]
impl PluginsApi {
    /// Payment plugins, every version
    #[oai(path = "/plugins", method = "get", operation_id = "listPlugins")]
    async fn list(&self, auth: Auth) -> Result<Reply<List<PluginBody>>> {
        let Auth(me) = auth;
        Ok(listed(me.oms.plugins().list(&me.actor).await?))
    }

    /// Load the plugins in the plugin folder
    ///
    /// For administrators. All of them or none; calls under way end with the version that they began with.
    #[oai(path = "/plugins/reload", method = "post", operation_id = "reloadPlugins")]
    async fn reload(&self, auth: Auth) -> Result<Reply<List<PluginBody>>> {
        let Auth(me) = auth;
        Ok(listed(me.oms.plugins().reload(&me.actor).await?))
    }

    /// Let new payments and webhooks go to another version
    ///
    /// For administrators. Payments that were started stay with the version that started them. A version that cannot be
    /// used is refused, and nothing changes.
    #[oai(
        path = "/plugins/:id/activate",
        method = "post",
        operation_id = "activatePlugin"
    )]
    async fn activate(
        &self,
        auth: Auth,
        id: Path<String>,
        body: JsonBody<Activation>,
    ) -> Result<Reply<PluginBody>> {
        let Auth(me) = auth;
        let activated = me.oms.plugins().activate(&me.actor, &id, &body.0.version).await?;
        Ok(Reply::new(activated.into()))
    }

    /// Go back to the version before
    ///
    /// For administrators. The one that was active before the present one; once more goes back further.
    #[oai(
        path = "/plugins/:id/rollback",
        method = "post",
        operation_id = "rollBackPlugin"
    )]
    async fn roll_back(&self, auth: Auth, id: Path<String>) -> Result<Reply<PluginBody>> {
        let Auth(me) = auth;
        let activated = me.oms.plugins().roll_back(&me.actor, &id).await?;
        Ok(Reply::new(activated.into()))
    }
}

fn listed(plugins: Vec<PluginInfo>) -> Reply<List<PluginBody>> {
    Reply::new(plugins.into())
}

impl From<Vec<PluginInfo>> for List<PluginBody> {
    fn from(plugins: Vec<PluginInfo>) -> Self {
        Self {
            data: plugins.into_iter().map(Into::into).collect(),
            next_cursor: None,
        }
    }
}

impl From<PluginInfo> for PluginBody {
    fn from(plugin: PluginInfo) -> Self {
        Self {
            id: plugin.id,
            name: plugin.name,
            version: plugin.version,
            digest: plugin.digest,
            hosts: plugin.hosts,
            active: plugin.active,
            created_at: plugin.created_at.to_string(),
            activated_at: plugin.activated_at.map(|at| at.to_string()),
            open_payments: plugin.open_payments,
            refundable_payments: plugin.refundable_payments,
            health: plugin.health.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<AccountHealth> for PluginHealth {
    fn from(health: AccountHealth) -> Self {
        Self {
            account: health.account,
            work: health.work.as_str().into(),
            breaker: health.state.as_str().into(),
            failures: health.failures,
            retry_at: health.retry_at.map(|at| at.to_string()),
            failed_at: health.failed_at.to_string(),
            failure: health.failure,
        }
    }
}
