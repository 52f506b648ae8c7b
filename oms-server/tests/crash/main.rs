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

mod api;
mod checks;
mod clients;
mod database;
mod ledger;
mod server;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oms_core::{Clock, SystemClock};

use clients::Traffic;
use database::Database;
use ledger::Ledger;
use server::Server;

const ROUNDS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_no_kill_loses_or_doubles_anything() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("oms.db").display());
    play(folder.path(), Database::new(url)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_no_kill_loses_or_doubles_anything() {
    let url = database::create_postgres().await;
    let database = Database::new(url.clone());
    // A task of its own, so that the database is dropped after a failure too.
    let played = tokio::spawn(async move {
        let folder = tempfile::tempdir().unwrap();
        play(folder.path(), database).await;
    })
    .await;
    database::drop_postgres(&url).await;
    if let Err(e) = played {
        std::panic::resume_unwind(e.into_panic());
    }
}

async fn play(folder: &Path, database: Database) {
    // The clients' library wants one, though nothing here speaks TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let seed = seed();
    let mut random = Random(seed);
    println!("{database}: OMS_TEST_SEED={seed} plays the same carts and moments again");
    let began = Instant::now();
    let people = database::open_shop(&database).await;
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

/// Chosen anew each time, or given to play a failure again.
#[expect(clippy::disallowed_methods, reason = "says how to repeat this test")]
fn seed() -> u64 {
    match std::env::var("OMS_TEST_SEED") {
        Ok(text) => text.parse().expect("OMS_TEST_SEED is a number"),
        Err(_) => SystemClock.now().as_micros().unsigned_abs(),
    }
}

/// SplitMix64: small, and the same sequence for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// For somebody who draws independently.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }
}
