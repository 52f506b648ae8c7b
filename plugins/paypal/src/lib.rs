//! paypal
