//! Which version serves: installed, activated, rolled back, loaded at a start, agreed on by several processes.

use std::path::Path;

use oms_core::payments::Account;
use oms_core::plugins::{Install, PluginInfo};
use oms_core::{Actor, Error, Oms, OmsBuilder, Result};
use tempfile::TempDir;

use super::guests::{cached, mock_of};
use crate::support::{TestOms, each_db_with, raw};

const ADMIN: &Actor = &Actor::System;

/// A folder with the mock plugin, as if it were of this version.
fn folder(version: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), version, version);
    dir
}

/// `says` is what the manifest says of its version.
fn put(plugin: &Path, version: &str, says: &str) {
    std::fs::create_dir_all(plugin).unwrap();
    let manifest = format!(
        "id = \"mock\"\nversion = \"{says}\"\ncontract = \"oms:payment@1\"\nwasm = \"it.wasm\"\n\
         hosts = [\"config:base-url\"]\n"
    );
    std::fs::write(plugin.join("plugin.toml"), manifest).unwrap();
    std::fs::write(plugin.join("it.wasm"), mock_of(version)).unwrap();
}

async fn install(oms: &Oms, path: &Path, activate: bool) -> Result<PluginInfo> {
    let install = Install {
        path: path.to_owned(),
        component: None,
        sha256: None,
        activate,
    };
    oms.plugins().install(ADMIN, install).await
}

/// The version that new payments and webhooks go to.
async fn serving(oms: &Oms) -> String {
    let gateway = oms.plugins().gateway(ADMIN, "mock").await.unwrap();
    gateway.info().version.clone()
}

/// Another process sees a change within a second: the loop is for machines that have much else to do.
async fn follows(oms: &Oms, version: &str) {
    for _ in 0..10 {
        tokio::time::sleep(std::time::Duration::from_millis(1_010)).await;
        if serving(oms).await == version {
            return;
        }
    }
    panic!("{version} does not serve");
}

/// The active version by the list, which must agree.
async fn active(t: &TestOms) -> String {
    let list = t.oms.plugins().list(&t.operator()).await.unwrap();
    let mut active = list.into_iter().filter(|plugin| plugin.active);
    let found = active.next().unwrap().version;
    assert!(active.next().is_none());
    assert_eq!(serving(&t.oms).await, found);
    found
}

#[tokio::test]
async fn versions_are_chosen_and_rolled_back() {
    each_db_with(cached, async |t| {
        let plugins = t.oms.plugins();
        let (one, two, three) = (folder("0.1.0"), folder("0.2.0"), folder("0.3.0"));
        let first = install(&t.oms, one.path(), true).await.unwrap();
        assert!(first.active && first.activated_at.is_some());
        t.clock.advance(std::time::Duration::from_secs(1));
        // Either of the two files will do.
        install(&t.oms, &two.path().join("it.wasm"), true).await.unwrap();
        let kept = install(&t.oms, &three.path().join("plugin.toml"), false)
            .await
            .unwrap();
        assert!(!kept.active && kept.activated_at.is_none());
        assert_eq!(active(&t).await, "0.2.0");

        t.clock.advance(std::time::Duration::from_secs(1));
        plugins.activate(ADMIN, "mock", &kept.digest[..8]).await.unwrap();
        assert_eq!(active(&t).await, "0.3.0");
        for before in ["0.2.0", "0.1.0"] {
            let rolled = plugins.roll_back(ADMIN, "mock").await.unwrap();
            assert_eq!((rolled.version.as_str(), rolled.active), (before, true));
            assert_eq!(active(&t).await, before);
        }
        let none = plugins.roll_back(ADMIN, "mock").await;
        assert!(
            matches!(none, Err(Error::InvalidState { what: "plugin", .. })),
            "{none:?}"
        );
        plugins.activate(ADMIN, "mock", "0.3.0").await.unwrap();
        assert_eq!(active(&t).await, "0.3.0");

        for (id, which) in [
            ("mock", "9.9.9"),
            ("other", "0.1.0"),
            ("mock", "abc"),
            ("mock", ""),
        ] {
            let unknown = plugins.activate(ADMIN, id, which).await;
            assert!(
                matches!(unknown, Err(Error::NotFound(_))),
                "{id} {which}: {unknown:?}"
            );
        }
        for actor in [Actor::Anonymous, t.user("ann").await, t.operator()] {
            assert!(plugins.activate(&actor, "mock", "0.1.0").await.is_err());
            assert!(plugins.roll_back(&actor, "mock").await.is_err());
        }
        assert_eq!(active(&t).await, "0.3.0");
    })
    .await;
}

#[tokio::test]
async fn a_broken_version_is_refused_and_the_old_one_stays() {
    each_db_with(cached, async |t| {
        let good = folder("0.1.0");
        let first = install(&t.oms, good.path(), true).await.unwrap();
        let fault = async |path: &Path| match install(&t.oms, path, true).await {
            Err(Error::Invalid(faults)) => faults[0].detail.clone(),
            other => panic!("{other:?}"),
        };
        let liar = tempfile::tempdir().unwrap();
        put(liar.path(), "0.2.0", "0.3.0");
        let said = fault(liar.path()).await;
        assert!(
            said.contains("version \"0.3.0\", the component \"0.2.0\""),
            "{said}"
        );
        std::fs::write(liar.path().join("it.wasm"), "half of it").unwrap();
        let said = fault(liar.path()).await;
        assert!(said.contains("not a WebAssembly component"), "{said}");
        let said = fault(&liar.path().join("nothing.wasm")).await;
        assert!(said.contains("no such file"), "{said}");
        std::fs::write(liar.path().join("other.wasm"), mock_of("0.2.0")).unwrap();
        let said = fault(&liar.path().join("other.wasm")).await;
        assert!(said.contains("of another file, it.wasm"), "{said}");
        let pinned = Install {
            path: good.path().to_owned(),
            component: None,
            sha256: Some("0".repeat(64)),
            activate: true,
        };
        let refused = t.oms.plugins().install(ADMIN, pinned.clone()).await.unwrap_err();
        assert!(refused.to_string().contains(&first.digest), "{refused}");
        let right = Install {
            sha256: Some(first.digest.to_uppercase()),
            ..pinned
        };
        t.oms.plugins().install(ADMIN, right).await.unwrap();
        assert_eq!(t.oms.plugins().list(ADMIN).await.unwrap(), [first]);
        assert_eq!(active(&t).await, "0.1.0");
    })
    .await;
}

#[tokio::test]
async fn two_builds_of_one_version_are_told_apart_by_digest() {
    each_db_with(cached, async |t| {
        let one = folder("0.1.0");
        let first = install(&t.oms, one.path(), true).await.unwrap();
        let mut other = mock_of("0.1.0");
        other.extend_from_slice(b"\0\x06\x05build");
        std::fs::write(one.path().join("it.wasm"), other).unwrap();
        let second = install(&t.oms, one.path(), true).await.unwrap();
        let unclear = t
            .oms
            .plugins()
            .activate(ADMIN, "mock", "0.1.0")
            .await
            .unwrap_err();
        let said = unclear.to_string();
        assert!(
            said.contains(&first.digest) && said.contains(&second.digest),
            "{said}"
        );
        let back = t
            .oms
            .plugins()
            .activate(ADMIN, "mock", &first.digest)
            .await
            .unwrap();
        assert!(back.active);
    })
    .await;
}

#[tokio::test]
async fn a_start_undoes_nothing_that_operators_chose() {
    let dir = tempfile::tempdir().unwrap();
    let with_folder = |builder: OmsBuilder| {
        cached(builder)
            .plugin_dir(dir.path())
            .account(Account::new("shop", "mock"))
    };
    each_db_with(with_folder, async |t| {
        let plugins = t.oms.plugins();
        let lies = |version: &str| put(&dir.path().join("mock"), version, version);
        lies("0.1.0");
        plugins.load_new(ADMIN).await.unwrap();
        assert_eq!(active(&t).await, "0.1.0");
        lies("0.2.0");
        plugins.load_new(ADMIN).await.unwrap();
        assert_eq!(active(&t).await, "0.2.0", "what nobody has seen becomes active");
        plugins.roll_back(ADMIN, "mock").await.unwrap();
        plugins.load_new(ADMIN).await.unwrap();
        assert_eq!(active(&t).await, "0.1.0", "a start does not undo the rollback");
        plugins.reload(ADMIN).await.unwrap();
        assert_eq!(active(&t).await, "0.2.0", "but an operator may");
        lies("0.1.0");
        plugins.load_new(ADMIN).await.unwrap();
        assert_eq!(
            active(&t).await,
            "0.2.0",
            "nor does a server of the deployment before"
        );
        // A broken file does not keep a shop from starting that has a good version.
        std::fs::write(dir.path().join("mock/it.wasm"), "half of it").unwrap();
        plugins.load_new(ADMIN).await.unwrap();
        assert_eq!(active(&t).await, "0.2.0");
        let refused = plugins.reload(ADMIN).await;
        assert!(
            matches!(refused, Err(Error::Invalid(_))),
            "who asks for it is told: {refused:?}"
        );
        // One that would have no adapter at all does not start.
        raw!(t, |conn| sqlx::query("DELETE FROM oms_plugin_version")
            .execute(conn)
            .await
            .map(drop))
        .unwrap();
        let refused = plugins.load_new(ADMIN).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn other_processes_follow_without_a_restart() {
    each_db_with(cached, async |t| {
        let (one, two, three) = (folder("0.1.0"), folder("0.2.0"), folder("0.3.0"));
        install(&t.oms, one.path(), true).await.unwrap();
        let other = cached(Oms::builder(&t.url)).connect().await.unwrap();
        assert_eq!(serving(&other).await, "0.1.0");
        install(&t.oms, two.path(), true).await.unwrap();
        follows(&other, "0.2.0").await;
        t.oms.plugins().roll_back(ADMIN, "mock").await.unwrap();
        follows(&other, "0.1.0").await;

        // What cannot be used here does not take the place of what can.
        let third = install(&t.oms, three.path(), true).await.unwrap();
        raw!(t, |conn| {
            sqlx::query("UPDATE oms_plugin_version SET wasm = $1 WHERE digest = $2")
                .bind(b"half of it".as_slice())
                .bind(&third.digest)
                .execute(conn)
                .await
                .map(drop)
        })
        .unwrap();
        assert_eq!(serving(&t.oms).await, "0.3.0", "compiled before it broke");
        for _ in 0..3 {
            follows(&other, "0.1.0").await;
        }
        other.shutdown().await;
    })
    .await;
}
