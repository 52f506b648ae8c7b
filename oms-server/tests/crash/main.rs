//! Kills the real server while orders stream in, twenty times on each database, and then holds everything that its
//! clients were told against what is there.
//!
//! `cargo test -p oms-server --test crash -- --nocapture` prints the figures.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests may panic and print"
)]

mod checks;
mod clients;
#[expect(dead_code, reason = "other tests with processes use the rest")]
#[path = "../common/mod.rs"]
mod common;
mod database;
mod ledger;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clients::Traffic;
use common::database::{Database, open_shop};
use common::fresh::with_postgres;
use common::server::Server;
use common::{Random, seed};
use ledger::Ledger;

const ROUNDS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_no_kill_loses_or_doubles_anything() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("oms.db").display());
    play(folder.path(), Database::new(url)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_no_kill_loses_or_doubles_anything() {
    with_postgres(async |url| {
        let folder = tempfile::tempdir().unwrap();
        play(folder.path(), Database::new(url.to_owned())).await;
    })
    .await;
}

async fn play(folder: &Path, database: Database) {
    // The clients' library wants one, though nothing here speaks TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let seed = seed();
    let mut random = Random(seed);
    println!("{database}: OMS_TEST_SEED={seed} plays the same carts and moments again");
    let began = Instant::now();
    let people = open_shop(&database).await;
    let mut server = Server::new(folder, &database.url);
    server.start().await;

    let ledger = Arc::new(Ledger::default());
    let traffic = Traffic::begin(&server.url, &people, &ledger, &mut random).await;
    for round in 1..=ROUNDS {
        tokio::time::sleep(Duration::from_millis(200 + random.below(800))).await;
        server.kill();
        if round == ROUNDS {
            // So that the test need not wait for leases to run out and for orphaned attempts to be given up.
            database.pretend_long_outage().await;
        }
        ledger.restarted();
        server.start().await;
    }
    let streamed = began.elapsed();
    let open = traffic.end().await;
    database.drain(folder).await;
    open.finish().await;
    database.drain(folder).await;
    let drained = began.elapsed();

    println!("{database}: {}", ledger.figures(ROUNDS));
    checks::all(&server, &database, folder, &people, &ledger).await;
    println!(
        "{database}: {:.0} s, of which {:.0} s of rounds and {:.0} s until every job was done",
        began.elapsed().as_secs_f64(),
        streamed.as_secs_f64(),
        (drained - streamed).as_secs_f64()
    );
}
