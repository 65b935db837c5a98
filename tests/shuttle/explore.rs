//! Running a scenario under many schedules.

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

/// Schedules of each kind that a scenario runs under, unless `SHUTTLE_SCHEDULES` says otherwise.
const SCHEDULES: usize = 5_000;
/// Preemptions PCT places: the faults planted to see these tests fail took one or two.
const PREEMPTIONS: usize = 3;
/// Bytes of a thread's stack: the node's functions are not optimised here.
const STACK: usize = 256 << 10;

/// Runs a scenario under many schedules.
pub(crate) fn explore(scenario: fn()) {
    let schedules = std::env::var("SHUTTLE_SCHEDULES").map_or(SCHEDULES, |n| n.parse().unwrap());
    let mut config = Config::new();
    config.stack_size = STACK;
    config.silence_warnings = true;
    Runner::new(RandomScheduler::new_from_seed(1, schedules), config.clone()).run(scenario);
    Runner::new(PctScheduler::new_from_seed(1, PREEMPTIONS, schedules), config).run(scenario);
}
