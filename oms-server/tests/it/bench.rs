//! The load driver against a deployment.

use crate::common::server::program;
use crate::support::{TestServer, password};

/// Runs the compiled program; its exit status and what it printed.
async fn bench(server: &TestServer, args: &[&str]) -> (Option<i32>, String) {
    let mut command = program(&server.data_dir);
    command
        .args(["bench", "--url", &server.url, "--seconds", "1"])
        .args(args)
        .env("OMS_BENCH_PASSWORD", password("ann"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_looked_for() {
    TestServer::each_db(async |server| {
        let ann = server.customer("ann").await;
        server.product(&ann, "MUG", 20).await;
        let ledger = server.data_dir.join("ledger");
        let args = [
            "--identifier",
            "ann",
            "--clients",
            "4",
            "--rate",
            "50",
            "--ledger",
        ];
        let args = [&args[..], &[ledger.to_str().unwrap()]].concat();
        let (status, text) = bench(&server, &args).await;
        assert_eq!(status, Some(0), "{text}");
        assert!(text.contains("- acknowledged: 20, of which lost: 0"), "{text}");
        assert!(text.contains("- refused with 409 out_of_stock: "), "{text}");
        let ledger = std::fs::read_to_string(ledger).unwrap();
        assert_eq!(ledger.lines().count(), 20, "{ledger}");
        let page = server.get("/v1/orders?limit=100", &ann).await.expect(200);
        assert_eq!(page["data"].as_array().unwrap().len(), 20);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_ends_it() {
    TestServer::each_db(async |server| {
        let (status, text) = bench(&server, &["--identifier", "nobody"]).await;
        assert_eq!(status, Some(1), "{text}");
        assert!(text.contains("401"), "{text}");
    })
    .await;
}
