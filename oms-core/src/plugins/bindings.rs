//! What `bindgen!` makes of `wit/payment.wit`, under short names.

#[doc(hidden)]
pub(super) mod generated {
    wasmtime::component::bindgen!({
        world: "payment-plugin",
        path: "wit",
        // The others answer at once.
        imports: { "oms:payment/http.send": async | trappable, default: trappable },
        exports: { default: async },
    });
}

// What plugins offer.
pub(super) use generated::exports::oms::payment::{descriptor, gateway, webhooks};
// What the host offers.
pub(super) use generated::PaymentPlugin;
pub(super) use generated::oms::payment::{cache, config, crypto, currency, http, log, types};
