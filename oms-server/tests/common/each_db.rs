//! A fresh folder with a fresh database for each story.

use std::path::Path;

use super::fresh::with_postgres;

/// Plays the story on both databases.
pub(crate) async fn each_db(story: impl AsyncFn(&Path, &str)) {
    on_sqlite(&story).await;
    on_postgres(&story).await;
}

/// Plays a story on an SQLite file, which belongs to one process.
pub(crate) async fn on_sqlite(story: impl AsyncFnOnce(&Path, &str)) {
    println!("on SQLite");
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("oms.db").display());
    story(folder.path(), &url).await;
}

/// Plays a story on a PostgreSQL database of its own, which several processes can share.
pub(crate) async fn on_postgres(story: impl AsyncFnOnce(&Path, &str)) {
    println!("on PostgreSQL");
    with_postgres(async |url| {
        let folder = tempfile::tempdir().unwrap();
        story(folder.path(), url).await;
    })
    .await;
}
