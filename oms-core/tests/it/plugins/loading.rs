//! From a folder into the database, and from there into every process.

use std::path::Path;

use oms_core::plugins::PluginInfo;
use oms_core::{Actor, Error, Oms, OmsBuilder};
use tempfile::TempDir;

use super::guests::{cached, plugin_dir, start_request};
use crate::support::{each_db_with, raw};

/// A folder with one plugin.
fn folder(manifest: &str, component: &[u8]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "acme", manifest, component);
    dir
}

fn put(dir: &Path, name: &str, manifest: &str, component: &[u8]) {
    let plugin = dir.join(name);
    std::fs::create_dir_all(&plugin).unwrap();
    std::fs::write(plugin.join("plugin.toml"), manifest).unwrap();
    std::fs::write(plugin.join("it.wasm"), component).unwrap();
}

fn manifest(id: &str, version: &str) -> String {
    format!(
        "id = \"{id}\"\nversion = \"{version}\"\ncontract = \"oms:payment@1\"\nwasm = \"it.wasm\"\n\
         hosts = [\"config:base-url\"]\n"
    )
}

fn mock() -> Vec<u8> {
    std::fs::read(plugin_dir().join("mock/mock.wasm")).unwrap()
}

/// The same component with a custom section at its end: another file, the same plugin.
fn rebuilt(mut component: Vec<u8>) -> Vec<u8> {
    component.extend_from_slice(&[0, 6, 4, b'n', b'o', b't', b'e', b'2']);
    component
}

const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// A component that imports an empty interface of this name.
fn importing(name: &str) -> Vec<u8> {
    let mut component = [EMPTY_COMPONENT, &[7, 3, 1, 0x42, 0]].concat();
    section(&mut component, 10, name, &[5, 0]);
    component
}

/// A component that exports an empty interface of this name.
fn exporting(name: &str) -> Vec<u8> {
    let mut component = [EMPTY_COMPONENT, &[5, 3, 1, 1, 0]].concat();
    section(&mut component, 11, name, &[5, 0, 0]);
    component
}

fn section(component: &mut Vec<u8>, id: u8, name: &str, rest: &[u8]) {
    let length = u8::try_from(name.len()).unwrap();
    let size = 3 + length + u8::try_from(rest.len()).unwrap();
    component.extend_from_slice(&[id, size, 1, 0, length]);
    component.extend_from_slice(name.as_bytes());
    component.extend_from_slice(rest);
}

/// The one fault that loading finds.
async fn fault(oms: &Oms, dir: &Path) -> String {
    match oms.plugins().load_dir(&Actor::System, dir).await {
        Err(Error::Invalid(faults)) => {
            let [fault] = faults.as_slice() else {
                panic!("{faults:?}");
            };
            format!("{}: {}", fault.pointer, fault.detail)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_mock_gateway_is_loaded() {
    let with_folder = |builder: OmsBuilder| cached(builder).plugin_dir(plugin_dir());
    each_db_with(with_folder, async |t| {
        let loaded = t.oms.plugins().reload(&Actor::System).await.unwrap();
        let mock: &PluginInfo = loaded.iter().find(|plugin| plugin.id == "mock").unwrap();
        assert!(mock.active);
        assert_eq!(mock.hosts, ["config:base-url"]);
        let again = t.oms.plugins().reload(&Actor::System).await.unwrap();
        assert_eq!(again, loaded, "loading the same folder again changes nothing");
        assert_eq!(t.oms.plugins().list(&t.operator()).await.unwrap(), loaded);

        let gateway = t.oms.plugins().gateway(&Actor::System, "mock").await.unwrap();
        let info = gateway.info();
        assert_eq!((info.id.as_str(), info.name.as_str()), ("mock", "Mock gateway"));
        assert_eq!(info.digest.as_deref(), Some(mock.digest.as_str()));
        assert!(info.features.webhooks && info.features.partial_refund && !info.features.client_tokens);
    })
    .await;
}

#[tokio::test]
async fn only_administrators_load_plugins() {
    each_db_with(cached, async |t| {
        let customer = t.user("ann").await;
        for actor in [Actor::Anonymous, customer, t.operator()] {
            assert!(t.oms.plugins().load_dir(&actor, &plugin_dir()).await.is_err());
            assert!(t.oms.plugins().reload(&actor).await.is_err());
        }
        assert!(t.oms.plugins().list(&Actor::Anonymous).await.is_err());
        assert!(t.oms.plugins().list(&Actor::System).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_replaced_file_loses_nothing() {
    each_db_with(cached, async |t| {
        let dir = folder(&manifest("mock", "0.1.0"), &mock());
        let first = t
            .oms
            .plugins()
            .load_dir(&Actor::System, dir.path())
            .await
            .unwrap();
        let old = t.oms.plugins().gateway(&Actor::System, "mock").await.unwrap();
        put(dir.path(), "acme", &manifest("mock", "0.1.0"), &rebuilt(mock()));
        let both = t
            .oms
            .plugins()
            .load_dir(&Actor::System, dir.path())
            .await
            .unwrap();
        assert_eq!(both.len(), 2);
        let active: Vec<_> = both.iter().filter(|plugin| plugin.active).collect();
        assert_eq!(active.len(), 1);
        assert_ne!(active[0].digest, first[0].digest);
        let new = t.oms.plugins().gateway(&Actor::System, "mock").await.unwrap();
        assert_eq!(new.info().digest.as_ref(), Some(&active[0].digest));
        // A call in hand ends with the version that it began with.
        let mut account = oms_core::payments::Account::new("shop", "mock");
        account
            .config
            .insert("base-url".into(), "http://127.0.0.1:1".into());
        assert!(old.start(&account, start_request(&t.oms)).await.is_err());

        // Another process, without the folder: the database has all it needs.
        dir.close().unwrap();
        let other = cached(Oms::builder(&t.url)).connect().await.unwrap();
        let gateway = other.plugins().gateway(&Actor::System, "mock").await.unwrap();
        assert_eq!(gateway.info(), new.info());
        other.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn changed_bytes_in_the_database_are_not_run() {
    each_db_with(cached, async |t| {
        t.oms
            .plugins()
            .load_dir(&Actor::System, &plugin_dir())
            .await
            .unwrap();
        raw!(t, |conn| {
            sqlx::query("UPDATE oms_plugin_version SET wasm = $1")
                .bind(rebuilt(mock()))
                .execute(conn)
                .await
                .map(drop)
        })
        .unwrap();
        let other = cached(Oms::builder(&t.url)).connect().await.unwrap();
        let changed = other.plugins().gateway(&Actor::System, "mock").await;
        assert!(matches!(changed, Err(Error::Corrupt { column: "wasm", .. })));
        other.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn faults_are_told_in_words() {
    each_db_with(cached, async |t| {
        let good = manifest("mock", "0.1.0");
        let wrong_digest = format!("{good}sha256 = \"{}\"\n", "0".repeat(64));
        for (manifest, component, says) in [
            (
                good.replace("payment@1", "payment@2"),
                mock(),
                "contract is \"oms:payment@2\", but this host speaks",
            ),
            (wrong_digest, mock(), "has the sha256"),
            (
                good.replace("it.wasm", "other.wasm"),
                mock(),
                "other.wasm: No such file",
            ),
            (
                manifest("other", "0.1.0"),
                mock(),
                "plugin.toml has the id \"other\", the component \"mock\"",
            ),
            (
                manifest("mock", "9.9.9"),
                mock(),
                "plugin.toml has version \"9.9.9\", the component \"0.1.0\"",
            ),
            (
                good.replace("config:base-url", "https://a.test"),
                mock(),
                "asks for \"config:base-url\"",
            ),
            (good.clone(), b"no wasm".to_vec(), "not a WebAssembly component"),
            (good.clone(), CORE_MODULE.to_vec(), "build it for wasm32-wasip2"),
            (
                good.clone(),
                EMPTY_COMPONENT.to_vec(),
                "does not export oms:payment/descriptor",
            ),
            (
                good.clone(),
                exporting("oms:payment/descriptor@2.0.0"),
                "exports oms:payment/descriptor@2.0.0, but",
            ),
            (
                good.clone(),
                exporting("oms:payment/descriptor@1.0.0"),
                "does not export oms:payment/gateway",
            ),
            (
                good.clone(),
                importing("wasi:http/types@0.2.6"),
                "imports wasi:http/types@0.2.6, which this host",
            ),
            (
                good.clone(),
                importing("oms:payment/bank@2.0.0"),
                "imports oms:payment/bank@2.0.0, which this host",
            ),
        ] {
            let dir = folder(&manifest, &component);
            let fault = fault(&t.oms, dir.path()).await;
            assert!(
                fault.starts_with("/acme/plugin.toml: ") && fault.contains(says),
                "{says}: {fault}"
            );
        }
        assert!(
            t.oms.plugins().list(&Actor::System).await.unwrap().is_empty(),
            "nothing was kept"
        );
    })
    .await;
}

#[tokio::test]
async fn one_fault_keeps_all_out() {
    each_db_with(cached, async |t| {
        let dir = folder(&manifest("mock", "0.1.0"), &mock());
        put(dir.path(), "bad", &manifest("bad", "1"), EMPTY_COMPONENT);
        assert!(fault(&t.oms, dir.path()).await.starts_with("/bad/plugin.toml"));
        assert!(t.oms.plugins().list(&Actor::System).await.unwrap().is_empty());
        put(dir.path(), "bad", &manifest("mock", "0.1.0"), &mock());
        let fault = fault(&t.oms, dir.path()).await;
        assert!(
            fault.contains("the folder acme has a plugin with the id \"mock\" as well"),
            "{fault}"
        );
    })
    .await;
}

#[tokio::test]
async fn compiled_plugins_are_kept_where_nobody_else_writes() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let open = |url: String| Oms::builder(url).cache_dir(&cache).connect();
    let url = format!("sqlite://{}", folder.path().join("oms.db").display());
    let oms = open(url.clone()).await.unwrap();
    oms.migrate().await.unwrap();
    oms.plugins()
        .load_dir(&Actor::System, &plugin_dir())
        .await
        .unwrap();
    assert!(
        std::fs::read_dir(&cache).unwrap().next().is_some(),
        "something is kept"
    );

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o777)).unwrap();
        let other = open(url).await.unwrap();
        let Err(error) = other.plugins().gateway(&Actor::System, "mock").await else {
            panic!("code from a folder that anybody may write to");
        };
        assert!(error.to_string().contains("others may write"), "{error}");
    }
}
