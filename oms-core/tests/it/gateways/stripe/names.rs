//! The names that the plugin sends and reads, against the types of Stripe's library for Python. A fake that lacks a name
//! could hide that Stripe lacks it too.

use serde_json::{Value, json};

use crate::gateways::support::run;

/// What the plugin sends. Its own tests say when.
const SENT: &[(&str, &[&str])] = &[
    (
        "params.PaymentIntentCreateParams",
        &[
            "amount",
            "currency",
            "capture_method",
            "metadata",
            "payment_method",
            "confirmation_token",
            "confirm",
            "off_session",
            "return_url",
            "automatic_payment_methods",
            "payment_method_types",
            "customer",
            "description",
            "receipt_email",
            "shipping",
            "statement_descriptor_suffix",
            "expand",
        ],
    ),
    (
        "params.PaymentIntentCreateParamsAutomaticPaymentMethods",
        &["enabled", "allow_redirects"],
    ),
    (
        "params.PaymentIntentCaptureParams",
        &["amount_to_capture", "expand"],
    ),
    (
        "params.PaymentIntentCancelParams",
        &["cancellation_reason", "expand"],
    ),
    (
        "params.RefundCreateParams",
        &["payment_intent", "amount", "metadata", "reason"],
    ),
    (
        "params.PaymentIntentListParams",
        &["limit", "created", "starting_after"],
    ),
    (
        "params.RefundListParams",
        &["payment_intent", "limit", "starting_after"],
    ),
];

const READ: &[(&str, &[&str])] = &[
    (
        "PaymentIntent",
        &[
            "id",
            "status",
            "amount",
            "amount_received",
            "currency",
            "capture_method",
            "client_secret",
            "next_action",
            "latest_charge",
            "last_payment_error",
            "metadata",
        ],
    ),
    (
        "PaymentIntent.LastPaymentError",
        &["code", "decline_code", "message"],
    ),
    (
        "PaymentIntent.NextAction",
        &["type", "redirect_to_url", "use_stripe_sdk"],
    ),
    ("PaymentIntent.NextAction.RedirectToUrl", &["url"]),
    ("Charge", &["id", "payment_method_details", "payment_intent"]),
    ("Charge.PaymentMethodDetails", &["type", "card"]),
    (
        "Charge.PaymentMethodDetails.Card",
        &["brand", "last4", "wallet", "capture_before"],
    ),
    (
        "Refund",
        &[
            "id",
            "amount",
            "currency",
            "status",
            "payment_intent",
            "balance_transaction",
            "failure_balance_transaction",
            "metadata",
        ],
    ),
    (
        "Dispute",
        &["id", "amount", "currency", "status", "reason", "payment_intent"],
    ),
    ("Event", &["id", "object", "type", "created", "data"]),
];

const KINDS: &[&str] = &[
    "payment_intent.created",
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.amount_capturable_updated",
    "payment_intent.canceled",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.refund.updated",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.closed",
];

#[test]
fn stripe_knows_what_is_sent_and_read() {
    let names = |(kind, names): &(&str, &[&str])| json!({"type": kind, "names": names});
    let mut jobs: Vec<_> = SENT.iter().chain(READ).map(names).collect();
    for (kind, field) in [
        ("PaymentIntent", "status"),
        ("Dispute", "status"),
        ("Event", "type"),
    ] {
        jobs.push(json!({"type": kind, "values": field}));
    }
    let mut answers = run("stripe_names.py", &jobs);
    let values = answers.split_off(SENT.len() + READ.len());

    // The library speaks a later version of the API than the plugin asks for: the one that dropped this parameter.
    let unknown: Vec<&Value> = answers
        .iter()
        .flat_map(|names| names.as_array().unwrap())
        .collect();
    assert_eq!(unknown, ["payment_method_types"]);

    assert_eq!(
        values[0],
        json!([
            "canceled",
            "processing",
            "requires_action",
            "requires_capture",
            "requires_confirmation",
            "requires_payment_method",
            "succeeded"
        ])
    );
    for ends in ["won", "lost", "warning_closed", "prevented"] {
        assert!(values[1].as_array().unwrap().contains(&ends.into()), "{ends}");
    }
    for kind in KINDS {
        assert!(values[2].as_array().unwrap().contains(&(*kind).into()), "{kind}");
    }
}
