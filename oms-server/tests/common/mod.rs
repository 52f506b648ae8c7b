//! What tests with real processes share: the compiled server, its databases, its clients, and faults between them.

pub(crate) mod api;
pub(crate) mod database;
pub(crate) mod each_db;
#[path = "../../../oms-core/tests/fresh/mod.rs"]
pub(crate) mod fresh;
pub(crate) mod postgres;
pub(crate) mod proxy;
pub(crate) mod redis_server;
pub(crate) mod script;
pub(crate) mod server;
pub(crate) mod visit;

use oms_core::{Clock, SystemClock};

/// Chosen anew each time, or given to play a failure again.
#[expect(clippy::disallowed_methods, reason = "says how to repeat this test")]
pub(crate) fn seed() -> u64 {
    match std::env::var("OMS_TEST_SEED") {
        Ok(text) => text.parse().expect("OMS_TEST_SEED is a number"),
        Err(_) => SystemClock.now().as_micros().unsigned_abs(),
    }
}

/// SplitMix64: small, and the same sequence for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// For somebody who draws independently.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }
}
