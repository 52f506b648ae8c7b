//! A fresh database for each story.

use crate::fresh::with_postgres;

/// Plays a story on a PostgreSQL database of its own, which several processes can share.
pub(crate) async fn on_postgres(story: impl AsyncFnOnce(String)) {
    println!("on PostgreSQL");
    with_postgres(async |url| story(url.to_owned()).await).await;
}

/// Plays a story on an SQLite file, which belongs to one process.
pub(crate) async fn on_sqlite(story: impl AsyncFnOnce(String)) {
    let folder = tempfile::tempdir().unwrap();
    println!("on SQLite");
    story(format!("sqlite://{}", folder.path().join("oms.db").display())).await;
}
