//! The two traits a plugin implements, and the glue from them to the generated exports.

use crate::bindings::gateway::exports::oms::payment::{descriptor, gateway};
use crate::bindings::webhooks::exports::oms::payment::webhooks;
use crate::{
    CancelRequest, CaptureRequest, CompleteRequest, Delivery, Info, Outcome, PaymentError, PaymentResult,
    RefundRequest, RefundResult, Snapshot, StartRequest, SyncRequest, WebhookError,
};

/// A payment gateway.
///
/// The functions take no `self`: every call runs in a fresh instance of the component, so there is
/// nothing to keep between calls. What a later call must know goes into [`PaymentResult::state`]
/// (kept by the host with the payment) or into [`cache`](crate::cache) (may vanish at any time).
///
/// Whatever is not implemented answers `unsupported`; leave its flag out of [`Info::features`].
pub trait Gateway {
    /// Who this plugin is, what it can do, which settings it reads and which hosts it talks to.
    fn describe() -> Info;

    /// Begins a payment. Called again with the same idempotency key after an `indeterminate` or
    /// `unavailable` error, so it must hand that key on to the gateway.
    fn start(request: StartRequest) -> Result<PaymentResult, PaymentError>;

    /// Where the payment stands now, by the gateway's reference, or by our payment id when the
    /// answer to `start` was lost. `not-found` says that the gateway never saw the payment, and the
    /// host may then start it again: answer it only when the gateway itself said so.
    fn sync(request: SyncRequest) -> Result<Snapshot, PaymentError> {
        let _ = request;
        Err(PaymentError::unsupported("sync"))
    }

    /// The customer is back from the gateway's page, or the browser kit has posted its result.
    /// Nothing in `params` is signed: ask the gateway.
    fn complete(request: CompleteRequest) -> Result<PaymentResult, PaymentError> {
        let _ = request;
        Err(PaymentError::unsupported("complete"))
    }

    /// Takes authorized money. `final_capture` releases what is left.
    fn capture(request: CaptureRequest) -> Result<PaymentResult, PaymentError> {
        let _ = request;
        Err(PaymentError::unsupported("capture"))
    }

    /// Gives up a payment of which nothing, or not everything, has been captured.
    fn cancel(request: CancelRequest) -> Result<PaymentResult, PaymentError> {
        let _ = request;
        Err(PaymentError::unsupported("cancel"))
    }

    /// Gives captured money back, all of it or a part.
    fn refund(request: RefundRequest) -> Result<RefundResult, PaymentError> {
        let _ = request;
        Err(PaymentError::unsupported("refund"))
    }
}

/// A gateway that reports changes by calling us.
pub trait Webhooks {
    /// Verifies first, then reads. One call, so that nothing can be read that was not verified.
    /// See [`standard_webhooks::verify`](crate::standard_webhooks::verify) for the common scheme.
    fn receive(delivery: Delivery) -> Result<Outcome, WebhookError>;
}

impl<T: Gateway> descriptor::Guest for T {
    fn describe() -> Info {
        T::describe()
    }
}

impl<T: Gateway> gateway::Guest for T {
    fn start(request: StartRequest) -> Result<PaymentResult, PaymentError> {
        T::start(request)
    }
    fn complete(request: CompleteRequest) -> Result<PaymentResult, PaymentError> {
        T::complete(request)
    }
    fn capture(request: CaptureRequest) -> Result<PaymentResult, PaymentError> {
        T::capture(request)
    }
    fn cancel(request: CancelRequest) -> Result<PaymentResult, PaymentError> {
        T::cancel(request)
    }
    fn refund(request: RefundRequest) -> Result<RefundResult, PaymentError> {
        T::refund(request)
    }
    fn sync(request: SyncRequest) -> Result<Snapshot, PaymentError> {
        T::sync(request)
    }
}

impl<T: Webhooks> webhooks::Guest for T {
    fn receive(delivery: Delivery) -> Result<Outcome, WebhookError> {
        T::receive(delivery)
    }
}

/// Makes a type the plugin of this crate: `export_plugin!(Acme)` for a type that implements
/// [`Gateway`] and [`Webhooks`] (the world `payment-plugin`), `export_plugin!(Acme, no webhooks)`
/// for one that implements [`Gateway`] alone (the world `payment-gateway`).
///
/// Call it once, in `lib.rs` of a `cdylib` crate. On native targets, where the crate's own unit
/// tests run, it expands to nothing but the check that the traits are there.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ident) => {
        $crate::export_plugin!($plugin, no webhooks);
        #[cfg(target_family = "wasm")]
        $crate::bindings::webhooks::export_webhooks_half!(
            $plugin with_types_in $crate::bindings::webhooks
        );
        const _: fn() = || {
            fn receives<T: $crate::Webhooks>() {}
            receives::<$plugin>();
        };
    };
    ($plugin:ident, no webhooks) => {
        #[cfg(target_family = "wasm")]
        $crate::bindings::gateway::export_gateway_world!(
            $plugin with_types_in $crate::bindings::gateway
        );
        const _: fn() = || {
            fn pays<T: $crate::Gateway>() {}
            pays::<$plugin>();
        };
    };
}
