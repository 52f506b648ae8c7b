//! What the replicas share through Redis: one budget for who asks too often, and a bell for jobs.

use std::time::Duration;

use serde_json::json;

use crate::common::api::Api;
use crate::common::database::{PASSWORD, raw};
use crate::common::server::Server;
use crate::company::{Fleet, GUESSES};

/// A name may be guessed at so often, at all replicas together.
pub(crate) async fn the_budget_is_one(fleet: &Fleet) {
    let replicas = fleet.replicas.len();
    // On a machine that is very busy Redis may be slow enough to be left out in between: then it is tried again.
    for attempt in 0..10 {
        fleet.until_redis_is("ok").await;
        let before = left_out(fleet);
        // Whatever was counted here before.
        let body = json!({"identifier": format!("nobody-{before}-{attempt}"), "password": "wrong"});
        fleet.redis.flush();
        let mut answered = 0;
        for guess in 0..replicas * GUESSES {
            let api = Api::anonymous(&fleet.replicas[guess % replicas].url);
            match api.try_post("/v1/sessions", None, &body).await.unwrap().status {
                401 => answered += 1,
                status => assert_eq!(status, 429),
            }
        }
        if left_out(fleet) == before {
            assert_eq!(answered, GUESSES);
            println!(
                "{} guesses at {replicas} replicas: {answered} were answered",
                replicas * GUESSES
            );
            return;
        }
    }
    panic!("Redis was always too slow to be used");
}

/// How often a replica did without Redis.
fn left_out(fleet: &Fleet) -> usize {
    let logs = fleet.replicas.iter().map(Server::logged);
    logs.map(|log| log.matches("Redis cannot be used").count()).sum()
}

/// Jobs of replicas that do not work themselves wait much shorter with the bell than without.
pub(crate) async fn the_bell_wakes_workers(fleet: &mut Fleet) {
    let with = waits(fleet, "with").await;
    fleet.redis.kill();
    fleet.until_redis_is("degraded").await;
    let without = waits(fleet, "without").await;
    fleet.redis.start();
    fleet.until_redis_is("ok").await;
    println!("jobs were taken up after {with:?} by the bell, and after {without:?} without");
    assert!(with * 2 < without, "{with:?} {without:?}");
}

/// Registers people, which is a job each; how long the one in the middle waited, by the database's clock.
async fn waits(fleet: &Fleet, name: &str) -> Duration {
    const JOBS: usize = 31;
    let before = jobs(fleet).await.len();
    for number in 0..JOBS {
        let replica = &fleet.replicas[1 + number % 2];
        let user = format!("{name}-{number}");
        let body = json!({"username": user, "email": format!("{user}@example.com"), "password": PASSWORD});
        Api::anonymous(&replica.url)
            .post("/v1/users", None, &body)
            .await
            .expect(201);
        // Each for itself: a worker that is awake needs no bell.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let mut times = Vec::new();
    while times.len() < JOBS {
        tokio::time::sleep(Duration::from_millis(100)).await;
        times = jobs(fleet).await.split_off(before);
    }
    times.sort_unstable();
    Duration::from_micros(times[JOBS / 2].unsigned_abs())
}

/// How long each mail waited for a worker, in microseconds, in the order in which they were enqueued.
async fn jobs(fleet: &Fleet) -> Vec<i64> {
    let sql = "SELECT (extract(epoch FROM min(c.at) - min(n.at)) * 1000000)::bigint
               FROM watched n JOIN watched c ON c.job = n.job AND c.what = 'claimed'
               WHERE n.what = 'enqueued' AND n.kind = 'send_email' GROUP BY n.job ORDER BY min(n.at)";
    raw!(fleet.database, |conn| sqlx::query_scalar(sql)
        .fetch_all(conn)
        .await)
    .unwrap()
}
