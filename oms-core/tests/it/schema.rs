//! The schema itself.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::each_db;

#[tokio::test]
async fn migrating_again_does_nothing() {
    each_db(async |t| {
        t.oms.migrate().await.unwrap();
        t.oms.check().await.unwrap();
    })
    .await;
}

#[test]
fn both_databases_have_the_same_migrations() {
    let files = |database: &str| -> BTreeSet<_> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("migrations")
            .join(database);
        std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect()
    };
    assert_eq!(files("sqlite"), files("postgres"));
    assert!(!files("sqlite").is_empty());
}
