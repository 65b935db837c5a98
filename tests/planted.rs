//! The test of the random schedules: a mistake planted in the store must be seen by them.
//!
//! Compiled with `--cfg planted` only; `examples/simulate --planted all` does the same for whole clusters. A fault that no
//! schedule sees means that the schedules cannot see it, not that it does no harm.
#![cfg(planted)]
#![expect(clippy::print_stdout, reason = "the table is what the test is run for")]

#[path = "schedules.rs"]
mod schedules;

use std::panic::{catch_unwind, set_hook, take_hook};

use driftless::probe::{Fault, plant};
use schedules::{SETTINGS, run};

/// Seeds per setting before a fault counts as not seen.
const SEEDS: u64 = 400;

/// Returns the schedule that sees a fault first.
fn seen(fault: Fault) -> Option<(u64, &'static str, String)> {
    plant(Some(fault));
    let first = (1..=SEEDS).flat_map(|seed| SETTINGS.map(|setting| (seed, setting))).find_map(|(seed, setting)| {
        let result = catch_unwind(|| run(seed, setting)).unwrap_or_else(|_| Err("a panic".to_owned()));
        result.err().map(|why| (seed, setting.name, why))
    });
    plant(None);
    first
}

#[test]
fn schedules_see_what_is_planted_in_the_store() {
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let all: Vec<_> = Fault::ALL.iter().map(|fault| (*fault, seen(*fault))).collect();
    set_hook(hook);
    for (fault, first) in &all {
        match first {
            Some((seed, name, why)) => {
                println!("{:30} {name} {seed}: {}", fault.name(), why.chars().take(90).collect::<String>())
            }
            None => println!("{:30} not seen", fault.name()),
        }
    }
}
