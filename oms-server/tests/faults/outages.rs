//! The database is restarted, its sessions are killed, and it has no room.

use std::time::{Duration, Instant};

use sqlx::{Connection, Executor, PgConnection};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::TURN;
use crate::common::api::Api;
use crate::load::Load;
use crate::scene::{RECOVERY, Scene};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restarted_database_loses_nothing() {
    let _turn = TURN.lock().await;
    let mut scene = Scene::open().await;
    let load = Load::begin(&scene.server.url, &scene.people).await;
    let mut back = Vec::new();
    // As an administrator does it, for longer than anybody is made to wait; and as a crash does it.
    for (mode, away) in [("stop fast", 5), ("stop immediate", 1)] {
        sleep(Duration::from_secs(2)).await;
        scene.postgres.tell(mode);
        sleep(Duration::from_secs(away)).await;
        scene.postgres.tell("start");
        back.push(Instant::now());
    }
    sleep(RECOVERY).await;
    let told = load.end().await;
    let recoveries: Vec<_> = back.into_iter().map(|at| told.recovery(at)).collect();
    println!("after a restart and a crash, first orders came after {recoveries:?}");
    assert!(recoveries.iter().all(|time| *time < RECOVERY), "{recoveries:?}");
    scene.check(&told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sessions_killed_ten_times_a_second_lose_nothing() {
    let _turn = TURN.lock().await;
    let scene = Scene::open().await;
    let load = Load::begin(&scene.server.url, &scene.people).await;
    let mut admin = PgConnection::connect(&scene.database.url).await.unwrap();
    // The busiest first: those in the middle of a transaction.
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM
                    (SELECT pid FROM pg_stat_activity WHERE application_name = 'oms'
                     ORDER BY state = 'idle', random() LIMIT 1) victim";
    let mut killed = 0;
    for _ in 0..80 {
        sleep(Duration::from_millis(100)).await;
        let (count,): (i64,) = sqlx::query_as(kill).fetch_one(&mut admin).await.unwrap();
        killed += count;
    }
    let peace = Instant::now();
    sleep(Duration::from_secs(2)).await;
    let told = load.end().await;
    let recovery = told.recovery(peace);
    println!("{killed} sessions killed; the next order came {recovery:?} after the last");
    assert!(killed > 40, "only {killed} sessions could be killed");
    assert!(recovery < RECOVERY);
    scene.check(&told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_exhausted_pool_says_so_in_time() {
    const CLIENTS: usize = 400;
    let _turn = TURN.lock().await;
    let scene = Scene::open().await;
    let api = Api::anonymous(&scene.server.url);
    // Every request reads products: all of them hang, each on a connection, the others in the queue.
    let mut blocker = PgConnection::connect(&scene.database.url).await.unwrap();
    blocker
        .execute("BEGIN; LOCK TABLE oms_product IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let api = api.clone();
        clients.spawn(async move { api.try_get("/v1/products").await });
    }
    sleep(Duration::from_millis(500)).await;
    let alive = api.try_get("/livez").await.unwrap();
    assert_eq!(alive.status, 200);
    assert!(
        alive.took < Duration::from_secs(1),
        "/livez took {:?}",
        alive.took
    );

    let answers = clients.join_all().await;
    let mut times: Vec<Duration> = Vec::new();
    for answer in answers {
        let answer = answer.unwrap();
        assert!(answer.status == 503 && answer.says_later, "{answer:?}");
        times.push(answer.took);
    }
    times.sort_unstable();
    // Whoever waits for a connection, or has one and waits for the lock, does so for three seconds.
    let waited = Duration::from_millis(2_500);
    let at_once = times.iter().filter(|took| **took < waited).count();
    let longest = times[CLIENTS - 1];
    assert!(longest < Duration::from_secs(10), "{longest:?}");
    assert!(
        at_once > 0,
        "the queue before the pool has no end: {:?}",
        times[0]
    );

    blocker.execute("ROLLBACK").await.unwrap();
    let released = Instant::now();
    api.get("/v1/products").await.expect(200);
    let recovery = released.elapsed();
    println!(
        "{CLIENTS} requests, all 503, {at_once} of them at once, the last after {longest:?}; back after {recovery:?}"
    );
    assert!(recovery < RECOVERY);
}
