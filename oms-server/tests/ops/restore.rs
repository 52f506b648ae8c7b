//! Nothing comes in the place of a database that is not better.

use std::path::{Path, PathBuf};

use sqlx::{Connection, Executor};

use crate::program::{fails, json, ok, sqlite, sqlite_url};
use crate::shop::Shop;

/// A folder with a shop and a backup of it.
struct Place {
    folder: tempfile::TempDir,
    backup: PathBuf,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Shop::make(&sqlite_url(folder.path())).await.oms.shutdown().await;
        ok(folder.path(), &["backup", "backup.db"]);
        let shop = Shop::open(&sqlite_url(folder.path())).await;
        shop.order("after-the-backup").await;
        shop.oms.shutdown().await;
        let backup = folder.path().join("backup.db");
        Self { folder, backup }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// One order more than the backup has.
    async fn orders(&self) -> i64 {
        let mut db = sqlite(&self.path().join("oms.db")).await;
        let orders = sqlx::query_scalar("SELECT count(*) FROM oms_order")
            .fetch_one(&mut db)
            .await
            .unwrap();
        db.close().await.unwrap();
        orders
    }

    /// Refused, and the database is what it was.
    async fn refuses(&self, file: &str, why: &str) {
        let before = self.orders().await;
        let said = fails(self.path(), &["restore", file, "--force"], 1);
        assert!(said.contains(why), "{said}");
        assert_eq!(self.orders().await, before);
        assert_eq!(ok(self.path(), &["verify"]), "no violation found\n");
        assert!(!self.path().join("oms.db.restoring").exists());
    }

    /// Changes a copy of the backup.
    async fn changed(&self, sql: &str) -> String {
        let path = self.path().join("changed.db");
        std::fs::copy(&self.backup, &path).unwrap();
        let mut db = sqlite(&path).await;
        db.execute("PRAGMA foreign_keys = OFF").await.unwrap();
        db.execute(sqlx::AssertSqlSafe(sql.to_owned())).await.unwrap();
        db.close().await.unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_use_or_with_a_shop_is_not_replaced() {
    let place = Place::new().await;
    let said = fails(place.path(), &["restore", "backup.db"], 1);
    assert!(said.contains("not empty") && said.contains("--force"), "{said}");

    // A program that embeds the library knows nothing of our lock file.
    let open = Shop::open(&sqlite_url(place.path())).await;
    let said = fails(place.path(), &["restore", "backup.db", "--force"], 1);
    assert!(said.contains("in use"), "{said}");
    open.oms.shutdown().await;

    let restored = json(place.path(), &["restore", "backup.db", "--force", "--json"]);
    let kept = PathBuf::from(restored["replaced"].as_str().unwrap());
    assert!(kept.exists());
    assert_eq!(ok(place.path(), &["verify"]), "no violation found\n");
    // The one that was replaced is whole too.
    let other = tempfile::tempdir().unwrap();
    ok(other.path(), &["restore", kept.to_str().unwrap()]);
    assert_eq!(ok(other.path(), &["verify"]), "no violation found\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_or_foreign_is_refused() {
    let place = Place::new().await;
    place.refuses("nowhere.db", "nowhere.db").await;

    std::fs::write(
        place.path().join("text.db"),
        "not a database at all, but long enough to be read as one",
    )
    .unwrap();
    place.refuses("text.db", "refused").await;

    let mut bytes = std::fs::read(&place.backup).unwrap();
    let half = bytes.len() / 2;
    std::fs::write(place.path().join("cut.db"), &bytes[..half]).unwrap();
    place.refuses("cut.db", "refused").await;
    for byte in &mut bytes[half..half + 8_192] {
        *byte ^= 0x5a;
    }
    std::fs::write(place.path().join("flipped.db"), &bytes).unwrap();
    place.refuses("flipped.db", "refused").await;

    let foreign = place.changed("DROP TABLE oms_payment").await;
    place.refuses(&foreign, "refused").await;
    let orphaned = place.changed("DELETE FROM oms_user").await;
    place.refuses(&orphaned, "refers to nothing").await;
    let cheated = place.changed("UPDATE oms_stock SET on_hand = on_hand + 5").await;
    place.refuses(&cheated, "breaks").await;
    let newer = place
        .changed("UPDATE _oms_migrations SET version = 9999 WHERE version = (SELECT max(version) FROM _oms_migrations)")
        .await;
    place.refuses(&newer, "9999").await;

    // A database that is in use is no backup: the rest of it is in its journal.
    let shop = Shop::open(&sqlite_url(place.path())).await;
    shop.order("in-the-journal").await;
    let live = place.path().join("oms.db");
    let elsewhere = tempfile::tempdir().unwrap();
    let said = fails(elsewhere.path(), &["restore", live.to_str().unwrap()], 1);
    assert!(said.contains("journal"), "{said}");
    shop.oms.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_database_can_be_replaced() {
    let place = Place::new().await;
    std::fs::write(place.path().join("oms.db"), vec![7; 100_000]).unwrap();
    std::fs::write(place.path().join("oms.db-wal"), "what a crash left").unwrap();
    let said = fails(place.path(), &["restore", "backup.db"], 1);
    assert!(said.contains("--force"), "{said}");
    ok(place.path(), &["restore", "backup.db", "--force"]);
    assert_eq!(ok(place.path(), &["verify"]), "no violation found\n");
}
