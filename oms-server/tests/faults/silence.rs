//! Connections die without a word, as behind a firewall that forgets them: nobody is told, nothing is answered.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::TURN;
use crate::load::Load;
use crate::scene::{RECOVERY, Scene};

/// More often than the pool has connections, divided by those that are in use at a time: a slot that were lost with
/// each dead connection would be missed.
const SILENCES: usize = 3;

/// Statements under way are given up after 4.5 s, and the server ends the transactions of the dead connections, whose
/// locks orders wait for, after 5 s.
const FOUND_OUT: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn silent_connections_are_found_out_and_none_is_missed() {
    let _turn = TURN.lock().await;
    let scene = Scene::open().await;
    let load = Load::begin(&scene.server.url, &scene.people).await;
    let mut silences = Vec::new();
    for _ in 0..SILENCES {
        sleep(Duration::from_millis(1_500)).await;
        scene.network.freeze();
        silences.push(Instant::now());
        sleep(Duration::from_secs(6)).await;
    }
    // Now new connections hang, too.
    scene.network.go_dark(true);
    sleep(Duration::from_secs(7)).await;
    scene.network.go_dark(false);
    let back = Instant::now();
    sleep(RECOVERY).await;
    let told = load.end().await;
    let recoveries: Vec<_> = silences.into_iter().map(|at| told.recovery(at)).collect();
    let recovery = told.recovery(back);
    println!(
        "connections fell silent: next orders after {recoveries:?}; the network came back: after {recovery:?}"
    );
    assert!(recoveries.iter().all(|time| *time < FOUND_OUT));
    assert!(recovery < RECOVERY);
    scene.check(&told).await;
}
