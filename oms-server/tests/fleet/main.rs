//! Three servers, two workers and the fake bank, each a process of its own, on one PostgreSQL and one Redis behind a
//! plain balancer: what one of them did, all of them know, and they are replaced one after another while customers order
//! and Redis dies and comes back.
//!
//! `cargo test -p oms-server --test fleet -- --nocapture` prints the figures.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests may panic and print"
)]

#[expect(dead_code, reason = "other tests with processes use the rest")]
#[path = "../common/mod.rs"]
mod common;
mod company;
mod jobs;
mod pair;
mod redis;
mod rolling;
mod stories;

use common::fresh::with_postgres;
use company::Fleet;
use pair::Pair;

/// One fleet for all, since it takes a while to start.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fleet_is_one_shop() {
    with_postgres(async |url| {
        let mut fleet = Fleet::start(url.to_owned()).await;
        stories::a_key_makes_one_order_wherever_it_is_sent(&fleet).await;
        stories::sessions_are_good_everywhere(&fleet).await;
        stories::webhooks_may_come_to_any(&fleet).await;
        stories::plugin_versions_are_agreed_on(&fleet).await;
        redis::the_budget_is_one(&fleet).await;
        redis::the_bell_wakes_workers(&mut fleet).await;
        rolling::replacing_all_fails_no_request(&mut fleet).await;
        redis::the_budget_is_one(&fleet).await;
        jobs::each_ran_once(&fleet).await;
        fleet.verify();
    })
    .await;
}

/// The same database, the same SKU, the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_servers_sell_one_thing() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    with_postgres(async |url| {
        let pair = Pair::start(url.to_owned()).await;
        pair::nothing_is_oversold(&pair).await;
        pair::two_are_about_as_fast_as_one(&pair).await;
        pair.verify();
    })
    .await;
}
