//! For tests of what tasks do to one another: a scheduler of its own plays them in thousands of orders.
//!
//! Tasks change at every `await` that has to wait, and where the stories say so. That is enough for code whose tasks share
//! nothing but channels, locks and tokens: each operation of theirs happens at once, as the tests of tokio show with
//! every order of the memory's own events. A task that waits for what never comes is found as a deadlock, without a
//! clock. A failure prints its schedule for `shuttle::replay`; `SHUTTLE_RANDOM_SEED` plays a whole run again.

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};

/// Plays the story in so many orders chosen at random, and in as many where few changes of task matter most.
pub(crate) fn explore<S, F>(orders: usize, story: S)
where
    S: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()>,
{
    play(RandomScheduler::new(orders), story.clone());
    play(PctScheduler::new(3, orders), story);
}

fn play<S, F>(scheduler: impl Scheduler + 'static, story: S)
where
    S: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = ()>,
{
    // For the time limits of callers. Nobody drives this clock, so that none is ever reached.
    let clock = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _clock = clock.enter();
    let mut config = Config::new();
    // Futures of an unoptimised build are large.
    config.stack_size = 0x8_0000;
    // What the others would do after a failure is of no interest, and a second one would end the whole test program.
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    Runner::new(scheduler, config).run(move || shuttle::future::block_on(story()));
}

/// Lets others go first, up to so many times.
pub(crate) async fn dawdle(most: usize) {
    for _ in 0..below(most + 1) {
        shuttle::future::yield_now().await;
    }
}

/// A number that belongs to the schedule, so that playing it again draws the same.
pub(crate) fn below(limit: usize) -> usize {
    thread_rng().gen_range(0..limit)
}
