//! What was recorded of real payments, run against other versions of their plugin.

use std::path::PathBuf;

use oms_core::Actor;
use oms_core::plugins::conformance::Package;

use crate::support::{Shop, Terms, eventually, on_both, variable};

/// The version that is in use, with other bytes in the place of some; none for the version itself.
fn version(change: Option<(&str, &str)>) -> Package {
    let dir = PathBuf::from(variable("OMS_TEST_PLUGIN_DIR")).join("mock");
    let mut package = Package::find(&dir).unwrap();
    if let Some((from, to)) = change {
        assert_eq!(from.len(), to.len(), "what moves other bytes breaks the file");
        let at: Vec<_> = (0..package.wasm.len())
            .filter(|at| package.wasm[*at..].starts_with(from.as_bytes()))
            .collect();
        assert!(!at.is_empty(), "{from}");
        for at in at {
            package.wasm[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
        let lines = package
            .manifest
            .lines()
            .filter(|line| !line.starts_with("sha256"));
        package.manifest = lines.map(|line| format!("{line}\n")).collect();
    }
    package
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_is_held_against_what_was_recorded() {
    let terms = Terms {
        record: true,
        ..Terms::default()
    };
    on_both(terms, recorded).await;
}

async fn recorded(shop: &Shop) {
    let began = shop.oms.now();
    let (order, payment) = shop.checkout(2_500).await;
    payment.approve().await;
    order.becomes("paid", "paid").await;
    payment.refund(serde_json::json!({})).await;
    shop.inbox_of(3).await;

    let plugins = shop.oms.plugins();
    let replay = async |package: &Package| {
        plugins
            .replay(&Actor::System, package, began, None)
            .await
            .unwrap()
    };
    let same = version(None);
    // Records are written beside the payment: a start, a refund and three webhooks at least.
    eventually("all records", async || {
        let done = replay(&same).await;
        assert!(done.different.is_empty() && done.skipped.is_empty(), "{done:?}");
        if done.same >= 5 {
            Ok(())
        } else {
            Err(format!("{done:?}"))
        }
    })
    .await;

    let moved = replay(&version(Some(("/v1/payments", "/v9/payments")))).await;
    let told: Vec<_> = moved
        .different
        .iter()
        .flat_map(|call| &call.differences)
        .collect();
    let url = told
        .iter()
        .find(|line| line.starts_with("request 1.url was") && line.contains("/v9/payments"));
    assert!(url.is_some(), "{told:#?}");
    assert!(
        moved.different.iter().all(|call| call.function != "receive"),
        "webhooks ask nobody: {told:#?}"
    );

    let deaf = replay(&version(Some(("webhook-signature", "webhook-signaturX")))).await;
    let heard: Vec<_> = deaf.different.iter().map(|call| call.function.as_str()).collect();
    assert!(
        heard.len() >= 3 && heard.iter().all(|function| *function == "receive"),
        "{deaf:?}"
    );
    assert!(
        deaf.different[0].differences[0].contains("it was verified, and now it is"),
        "{deaf:?}"
    );

    // Nothing of all this has touched the payment, and what was written down holds no secret.
    payment.moves(2_500, 2_500).await;
    let key = std::fs::read_to_string(shop.file("mock-api.key")).unwrap();
    let text = serde_json::to_string(&plugins.recorded(&Actor::System, began).await.unwrap()).unwrap();
    assert!(
        text.contains("\"call\":\"http\"") && text.contains("/v1/payments"),
        "{text}"
    );
    assert!(!text.contains(key.trim()), "the key is in the record");
    assert!(!text.contains("customer@example.com"), "{text}");
}
