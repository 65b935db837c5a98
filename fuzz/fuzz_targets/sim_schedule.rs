//! Whatever befalls a cluster, it agrees within the stated time after the heal, and every check of a simulation holds.
//!
//! The bytes are the plan, so coverage guides the schedule; `examples/simulate` replays what is printed.

#![no_main]

use driftless::sim::Run;
use driftless_fuzz::schedule::plan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some(plan) = plan(input) else { return };
    let report = Run::new(&plan).go();
    if let Some(failure) = report.failure {
        panic!("{failure}\n{}", serde_json::to_string(&plan).expect("a plan can be written down"));
    }
});
