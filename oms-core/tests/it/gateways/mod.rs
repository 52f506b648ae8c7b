//! The plugins for real gateways, against fakes of them in other processes and against the gateways' own libraries.

mod adyen;
mod fakes;
mod manual;
mod paypal;
mod signatures;
mod stripe;
mod support;
