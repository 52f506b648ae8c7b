//! The oms server: an HTTP API, a worker and a command line around `oms-core`.

pub mod cli;
pub mod config;
pub mod http;

pub mod mailer;
pub mod media;
pub mod production;
pub mod setup;
pub mod sight;

mod accounts;
mod client;
mod limits;
mod mock_gateway;
mod redis;
mod secrets;
mod sqlite_file;

pub use mock_gateway::Bank;
