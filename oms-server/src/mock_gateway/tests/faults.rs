//! What a merchant sees of each fault.

use super::super::faults::Fault;
use super::{TIMING, Told, Town};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn amount_of(told: &Told) -> &Value {
    &told.body["data"]["payment"]["captured"]
}

fn refund(amount: i64) -> Value {
    json!({"merchant_refund_id": "ref_1", "amount": amount, "currency": "EUR"})
}

#[tokio::test]
async fn decline() {
    let town = Town::new().await;
    town.paid(Fault::Decline.amount()).await;
    let told = town.told_in_all(1).await;
    assert_eq!(told[0].kind(), "payment.failed");
    assert_eq!(town.find().await["decline_code"], "insufficient_funds");
}

#[tokio::test]
async fn timeout_after_charge_is_found_by_asking_or_by_the_same_key() {
    let town = Town::new().await;
    let request = town.request(Fault::TimeoutAfterCharge.amount());
    let impatient = town
        .post("", "start-1")
        .json(&request)
        .timeout(Duration::from_secs(1));
    assert!(impatient.send().await.unwrap_err().is_timeout());
    let found = town.find().await;
    assert_eq!(
        (&found["status"], &found["captured"]),
        (&json!("captured"), &json!(99_902))
    );
    let (status, again) = town.change("", "start-1", &request).await;
    assert_eq!((status, &again), (201, &found), "charged once, answered at once");
    town.told_in_all(0).await;
}

#[tokio::test]
async fn duplicates_carry_the_same_id() {
    let town = Town::new().await;
    town.paid(Fault::DuplicateWebhooks.amount()).await;
    let told = town.told_in_all(6).await;
    for kind in ["payment.authorized", "payment.captured"] {
        let same: Vec<&Told> = told.iter().filter(|told| told.kind() == kind).collect();
        assert_eq!(same.len(), 3);
        assert!(same.iter().all(|told| told.genuine && told.id == same[0].id));
    }
}

#[tokio::test]
async fn out_of_order_tells_the_end_first() {
    let town = Town::new().await;
    town.paid(Fault::OutOfOrderWebhooks.amount()).await;
    let told = town.told_in_all(2).await;
    let kinds: Vec<&str> = told.iter().map(Told::kind).collect();
    assert_eq!(kinds, ["payment.captured", "payment.authorized"]);
}

#[tokio::test]
async fn flawed_deliveries_are_followed_by_good_ones() {
    for (fault, genuine, age) in [
        (Fault::TamperedWebhooks, false, 0),
        (Fault::StaleWebhooks, true, 600),
        (Fault::FutureWebhooks, true, -600),
    ] {
        let town = Town::new().await;
        // A flawed delivery is refused and must not be tried again.
        town.merchant.answers.lock().unwrap().extend([400, 400]);
        let payment = town.start(1299).await;
        let form = [("decision", "decline"), ("fault", fault.name())];
        town.decide(&payment, &form).await;
        let told = town.told_in_all(3).await;
        assert_eq!(told[0].genuine, genuine, "{fault:?}");
        assert!((told[0].age - age).abs() < 5, "{fault:?} {}", told[0].age);
        // The second 400 hit the good one, which therefore came twice.
        for good in &told[1..] {
            assert!(good.genuine && good.age < 5 && good.id == told[0].id, "{fault:?}");
        }
        let as_sent = |told: &Told| told.body["data"]["payment"]["amount"].clone();
        assert_eq!(as_sent(&told[0]) == as_sent(&told[1]), genuine, "{fault:?}");
    }
}

#[tokio::test]
async fn a_wrong_amount_is_signed_all_the_same() {
    let town = Town::new().await;
    town.paid(Fault::WrongAmount.amount()).await;
    let told = town.told_in_all(2).await;
    assert!(told[1].genuine);
    assert_eq!(amount_of(&told[1]), 99_808);
    assert_eq!(town.find().await["captured"], 99_908);
}

#[tokio::test]
async fn no_webhooks() {
    let town = Town::new().await;
    town.paid(Fault::NoWebhooks.amount()).await;
    town.told_in_all(0).await;
    assert_eq!(town.find().await["status"], "captured");
}

#[tokio::test]
async fn slow_answers() {
    let town = Town::new().await;
    let started = Instant::now();
    town.start(Fault::SlowAnswers.amount()).await;
    assert!(started.elapsed() >= TIMING.slow);
    let started = Instant::now();
    town.find().await;
    assert!(started.elapsed() >= TIMING.slow);
}

#[tokio::test]
async fn a_refund_whose_answer_is_lost_has_happened() {
    let town = Town::new().await;
    let payment = town.paid(Fault::TimeoutOnChange.amount()).await;
    let path = format!("/{}/refunds", payment["id"].as_str().unwrap());
    let impatient = town.post(&path, "refund-1").json(&refund(500));
    let lost = impatient.timeout(Duration::from_secs(1)).send().await;
    assert!(lost.unwrap_err().is_timeout());
    assert_eq!(town.find().await["refunded"], 500);
    assert_eq!(town.change(&path, "refund-1", &refund(500)).await.0, 201);
    assert_eq!(town.find().await["refunded"], 500);
    // The customer's approval was told, the refund is not.
    town.told_in_all(2).await;
}

#[tokio::test]
async fn refunds_fail() {
    let town = Town::new().await;
    let payment = town.paid(Fault::RefundFails.amount()).await;
    let path = format!("/{}/refunds", payment["id"].as_str().unwrap());
    let (status, failed) = town.change(&path, "refund-1", &refund(500)).await;
    assert_eq!((status, &failed["status"]), (201, &json!("failed")));
    let told = town.told_in_all(3).await;
    assert_eq!(told[2].kind(), "refund.failed");
    assert_eq!(town.find().await["refunded"], 0);
}
