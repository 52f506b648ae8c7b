//! Every process is replaced, one after another, and Redis dies and comes back, while customers order: nobody notices.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::common::api::{Answer, Api};
use crate::common::database::PASSWORD;
use crate::company::Fleet;

const CLIENTS: usize = 8;

/// Drain, requests under way, jobs under way.
const STOP: Duration = Duration::from_secs(30);

pub(crate) async fn replacing_all_fails_no_request(fleet: &mut Fleet) {
    let stop = CancellationToken::new();
    let mut clients = JoinSet::new();
    for name in &fleet.people.customers[..CLIENTS] {
        let api = Api::log_in(&fleet.url(), name, PASSWORD).await;
        clients.spawn(shop(api, name.clone(), stop.clone()));
    }
    let mut times = Vec::new();
    for index in 0..fleet.replicas.len() {
        tokio::time::sleep(Duration::from_millis(500)).await;
        match index {
            // The second one stops, and starts, without Redis.
            1 => {
                fleet.redis.kill();
                fleet.until_redis_is("degraded").await;
            }
            2 => {
                fleet.redis.start();
                fleet.until_redis_is("ok").await;
            }
            _ => {}
        }
        let asked = Instant::now();
        let status = fleet.replicas[index].terminate(STOP).await;
        assert!(status.success(), "replica {index} ended with {status}");
        times.push(asked.elapsed());
        fleet.spawn_replica(index);
        fleet.ready().await;
    }
    for worker in &mut fleet.workers {
        let status = worker.terminate(STOP).await;
        assert!(status.success(), "a worker ended with {status}");
        worker.spawn(&["worker"]);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.cancel();
    let told = clients.join_all().await;
    let requests: usize = told.iter().map(|(count, _)| count).sum();
    let failed: Vec<_> = told.into_iter().flat_map(|(_, failed)| failed).collect();
    println!(
        "three replicas replaced under load, Redis killed and started: each gone after {times:?}, {requests} requests, {} \
         failed",
        failed.len()
    );
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(requests > 100);
}

/// Orders and looks, each request once. How many requests, and which failed.
async fn shop(api: Api, name: String, stop: CancellationToken) -> (usize, Vec<String>) {
    let (mut count, mut failed) = (0, Vec::new());
    let mut note = |wanted: u16, answer: reqwest::Result<Answer>| match answer {
        Ok(answer) if answer.status == wanted => {}
        other => failed.push(format!("{other:?}")),
    };
    while !stop.is_cancelled() {
        let key = format!("rolling-{name}-{count}");
        let body = json!({"lines": [{"sku": "CUP", "quantity": 1}], "note": key});
        note(201, api.try_post("/v1/orders", Some(&key), &body).await);
        note(200, api.try_get("/v1/orders?limit=3").await);
        count += 2;
    }
    (count, failed)
}
