//! The program as scripts use it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

use crate::common::server::{plugin_dir, program};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn one_line_about(output: &Output, variable: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(variable), "{stderr}");
    assert!(!stderr.contains("geheim"), "{stderr}");
}

#[test]
fn wrong_settings_stop_the_start_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for (variable, value) in [
        ("OMS_LISTEN", "nowhere"),
        ("OMS_ENV", "staging"),
        ("OMS_PUBLIC_URL", "shop"),
        ("DATABASE_URL", "mysql://localhost/oms"),
        ("MAIL_PORT", "smtp"),
        ("MAIL_FROM", "nobody"),
        ("OMS_LOG", "==="),
        ("OMS_ACCOUNTS", "/does/not/exist.toml"),
        ("REDIS_URL", "redis://:geheim@localhost:port"),
        ("OMS_RATE_LIMIT_CLIENT", "often"),
        ("OMS_TRUSTED_PROXIES", "proxy"),
    ] {
        let output = program(folder.path())
            .env(variable, value)
            .args(["serve", "--no-worker"])
            .output()
            .unwrap();
        one_line_about(&output, variable);
    }
    let output = program(folder.path())
        .env("OMS_ENV", "production")
        .env("SECRET_KEY", "too short")
        .env("OMS_ALLOW", "mail-files,open-data-dir")
        .env("OMS_PUBLIC_URL", "https://shop.example.com")
        .arg("migrate")
        .output()
        .unwrap();
    one_line_about(&output, "SECRET_KEY");
    assert!(!text(&output.stderr).contains("too short"));
    assert_eq!(
        program(folder.path())
            .arg("dance")
            .output()
            .unwrap()
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn production_does_without_the_defaults_of_development() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("SECRET_KEY", "kW3k0c9cJ7rC1dX8fQ2mZ5vB6nL4pT0a"),
        ("OMS_PUBLIC_URL", "https://shop.example.com"),
        ("MAIL_SERVER", "mail.example.com"),
        ("MAIL_FROM", "shop@example.com"),
    ];
    let migrate = |without: &str| {
        let given = settings.iter().filter(|(name, _)| *name != without);
        // Made by the program, for its owner alone.
        let mut command = program(&folder.path().join("data"));
        command.current_dir(folder.path());
        command.env("OMS_ENV", "production").envs(given.copied());
        command.arg("migrate").output().unwrap()
    };
    for (missing, _) in settings {
        one_line_about(&migrate(missing), missing);
    }
    assert_eq!(migrate("").status.code(), Some(0));
}

#[test]
fn the_data_folder_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let made = program(&data).current_dir(folder.path()).arg("migrate").output();
    assert!(made.unwrap().status.success());
    let mode = std::fs::metadata(&data).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(data.join("oms.db").exists());
}

/// The answer to a GET, head and all.
fn ask(address: &str, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn help_shows_an_example() {
    let folder = tempfile::tempdir().unwrap();
    for command in [
        &["serve"][..],
        &["worker"],
        &["mock-gateway"],
        &["migrate"],
        &["health"],
        &["openapi"],
        &["verify"],
        &["backup"],
        &["restore"],
        &["migrate-data"],
        &["config", "check"],
        &["admin", "create"],
        &["admin", "users", "list"],
        &["admin", "users", "show"],
        &["admin", "users", "roles"],
        &["admin", "users", "lock"],
        &["admin", "users", "unlock"],
        &["admin", "jobs", "count"],
        &["admin", "jobs", "list"],
        &["admin", "jobs", "retry"],
        &["admin", "jobs", "discard"],
        &["admin", "payments", "list"],
        &["admin", "payments", "show"],
        &["admin", "payments", "review"],
        &["admin", "payments", "sync"],
        &["admin", "webhooks", "list"],
        &["admin", "webhooks", "show"],
        &["admin", "webhooks", "replay"],
        &["plugin", "list"],
    ] {
        let output = program(folder.path())
            .args(command)
            .arg("--help")
            .output()
            .unwrap();
        assert!(text(&output.stdout).contains("Example"), "{command:?}");
    }
}

#[test]
fn verify_finds_what_was_changed_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| program(folder.path()).args(args).output().unwrap();
    assert_eq!(run(&["verify"]).status.code(), Some(0));
    let made = run(&[
        "admin",
        "create",
        "--username",
        "root",
        "--email",
        "root@example.com",
        "--json",
    ]);
    let user: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert!(user["password"].as_str().unwrap().len() >= 16, "{user}");
    let again = run(&[
        "admin",
        "create",
        "--username",
        "root",
        "--email",
        "root@example.com",
    ]);
    assert_eq!(again.status.code(), Some(1));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        use sqlx::Connection;
        let url = format!("sqlite://{}", folder.path().join("oms.db").display());
        let mut db = sqlx::SqliteConnection::connect(&url).await.unwrap();
        for statement in [
            "INSERT INTO oms_business (id, owner_id, name, created_at, updated_at) SELECT x'01', id, 'b', 0, 0 FROM oms_user",
            "INSERT INTO oms_product (id, business_id, name, name_key, search_text, images, created_at, updated_at)
             VALUES (x'02', x'01', 'p', 'p', 'p', '[]', 0, 0)",
            "INSERT INTO oms_variant (id, product_id, business_id, sku, price, currency, created_at, updated_at)
             VALUES (x'00000000000000000000000000000003', x'02', x'01', 'MUG', 1, 'EUR', 0, 0)",
            "INSERT INTO oms_stock (variant_id, on_hand) VALUES (x'00000000000000000000000000000003', 7)",
        ] {
            sqlx::query(statement).execute(&mut db).await.unwrap();
        }
        db.close().await.unwrap();
    });
    let found = run(&["verify"]);
    assert_eq!(found.status.code(), Some(1), "{}", text(&found.stderr));
    assert!(!found.stdout.is_empty());
    let found: Vec<String> = serde_json::from_slice(&run(&["verify", "--json"]).stdout).unwrap();
    assert!(!found.is_empty());
}

#[test]
fn the_demo_server_starts_tells_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = program(folder.path())
        .args(["serve", "--demo", "--listen", "127.0.0.1:0"])
        .arg("--plugin-dir")
        .arg(plugin_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let address = first.strip_prefix("oms listens at http://").unwrap().to_owned();
    let mut told = Vec::new();
    while !told.iter().any(|line: &String| line.contains("payments -H")) {
        told.push(lines.next().unwrap().unwrap());
    }
    let told = told.join("\n");
    for wanted in ["/docs", "admin.txt", "mail", "idempotency-key", "\"sku\":\""] {
        assert!(told.contains(wanted), "{wanted} is missing in\n{told}");
    }
    for secret in ["admin.txt", "secret.key", "mock-api.key"] {
        let mode = std::fs::metadata(folder.path().join(secret))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    assert!(ask(&address, "/mock-gateway").contains("fake bank"));
    let undecodable = ask(&address, "/v1/products/%FF");
    assert!(undecodable.contains("application/problem+json"), "{undecodable}");
    let health = |address: &str| {
        program(folder.path())
            .args(["health", "--listen", address])
            .output()
            .unwrap()
            .status
            .code()
    };
    assert_eq!(health(&address), Some(0));

    let stopped = std::process::Command::new("kill")
        .args(["-TERM", &server.id().to_string()])
        .status()
        .unwrap();
    assert!(stopped.success());
    assert_eq!(server.wait().unwrap().code(), Some(0));
    assert_eq!(health(&address), Some(1));
}

#[test]
fn a_password_can_be_piped_in() {
    let folder = tempfile::tempdir().unwrap();
    let mut create = program(folder.path())
        .args([
            "admin",
            "create",
            "--username",
            "root",
            "--email",
            "root@example.com",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    create
        .stdin
        .take()
        .unwrap()
        .write_all(b"correct horse battery\n")
        .unwrap();
    let output = create.wait_with_output().unwrap();
    let stdout = text(&output.stdout);
    assert!(
        output.status.success() && stdout.contains("usr_") && !stdout.contains("password"),
        "{stdout}"
    );
}
