//! The documentation: served without the internet, and current.

use serde_json::Value;

use crate::support::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn pages_need_nothing_from_elsewhere() {
    TestServer::each_db(async |server| {
        for page in ["/docs", "/redoc"] {
            let answer = server.get(page, "").await;
            assert_eq!(answer.status, 200);
            let policy = answer.header("content-security-policy").to_owned();
            assert!(
                policy.contains("default-src 'none'") && policy.contains("script-src 'self';"),
                "{policy}"
            );
            assert!(!policy.contains("http"), "{policy}");
            assert!(!answer.text.contains("//"), "{}", answer.text);
            let mut parts = 0;
            for attribute in ["src=\"", "href=\"/"] {
                for part in answer.text.split(attribute).skip(1) {
                    let path = part.split('"').next().unwrap().trim_start_matches('/');
                    let part = server.get(&format!("/{path}"), "").await;
                    assert!(
                        part.status == 200 && part.text.len() > 50,
                        "{path}: {} {}",
                        part.status,
                        part.text.len()
                    );
                    parts += 1;
                }
            }
            assert!(parts >= 2, "{page}");
        }
        let spec = server.get("/openapi.json", "").await.expect(200);
        assert_eq!(spec["openapi"], "3.0.0");
    })
    .await;
}

/// `cargo run -p oms-server -- openapi > docs/openapi.json` brings it up to date.
#[test]
fn the_document_in_the_repository_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let kept = std::fs::read_to_string(path).unwrap();
    assert!(kept == oms_server::http::openapi(), "docs/openapi.json is stale");
}

#[test]
fn every_operation_is_described() {
    let spec: Value = serde_json::from_str(&oms_server::http::openapi()).unwrap();
    for (path, operations) in spec["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let what = format!("{method} {path}");
            assert!(operation["operationId"].is_string(), "{what}");
            assert!(operation["summary"].is_string(), "{what}");
            assert!(
                operation["tags"].as_array().is_some_and(|tags| tags.len() == 1),
                "{what}"
            );
            let problem = &operation["responses"]["default"]["content"]["application/problem+json"];
            assert!(problem.is_object(), "{what}");
        }
    }
}

/// Whoever writes a setting into `.env` expects the containers to know it.
#[test]
fn compose_passes_every_setting_of_the_example() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |name| std::fs::read_to_string(root.join(name)).unwrap();
    let (example, compose) = (read(".env.example"), read("docker-compose.yml"));
    // Where things lie inside of the image is the image's affair.
    let fixed = ["OMS_LISTEN", "OMS_DATA_DIR", "OMS_PLUGIN_DIR"];
    let is_name = |name: &&str| {
        name.chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    let names: Vec<&str> = example
        .lines()
        .filter_map(|line| Some(line.strip_prefix('#')?.split_once('=')?.0))
        .filter(is_name)
        .filter(|name| !fixed.contains(name))
        .collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let passed = compose.contains(&format!("${{{name}:-")) || compose.contains(&format!("    {name}: "));
        assert!(passed, "docker-compose.yml does not pass {name}");
    }
}
