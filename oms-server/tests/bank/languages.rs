//! The same stories with the same gateway in other languages: the examples of `plugins/examples`. And the plugin of the
//! quick start, tried as its page says.

use std::process::Command;

use crate::faults::{self, IMPATIENT};
use crate::support::{Terms, on_both, variable};
use crate::{payments, webhooks};

/// Plays each story with each of the plugins.
macro_rules! stories {
    ($($language:ident by $plugin:literal),+ play $stories:tt) => { $(stories!(@$language $plugin $stories);)+ };
    (@$language:ident $plugin:literal { $($name:ident: $terms:expr, $story:path;)+ }) => {
        mod $language {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    on_both(Terms { plugin: $plugin, ..$terms }, $story).await;
                }
            )+
        }
    };
}

stories! {
    javascript by "example-js", python by "example-python" play {
        money_is_captured_at_once: Terms::default(), payments::captured_at_once;
        money_is_captured_and_refunded_in_parts: Terms::default(), payments::captured_and_refunded_in_parts;
        an_authorized_payment_is_given_up: Terms::default(), payments::given_up;
        decline: Terms::default(), faults::declined;
        timeout_after_charge: IMPATIENT, faults::charged_but_not_answered;
        timeout_on_capture_and_cancel: IMPATIENT, faults::changed_but_not_answered;
        refund_fails: Terms::default(), faults::refund_failed;
        no_webhooks: Terms::default(), faults::told_nothing;
        duplicate_webhooks: Terms::default(), faults::told_twice;
        tampered_stale_and_future_webhooks: Terms::default(), faults::told_wrongly;
        only_what_the_bank_signed_now_counts: Terms::default(), webhooks::only_what_is_signed;
        a_copy_has_no_effect: Terms::default(), webhooks::copied;
    }
}

const QUICK_START: &str = include_str!("../../../docs/plugins/README.md");
const ITS_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A delivery that the official library signed, by the page's own program.
#[tokio::test(flavor = "multi_thread")]
async fn the_quick_start_verifies_a_webhook() {
    let (_, rest) = QUICK_START.split_once("```python\n").unwrap();
    let (program, _) = rest.split_once("```").unwrap();
    let terms = Terms {
        plugin: "acme",
        ..Terms::default()
    };
    on_both(terms, async |shop| {
        let address = ("http://localhost:8000/v1/webhooks/acme", "/v1/webhooks/mock");
        assert!(program.contains(address.0) && program.contains(ITS_SECRET));
        let program = program
            .replace(address.0, &format!("{}{}", shop.url, address.1))
            .replace(ITS_SECRET, &shop.secret("mock-webhook.key"));
        let run = |program: String| {
            let python = variable("OMS_TEST_PYTHON");
            let output = Command::new(python).args(["-c", &program]).output().unwrap();
            format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        };
        for _ in 0..2 {
            let program = program.clone();
            let printed = tokio::task::spawn_blocking(move || run(program)).await.unwrap();
            assert_eq!(printed, "204\n");
        }
        let inbox = shop.inbox_of(1).await;
        assert_eq!(inbox[0]["event_id"], "evt_1");
        assert_eq!(inbox[0]["kind"], "charge.captured");
        assert_eq!(inbox[0]["status"], "unmatched");

        let changed = program.replace("body.encode()", "body.replace('1', '2').encode()");
        assert_ne!(changed, program);
        let printed = tokio::task::spawn_blocking(move || run(changed)).await.unwrap();
        assert!(printed.contains("HTTP Error 400"), "{printed}");
        shop.inbox_of(1).await;
    })
    .await;
}
