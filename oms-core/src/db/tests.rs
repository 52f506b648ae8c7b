//! The pool against a real server, and against one that has gone silent.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::pool::{PgTx, Pool};

#[expect(
    clippy::disallowed_methods,
    reason = "the test command says here where its server is"
)]
fn options() -> PgConnectOptions {
    let url = std::env::var("OMS_TEST_POSTGRES_URL")
        .expect("set OMS_TEST_POSTGRES_URL, or run `cargo xtask test`, which does");
    url.parse().unwrap()
}

async fn session(tx: &mut PgTx) -> i32 {
    let sql = "SELECT pg_backend_pid()";
    limited!(tx, |conn| sqlx::query_scalar(sql).fetch_one(conn).await).unwrap()
}

/// When the transaction began.
async fn since(tx: &mut PgTx) -> i64 {
    let sql = "SELECT (extract(epoch FROM now()) * 1000000)::bigint";
    limited!(tx, |conn| sqlx::query_scalar(sql).fetch_one(conn).await).unwrap()
}

async fn execute(tx: &mut PgTx, sql: &'static str) -> sqlx::Result<()> {
    limited!(tx, |conn| sqlx::query(sql).execute(conn).await.map(drop))
}

/// Rolling back what was dropped takes a moment.
async fn settled(pool: &Pool, idle: usize) {
    let all_back = async {
        while pool.num_idle() != idle || pool.size() as usize != idle {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), all_back)
        .await
        .unwrap_or_else(|_| panic!("{pool:?} and not {idle} idle"));
}

#[tokio::test]
async fn a_connection_is_used_again_however_its_transaction_ends() {
    let pool = Pool::open(options(), 4).await.unwrap();
    let mut tx = pool.begin("BEGIN").await.unwrap();
    let first = session(&mut tx).await;
    tx.commit().await.unwrap();

    let mut tx = pool.begin("BEGIN").await.unwrap();
    execute(&mut tx, "CREATE TABLE dropped (id int)").await.unwrap();
    drop(tx);
    settled(&pool, 1).await;
    let mut tx = pool.begin("BEGIN").await.unwrap();
    let kept = execute(&mut tx, "SELECT * FROM dropped").await;
    assert!(kept.is_err(), "a dropped transaction was kept");
    tx.rollback().await;
    let mut tx = pool.begin("BEGIN").await.unwrap();
    assert_eq!(session(&mut tx).await, first);
    tx.commit().await.unwrap();
    assert_eq!((pool.size(), pool.num_idle()), (1, 1));
}

/// Statements that only look stand by themselves, and a session that was killed fails one of them and no more.
#[tokio::test]
async fn looking_begins_nothing_and_survives_killed_sessions() {
    let pool = Pool::open(options(), 4).await.unwrap();
    let mut look = pool.look().await.unwrap();
    let starts = (since(&mut look).await, since(&mut look).await);
    assert!(starts.0 < starts.1, "both were in one transaction: {starts:?}");
    assert!(execute(&mut look, "SELECT 1 / 0").await.is_err());
    let first = session(&mut look).await;
    drop(look);
    assert_eq!((pool.size(), pool.num_idle()), (1, 1));

    let (mut one, mut other) = (pool.look().await.unwrap(), pool.look().await.unwrap());
    assert_eq!(session(&mut one).await, first);
    assert_ne!(session(&mut other).await, first);
    let sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ANY($1)";
    let pids = [session(&mut one).await, session(&mut other).await];
    one.rollback().await;
    other.rollback().await;
    let mut killer = PgConnection::connect_with(&options()).await.unwrap();
    sqlx::query(sessions)
        .bind(pids)
        .execute(&mut killer)
        .await
        .unwrap();
    sleep(Duration::from_millis(20)).await;
    let mut broken = pool.look().await.unwrap();
    if execute(&mut broken, "SELECT 1").await.is_err() {
        drop(broken);
        assert_eq!((pool.size(), pool.num_idle()), (0, 0));
    }
    let mut look = pool.look().await.unwrap();
    execute(&mut look, "SELECT 1").await.unwrap();
}

/// Its answer is still to come: the next user would take it for its own.
#[tokio::test]
async fn a_statement_that_is_cut_off_ends_its_connection() {
    let pool = Pool::open(options(), 4).await.unwrap();
    let mut tx = pool.begin("BEGIN").await.unwrap();
    let first = session(&mut tx).await;
    let asleep = execute(&mut tx, "SELECT pg_sleep(9)");
    assert!(timeout(Duration::from_millis(50), asleep).await.is_err());
    drop(tx);
    assert_eq!((pool.size(), pool.num_idle()), (0, 0));
    let mut tx = pool.begin("BEGIN").await.unwrap();
    assert_ne!(session(&mut tx).await, first);
}

#[tokio::test]
async fn the_queue_ends() {
    let pool = Pool::open(options(), 1).await.unwrap();
    let held = pool.begin("BEGIN").await.unwrap();
    let since = Instant::now();
    let mut waiting = JoinSet::new();
    for _ in 0..40 {
        let pool = pool.clone();
        waiting.spawn(async move {
            let refused = pool.begin("BEGIN").await.map(drop).unwrap_err();
            assert!(matches!(refused, sqlx::Error::PoolTimedOut), "{refused:?}");
            since.elapsed()
        });
    }
    let times = waiting.join_all().await;
    let at_once = times
        .iter()
        .filter(|time| **time < Duration::from_secs(1))
        .count();
    assert_eq!(at_once, 40 - 16);
    assert!(
        times.iter().all(|time| *time < Duration::from_secs(4)),
        "{times:?}"
    );
    held.commit().await.unwrap();
    pool.begin("BEGIN").await.unwrap().commit().await.unwrap();

    pool.close().await;
    let closed = pool.begin("BEGIN").await.map(drop);
    assert!(matches!(closed, Err(sqlx::Error::PoolClosed)), "{closed:?}");
}

/// More connections die in silence than the pool may have, in use and idle: none is missed.
#[tokio::test]
async fn silent_connections_take_no_slot_with_them() {
    let network = Network::start(options()).await;
    let pool = Pool::open(options().host("127.0.0.1").port(network.port), 3)
        .await
        .unwrap();
    for round in 0..3 {
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(pool.begin("BEGIN").await.unwrap());
        }
        let idle = held.pop().unwrap();
        idle.commit().await.unwrap();
        network.silence();
        // Dropped, not ended: as an error does it.
        drop(held);
        let since = Instant::now();
        pool.begin("BEGIN").await.unwrap().commit().await.unwrap();
        println!("round {round}: begun {:?} after the silence", since.elapsed());
        settled(&pool, 1).await;
    }
}

/// Forwards to the server. What is open when it is silenced stays open, and nothing passes any more.
struct Network {
    port: u16,
    silences: Arc<watch::Sender<u32>>,
}

impl Network {
    async fn start(options: PgConnectOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let silences = Arc::new(watch::Sender::new(0));
        let network = Self {
            port,
            silences: Arc::clone(&silences),
        };
        let server = (options.get_host().to_owned(), options.get_port());
        tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let mut silence = silences.subscribe();
                let mut server = TcpStream::connect(server.clone()).await.unwrap();
                open.spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = silence.changed() => std::future::pending().await,
                    }
                });
            }
        });
        network
    }

    fn silence(&self) {
        self.silences.send_modify(|count| *count += 1);
    }
}
