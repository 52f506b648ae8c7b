//! Whether accounts have what their plugins ask for. An account that has not is found out here, and not by its customers.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::gateway::WasmGateway;
use super::load::{self, Found};
use super::{Plugins, store};
use crate::actor::Actor;
use crate::error::{Error, Result};
use crate::payments::Account;

/// What is told of one account. The schema is the guest's, which may be of any size.
const MAX_FAULTS: usize = 10;

impl Plugins<'_> {
    /// Which of these accounts cannot work, and why: a line for each. An account is held against the version that serves
    /// it, or that will after the next start: see [`Plugins::load_new`]. Nothing is written and no gateway is asked. For
    /// operators.
    ///
    /// Of the plugin's `config-schema` it is checked what is missing, what is too much and what is none of the words to
    /// choose from; of secrets their names alone.
    pub async fn misfits(&self, actor: &Actor, accounts: &[Account]) -> Result<Vec<(String, String)>> {
        actor.require_operator()?;
        let found = match &self.oms.inner.settings.plugin_dir {
            Some(dir) if dir.is_dir() => load::find(dir.clone()).await?.0,
            _ => Vec::new(),
        };
        let natives = &self.oms.inner.natives;
        let mut misfits = Vec::new();
        for account in accounts {
            if natives.contains_key(&account.plugin) {
                continue;
            }
            let faults = match self.coming(&account.plugin, &found).await? {
                Ok(gateway) => faults(gateway.schema(), account),
                Err(fault) => vec![fault],
            };
            if !faults.is_empty() {
                misfits.push((account.name.clone(), faults.join("; ")));
            }
        }
        Ok(misfits)
    }

    /// The version of a plugin that a start would make or leave active; if none can be, why.
    async fn coming(
        &self,
        id: &str,
        found: &[Found],
    ) -> Result<std::result::Result<Arc<WasmGateway>, String>> {
        let in_folder = found.iter().find(|plugin| plugin.manifest.id == id);
        let mut tx = self.oms.db().read().await?;
        let active = store::active(&mut tx, id).await?;
        let known = match in_folder {
            Some(plugin) => store::by_digest(&mut tx, &plugin.digest).await?,
            None => None,
        };
        tx.rollback().await?;
        let new = in_folder.filter(|_| active.is_none() || known.is_none());
        Ok(match (new, active) {
            (Some(plugin), _) => self.try_out(plugin).await.map_err(|fault| {
                let fault = fault.in_words();
                format!("the plugin {id:?} in the plugin folder cannot be loaded: {fault}")
            }),
            (None, Some(row)) => match self.compiled_wasm(row).await {
                Err(e @ Error::Corrupt { .. }) => Err(e.to_string()),
                compiled => Ok(compiled?),
            },
            (None, None) => Err(format!(
                "there is no plugin {id:?}, neither active in the database nor in the plugin folder"
            )),
        })
    }
}

/// What a `config-schema` finds wrong with an account. Settings and secrets are both among its properties. Each is named,
/// no value is shown.
fn faults(schema: &str, account: &Account) -> Vec<String> {
    // What is wrong with the schema itself is its author's: `plugin check` tells.
    let schema: Value = serde_json::from_str(schema).unwrap_or_default();
    let empty = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    let is_secret = |name: &str| properties.get(name).is_some_and(|p| p["writeOnly"] == true);
    let is_closed = schema["additionalProperties"] == false && schema["patternProperties"].is_null();

    let mut faults = Vec::new();
    let required = schema["required"].as_array().into_iter().flatten();
    for name in required.filter_map(Value::as_str) {
        if !account.config.contains_key(name) && !account.secrets.contains_key(name) {
            let kind = if is_secret(name) { "secret" } else { "setting" };
            faults.push(format!("the {kind} {name:?} is missing"));
        }
    }
    for name in account.config.keys().chain(account.secrets.keys()) {
        if is_closed && !properties.contains_key(name) {
            faults.push(format!("{} has no setting or secret {name:?}", account.plugin));
        }
    }
    for (name, value) in &account.config {
        let words = properties
            .get(name)
            .and_then(|property| property["enum"].as_array());
        if is_secret(name) {
            faults.push(format!("{name:?} is a secret, but stands in config"));
        } else if let Some(words) = words
            && !words.iter().any(|word| word == value)
        {
            let words: Vec<_> = words.iter().map(Value::to_string).collect();
            faults.push(format!("{name:?} must be one of {}", words.join(", ")));
        }
    }
    faults.truncate(MAX_FAULTS);
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::Secret;

    const SCHEMA: &str = r#"{
        "type": "object",
        "required": ["base-url", "api-key"],
        "properties": {
            "base-url": { "type": "string" },
            "mode": { "type": "string", "enum": ["redirect", "sdk"] },
            "api-key": { "type": "string", "writeOnly": true }
        },
        "additionalProperties": false
    }"#;

    fn account(config: &[(&str, &str)], secrets: &[&str]) -> Account {
        let mut account = Account::new("cards", "acme");
        account.config = config.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        account.secrets = secrets
            .iter()
            .map(|name| ((*name).into(), Secret::new("hush")))
            .collect();
        account
    }

    #[test]
    fn an_account_that_fits_has_no_faults() {
        let good = account(
            &[("base-url", "https://acme.test"), ("mode", "sdk")],
            &["api-key"],
        );
        assert_eq!(faults(SCHEMA, &good), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_named_without_a_value() {
        let url = ("base-url", "https://acme.test");
        for (config, secrets, said) in [
            (&[][..], &["api-key"][..], r#"the setting "base-url" is missing"#),
            (&[url][..], &[][..], r#"the secret "api-key" is missing"#),
            (
                &[url, ("colour", "hush")][..],
                &["api-key"][..],
                r#"acme has no setting or secret "colour""#,
            ),
            (
                &[url][..],
                &["api-key", "pin"][..],
                r#"acme has no setting or secret "pin""#,
            ),
            (
                &[url, ("api-key", "hush")][..],
                &[][..],
                r#""api-key" is a secret, but stands in config"#,
            ),
            (
                &[url, ("mode", "hush")][..],
                &["api-key"][..],
                r#""mode" must be one of "redirect", "sdk""#,
            ),
        ] {
            assert_eq!(faults(SCHEMA, &account(config, secrets)), [said]);
        }
        let misspelt = account(&[("base-ulr", "hush")], &["api-key"]);
        assert_eq!(faults(SCHEMA, &misspelt).len(), 2);
    }

    #[test]
    fn a_schema_that_leaves_things_open_asks_for_nothing() {
        let any = account(&[("colour", "blue")], &["pin"]);
        for schema in [
            "{}",
            "no JSON",
            r#"{"type": "object", "properties": {"base-url": {}}}"#,
            r#"{"additionalProperties": false, "patternProperties": {"^c|p": {}}}"#,
        ] {
            assert_eq!(faults(schema, &any), Vec::<String>::new(), "{schema}");
        }
    }
}
