//! A PostgreSQL server of its own, perhaps a network before it that can fail, and our server above.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use oms_core::OrderId;
use serde_json::json;
use tempfile::TempDir;

use crate::common::api::Api;
use crate::common::database::{Database, PASSWORD, People, open_shop, raw};
use crate::common::postgres::Postgres;
use crate::common::proxy::Proxy;
use crate::common::server::Server;
use crate::load::Told;

/// How long the service may take to be back after its database is.
pub(crate) const RECOVERY: Duration = Duration::from_secs(5);

pub(crate) struct Scene {
    // In this order: our server goes first.
    pub(crate) server: Server,
    pub(crate) network: Proxy,
    pub(crate) people: People,
    /// Past the network.
    pub(crate) database: Database,
    pub(crate) postgres: Postgres,
    folder: TempDir,
}

impl Scene {
    pub(crate) async fn open() -> Self {
        // Sessions that fall silent stay open at the server for as long as the test runs: several pools full of them.
        let postgres = Postgres::start("-c max_connections=200");
        let database = Database::new(postgres.url());
        let people = open_shop(&database).await;
        let target = SocketAddr::from(([127, 0, 0, 1], postgres.port));
        let network = Proxy::start(vec![target]).await;
        let folder = tempfile::tempdir().unwrap();
        let url = format!("postgres://postgres@{}/postgres", network.address);
        let mut server = Server::new(folder.path(), &url);
        server.start().await;
        Self {
            server,
            network,
            people,
            database,
            postgres,
            folder,
        }
    }

    /// Each key made the one order that its client was told of, the worker works, and the books are right.
    pub(crate) async fn check(&self, told: &Told) {
        let sql = "SELECT note, id FROM oms_order";
        let rows: Vec<(String, OrderId)> =
            raw!(self.database, |conn| sqlx::query_as(sql).fetch_all(conn).await).unwrap();
        let count = rows.len();
        let stored: std::collections::BTreeMap<String, String> =
            rows.into_iter().map(|(key, id)| (key, id.to_string())).collect();
        assert_eq!(count, stored.len(), "a key made two orders");
        assert_eq!(stored, told.orders, "what is stored, and what was acknowledged");
        self.worker_works().await;
        let verified = self.server.run(&["verify"]);
        let text = String::from_utf8_lossy(&verified.stdout);
        assert_eq!(
            text,
            "no violation found\n",
            "{}",
            String::from_utf8_lossy(&verified.stderr)
        );
        println!("{told}; lost 0, doubled 0");
    }

    /// A mail is sent by a job: it comes within the time of a recovery.
    async fn worker_works(&self) {
        let since = Instant::now();
        let body = json!({"username": "late", "email": "late@example.com", "password": PASSWORD});
        let api = Api::anonymous(&self.server.url);
        api.post("/v1/users", None, &body).await.expect(201);
        while !has_mail(&self.folder.path().join("mail"), "-verify-late@example.com.eml") {
            assert!(
                since.elapsed() < RECOVERY,
                "the worker has not sent a mail in {RECOVERY:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn has_mail(folder: &Path, ending: &str) -> bool {
    let mails = std::fs::read_dir(folder).into_iter().flatten().flatten();
    mails
        .map(|mail| mail.file_name().to_string_lossy().into_owned())
        .any(|name| name.ends_with(ending))
}
