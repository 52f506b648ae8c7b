//! The same bank through the generic plugin: start, sync, capture, refund, cancel and webhooks by settings alone.

use serde_json::json;

use crate::faults::{FIRST_LOOK, TIMEOUT_AFTER_CHARGE};
use crate::support::{Terms, euros, on_both};

pub const PLUGIN: &str = "standard-webhooks";

/// How the fake bank looks, in the words of the plugin's settings.
pub const SETTINGS: &str = r#"
auth = "bearer", start-path = "/v1/payments",
start-body = '{"merchant_payment_id": "{payment-id}", "order_number": "{order-number}", "amount": "{amount}", "currency": "{currency}", "exponent": "{exponent}", "capture": "{capture}", "description": "{description}", "return_url": "{return-url}", "cancel_url": "{cancel-url}", "webhook_url": "{webhook-url}", "off_session": "{off-session}"}',
sync-path = "/v1/payments/{reference}", find-path = "/v1/payments?merchant_payment_id={payment-id}",
capture-path = "/v1/payments/{reference}/capture", capture-body = '{"amount": "{amount}", "currency": "{currency}", "final": "{final}"}',
cancel-path = "/v1/payments/{reference}/cancel", cancel-body = '{"reason": "{reason}"}',
refund-path = "/v1/payments/{reference}/refunds",
refund-body = '{"merchant_refund_id": "{refund-id}", "amount": "{amount}", "currency": "{currency}", "reason": "{reason}"}',
event-payment = "/data/payment", event-refund = "/data/refund", event-time = "/created_at_ms",
field-payment-id = "/merchant_payment_id", field-authorized = "/authorized", field-captured = "/captured",
field-refunded = "/refunded", field-canceled = "/canceled", field-redirect = "/redirect_url",
field-decline-code = "/decline_code", field-refunds = "/refunds", refund-id = "/merchant_refund_id"
"#;

fn generic() -> Terms {
    Terms {
        plugin: PLUGIN,
        ..Terms::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_captured_and_refunded() {
    on_both(generic(), async |shop| {
        let (order, payment) = shop.checkout(2_500).await;
        assert_eq!(payment.started["status"], "action_required");
        assert_eq!(payment.started["plugin"], "standard-webhooks");
        payment.approve().await;
        order.becomes("paid", "paid").await;
        payment.moves(2_500, 0).await;
        let refund = payment.refund(euros(1_000)).await;
        assert_eq!(refund["status"], "succeeded", "{refund}");
        order.becomes("paid", "partially_refunded").await;
        let inbox = shop.inbox_of(3).await;
        assert!(
            inbox.iter().all(|event| event["status"] == "applied"),
            "{inbox:?}"
        );
        assert!(
            inbox.iter().any(|event| event["kind"] == "refund.succeeded"),
            "{inbox:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_captured_in_parts_or_given_up() {
    on_both(generic(), async |shop| {
        shop.sells("LAMP", 9_000, 3).await;
        let order = shop.order("LAMP").await;
        let payment = order.pay_manually().await;
        payment.approve().await;
        order.becomes("awaiting_payment", "authorized").await;
        let first = payment.capture(euros(4_000)).await;
        assert_eq!(first["status"], "partially_captured", "{first}");
        let second = payment.capture(json!({})).await;
        assert_eq!(second["status"], "captured", "{second}");
        order.becomes("paid", "paid").await;

        let order = shop.order("LAMP").await;
        let payment = order.pay_manually().await;
        payment.approve().await;
        payment.becomes("authorized").await;
        let canceled = payment.cancel().await;
        assert_eq!(canceled["status"], "canceled", "{canceled}");
        assert_eq!(payment.at_bank().await["status"], "canceled");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_found_out() {
    let terms = Terms {
        timeout_ms: 1_500,
        ..generic()
    };
    on_both(terms, async |shop| {
        let (order, payment) = shop.checkout(TIMEOUT_AFTER_CHARGE).await;
        assert_eq!(payment.started["status"], "unknown", "{}", payment.started);
        shop.later(FIRST_LOOK).await;
        order.becomes("paid", "paid").await;
        payment.moves(TIMEOUT_AFTER_CHARGE, 0).await;
    })
    .await;
}
