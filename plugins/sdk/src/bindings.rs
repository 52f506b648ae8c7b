//! What wit-bindgen makes of `wit/payment.wit`. Nothing outside this crate names these modules.
//!
//! The contract has two worlds, with and without webhooks. Generating both would give two sets of
//! equal but distinct Rust types, so the larger one is put together from two halves: the gateway
//! world, and a world of our own that exports `webhooks` alone and shares the types of the first.
//! Each half brings its piece of component type only where its export macro is used, and the linker
//! joins the pieces, so that the component's type is exactly `payment-gateway` or `payment-plugin`.

pub mod gateway {
    wit_bindgen::generate!({
        world: "payment-gateway",
        path: "wit",
        pub_export_macro: true,
        export_macro_name: "export_gateway_world",
        default_bindings_module: "oms_plugin_sdk::bindings::gateway",
        additional_derives: [PartialEq],
    });
}

pub mod webhooks {
    wit_bindgen::generate!({
        inline: "
            package oms:plugin-sdk;
            world webhooks-half {
                export oms:payment/webhooks@1.0.0;
            }
        ",
        path: "wit",
        with: { "oms:payment/types@1.0.0": crate::bindings::gateway::oms::payment::types },
        pub_export_macro: true,
        export_macro_name: "export_webhooks_half",
        default_bindings_module: "oms_plugin_sdk::bindings::webhooks",
        additional_derives: [PartialEq],
    });
}
