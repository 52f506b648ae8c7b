//! Everything that can happen to Redis, one after the other, while requests stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use oms_core::{Clock, SystemClock, Timestamp};
use reqwest::StatusCode;
use tokio::task::JoinHandle;

use crate::common::each_db::{on_postgres, on_sqlite};
use crate::common::redis_server::RedisServer;
use crate::process::{Process, Shop};

/// How long each fault lasts.
const FAULT: Duration = Duration::from_secs(3);
/// The longest time between two looks of an idle worker, and as much again for a busy machine.
const LATEST: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_nothing_fails_because_of_redis() {
    on_sqlite(async |_, url| play(url, false).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_nothing_fails_because_of_redis() {
    on_postgres(async |_, url| play(url, true).await).await;
}

async fn play(database_url: &str, with_worker: bool) {
    let mut redis = RedisServer::new();
    let shop = Shop {
        database_url: database_url.to_owned(),
        redis_url: redis.url(),
        // Counted, and never used up: here every refusal is a failure.
        variables: vec![
            ("OMS_RATE_LIMIT_CLIENT", "1000000/1s"),
            ("OMS_RATE_LIMIT_SIGN_IN", "1000000/1s"),
        ],
    };
    // It need not be there when the others start.
    let (server, other) = match with_worker {
        false => (Arc::new(shop.serve(&[]).await), None),
        true => (
            Arc::new(shop.serve(&["--no-worker"]).await),
            Some(Arc::new(shop.worker())),
        ),
    };
    let worker = other.unwrap_or_else(|| Arc::clone(&server));
    assert_eq!(server.redis().await, "degraded");
    let stream = Stream::begin(&server, &worker);
    tokio::time::sleep(Duration::from_secs(1)).await;

    redis.start();
    let back = server.until_redis_is("ok").await;
    println!("started: noticed after {back:?}");
    redis.kill();
    degraded("killed", &server).await;
    redis.start();
    back_again("started again", &server).await;
    redis.flush();
    back_again("emptied", &server).await;
    redis.freeze();
    degraded("frozen", &server).await;
    redis.thaw();
    back_again("thawed", &server).await;
    redis.fill();
    degraded("full", &server).await;
    redis.make_room();
    back_again("room made", &server).await;

    stream.end().await;
    for line in server.log_of("Redis") {
        println!("{line}");
    }
}

async fn degraded(what: &str, server: &Process) {
    let noticed = server.until_redis_is("degraded").await;
    println!("{what}: noticed after {noticed:?}");
    tokio::time::sleep(FAULT).await;
    assert_eq!(server.redis().await, "degraded");
}

async fn back_again(what: &str, server: &Process) {
    let noticed = server.until_redis_is("ok").await;
    println!("{what}: noticed after {noticed:?}");
    assert!(noticed < Duration::from_secs(15), "{what}: {noticed:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Clients who read, and one who makes jobs.
struct Stream {
    stop: Arc<AtomicBool>,
    readers: Vec<JoinHandle<Vec<Duration>>>,
    writer: JoinHandle<Vec<Duration>>,
}

impl Stream {
    fn begin(server: &Arc<Process>, worker: &Arc<Process>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let readers = (0..4).map(|_| tokio::spawn(read(Arc::clone(server), Arc::clone(&stop))));
        let writing = write(Arc::clone(server), Arc::clone(worker), Arc::clone(&stop));
        Self {
            readers: readers.collect(),
            writer: tokio::spawn(writing),
            stop,
        }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        let mut reads = Vec::new();
        for reader in self.readers {
            reads.extend(reader.await.unwrap());
        }
        print("reads", reads.clone());
        let jobs = self.writer.await.unwrap();
        print("jobs until done", jobs.clone());
        assert!(
            reads.len() > 500 && jobs.len() > 10,
            "{} {}",
            reads.len(),
            jobs.len()
        );
        let latest = jobs.into_iter().max().unwrap();
        assert!(latest < LATEST, "{latest:?}");
    }
}

async fn read(server: Arc<Process>, stop: Arc<AtomicBool>) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let since = Instant::now();
        let answer = server.get("/v1/products").await;
        times.push(since.elapsed());
        assert_eq!(
            answer.status(),
            StatusCode::OK,
            "{}",
            answer.text().await.unwrap()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    times
}

/// How long each job waited until it was done.
async fn write(server: Arc<Process>, worker: Arc<Process>, stop: Arc<AtomicBool>) -> Vec<Duration> {
    let mut sent = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let name = format!("user-{}", sent.len());
        server.register(&name).await;
        sent.push((name, SystemClock.now()));
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    tokio::time::sleep(LATEST).await;
    let waited = |(name, committed): (String, Timestamp)| {
        let time = worker.mailed(&name, committed);
        time.unwrap_or_else(|| panic!("{name} got no mail"))
    };
    sent.into_iter().map(waited).collect()
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!(
        "{} {what}: p50 {:?}, p99 {:?}, longest {:?}",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
