//! A program that embeds the library is to end, and its database does not answer any more.

use std::time::{Duration, Instant};

use oms_core::orders::{NewLine, PlaceOrder};
use oms_core::{Actor, Error, Oms};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::TURN;
use crate::common::database::{Database, open_shop};
use crate::common::fresh::with_postgres;
use crate::common::proxy::Proxy;

/// More than the queue for batches holds.
const ORDERS: usize = 6_000;

/// What the documentation of `Oms::shutdown` promises.
const PROMISED: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn shutting_down_ends_though_the_database_is_silent_and_the_queue_full() {
    let _turn = TURN.lock().await;
    with_postgres(async |url| {
        let people = open_shop(&Database::new(url.to_owned())).await;
        let (network, behind) = Proxy::before(url).await;
        let oms = Oms::builder(behind).connect().await.unwrap();
        let customer = oms
            .users()
            .find(&Actor::System, &people.customers[0])
            .await
            .unwrap();
        place(&oms, &customer.actor(), "before").await.unwrap();
        let working = tokio::spawn({
            let worker = oms.worker();
            async move { worker.run(tokio_util::sync::CancellationToken::new()).await }
        });
        sleep(Duration::from_millis(200)).await;

        network.go_dark(true);
        let mut callers = JoinSet::new();
        for number in 0..ORDERS {
            let (oms, actor) = (oms.clone(), customer.actor());
            callers.spawn(async move { place(&oms, &actor, &format!("dark-{number}")).await });
        }
        // Each batch takes some out again.
        while oms.placement_queue().waiting < oms.placement_queue().capacity * 3 / 4 {
            sleep(Duration::from_millis(5)).await;
        }
        let asked = Instant::now();
        oms.shutdown().await;
        let took = asked.elapsed();
        let answers = callers.join_all().await;
        let later = answers
            .iter()
            .filter(|answer| matches!(answer, Err(Error::Overloaded { .. })));
        assert_eq!(later.count(), ORDERS);
        println!("{ORDERS} orders waited for a silent database: shut down after {took:?}");
        assert!(took < PROMISED, "{took:?}");
        // The worker was told, too; that it could not give its jobs back is no secret.
        println!("the worker ended: {:?}", working.await.unwrap());
    })
    .await;
}

async fn place(oms: &Oms, actor: &Actor, key: &str) -> Result<(), Error> {
    let command = PlaceOrder {
        idempotency_key: key.parse().unwrap(),
        lines: vec![NewLine {
            sku: "MUG".into(),
            quantity: 1,
        }],
        shipping_address: None,
        note: None,
    };
    oms.orders().place(actor, command).await.map(drop)
}
