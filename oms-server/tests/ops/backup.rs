//! A backup is of one moment, whatever is written meanwhile.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oms_core::Actor;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::common::fresh::with_postgres;
use crate::common::server::Server;
use crate::program::{fails, json, ok, run, sqlite, sqlite_url, text};
use crate::shop::{PASSWORD, Shop};

const CLIENTS: usize = 4;

/// Ids of orders that were acknowledged.
type Told = Arc<Mutex<BTreeSet<String>>>;

#[tokio::test(flavor = "multi_thread")]
async fn backups_under_load_hold_every_order_that_was_acknowledged_before() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite_url(folder.path());
    let shop = Shop::make(&url).await;
    shop.oms.shutdown().await;
    let mut server = Server::new(folder.path(), &url);
    server.start().await;

    let (told, stop) = (Told::default(), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| tokio::spawn(buy(server.url.clone(), n, told.clone(), stop.clone())))
        .collect();
    let mut taken = Vec::new();
    for n in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let file = folder.path().join(format!("backup-{n}.db"));
        let before = told.lock().unwrap().clone();
        let report = json(folder.path(), &["backup", file.to_str().unwrap(), "--json"]);
        assert!(report["bytes"].as_u64().unwrap() > 100_000, "{report}");
        let after = told.lock().unwrap().len();
        println!(
            "{} orders before the backup, {after} after it: {report}",
            before.len()
        );
        taken.push((file, before));
    }
    let verified = server.run(&["verify"]);
    assert!(verified.status.success(), "{}", text(&verified.stdout));
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert!(taken[0].1.len() < taken[2].1.len(), "no order came in between");
    // While the server runs its database cannot be replaced.
    let first = taken[0].0.to_str().unwrap();
    let said = fails(folder.path(), &["restore", first, "--force"], 1);
    assert!(said.contains("in use"), "{said}");
    server.kill();

    for (file, before) in taken {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let elsewhere = tempfile::tempdir().unwrap();
        ok(elsewhere.path(), &["restore", file.to_str().unwrap()]);
        assert_eq!(ok(elsewhere.path(), &["verify"]), "no violation found\n");
        let lost: Vec<_> = before
            .difference(&orders(elsewhere.path()).await)
            .cloned()
            .collect();
        assert!(lost.is_empty(), "{lost:?}");
        let restored = Shop::open(&sqlite_url(elsewhere.path())).await;
        restored.paid("after-the-restore").await;
        restored.oms.shutdown().await;
    }
    let left: Vec<_> = names(folder.path())
        .into_iter()
        .filter(|name| name.contains(".draft-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

async fn buy(url: String, client: usize, told: Told, stop: Arc<AtomicBool>) {
    let http = reqwest::Client::new();
    let credentials = json!({"identifier": "ann", "password": PASSWORD});
    let session: Value = http
        .post(format!("{url}/v1/sessions"))
        .json(&credentials)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let token = session["access_token"].as_str().unwrap();
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let request = http
            .post(format!("{url}/v1/orders"))
            .bearer_auth(token)
            .header("idempotency-key", format!("load-{client}-{n}"))
            .json(&json!({"lines": [{"sku": "MUG", "quantity": 1}]}));
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let order: Value = answer.json().await.unwrap();
        // The shop may sell out, which is an answer too.
        assert!(
            status == 201 || order["code"] == "out_of_stock",
            "{status} {order}"
        );
        if status == 201 {
            told.lock()
                .unwrap()
                .insert(order["id"].as_str().unwrap().to_owned());
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

async fn orders(folder: &Path) -> BTreeSet<String> {
    let mut db = sqlite(&folder.join("oms.db")).await;
    let ids: Vec<oms_core::OrderId> = sqlx::query_scalar("SELECT id FROM oms_order")
        .fetch_all(&mut db)
        .await
        .unwrap();
    ids.into_iter().map(|id| id.to_string()).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_overwritten_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let said = fails(folder.path(), &["backup", "none.db"], 1);
    assert!(said.contains("no database"), "{said}");
    ok(folder.path(), &["migrate"]);
    ok(folder.path(), &["backup", "first.db"]);
    let before = std::fs::read(folder.path().join("first.db")).unwrap();
    let said = fails(folder.path(), &["backup", "first.db"], 1);
    assert!(said.contains("--force"), "{said}");
    assert_eq!(std::fs::read(folder.path().join("first.db")).unwrap(), before);

    let admin = [
        "admin",
        "create",
        "--username",
        "root",
        "--email",
        "root@example.com",
    ];
    ok(folder.path(), &admin);
    let report = json(folder.path(), &["backup", "first.db", "--force", "--json"]);
    assert_eq!(report["users"], 1);
    // The database itself is never the target, whatever is asked.
    let said = fails(folder.path(), &["backup", "oms.db", "--force"], 1);
    assert!(said.contains("itself"), "{said}");
    fails(folder.path(), &["backup", "no-such-folder/x.db"], 1);
    assert_eq!(ok(folder.path(), &["verify"]), "no violation found\n");
    assert!(names(folder.path()).iter().all(|name| !name.contains(".draft-")));
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_go_with_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo_shop(folder.path()).await;
    assert!(demo > 5);
    let told = ok(folder.path(), &["backup", "without.db"]);
    assert!(told.contains(&format!("{demo} pictures are not in it")), "{told}");
    let with = ["backup", "with.db", "--media", "pictures", "--json", "--force"];
    assert_eq!(json(folder.path(), &with)["pictures_copied"], demo);
    assert_eq!(
        json(folder.path(), &with)["pictures_copied"],
        0,
        "they were there"
    );

    let elsewhere = tempfile::tempdir().unwrap();
    let (file, pictures) = (folder.path().join("with.db"), folder.path().join("pictures"));
    let (file, pictures) = (file.to_str().unwrap(), pictures.to_str().unwrap());
    let told = ok(elsewhere.path(), &["restore", file]);
    assert!(told.contains(&format!("{demo} pictures are missing")), "{told}");
    let restored = json(
        elsewhere.path(),
        &["restore", file, "--force", "--media", pictures, "--json"],
    );
    assert_eq!(restored["pictures_restored"], demo);
    assert_eq!(
        names(&elsewhere.path().join("media")).len(),
        usize::try_from(demo).unwrap()
    );

    // A picture that was changed is not brought back.
    let third = tempfile::tempdir().unwrap();
    let name = names(Path::new(pictures)).remove(0);
    std::fs::write(Path::new(pictures).join(&name), "no picture").unwrap();
    fails(third.path(), &["restore", file, "--media", pictures], 1);
    assert!(!third.path().join("oms.db").exists(), "status 1, and a database");

    // Where pictures cannot be looked for, the database is restored all the same.
    let fourth = tempfile::tempdir().unwrap();
    std::fs::write(fourth.path().join("media"), "no folder").unwrap();
    let told = json(fourth.path(), &["restore", file, "--json"]);
    assert_eq!(told["pictures_missing"], Value::Null);
    assert!(told["users"].as_i64().unwrap() > 0, "{told}");

    // A backup that lacks a picture is none.
    std::fs::write(folder.path().join("media").join(&name), "no picture").unwrap();
    fails(folder.path(), &["backup", "no.db", "--media", "others"], 1);
    assert!(!folder.path().join("no.db").exists());
    let bucket = crate::program::command(folder.path(), &["backup", "with.db", "--force"])
        .envs([("OMS_MEDIA_URL", "s3://shop/pictures"), ("AWS_REGION", "x")])
        .output();
    let told = text(&bucket.unwrap().stdout);
    assert!(told.contains("or copy s3://shop/pictures"), "{told}");
}

/// Root may restore, and the server opens what it finds.
#[tokio::test(flavor = "multi_thread")]
async fn what_root_restores_is_its_owners() {
    let folder = demo_folder().await;
    let (file, pictures) = (folder.path().join("with.db"), folder.path().join("pictures"));
    let elsewhere = tempfile::tempdir().unwrap();
    let is_root = std::fs::metadata(elsewhere.path()).unwrap().uid() == 0;
    let owner = match is_root {
        true => (12_345, 12_346),
        // Nobody else can give files away: they stay their own.
        false => {
            let own = std::fs::metadata(elsewhere.path()).unwrap();
            (own.uid(), own.gid())
        }
    };
    std::os::unix::fs::chown(elsewhere.path(), Some(owner.0), Some(owner.1)).unwrap();
    let args = [
        "restore",
        file.to_str().unwrap(),
        "--media",
        pictures.to_str().unwrap(),
    ];
    let owned = |path: &Path| {
        let is = std::fs::metadata(path).unwrap();
        assert_eq!((is.uid(), is.gid()), owner, "{}", path.display());
    };
    ok(elsewhere.path(), &args);
    owned(&elsewhere.path().join("oms.db"));
    let media = elsewhere.path().join("media");
    owned(&media);
    for name in names(&media) {
        owned(&media.join(name));
    }
    // The owner of the database comes before that of its folder.
    if is_root {
        std::os::unix::fs::chown(elsewhere.path(), Some(0), Some(0)).unwrap();
    }
    ok(elsewhere.path(), &[&args[..], &["--force"]].concat());
    owned(&elsewhere.path().join("oms.db"));
}

/// With a backup of a demo shop and its pictures.
async fn demo_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    demo_shop(folder.path()).await;
    ok(folder.path(), &["backup", "with.db", "--media", "pictures"]);
    folder
}

/// Starts a server with the demo shop and stops it; how many pictures there are.
async fn demo_shop(folder: &Path) -> i64 {
    let mut child = crate::program::command(
        folder,
        &["serve", "--demo", "--listen", "127.0.0.1:0", "--no-worker"],
    )
    .stdout(std::process::Stdio::piped())
    .stderr(std::process::Stdio::null())
    .spawn()
    .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.next().unwrap().unwrap().starts_with("oms listens"));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut db = sqlite(&folder.join("oms.db")).await;
    sqlx::query_scalar("SELECT count(*) FROM oms_media")
        .fetch_one(&mut db)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn for_postgres_it_prints_what_works_and_says_that_it_did_nothing() {
    with_postgres(async |postgres| {
        let folder = tempfile::tempdir().unwrap();
        let shop = Shop::make(postgres).await;
        shop.oms.shutdown().await;
        let secret = postgres.replacen("postgres://postgres@", "postgres://postgres:geheim@", 1);
        let file = folder.path().join("oms.dump");
        let line = |verb: &str| {
            let output = run(
                folder.path(),
                &[verb, file.to_str().unwrap(), "--database-url", &secret],
            );
            assert_eq!(output.status.code(), Some(3));
            let (line, said) = (text(&output.stdout), text(&output.stderr));
            assert!(
                !line.contains("geheim") && !said.contains("geheim"),
                "{line} {said}"
            );
            line
        };
        let (dump, restore) = (line("backup"), line("restore"));
        assert!(!file.exists());
        shell(&dump);
        let before = Shop::open(postgres).await;
        let lost = before.order("after-the-dump").await;
        // While somebody is connected nothing is replaced.
        refused_by_shell(&restore);
        before.oms.shutdown().await;
        upgrade(postgres).await;
        shell(&restore);
        let after = Shop::open(postgres).await;
        assert_eq!(
            after.oms.verify(&Actor::System).await.unwrap(),
            Vec::<String>::new()
        );
        let again = after.order("after-the-dump").await;
        assert_ne!(again.id, lost.id);
        after.oms.shutdown().await;
        // Nothing of the newer schema is left, and the old database is there under another name.
        let mut conn = sqlx::PgConnection::connect(postgres).await.unwrap();
        let sql = "SELECT count(*) FROM pg_class WHERE relname = 'oms_of_tomorrow'";
        let left: i64 = sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap();
        assert_eq!(left, 0);
        let (_, kept) = restore.split_once("RENAME TO \"").unwrap();
        let kept = kept.split('"').next().unwrap();
        let old = format!("{}/{kept}", postgres.rsplit_once('/').unwrap().0);
        let mut old = sqlx::PgConnection::connect(&old).await.unwrap();
        let left: i64 = sqlx::query_scalar(sql).fetch_one(&mut old).await.unwrap();
        assert_eq!(left, 1);
        old.close().await.unwrap();
        let drop = sqlx::AssertSqlSafe(format!("DROP DATABASE \"{kept}\""));
        sqlx::Executor::execute(&mut conn, drop).await.unwrap();
    })
    .await;
}

/// What a newer program would have added, which holds fast what the dump knows.
async fn upgrade(postgres: &str) {
    let mut conn = sqlx::PgConnection::connect(postgres).await.unwrap();
    let sql = "CREATE TABLE oms_of_tomorrow (order_id uuid REFERENCES oms_order (id))";
    sqlx::Executor::execute(&mut conn, sql).await.unwrap();
    conn.close().await.unwrap();
}

fn shell(line: &str) {
    let output = run_shell(line);
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
}

fn refused_by_shell(line: &str) {
    let output = run_shell(line);
    let said = text(&output.stderr);
    assert!(
        !output.status.success() && said.contains("being accessed"),
        "{said}"
    );
}

/// With the password that the server asks for, if any.
fn run_shell(line: &str) -> std::process::Output {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", line]).env("PGPASSWORD", "geheim");
    command.output().unwrap()
}
