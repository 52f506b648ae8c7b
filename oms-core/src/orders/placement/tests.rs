//! What must not end the placing of orders: a panic in the middle of a batch, and a full disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use sqlx::AssertSqlSafe;
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Dispatch, Event, Metadata, Subscriber, span};

use crate::actor::Actor;
use crate::catalog::{NewBusiness, NewProduct, NewVariant};
use crate::db::run;
use crate::error::{Error, ErrorKind, Result};
use crate::fresh::with_postgres;
use crate::inventory::Adjust;
use crate::oms::Oms;
use crate::orders::{NewLine, Order, OrderFilter, PlaceOrder};
use crate::page::PageRequest;
use crate::users::Register;
use crate::{Money, SessionId, UserId};

struct Shop {
    oms: Oms,
    customer: Actor,
}

impl Shop {
    async fn open(url: &str) -> Self {
        let oms = Oms::builder(url).connect().await.unwrap();
        oms.migrate().await.unwrap();
        let command = Register {
            username: "keeper".into(),
            email: "keeper@example.com".into(),
            password: "long enough 2026".into(),
        };
        let user = oms.users().create_admin(&Actor::System, command).await.unwrap();
        let shop = Self {
            oms,
            customer: user.actor(),
        };
        shop.stock().await;
        shop
    }

    async fn stock(&self) {
        let (catalog, seller) = (self.oms.catalog(), &self.customer);
        let business = NewBusiness {
            name: "Shop".into(),
            ..NewBusiness::default()
        };
        let business = catalog.create_business(seller, business).await.unwrap();
        let product = NewProduct {
            business: business.id,
            name: "Mug".into(),
            category: None,
            description: None,
            variants: vec![NewVariant {
                sku: "MUG".into(),
                name: None,
                price: Money::new(1299, "EUR".parse().unwrap()).unwrap(),
            }],
            images: Vec::new(),
        };
        catalog.create_product(seller, product).await.unwrap();
        let delivery = Adjust {
            sku: "MUG".into(),
            delta: 10_000,
            reason: "delivery".into(),
            idempotency_key: "delivery".parse().unwrap(),
        };
        self.oms.inventory().adjust(seller, delivery).await.unwrap();
    }

    async fn place(&self, key: &str) -> Result<Order> {
        let command = PlaceOrder {
            idempotency_key: key.parse().unwrap(),
            lines: vec![NewLine {
                sku: "MUG".into(),
                quantity: 1,
            }],
            shipping_address: None,
            // So that a few orders need a page.
            note: Some("note ".repeat(90)),
        };
        let placed = self.oms.orders().place(&self.customer, command).await?;
        Ok(placed.value)
    }

    /// So many orders at the same moment, which are one batch.
    async fn place_together(&self, orders: usize, keys: &str) -> Vec<Result<Order>> {
        // As many came before, so that the first one does not go by itself.
        let direct = self.oms.inner.placement.direct.as_ref().unwrap();
        *direct.floor.lock().await = orders;
        let keys: Vec<String> = (0..orders).map(|n| format!("{keys}-{n}")).collect();
        join_all(keys.iter().map(|key| self.place(key))).await
    }

    /// There are so many orders, and the books are right.
    async fn close(self, orders: usize) {
        let mut tx = self.oms.db().read().await.unwrap();
        let stored: i64 = run!(&mut tx, |conn| {
            sqlx::query_scalar("SELECT count(*) FROM oms_order")
                .fetch_one(conn)
                .await
        })
        .unwrap();
        tx.rollback().await.unwrap();
        assert_eq!(usize::try_from(stored).unwrap(), orders);
        let violations = self.oms.verify(&Actor::System).await.unwrap();
        assert_eq!(violations, Vec::<String>::new());
        let (filter, page) = (OrderFilter::default(), PageRequest::default());
        let listed = self.oms.orders().list(&self.customer, &filter, &page).await;
        assert!(!listed.unwrap().data.is_empty());
        self.oms.shutdown().await;
    }
}

/// Lets the code beneath it panic where it opens a span of some name: in the middle of what it does.
#[derive(Clone, Default)]
struct Panics {
    armed: Arc<Mutex<Option<(&'static str, usize)>>>,
    spans: Arc<AtomicU64>,
}

impl Panics {
    /// For all tasks, as long as they run on this thread.
    fn install(&self) -> (Dispatch, DefaultGuard) {
        // While there is but one, a span that another test meets first counts as wanted by nobody.
        (Dispatch::new(self.clone()), set_default(self.clone()))
    }

    /// The span of this name that comes after so many others is the one.
    fn arm(&self, name: &'static str, after: usize) {
        *self.armed.lock().unwrap() = Some((name, after));
    }

    /// Whether it came.
    fn struck(&self) -> bool {
        self.armed.lock().unwrap().take().is_none()
    }
}

impl Subscriber for Panics {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        let mut armed = self.armed.lock().unwrap();
        if let Some((name, after)) = *armed
            && span.metadata().name() == name
        {
            *armed = after.checked_sub(1).map(|after| (name, after));
            if armed.is_none() {
                drop(armed);
                panic!("injected");
            }
        }
        span::Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The same story on both databases.
async fn each_db(story: impl AsyncFn(Shop)) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("oms.db").display());
    story(Shop::open(&url).await).await;
    with_postgres(async |url| story(Shop::open(url).await).await).await;
}

#[tokio::test]
async fn a_panic_anywhere_in_a_batch_is_one_error_and_nothing_more() {
    each_db(async |shop| {
        let panics = Panics::default();
        let _installed = panics.install();
        let mut orders = 0;
        for place in ["begin", "sql", "commit"] {
            for after in 0.. {
                let key = format!("{place}-{after}");
                panics.arm(place, after);
                let answer = shop.place(&key).await;
                let struck = panics.struck();
                orders += 1;
                if !struck {
                    answer.unwrap();
                    assert!(after > 0, "there is no {place}");
                    println!("{after} places to panic at in {place}");
                    break;
                }
                assert_eq!(answer.unwrap_err().kind(), ErrorKind::Internal);
                // Nothing of it was kept, and the same key may try again.
                shop.place(&key).await.unwrap();
            }
        }
        shop.close(orders).await;
    })
    .await;
}

#[tokio::test]
async fn a_panic_fails_no_neighbour() {
    each_db(async |shop| {
        let panics = Panics::default();
        let _installed = panics.install();
        panics.arm("sql", 2);
        let answers = shop.place_together(8, "neighbour").await;
        assert!(panics.struck());
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        assert_eq!(failed, 0, "{answers:?}");
        shop.close(8).await;
    })
    .await;
}

/// Before a batch has begun, where no order can be blamed; and where it is asked who somebody is.
#[tokio::test]
async fn a_panic_between_batches_ends_no_task() {
    each_db(async |shop| {
        let panics = Panics::default();
        let _installed = panics.install();
        for round in 0..3 {
            let key = format!("round-{round}");
            panics.arm("batch", 0);
            let error = shop.place(&key).await.unwrap_err();
            assert!(panics.struck() && error.is_retryable(), "{error}");
            shop.place(&key).await.unwrap();

            let nobody = (SessionId::new(shop.oms.now()), UserId::new(shop.oms.now()));
            for span in ["sql", "batch"] {
                panics.arm(span, 0);
                let asked = shop.oms.users().authenticate(nobody.0, nobody.1).await;
                assert!(
                    panics.struck() && matches!(asked, Err(Error::Overloaded { .. })),
                    "{asked:?}"
                );
                let asked = shop.oms.users().authenticate(nobody.0, nobody.1).await;
                assert!(matches!(asked, Err(Error::Unauthorized)), "{asked:?}");
            }
        }
        shop.close(3).await;
    })
    .await;
}

/// SQLite says so in the middle of any statement, and may end the transaction by itself.
#[tokio::test]
async fn a_full_disk_keeps_nothing_of_a_batch_and_passes() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("oms.db").display());
    let shop = Shop::open(&url).await;
    let mut kept = 0;
    // A batch of one row a statement is ended otherwise than one of many.
    for size in [1, 24] {
        let (mut placed, mut full) = (0, 0);
        for room in 0..20 {
            let used = pages(&shop.oms, "page_count").await;
            pages_at_most(&shop.oms, used + room).await;
            for batch in 0.. {
                let answers = shop.place_together(size, &format!("{size}-{room}-{batch}")).await;
                let refused: Vec<&Error> = answers.iter().filter_map(|a| a.as_ref().err()).collect();
                if refused.is_empty() {
                    placed += size;
                    continue;
                }
                // They were one batch.
                assert_eq!(refused.len(), size);
                assert!(
                    refused.iter().all(|e| matches!(e, Error::Overloaded { .. })),
                    "{refused:?}"
                );
                full += 1;
                break;
            }
            // There is space again, and the same handle goes on.
            pages_at_most(&shop.oms, 1_000_000).await;
            shop.place(&format!("after-{size}-{room}")).await.unwrap();
            kept += 1;
        }
        println!("in batches of {size}: {full} full disks, {placed} orders placed before");
        kept += placed;
    }
    shop.close(kept).await;
}

async fn pages(oms: &Oms, pragma: &str) -> i64 {
    let mut tx = oms.db().write().await.unwrap();
    let sql = AssertSqlSafe(format!("PRAGMA {pragma}"));
    let pages = run!(&mut tx, |conn| sqlx::query_scalar(sql).fetch_one(conn).await).unwrap();
    tx.commit().await.unwrap();
    pages
}

/// A real limit of the database's own, of the connection that writes.
async fn pages_at_most(oms: &Oms, limit: i64) {
    assert_eq!(pages(oms, &format!("max_page_count = {limit}")).await, limit);
}
