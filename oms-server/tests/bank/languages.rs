//! The same stories with the same gateway in other languages: the examples of `plugins/examples`.

use crate::faults::{self, IMPATIENT};
use crate::support::{Terms, on_both};
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
