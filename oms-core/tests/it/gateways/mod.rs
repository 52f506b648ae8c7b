//! The plugins for real gateways, against fakes of them in other processes and against the gateways' own libraries.

mod stripe;
mod support;
