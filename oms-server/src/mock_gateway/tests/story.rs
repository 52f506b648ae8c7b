//! What a merchant does with a bank that works.

use super::{API_KEY, Town, answer};
use serde_json::{Value, json};

#[tokio::test]
async fn a_payment_from_the_page_to_a_refund() {
    let town = Town::new().await;
    let payment = town.start(1299).await;
    assert_eq!(payment["status"], "action_required");

    let url = payment["redirect_url"].as_str().unwrap();
    assert!(url.starts_with(&format!("{}/pay/bp_", town.base)), "{url}");
    let page = town.client.get(url).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let policy = page.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let page = page.text().await.unwrap();
    assert!(page.contains("12.99 <small>EUR</small>"), "{page}");
    assert!(page.contains("Two &lt;b&gt;mugs&lt;"), "{page}");
    assert!(!page.contains("<script"));

    let response = town.decide(&payment, &[("decision", "approve")]).await;
    assert_eq!(response.status(), 303);
    let id = payment["id"].as_str().unwrap();
    assert_eq!(
        response.headers()["location"],
        format!("http://shop.test/back?a=1&payment={id}&merchant_payment_id=pay_1&status=captured")
    );

    let refund = json!({"merchant_refund_id": "ref_1", "amount": 300, "currency": "EUR"});
    let path = format!("/{id}/refunds");
    let (status, refunded) = town.change(&path, "refund-1", &refund).await;
    assert_eq!((status, &refunded["status"]), (201, &json!("succeeded")));

    let told = town.told_in_all(3).await;
    let kinds: Vec<&str> = told.iter().map(super::Told::kind).collect();
    assert_eq!(
        kinds,
        ["payment.authorized", "payment.captured", "refund.succeeded"]
    );
    assert!(told.iter().all(|told| told.genuine && (0..5).contains(&told.age)));
    assert_eq!(told[2].body["data"]["refund"]["merchant_refund_id"], "ref_1");
    let totals = |told: &super::Told| {
        ["authorized", "captured", "refunded"].map(|name| told.body["data"]["payment"][name].clone())
    };
    assert_eq!(totals(&told[0]), [1299, 0, 0]);
    assert_eq!(totals(&told[1]), [1299, 1299, 0]);
    assert_eq!(totals(&told[2]), [1299, 1299, 300]);

    let found = town.find().await;
    assert_eq!(found["refunds"].as_array().unwrap().len(), 1);
    assert_eq!(found["redirect_url"], Value::Null);
}

#[tokio::test]
async fn the_same_key_does_it_once() {
    let town = Town::new().await;
    let request = town.request(1299);
    let starts = (0..10).map(|_| town.change("", "start-1", &request));
    let mut answers = futures_util::future::join_all(starts).await;
    let first = answers.remove(0);
    assert_eq!(first.0, 201);
    assert!(answers.iter().all(|answer| *answer == first), "{answers:#?}");

    let code = |answer: (u16, Value)| (answer.0, answer.1["error"]["code"].clone());
    let other = town.change("", "start-1", &town.request(1300)).await;
    assert_eq!(code(other), (409, json!("idempotency_key_reused")));
    let again = town.change("", "start-2", &request).await;
    assert_eq!(code(again), (409, json!("duplicate")));

    town.decide(&first.1, &[("decision", "approve")]).await;
    let refund = json!({"merchant_refund_id": "ref_1", "amount": 300, "currency": "EUR"});
    let path = format!("/{}/refunds", first.1["id"].as_str().unwrap());
    let once = town.change(&path, "refund-1", &refund).await;
    assert_eq!(town.change(&path, "refund-1", &refund).await, once);
    assert_eq!(town.find().await["refunded"], 300);
    // The answer to the first request is kept, whatever has happened since.
    assert_eq!(town.change("", "start-1", &request).await, first);
}

#[tokio::test]
async fn manual_captures_and_cancellation() {
    let town = Town::new().await;
    let mut request = town.request(1000);
    request["capture"] = json!("manual");
    let (_, payment) = town.change("", "start-1", &request).await;
    let id = payment["id"].as_str().unwrap();
    let capture = |key: &'static str, amount: i64, last: bool| {
        let body = json!({"amount": amount, "currency": "EUR", "final": last});
        let (path, town) = (format!("/{id}/capture"), &town);
        async move { town.change(&path, key, &body).await }
    };
    assert_eq!(capture("early", 1, false).await.0, 409);
    town.decide(&payment, &[("decision", "approve")]).await;
    let (status, partly) = capture("c1", 400, false).await;
    assert_eq!((status, &partly["status"]), (200, &json!("partially_captured")));
    assert_eq!(capture("c2", 601, false).await.0, 422);
    let (_, all) = capture("c3", 100, false).await;
    assert_eq!(all["captures"].as_array().unwrap().len(), 2);
    let reason = json!({"reason": "sold out"});
    let (status, rest) = town.change(&format!("/{id}/cancel"), "v1", &reason).await;
    assert_eq!((status, &rest["status"]), (200, &json!("captured")));
    assert_eq!((&rest["captured"], &rest["canceled"]), (&json!(500), &json!(500)));
    let (status, refused) = town.change(&format!("/{id}/cancel"), "v2", &reason).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (409, &json!("invalid_state"))
    );
}

#[tokio::test]
async fn off_session_charges_without_a_page() {
    let town = Town::new().await;
    let mut request = town.request(1000);
    request["off_session"] = json!(true);
    let (status, payment) = town.change("", "start-1", &request).await;
    assert_eq!((status, &payment["status"]), (201, &json!("captured")));
    request["merchant_payment_id"] = json!("pay_2");
    request["amount"] = json!(99_901);
    let (status, declined) = town.change("", "start-2", &request).await;
    assert_eq!(
        (status, &declined["error"]["code"]),
        (402, &json!("insufficient_funds"))
    );
}

#[tokio::test]
async fn a_merchant_that_is_down_is_told_again() {
    let town = Town::new().await;
    town.merchant.answers.lock().unwrap().extend([500, 404, 302]);
    let payment = town.start(1299).await;
    town.decide(&payment, &[("decision", "decline")]).await;
    let told = town.told_in_all(4).await;
    assert!(told.iter().all(|one| one.genuine && one.id == told[0].id));
    assert_eq!(told[3].kind(), "payment.failed");
    assert_eq!(town.find().await["decline_code"], "card_declined");
}

#[tokio::test]
async fn nothing_is_lost_over_a_restart() {
    let town = Town::new().await;
    // The merchant is down for as long as this bank runs.
    town.merchant.answers.lock().unwrap().extend([503; 1000]);
    let payment = town.paid(1299).await;
    while town.merchant.told.lock().unwrap().len() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let Town {
        folder,
        hook,
        bank,
        merchant,
        _stop,
        ..
    } = town;
    drop(_stop);
    bank.0.db.close().await;

    let again = Town::on(folder).await;
    merchant.answers.lock().unwrap().clear();
    assert_eq!(again.find().await["status"], "captured");
    let mut request = again.request(1299);
    request["webhook_url"] = json!(hook);
    let (status, replayed) = again.change("", "start-1", &request).await;
    assert_eq!((status, &replayed["id"]), (201, &payment["id"]));
    // The first merchant is gone with its town, so the second attempt of each webhook fails, and
    // both are still in the outbox.
    let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM delivery WHERE next_at_ms IS NOT NULL")
        .fetch_one(&again.bank.0.db)
        .await
        .unwrap();
    assert_eq!(waiting, 2);
    sqlx::query("UPDATE delivery SET url = $1, next_at_ms = 0 WHERE next_at_ms IS NOT NULL")
        .bind(&again.hook)
        .execute(&again.bank.0.db)
        .await
        .unwrap();
    again.bank.0.outbox.notify_one();
    let told = again.told_in_all(2).await;
    // Both are due: whichever connection is faster is first.
    let mut kinds: Vec<_> = told.iter().map(super::Told::kind).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["payment.authorized", "payment.captured"]);
}

#[tokio::test]
async fn a_decision_is_made_once() {
    let town = Town::new().await;
    let payment = town.paid(1299).await;
    let response = town.decide(&payment, &[("decision", "decline")]).await;
    let location = response.headers()["location"].to_str().unwrap();
    assert!(location.ends_with("status=captured"), "{location}");
    assert_eq!(town.find().await["status"], "captured");
    town.told_in_all(2).await;
}

#[tokio::test]
async fn the_challenge_wants_the_right_code() {
    for (code, status, decline) in [
        ("123456", "captured", Value::Null),
        ("000000", "failed", json!("authentication_failed")),
        ("", "failed", json!("authentication_failed")),
    ] {
        let town = Town::new().await;
        let payment = town.start(1299).await;
        let first = [("decision", "challenge"), ("fault", "duplicate_webhooks")];
        let response = town.decide(&payment, &first).await;
        assert_eq!(response.status(), 303);
        let next = response.headers()["location"].to_str().unwrap();
        let page = town.client.get(next).send().await.unwrap().text().await.unwrap();
        assert!(
            page.contains("name=\"code\"") && page.contains("duplicate_webhooks"),
            "{page}"
        );
        assert_eq!(town.find().await["status"], "action_required");
        town.decide(&payment, &[("decision", "approve"), ("code", code)])
            .await;
        let found = town.find().await;
        assert_eq!(
            (&found["status"], &found["decline_code"]),
            (&json!(status), &decline)
        );
        assert_eq!(found["three_d_secure"], json!(status == "captured"));
    }
}

#[tokio::test]
async fn without_a_return_url_the_page_shows_the_result() {
    let town = Town::new().await;
    let mut request = town.request(1299);
    request["return_url"] = Value::Null;
    let (_, payment) = town.change("", "start-1", &request).await;
    let response = town.decide(&payment, &[("decision", "decline")]).await;
    assert_eq!(response.status(), 200);
    let page = response.text().await.unwrap();
    assert!(page.contains("<b>failed</b> (card_declined)"), "{page}");
}

#[tokio::test]
async fn bad_requests_are_refused_and_change_nothing() {
    let town = Town::new().await;
    let good = town.request(1299);
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    for (body, expected) in [
        (json!([]), 400),
        (with("unknown", json!(1)), 400),
        (with("amount", json!("12.99")), 400),
        (with("capture", json!("later")), 400),
        (with("amount", json!(0)), 422),
        (with("amount", json!(i64::MAX)), 422),
        (with("currency", json!("eur")), 422),
        (with("exponent", json!(9)), 422),
        (with("merchant_payment_id", json!("a b")), 422),
        (with("description", json!("x".repeat(501))), 422),
        (with("return_url", json!("javascript:alert(1)")), 422),
        (with("webhook_url", json!("file:///etc/passwd")), 422),
        (with("cancel_url", json!("/relative")), 422),
    ] {
        let (status, answer) = town.change("", "start-1", &body).await;
        assert_eq!(status, expected, "{body} {answer}");
        assert!(answer["error"]["code"].is_string(), "{answer}");
    }
    let huge = town.post("", "start-1").body(vec![b' '; 70_000]);
    assert_eq!(answer(huge).await.0, 413);
    let url = format!("{}/v1/payments", town.base);
    let no_key = town.client.post(&url).bearer_auth(API_KEY).json(&good);
    assert_eq!(
        answer(no_key).await.1["error"]["code"],
        "idempotency_key_required"
    );
    for request in [
        town.client.post(&url).json(&good),
        town.client.get(&url).bearer_auth("wrong"),
    ] {
        assert_eq!(answer(request).await.0, 401);
    }
    assert_eq!(answer(town.client.get(&url).bearer_auth(API_KEY)).await.0, 422);
    for path in ["/bp_0", "?merchant_payment_id=pay_1"] {
        let get = town.client.get(format!("{url}{path}")).bearer_auth(API_KEY);
        assert_eq!(answer(get).await.0, 404, "{path}");
    }
    assert_eq!(town.change("/bp_0/cancel", "k", &json!({})).await.0, 404);
    let page = town
        .client
        .get(format!("{}/pay/bp_0", town.base))
        .send()
        .await
        .unwrap();
    assert_eq!(page.status(), 404);

    // After all that the key is still free.
    let payment = town.start(1299).await;
    for form in [
        vec![("decision", "maybe")],
        vec![("decision", "approve"), ("fault", "timeout_after_charge")],
        vec![("decision", "approve"), ("fault", "nonsense")],
        vec![],
    ] {
        assert_eq!(town.decide(&payment, &form).await.status(), 422, "{form:?}");
    }
    assert_eq!(town.find().await["status"], "action_required");
}
