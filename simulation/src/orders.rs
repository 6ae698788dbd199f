//! What threads share, in many orders: each function is one run of a few threads over the proxy's own files, and panics where a
//! promise is broken. A run in which nobody can go on any more ends by shuttle's word, so no wake-up may be lost either.

mod books;
mod chains;
pub(crate) mod door;
mod lines;
mod story;

pub use books::totals_never_go_back;
pub use chains::a_chain_answers_for_itself;
pub use door::{
    connections_are_handed_over_and_their_places_come_back, whoever_waits_gets_a_place_that_is_free,
};
pub use lines::every_line_is_written_or_counted;
pub use story::whoever_is_no_longer_admitted_is_told;

use shuttle::scheduler::{PctScheduler, RandomScheduler};

/// How many places of an order are chosen on purpose: three threads that take turns twice.
const DEPTH: usize = 3;

/// Runs `model` in so many orders of two kinds: as dice fall, and with few changes of turn at places that are chosen.
pub fn tried(model: impl Fn() + Send + Sync + Copy + 'static, orders: usize) -> usize {
    let config = || {
        let mut config = shuttle::Config::default();
        // Futures and TLS's types are larger than what shuttle expects of a thread.
        config.stack_size = 256 * 1024;
        config
    };
    let random = shuttle::Runner::new(RandomScheduler::new(orders), config()).run(model);
    random + shuttle::Runner::new(PctScheduler::new(DEPTH, orders), config()).run(model)
}
