//! What several processes do together through Redis, and each by itself without it.

use std::time::Duration;

use oms_core::{Clock, SystemClock};
use reqwest::StatusCode;

use crate::common::each_db::{on_postgres, on_sqlite};
use crate::common::redis_server::RedisServer;
use crate::process::{Process, Shop, refused};

const QUOTA: usize = 20;

/// How many of so many requests each of the servers answers.
async fn answered(servers: &[&Process], requests: usize) -> usize {
    let mut answered = 0;
    for _ in 0..requests {
        for server in servers {
            let answer = server.get("/v1/products").await;
            if answer.status() == StatusCode::OK {
                answered += 1;
            } else {
                refused(answer).await;
            }
        }
    }
    answered
}

/// They have one budget, each time that Redis was emptied. On a machine that is very busy Redis may be slow enough to be
/// left out in between: then it is tried again.
async fn together(redis: &RedisServer, servers: &[&Process]) {
    for _ in 0..10 {
        for server in servers {
            server.until_redis_is("ok").await;
        }
        redis.flush();
        let before = left_out(servers);
        let answered = answered(servers, QUOTA).await + answered(servers, 3).await;
        if left_out(servers) == before {
            assert_eq!(answered, QUOTA);
            return;
        }
    }
    panic!("Redis was always too slow to be used");
}

/// Each has a budget of its own: neither is open for all, nor blocked for all.
async fn alone(redis: &mut RedisServer, servers: &[&Process]) {
    let before = left_out(servers);
    redis.kill();
    let (answered, budgets) = (answered(servers, QUOTA + 5).await, servers.len() * QUOTA);
    match before {
        0 => assert_eq!(answered, budgets),
        // A part was used up while Redis was too slow.
        _ => assert!((1..=budgets).contains(&answered), "{answered}"),
    }
}

/// How often they did without Redis.
fn left_out(servers: &[&Process]) -> usize {
    let told = servers
        .iter()
        .map(|server| server.log_of("Redis cannot be used").len());
    told.sum()
}

fn shop(database_url: &str, redis: &RedisServer) -> Shop {
    Shop {
        database_url: database_url.to_owned(),
        redis_url: redis.url(),
        variables: vec![
            ("OMS_RATE_LIMIT_CLIENT", "20/1h"),
            ("OMS_RATE_LIMIT_SIGN_IN", "off"),
        ],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_one_budget_and_have_one_each_without_redis() {
    on_postgres(async |_, url| {
        let mut redis = RedisServer::new();
        redis.start();
        let shop = shop(url, &redis);
        let (a, b) = (shop.serve(&[]).await, shop.serve(&[]).await);
        together(&redis, &[&a, &b]).await;
        // Probes are never refused.
        assert_eq!(a.get("/livez").await.status(), StatusCode::OK);
        for (key, left) in redis.keys() {
            assert!(key.starts_with("oms:") && left > 0, "{key} stays for {left} ms");
        }

        alone(&mut redis, &[&a, &b]).await;
        redis.start();
        together(&redis, &[&a, &b]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_counts_in_redis_too() {
    on_sqlite(async |_, url| {
        let mut redis = RedisServer::new();
        redis.start();
        let shop = shop(url, &redis);
        let server = shop.serve(&[]).await;
        together(&redis, &[&server]).await;
        alone(&mut redis, &[&server]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_costs_the_time_of_one_answer() {
    on_sqlite(async |_, url| {
        let mut redis = RedisServer::new();
        redis.start();
        let mut shop = shop(url, &redis);
        shop.variables = vec![("OMS_RATE_LIMIT_CLIENT", "1000000/1s")];
        let server = shop.serve(&[]).await;
        server.until_redis_is("ok").await;
        redis.freeze();
        let (since, requests) = (std::time::Instant::now(), 100);
        assert_eq!(answered(&[&server], requests).await, requests);
        let took = since.elapsed();
        println!("{requests} requests took {took:?} with a frozen Redis");
        // 50 ms each would be more.
        assert!(took < Duration::from_millis(4_500), "{took:?}");
        assert_eq!(server.redis().await, "degraded");
        redis.thaw();
        server.until_redis_is("ok").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_one_process_is_picked_up_by_another_at_once() {
    const ROUNDS: usize = 15;
    on_postgres(async |_, url| {
        let mut redis = RedisServer::new();
        redis.start();
        let shop = shop(url, &redis);
        let server = shop.serve(&["--no-worker"]).await;
        let worker = shop.worker();
        server.until_redis_is("ok").await;
        // The first one waits for the worker's start.
        pick_up(&server, &worker, "first").await;
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            times.push(pick_up(&server, &worker, &format!("user-{round}")).await);
        }
        times.sort();
        println!("picked up after {times:?}");
        // By itself a worker looks every 0.5 to 1.5 s, so that more than every second job would be later.
        let late = times
            .iter()
            .filter(|time| **time > Duration::from_millis(450))
            .count();
        assert!(late <= 5, "{late} of {ROUNDS} jobs were late: {times:?}");
    })
    .await;
}

/// Registers somebody at one process; how long until the mail lay in the folder of the other.
async fn pick_up(server: &Process, worker: &Process, name: &str) -> Duration {
    server.register(name).await;
    let committed = SystemClock.now();
    for _ in 0..6_000 {
        if let Some(time) = worker.mailed(name, committed) {
            return time;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{name} got no mail");
}
