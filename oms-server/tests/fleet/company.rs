//! The fleet: its processes, its balancer and its shop.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::common::api::Api;
use crate::common::database::{Database, PASSWORD, People, open_shop};
use crate::common::proxy::Balancer;
use crate::common::redis_server::RedisServer;
use crate::common::server::{Server, plugin_dir};
use crate::jobs;

/// For what should take a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often somebody may log in under one name, wherever.
pub(crate) const GUESSES: usize = 20;

pub(crate) const SECRET: &str = "a secret that all replicas share, 2026";

pub(crate) struct Fleet {
    /// The first one works, too; the others leave jobs to the workers.
    pub(crate) replicas: Vec<Server>,
    pub(crate) workers: Vec<Server>,
    pub(crate) balancer: Balancer,
    pub(crate) redis: RedisServer,
    pub(crate) people: People,
    pub(crate) database: Database,
    _bank: Server,
    folder: TempDir,
}

impl Fleet {
    pub(crate) async fn start(database_url: String) -> Self {
        let database = Database::new(database_url);
        let people = open_shop(&database).await;
        jobs::watch(&database).await;
        let mut redis = RedisServer::new();
        redis.start();
        let folder = tempfile::tempdir().unwrap();
        let bank = open_bank(&subfolder(&folder, "bank")).await;
        let accounts = folder.path().join("accounts.toml");
        fs::write(&accounts, accounts_file(&bank.url, &folder.path().join("bank"))).unwrap();
        copy_plugins(&plugin_dir(), &folder.path().join("plugins"));

        let mut all: Vec<Server> = (0..5)
            .map(|n| Server::new(&subfolder(&folder, &format!("process-{n}")), &database.url))
            .collect();
        let balancer = Balancer::start(all[..3].iter().map(Server::address).collect()).await;
        let public_url = format!("http://{}", balancer.proxy.address);
        all = all
            .into_iter()
            .map(|server| {
                server
                    .with("SECRET_KEY", SECRET)
                    .with("OMS_ACCOUNTS", accounts.to_str().unwrap())
                    .with("OMS_PUBLIC_URL", &public_url)
                    .with("OMS_DRAIN_SECONDS", "1")
                    .with("REDIS_URL", redis.url())
                    .with("OMS_RATE_LIMIT_SIGN_IN_NAME", format!("{GUESSES}/1h"))
                    .with("OMS_RATE_LIMIT_SIGN_IN", "off")
                    .with_plugins(&folder.path().join("plugins"))
            })
            .collect();
        let workers = all.split_off(3);
        let mut fleet = Self {
            replicas: all,
            workers,
            balancer,
            redis,
            people,
            database,
            _bank: bank,
            folder,
        };
        for index in 0..3 {
            fleet.spawn_replica(index);
        }
        for worker in &mut fleet.workers {
            worker.spawn(&["worker"]);
        }
        fleet.ready().await;
        fleet
    }

    pub(crate) fn spawn_replica(&mut self, index: usize) {
        let args: &[&str] = if index == 0 {
            &["serve"]
        } else {
            &["serve", "--no-worker"]
        };
        self.replicas[index].spawn(args);
    }

    /// Waits until all replicas are, and the balancer knows.
    pub(crate) async fn ready(&mut self) {
        for replica in &mut self.replicas {
            replica.ready().await;
        }
        let since = std::time::Instant::now();
        while self.balancer.ready() < self.replicas.len() {
            assert!(
                since.elapsed() < PATIENCE,
                "the balancer does not see all replicas"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every replica says so of Redis.
    pub(crate) async fn until_redis_is(&self, state: &str) {
        let since = std::time::Instant::now();
        for replica in &self.replicas {
            let line = format!("redis: {state}");
            loop {
                let answer = replica.request(Method::GET, "/readyz").send().await.unwrap();
                if answer.text().await.unwrap().lines().any(|told| told == line) {
                    break;
                }
                assert!(since.elapsed() < PATIENCE, "Redis did not become {state}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Where customers go.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.balancer.proxy.address)
    }

    /// A customer who talks to one replica only.
    pub(crate) async fn customer(&self, replica: usize, number: usize) -> Api {
        Api::log_in(
            &self.replicas[replica].url,
            &self.people.customers[number],
            PASSWORD,
        )
        .await
    }

    pub(crate) fn plugins(&self) -> PathBuf {
        self.folder.path().join("plugins")
    }

    pub(crate) fn verify(&self) {
        let output = self.replicas[0].run(&["verify"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            text,
            "no violation found\n",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

async fn open_bank(folder: &Path) -> Server {
    let mut bank = Server::new(folder, "sqlite:unused");
    bank.spawn(&["mock-gateway"]);
    let since = std::time::Instant::now();
    while TcpStream::connect(bank.address()).await.is_err() {
        assert!(since.elapsed() < PATIENCE, "the bank does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bank
}

/// What the shop and the bank share was made by the bank when it started.
fn accounts_file(bank: &str, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "[mock]\nplugin = \"mock\"\nprivate_grants = [\"{bank}\"]\nconfig = {{ base-url = \"{bank}\" }}\n\
         secrets = {{ api-key = \"file:{folder}/mock-api.key\", webhook-secret = \"file:{folder}/mock-webhook.key\" }}\n"
    )
}

pub(crate) fn subfolder(folder: &TempDir, name: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::create_dir(&path).unwrap();
    path
}

/// A folder of the fleet's own, so that a story may change it.
fn copy_plugins(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_plugins(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}
