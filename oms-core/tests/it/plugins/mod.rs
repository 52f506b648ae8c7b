//! Payment plugins: how they are loaded, what they may do, and that one which misbehaves harms nobody else.

mod attack;
mod conformance;
mod failing;
mod frozen;
pub mod guests;
mod hostile;
mod loading;
mod network;
mod versions;
mod webhooks;
